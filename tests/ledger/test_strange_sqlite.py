"""SQLite files that somebody else prepared, as ledgers and as results: a typed error, and no hang."""

# ruff: noqa: S608, S311 - the statements and the noise are the attacker's

import os
import random
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from fedguard import Guard, Round, SQLiteLedger, make_detector, make_policy
from fedguard.core.errors import FedGuardError, LedgerError, ResultsError
from fedguard.core.sqlite_file import connect
from fedguard.evaluation.results.compare import compare
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.report.page import write_report
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

IDS = ("a", "b", "c", "d", "e")
X = np.array([[1.0, 0.5], [1.1, 0.4], [0.9, 0.5], [1.0, 0.6], [40.0, 9.0]])
#: Seconds, on a busy machine: what is refused takes milliseconds, what hangs takes for ever.
AT_ONCE = 20.0
FOREVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"


def script(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            db.execute(statement)


def guard_on(path):
    return Guard(make_detector("norm_bound"), make_policy("ban", strikes=2), ledger=SQLiteLedger(path))


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.db"
    guard = guard_on(path)
    for index in range(3):
        guard.process(Round(X, IDS, index=index))
    guard.ledger.unban("e", "ann", "tested")
    return path


def use_ledger(path):
    """Everything that reads one."""
    for read_only in (True, False):
        ledger = SQLiteLedger(path, read_only=read_only)
        ledger.next_round(), ledger.clients(), ledger.records(), ledger.actions()
        for client in IDS:
            ledger.judgements(client)
    guard_on(path).process(Round(X, IDS, index=9))


HOSTILE_TABLES = {
    "a view that never ends": [
        "DROP TABLE verdicts",
        f"CREATE VIEW verdicts AS SELECT x AS client, x AS round, 0 AS score, 1 AS suspect, 0 AS forgiven, "
        f"'' AS reason FROM ({FOREVER})",
    ],
    "one for the clients": ["DROP TABLE clients", f"CREATE VIEW clients AS {FOREVER}"],
    "one more view": [f"CREATE VIEW more AS {FOREVER}"],
    "a trigger": [
        f"CREATE TRIGGER t AFTER INSERT ON verdicts BEGIN INSERT INTO actions SELECT x, x, x, x, x, x, x, x "
        f"FROM ({FOREVER}); END"
    ],
    "one more table": ["CREATE TABLE more (x)"],
    "no verdicts": ["DROP TABLE verdicts"],
    "no index": ["DROP INDEX actions_of_client"],
    "another index": ["CREATE INDEX i ON clients (abs(rounds))"],
    "a column more": ["ALTER TABLE clients ADD COLUMN x"],
    "a column less": ["ALTER TABLE verdicts DROP COLUMN reason"],
    "a computed column": ["ALTER TABLE clients ADD COLUMN x AS (hex(randomblob(500000000)))"],
    "a costly default": ["ALTER TABLE clients ADD COLUMN x DEFAULT 'x'"],
    "a check that costs": [
        "UPDATE sqlite_master SET sql = replace(sql, 'reason TEXT', 'reason TEXT CHECK (length(hex("
        "randomblob(1000000000))) > 0)') WHERE name = 'verdicts'"
    ],
    "a table twice": ["UPDATE sqlite_master SET rootpage = 2"],
    "a text for a schema": ["UPDATE sqlite_master SET sql = 'nonsense' WHERE name = 'verdicts'"],
    "many tables": [f"CREATE TABLE t{k} (x)" for k in range(1200)],
}
HOSTILE_VALUES = {
    "rounds are a text": ["UPDATE clients SET rounds = 'x'"],
    "the last round is a text": ["UPDATE clients SET last_round = 'x'"],
    "the last round is a number": ["UPDATE clients SET last_round = 1e300"],
    "a score is a blob": ["UPDATE clients SET last_score = x'00'"],
    "a ban is a text": ["UPDATE clients SET banned_since = 'soon'"],
    "it ends at a text": ["UPDATE clients SET banned_since = 1, banned_until = 'soon'"],
    "a reason is a blob": ["UPDATE clients SET ban_reason = x'ff'"],
    "a reason is no text": ["UPDATE clients SET ban_reason = CAST(x'ff' AS TEXT)"],
    "an id is no JSON": ["UPDATE clients SET id = 'a'"],
    "an id is a list": ["UPDATE clients SET id = '[1]'"],
    "an id is true": ["UPDATE clients SET id = 'true'"],
    "an id is deep": ["UPDATE clients SET id = printf('%.100000c', '[')"],
    "an id has many digits": ["UPDATE clients SET id = printf('%.100000c', '1')"],
    "an id is a blob": ["UPDATE clients SET id = x'61'"],
    "an id is endless": ["UPDATE clients SET id = hex(zeroblob(3000000))"],
    "a strike is a text": ["UPDATE verdicts SET round = 'x' || round, suspect = 1"],
    "a suspect is a text": ["UPDATE verdicts SET suspect = 'yes'"],
    "a verdict's score is a text": ["UPDATE verdicts SET score = 'high'"],
    "an action's round is a text": ["UPDATE actions SET since = 'x'"],
    "an action's author is a blob": ["UPDATE actions SET by = x'00'"],
}


def typed(use, error, *args):
    start = time.monotonic()
    with pytest.raises(error) as caught:
        use(*args)
    assert time.monotonic() - start < AT_ONCE
    return str(caught.value)


@pytest.mark.parametrize("what", {**HOSTILE_TABLES, **HOSTILE_VALUES})
def test_hostile_ledgers(what, ledger):
    script(ledger, *{**HOSTILE_TABLES, **HOSTILE_VALUES}[what])
    assert str(ledger) in typed(use_ledger, LedgerError, ledger)


@pytest.mark.parametrize("what", {**HOSTILE_TABLES, **HOSTILE_VALUES})
def test_a_ledger_that_becomes_hostile_under_a_guard(what, ledger):
    """The round is refused or stands, nothing else; once the file is replaced, on it goes."""
    guard = guard_on(ledger)
    backup = ledger.read_bytes()
    script(ledger, *{**HOSTILE_TABLES, **HOSTILE_VALUES}[what])
    before, start = guard.state_dict(), time.monotonic()
    try:
        guard.process(Round(X, IDS, index=5))
    except LedgerError:
        assert guard.state_dict() == before
    else:
        assert what not in HOSTILE_TABLES
    assert time.monotonic() - start < AT_ONCE
    ledger.write_bytes(backup)
    assert guard.process(Round(X, IDS, index=6)).suspects.tolist() == [False] * 4 + [True]


def loop(path):
    """A tree whose pages hold each other: read on, it never ends."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN")
        for k in range(20_000):
            db.execute("INSERT INTO verdicts VALUES (?, ?, 0, 0, 0, 'x')", (k + 100, k))
        db.execute("COMMIT")
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'verdicts'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    start = (root - 1) * size
    cells = int.from_bytes(data[start + 3 : start + 5], "big")
    assert cells > 5
    for k in range(cells):
        place = start + int.from_bytes(data[start + 12 + 2 * k : start + 14 + 2 * k], "big")
        data[place : place + 4] = root.to_bytes(4, "big")
    path.write_bytes(data)


def noise(path):
    data = path.read_bytes()
    path.write_bytes(data[:100] + random.Random(0).randbytes(len(data) - 100))


@pytest.mark.parametrize("harm", [loop, noise])
def test_damaged_ledgers(harm, ledger):
    harm(ledger)
    assert "restore a backup" in typed(use_ledger, LedgerError, ledger)


def test_a_ledger_cut_at_any_byte(ledger):
    """It is refused, unless nothing is left of it: that is how a ledger begins."""
    data = ledger.read_bytes()
    for size in (1, 20, 99, 100, 1000, 4095, *range(4096, len(data), 4096), len(data) - 1):
        ledger.write_bytes(data[:size])
        typed(SQLiteLedger, LedgerError, ledger)


def test_an_empty_file_is_a_new_ledger_and_the_log_says_so(ledger, caplog):
    ledger.write_bytes(b"")
    os.utime(ledger, (0, 0))
    assert SQLiteLedger(ledger).clients() == []
    assert "begins without any ban" in caplog.text


def test_a_link_to_a_ledger_is_the_ledger(ledger, tmp_path):
    """Also while its log is beside the file, and not beside the link."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(ledger)
    SQLiteLedger(link).ban("z", 0, None, "why")
    assert SQLiteLedger(ledger).is_banned("z", 1)
    with closing(sqlite3.connect(ledger, isolation_level=None)) as held:
        held.execute("BEGIN")
        held.execute("SELECT * FROM clients").fetchone()
        SQLiteLedger(ledger).ban("y", 0, None, "why")
        assert ledger.with_name("ledger.db-wal").stat().st_size > 0
        assert SQLiteLedger(link, read_only=True).is_banned("y", 1)
    loop_ = tmp_path / "loop.db"
    loop_.symlink_to(loop_)
    typed(SQLiteLedger, LedgerError, loop_)


def test_a_ledger_without_its_log_is_the_one_before(ledger, tmp_path):
    """What a crash left in the log is lost with it; what was before is whole, and says where it ends."""
    guard = guard_on(ledger)
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(ledger, isolation_level=None)) as held:
        held.execute("BEGIN")
        held.execute("SELECT * FROM clients").fetchone()
        guard.process(Round(X, IDS, index=7))
        copy.write_bytes(ledger.read_bytes())
        both = tmp_path / "both.db"
        both.write_bytes(ledger.read_bytes())
        (tmp_path / "both.db-wal").write_bytes((tmp_path / "ledger.db-wal").read_bytes())
    assert SQLiteLedger(copy).next_round() == 3
    assert SQLiteLedger(copy)["a"].rounds == 3
    assert SQLiteLedger(both).next_round() == 8, "with its log, nothing is lost"


