"""The ledger in a file: kill -9, several processes, full disks, foreign files; bans outlive the server."""

import copy
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Ledger, Round, Scores, SQLiteLedger, make_policy
from fedguard.core.errors import LedgerError, ParameterError
from fedguard.core.state import pack, unpack
from fedguard.ledger.file import LedgerFile, _switch_to_wal

X = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [40.0, 0.0]])
IDS = ("a", "b", "c", "d")


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect. Counts its rounds."""

    card = Card("first", "for tests", "FedGuard")

    def __init__(self):
        self.rounds = 0

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10")

    def commit(self, round, scores, decision=None):
        self.rounds += 1

    def state_dict(self):
        return {"rounds": self.rounds}

    def load_state_dict(self, state):
        self.rounds = state["rounds"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def query(path, sql, *values):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


def contents(path):
    tables = ("clients", "verdicts", "actions")
    return [query(path, f"SELECT * FROM {table}") for table in tables]  # noqa: S608


def run(path, rounds, policy=None, updates=X):
    guard = Guard(First(), policy or make_policy("ban", strikes=2, duration=4), ledger=SQLiteLedger(path))
    return [guard.process(Round(updates, IDS, index=t)) for t in rounds]


# --- what it remembers


def test_a_restart_keeps_bans_in_force_and_says_why(path):
    first = run(path, range(2))
    assert first[1].banned.tolist() == [False, False, False, True]
    after = run(path, range(2, 7), updates=np.where(X == 40, 4, X))
    assert [o.banned[3] for o in after] == [True, True, True, False, False], "banned until round 5"
    assert after[0].reasons[3].startswith("banned since round 1: banned until round 5: first score 40")
    ledger = SQLiteLedger(path)
    assert [(j.round, j.score, j.suspect) for j in ledger.judgements("d")] == [
        (0, 40, True),
        (1, 40, True),
        (5, 4, False),
        (6, 4, False),
    ]
    assert ledger.judgements("d")[0].reason == "excluded, strike 1 of 2: first score 40: above 10"
    (action,) = ledger.actions("d")
    assert (action.what, action.since, action.until, action.by) == ("ban", 1, 5, "guard")
    assert ledger["d"].judged_since_ban == 2


def test_parole_goes_on_after_a_restart(path):
    policy = {"strikes": 1, "duration": 1, "parole": 2}
    reasons = [run(path, [0], make_policy("ban", **policy))[0].reasons[3]]
    calm = np.where(X == 40, 4, X)
    for t in range(1, 4):
        reasons.append(run(path, [t], make_policy("ban", **policy), calm)[0].reasons[3])
    assert [r.split(":")[0] for r in reasons] == [
        "banned until round 1",
        "excluded, on parole",
        "excluded, on parole",
        "accepted",
    ]


def test_checkpoints_leave_the_ledger_alone(path):
    guard = Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path))
    state = unpack(pack(guard.state_dict()))
    guard.process(Round(X, IDS))
    guard.load_state_dict(state)
    assert guard.detectors["first"].rounds == 0
    assert guard.ledger.is_banned("d", 1), "an older checkpoint does not undo a ban"


def test_a_round_that_is_judged_again_does_not_count_twice(path):
    ledger = SQLiteLedger(path)
    ledger.judge("c", 5, 1.0, suspect=True, reason="first")
    ledger.judge("c", 5, 2.0, suspect=False, reason="second")
    assert (ledger["c"].rounds, ledger["c"].strikes) == (1, [5]), "a strike is not undone"
    assert ledger.judgements("c")[0].reason == "first"
    ledger.judge("c", 6, 1.0, suspect=False)
    ledger.judge("c", 6, 3.0, suspect=True)
    ledger.judge("c", 6, 4.0, suspect=True)
    assert (ledger["c"].rounds, ledger["c"].strikes, ledger["c"].last_score) == (2, [5, 6], 4.0)


def test_an_unban_is_recorded_and_forgives(path):
    run(path, range(2))
    ledger = SQLiteLedger(path)
    ledger.unban("d", "ann", "a broken sensor")
    assert ledger["d"].strikes == []
    assert [j.forgiven for j in ledger.judgements("d")] == [True, True]
    last = ledger.actions()[-1]
    assert (last.client, last.what, last.by, last.why) == ("d", "unban", "ann", "a broken sensor")
    third, fourth = run(path, (2, 3))
    assert third.reasons[3].startswith("excluded, strike 1 of 2"), "it starts afresh"
    assert fourth.banned[3]
    with pytest.raises(ParameterError, match="not banned"):
        ledger.unban("a", "ann", "why")


def test_a_running_guard_respects_an_operator(path):
    guard = Guard(First(), make_policy("ban", strikes=9), ledger=SQLiteLedger(path))
    guard.process(Round(X, IDS, index=0))
    operator = SQLiteLedger(path)
    operator.ban("a", 1, None, "stolen key", by="ann")
    second = guard.process(Round(X, IDS, index=1))
    assert second.banned.tolist() == [True, False, False, False]
    assert second.reasons[0] == "banned since round 1: stolen key"
    assert guard.banned(IDS, 2) == ["a"]
    operator.unban("a", "ann", "key replaced")
    assert not guard.process(Round(X, IDS, index=2)).banned.any()


def test_what_an_operator_does_while_a_round_is_judged_counts_from_the_next(path):
    """The round sees one moment of the ledger from its beginning to its end."""

    class Slow(First):
        card = Card("slow", "for tests", "FedGuard")

        def score(self, round):
            operator = SQLiteLedger(path)
            if round.index == 1:
                operator.unban("d", "ann", "why")
                operator.ban("a", 1, None, "operator", by="ann")
            return super().score(round)

    guard = Guard(Slow(), make_policy("ban"), ledger=SQLiteLedger(path))
    guard.process(Round(X, IDS, index=0))
    during = guard.process(Round(X, IDS, index=1))
    assert during.banned.tolist() == [False, False, False, True]
    assert during.reasons[3].startswith("banned since round 0: ")
    assert guard.ledger["d"].rounds == 1, "it was barred, so it was not judged"
    after = guard.process(Round(np.where(X == 40, 4, X), IDS, index=2))
    assert after.banned.tolist() == [True, False, False, False]


# --- bounds


def test_the_file_keeps_the_latest_of_either_kind(path):
    ledger = SQLiteLedger(path, keep=3)
    for t in range(12):
        ledger.judge("c", t, float(t), suspect=t in (0, 1, 2, 3, 8))
    assert [j.round for j in ledger.judgements("c")] == [2, 3, 8, 9, 10, 11]
    assert (ledger["c"].rounds, ledger["c"].strikes) == (12, [2, 3, 8])
    for t in range(12, 40, 2):
        ledger.ban("c", t, t + 1, "again")
    ledger.unban("c", "ann", "enough")
    for t in range(40, 60, 2):
        ledger.ban("c", t, t + 1, "again")
    kept = ledger.actions("c")
    assert [a.since for a in kept if a.by == "guard"] == [54, 56, 58]
    assert [a.by for a in kept].count("ann") == 1, "what an operator did is never dropped"


def test_a_reason_is_cut(path):
    ledger = SQLiteLedger(path)
    ledger.judge("c", 0, 1.0, suspect=True, reason="x" * 10_000)
    assert len(ledger.judgements("c")[0].reason) == 500


def test_sybils_are_forgotten_and_the_banned_never(path, caplog):
    ledger = SQLiteLedger(path, max_clients=20)
    ledger.ban("banned", 0, 1, "long ago")
    ledger.ban("pardoned", 0, 1, "long ago")
    ledger.unban("pardoned", "ann", "why")
    ledger.judge("old striker", 0, 1.0, suspect=True)
    ledger.judge("late striker", 5, 1.0, suspect=True)
    for t in range(6):
        ledger.judge("regular", t, 1.0, suspect=False)
    for k in range(0, 60, 5):
        with ledger.transaction():
            for j in range(5):
                ledger.judge(f"sybil-{k + j}", 6, 1.0, suspect=False)
    assert len(ledger.clients()) <= 20
    assert {"banned", "pardoned", "old striker", "late striker", "regular", "sybil-59"} <= set(
        ledger.clients()
    )
    with ledger.transaction():
        for k in range(17):
            ledger.judge(f"striker-{k}", 7 + k, 1.0, suspect=True)
    assert "old striker" not in ledger.clients()
    assert {"banned", "pardoned", "striker-16"} <= set(ledger.clients())
    assert query(path, "SELECT count(*) FROM verdicts WHERE client NOT IN (SELECT client FROM clients)") == [
        (0,)
    ]
    with ledger.transaction():
        for k in range(30):
            ledger.ban(f"bad-{k}", 30, None, "why")
    assert all(ledger.is_banned(f"bad-{k}", 31) for k in range(30))
    assert "more than max_clients = 20" in caplog.text


def test_a_ban_that_was_taken_over_is_not_forgotten_either(path):
    memory = Ledger()
    memory.ban("banned", 0, None, "why")
    ledger = SQLiteLedger(path, max_clients=5)
    ledger.load_state_dict(memory.state_dict())
    with ledger.transaction():
        for k in range(50):
            ledger.judge(k, 1, 1.0, suspect=True)
    assert ledger.is_banned("banned", 1)
    assert len(ledger.clients()) <= 6


def test_nothing_is_kept_in_the_process(path):
    run(path, range(2))
    ledger = SQLiteLedger(path)
    assert ledger._records == {}
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE clients SET rounds = 77")
    assert ledger["a"].rounds == 77


# --- kill -9, and several at once

WRITER = """
import sys
from fedguard.ledger.sqlite import SQLiteLedger

path, clients, first, step, last = sys.argv[1], *map(int, sys.argv[2:])
ledger = SQLiteLedger(path, keep=10**6)
index = max(first, ledger.next_round()) if step == 1 else first
while index < last:
    with ledger.transaction():
        for client in range(clients):
            ledger.judge(client, index, float(client), client % 3 == 0, f"round {index}")
        ledger.ban("bad", index, index + 1, f"round {index}")
    print(index, flush=True)
    index += step
"""


def writer(path, clients, first=0, step=1, last=10**9):
    args = [sys.executable, "-c", WRITER, str(path), *map(str, (clients, first, step, last))]
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_at_random_instants(path, times, seed, clients=30):
    draw, acknowledged = random.Random(seed), set()  # noqa: S311
    for k in range(times):
        process = writer(path, clients)
        if k % 3:
            acknowledged.add(int(process.stdout.readline()))
            time.sleep(draw.uniform(0, 0.02))
        else:  # also while it starts: SQLite recovers then, or makes the file
            time.sleep(draw.uniform(0.02, 0.12))
        process.kill()
        out, err = process.communicate()
        assert err == ""
        acknowledged |= {int(line) for line in out.splitlines(keepends=True) if line.endswith("\n")}
        if not path.exists() or not query(path, "SELECT 1 FROM sqlite_master"):
            assert not acknowledged
            continue
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        judged = dict(query(path, "SELECT round, count(*) FROM verdicts GROUP BY round"))
        assert set(judged.values()) <= {clients}, "a round is there as a whole"
        assert acknowledged <= set(judged)
        assert len(set(judged) - acknowledged) <= k + 1, "at most one that was not acknowledged per kill"
        bans = {since for (since,) in query(path, "SELECT since FROM actions WHERE what = 'ban'")}
        assert bans == set(judged)
        (rounds,) = {r for (r,) in query(path, "SELECT rounds FROM clients WHERE key <> '\"bad\"'")} or {0}
        assert rounds == len(judged)
    assert len(acknowledged) > times / 2


def test_kill_9_at_20_random_instants(path):
    kill_at_random_instants(path, 20, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 300])
def test_kill_9_at_100_random_instants(path, clients):
    kill_at_random_instants(path, 100, seed=clients, clients=clients)


def test_two_processes_write_at_once(path):
    """Both make the file, and take every other round of the same clients."""
    both = [writer(path, 10, first, step=2, last=60) for first in (0, 1)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert len(out.splitlines()) == 30
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    ledger = SQLiteLedger(path)
    assert [ledger[c].rounds for c in range(10)] == [60] * 10
    assert ledger[3].strikes == list(range(60))
    assert [j.round for j in ledger.judgements(4)] == list(range(60))


def test_guards_in_threads_share_one_ledger_object(path):
    ledger, errors = SQLiteLedger(path), []

    def work(k):
        guard = Guard(First(), make_policy("exclude"), ledger=ledger)
        try:
            for t in range(k, 20, 2):
                guard.process(Round(X, IDS, index=t))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [ledger[c].rounds for c in IDS] == [20] * 4
    assert ledger["d"].strikes == list(range(20))


def test_a_thread_sees_nothing_of_anothers_unfinished_round(path):
    ledger, seen = SQLiteLedger(path), []
    with ledger.transaction():
        ledger.judge("c", 0, 1.0, suspect=True)
        thread = threading.Thread(target=lambda: seen.append(ledger["c"].rounds))
        thread.start()
        thread.join()
        assert ledger["c"].rounds == 1
    assert (seen, ledger["c"].rounds) == ([0], 1)


def test_the_file_has_a_write_ahead_log_and_rounds_go_on_after_the_latest(path):
    ledger = SQLiteLedger(path)
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert ledger.next_round() == 0
    for index in (9, 3):
        ledger.judge("c", index, 1.0, suspect=False)
    assert ledger.next_round() == 10


def test_a_guard_respects_anothers_ban(path):
    here, there = (Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path)) for _ in range(2))
    here.process(Round(X, IDS, index=0))
    assert there.process(Round(np.where(X == 40, 4, X), IDS, index=1)).banned.tolist()[3]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301 - our own bytes
def test_a_copy_is_another_door_to_the_file(path, twin):
    ledger = SQLiteLedger(path, keep=7, max_clients=9, timeout=3)
    other = twin(ledger)
    ledger.ban("c", 0, None, "why")
    assert other.is_banned("c", 1)
    assert (other.keep, other.max_clients) == (7, 9)


# --- what can go wrong: a typed error that names the file and says what to do, and nothing has changed


def refuses(path, guard, match, index):
    """The guard refuses the round with this error, and neither it nor the file has changed."""
    state = pack(guard._methods_state())
    with pytest.raises(LedgerError, match=match) as caught:
        guard.process(Round(X, IDS, index=index))
    assert str(path) in str(caught.value)
    assert pack(guard._methods_state()) == state


def test_a_refused_round_leaves_no_trace(path):
    class Clumsy(First):
        card = Card("clumsy", "for tests", "FedGuard")

        def commit(self, round, scores, decision=None):
            super().commit(round, scores)
            raise RuntimeError("half-way")

    guard = Guard([First(), Clumsy()], make_policy("ban"), ledger=SQLiteLedger(path))
    before = contents(path)
    with pytest.raises(RuntimeError):
        guard.process(Round(X, IDS))
    assert contents(path) == before == [[], [], []]
    assert guard.detectors["first"].rounds == 0


def test_a_full_disk(path, monkeypatch):
    guard = Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path))
    guard.process(Round(X, IDS, index=0))
    before, connect = contents(path), LedgerFile._connect

    def full(self, *args):
        db = connect(self, *args)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    with monkeypatch.context() as patch:
        patch.setattr(LedgerFile, "_connect", full)
        many = Round(np.tile(X, (100, 1)), [f"newcomer-{i}" for i in range(400)], index=1)
        state = pack(guard._methods_state())
        with pytest.raises(LedgerError, match=r"full.*free space"):
            guard.process(many)
        assert pack(guard._methods_state()) == state
    assert contents(path) == before
    guard.process(Round(X, IDS, index=1))
    assert guard.ledger["a"].rounds == 2
    assert guard.detectors["first"].rounds == 2


def test_a_disk_that_refuses_to_write(path, python):
    """The operating system itself stops the log from growing."""
    code = (
        "import resource, sys\n"
        "from fedguard.core.errors import LedgerError\n"
        "from fedguard.ledger.sqlite import SQLiteLedger\n"
        "ledger = SQLiteLedger(sys.argv[1])\n"
        "ledger.judge('kept', 0, 1.0, True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try:\n"
        "    with ledger.transaction():\n"
        "        for k in range(5000): ledger.judge(k, 1, 1.0, True, 'x' * 200)\n"
        "except LedgerError as error: print(error)\n"
        "print(ledger['kept'].rounds, len(ledger.clients()))\n"
    )
    done = python("-c", code, path).wait()
    assert done.returncode == 0, done.stderr
    assert f"ledger {path} cannot be written" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 1"
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def folder():
    """A folder that other users may enter."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@pytest.fixture