def test_a_ledger_with_somebody_elses_log(ledger, tmp_path):
    """A log that does not belong to the file is not played into it, or the file is refused."""
    wal = tmp_path / "ledger.db-wal"
    rng = random.Random(0)
    for data in (b"", b"x", rng.randbytes(5000), bytes.fromhex("377f0682") + rng.randbytes(9000)):
        wal.write_bytes(data)
        with suppress(LedgerError):
            assert SQLiteLedger(ledger)["a"].rounds == 3


ONE_OF_TWO = """
import sys
import numpy as np
from fedguard import Guard, Round, SQLiteLedger, make_detector, make_policy

which = int(sys.argv[1])
x = np.array([[1.0, 0.5], [1.1, 0.4], [0.9, 0.5], [1.0, 0.6], [40.0, 9.0]])
for path, rounds in ((sys.argv[2], range(20)), (sys.argv[3], range(which, 20, 2))):
    guard = Guard(make_detector("norm_bound"), make_policy("ban", strikes=5), ledger=SQLiteLedger(path))
    for index in rounds:
        outcome = guard.process(Round(x, ("a", "b", "c", "d", "e"), index=index))
    print(outcome.banned.tolist())
"""


def test_two_guards_in_processes_on_one_ledger(tmp_path, python):
    """Rounds that both judge count once; strikes in rounds of either add up, and both see the ban.

    On one ledger they judge the same rounds, on the other every other round each.
    """
    paths = [tmp_path / "same.db", tmp_path / "other.db"]
    for process in [python("-c", ONE_OF_TWO, first, *paths) for first in (0, 1)]:
        done = process.wait()
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "[False, False, False, False, True]\n" * 2
    for ledger in map(SQLiteLedger, paths):
        assert [ledger[client].rounds for client in "abcd"] == [20] * 4
        assert 5 <= len(ledger["e"].strikes) <= 20
        assert ledger["e"].strikes == sorted(set(ledger["e"].strikes))
        assert {action.client for action in ledger.actions()} == {"e"}