def nobody():
    """Permissions count: root gives its rights up for the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_file_that_must_not_be_written(folder, request):
    path = folder / "ledger.db"
    guard = Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path))
    guard.process(Round(X, IDS, index=0))
    before = contents(path)
    path.chmod(0o444)
    folder.chmod(0o555)
    request.getfixturevalue("nobody")
    refuses(path, guard, r"cannot be opened for this.*check that the file is there", 1)
    with pytest.raises(LedgerError, match="may write it"):
        SQLiteLedger(path)
    with pytest.raises(LedgerError, match="may write it"):
        SQLiteLedger(folder / "new.db")
    reader = SQLiteLedger(path, read_only=True)
    assert reader.is_banned("d", 1), "an operator may still look"
    with pytest.raises(LedgerError, match="may write it"):
        reader.ban("a", 1, None, "why")
    assert [p.name for p in folder.iterdir()] == ["ledger.db"]
    os.seteuid(os.getuid())
    assert contents(path) == before


def damaged(path):
    SQLiteLedger(path).judge("c", 0, 1.0, suspect=True)
    ledger = SQLiteLedger(path)
    with ledger.transaction():
        for k in range(2000):
            ledger.judge(k, 0, 1.0, suspect=True, reason="x" * 50)
    data = bytearray(path.read_bytes())
    data[8192 : len(data) - 4096] = bytes(len(data) - 12288)
    path.write_bytes(data)


def foreign(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")


def newer(path):
    SQLiteLedger(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def cut_short(path):
    damaged(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda path: path.write_text("hello " * 1000),
            r"not a ledger \(file is not a database\); restore a backup",
        ),
        (damaged, r"damaged or not a ledger \(.*\.recover"),
        (cut_short, r"damaged or not a ledger"),
        (foreign, r"another SQLite file; use another path"),
        (newer, r"version 99 of the tables, this FedGuard supports 1; install"),
        (lambda path: path.mkdir(), r"is not a file; use another path"),
    ],
    ids=["text", "damaged", "cut short", "foreign", "newer", "a folder"],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_files_that_are_no_ledger(path, make, match, read_only):
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LedgerError, match=match) as caught:
        SQLiteLedger(path, read_only=read_only)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_no_folder_no_file(tmp_path):
    with pytest.raises(LedgerError, match=r"there is no folder .*nowhere; create it"):
        SQLiteLedger(tmp_path / "nowhere" / "ledger.db")
    with pytest.raises(LedgerError, match="there is no such file"):
        SQLiteLedger(tmp_path / "ledger.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_left_empty_by_a_kill_becomes_a_ledger(path):
    path.touch()
    SQLiteLedger(path).ban("c", 0, None, "why")
    assert SQLiteLedger(path).is_banned("c", 1)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda path: path.unlink(), "check that the file is there"),
        (lambda path: path.write_bytes(b"?" * 9000), "restore a backup"),
    ],
    ids=["gone", "overwritten"],
)
def test_a_file_that_is_lost_while_the_guard_runs(path, harm, match):
    guard = Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path))
    guard.process(Round(X, IDS, index=0))
    backup = path.read_bytes()
    harm(path)
    refuses(path, guard, match, 1)
    assert not path.exists() or b"SQLite" not in path.read_bytes(), "no new ledger without bans"
    path.write_bytes(backup)
    assert guard.process(Round(X, IDS, index=1)).banned[3], "a backup in its place, and on it goes"


def test_a_lock_that_does_not_end(path):
    guard = Guard(First(), make_policy("ban"), ledger=SQLiteLedger(path, timeout=0.05))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refuses(path, guard, r"locked by another process for more than 0.05 s", 0)
    guard.process(Round(X, IDS, index=0))
    assert guard.detectors["first"].rounds == 1


def test_a_round_number_beyond_sqlite(path):
    ledger = SQLiteLedger(path)
    with pytest.raises(LedgerError, match="nothing was written"):
        ledger.judge("c", 2**70, 1.0, suspect=True)
    assert ledger.clients() == []


@pytest.fixture
def locked(tmp_path):
    """A file that another connection holds, and that connection."""
    path = tmp_path / "ledger.db"
    path.touch()
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield path, other


def test_a_new_ledger_waits_for_another_process_that_holds_the_file(locked):
    path, other = locked
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    try:
        assert SQLiteLedger(path, timeout=30).clients() == []
    finally:
        timer.join()


def test_turning_the_log_on_is_tried_again_where_sqlite_does_not_wait(locked):
    path, other = locked
    with closing(sqlite3.connect(path, timeout=0)) as db:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _switch_to_wal(db, 0.05)
        timer = threading.Timer(0.1, other.rollback)
        timer.start()
        try:
            _switch_to_wal(db, 30)
        finally:
            timer.join()
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_stays_locked_is_an_error_that_says_so(locked):
    with pytest.raises(LedgerError, match=r"locked by another process for more than 0.1 s"):
        SQLiteLedger(locked[0], timeout=0.1)