def test_a_copy_of_a_ledger_is_another_ledger(ledger, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_bytes(ledger.read_bytes())
    SQLiteLedger(copy).ban("a", 5, None, "why")
    assert SQLiteLedger(copy).is_banned("a", 6)
    assert not SQLiteLedger(ledger).is_banned("a", 6)


def test_statements_end(tmp_path):
    """Also those that nobody has thought of."""
    path = tmp_path / "x.db"
    with closing(connect(path, "rwc", 2**20)) as db:
        for _ in range(2):
            typed(lambda: db.execute(f"SELECT count(*) FROM ({FOREVER})").fetchone(), sqlite3.Error)
        assert db.execute(f"SELECT count(*) FROM ({FOREVER} LIMIT 100000)").fetchone() == (100000,)
        typed(lambda: db.execute("SELECT zeroblob(2000000)").fetchone(), sqlite3.Error)
        typed(lambda: db.execute("ATTACH 'y.db' AS y"), sqlite3.Error)
    assert not Path("y.db").exists()


# --- results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "s.yaml").write_text(
        "name: s\nclients: 5\nmalicious: 1\nrounds: 2\nattacks: [none, byzantine]\n"
        "defenses: [none, {detector: krum, policy: {name: exclude, rule: {name: threshold, value: 1.0}}}]\n"
    )
    suite, _ = load_suite(folder / "s.yaml")
    run_suite(suite, folder / "r", workers=1)
    return folder / "r"


@pytest.fixture
def results(finished, tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    for name in ("results.sqlite", "suite.yaml"):
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def use_results(folder, other):
    """Everything that reads them."""
    store = Store(folder)
    store.finished(), store.failures(), str(store.code)
    for name in ("runs", "clients", "rounds", "timings"):
        store.table(name)
    read_results(folder)
    compare(Store(folder), Store(other), ["dacc"])
    write_report(folder, None, {})


HOSTILE_RESULTS = {
    "a view that never ends": ["DROP TABLE runs", f"CREATE VIEW runs AS SELECT x AS run FROM ({FOREVER})"],
    "one for the code": ["DROP TABLE meta", f"CREATE VIEW meta AS {FOREVER}"],
    "a trigger": [f"CREATE TRIGGER t AFTER INSERT ON meta BEGIN INSERT INTO rounds {FOREVER}; END"],
    "one more table": ["CREATE TABLE more (x)"],
    "no timings": ["DROP TABLE timings"],
    "a column less": ["ALTER TABLE clients DROP COLUMN reason"],
    "a computed column": ["ALTER TABLE runs ADD COLUMN x AS (hex(randomblob(500000000)))"],
    "a label is a blob": ["UPDATE runs SET attack = x'00'"],
    "a label is nothing": ["UPDATE runs SET defense = NULL"],
    "a label is no text": ["UPDATE runs SET defense = CAST(x'ff' AS TEXT)"],
    "a metric is a text": ["UPDATE runs SET tacc = 'high'"],
    "seconds without an end": ["UPDATE timings SET seconds = 1e999"],
    "a success rate without an end": ["UPDATE rounds SET asr = 1e999"],
    "a mode of its own": ["UPDATE runs SET mode = 'mine'"],
    "a status of its own": ["UPDATE runs SET status = 'fine'"],
    "a basis of its own": ["UPDATE runs SET basis = 'mine'"],
    "the clients are a text": ["UPDATE runs SET clients = 'many'"],
    "a seed is a number": ["UPDATE runs SET seed = 0.5"],
    "a point is no JSON": ["UPDATE runs SET point = '{'"],
    "a point is a list": ["UPDATE runs SET point = '[1]'"],
    "settings are deep": ["UPDATE runs SET settings = printf('%.100000c', '[')"],
    "settings are empty": ["UPDATE runs SET settings = '{}'"],
    "an attack without a name": ["UPDATE runs SET settings = json_remove(settings, '$.attack.name')"],
    "a policy is a list": ["UPDATE runs SET settings = json_set(settings, '$.defense.policy', json('[]'))"],
    "a threshold is a text": [
        'UPDATE runs SET settings = replace(settings, \'"value":1.0\', \'"value":"x"\')',
    ],
    "a number with many digits": ["UPDATE runs SET settings = printf('{\"a\":%.100000c}', '1')"],
    "settings are endless": ["UPDATE runs SET settings = hex(zeroblob(40000000)) WHERE run = 0"],
    "a score is a text": ["UPDATE clients SET score = 'high'"],
    "a client is a text": ["UPDATE clients SET client = 'c' || client"],
    "an id is a blob": ["UPDATE clients SET id = x'00'"],
    "a flag is 7": ["UPDATE clients SET suspect = 7"],
    "a round is a number": ["UPDATE rounds SET round = round + 0.5"],
    "seconds are a text": ["UPDATE timings SET seconds = 'long'"],
}


@pytest.mark.parametrize("what", HOSTILE_RESULTS)
def test_hostile_results(what, results, finished):
    script(results / "results.sqlite", *HOSTILE_RESULTS[what])
    assert "results.sqlite" in typed(use_results, ResultsError, results, finished)


def test_damaged_results(results, finished):
    path = results / "results.sqlite"
    data = path.read_bytes()
    for size in (1, 99, 1000, 4096, len(data) // 2, len(data) - 4096, len(data) - 1):
        path.write_bytes(data[:size])
        typed(use_results, ResultsError, results, finished)
    path.write_bytes(data)
    noise(path)
    typed(use_results, ResultsError, results, finished)
    path.unlink()
    path.symlink_to(finished / "results.sqlite")
    assert "is a link" in typed(use_results, ResultsError, results, finished)


def test_strange_numbers_are_shown(results, finished):
    """What cannot be told from a result is no error, and no traceback either."""
    script(
        results / "results.sqlite",
        "UPDATE runs SET tacc = 1e308, dacc = -1, auroc = 9e999, seed = 9223372036854775807, clients = -1",
        "UPDATE clients SET score = -9e999, client = client + 9223372036854770000, malicious = 5",
        "UPDATE rounds SET round = round + 9223372036854770000, tacc = 9e999, info = 'no JSON'",
        "UPDATE timings SET seconds = -9e999",
    )
    start = time.monotonic()
    with suppress(FedGuardError):
        use_results(results, finished)
    assert time.monotonic() - start < 3 * AT_ONCE
