"""What an operator sees and does: ``fedguard ledger`` and ``fedguard watch``."""

import contextlib
import csv
import io
import json
import math
import re
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from fedguard import EventLog, Guard, Round, SQLiteLedger, make_detector, make_policy
from fedguard.cli import entry as cli
from fedguard.cli.watch import Tail, spark
from fedguard.evaluation.terminal import plain

ESCAPE = "\x1b]0;evil\x07[bold]"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in this process; returns (exit status, stdout, stderr)."""

    def run(*args, columns=140):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["fedguard", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return run


@pytest.fixture
def db(tmp_path):
    """Four rounds in which client "mallory" was a suspect thrice; 7 sent nonsense."""
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    for index in range(4):
        with ledger.transaction():
            ledger.judge("alice", index, 0.25, suspect=False, reason="accepted: krum score 0.25")
            if index < 3:
                text = f"excluded, strike {index + 1} of 3: krum score 9"
                ledger.judge("mallory", index, 9.0, suspect=True, reason=text)
            ledger.judge(7, index, math.inf, suspect=index == 1, reason="non-finite update")
            if index == 2:
                ledger.ban("mallory", 2, None, "banned for good: krum score 9: not among the chosen")
    ledger.judge(ESCAPE, 3, math.nan, suspect=False, reason=ESCAPE)
    return tmp_path / "ledger.db"


def rows(text):
    """The cells of a printed table, by the first one."""
    cells = [[c.strip() for c in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells if row and row[0]}


# --- fedguard ledger


def test_show_everybody(call, db):
    status, out, _ = call("ledger", "show", db)
    assert status == 0
    assert "4 clients, 1 banned, judged up to round 3" in " ".join(out.split())
    table = rows(out)
    assert table["mallory"][:4] == ["3", "3", "9", "banned since round 2, for good"]
    assert table["7"][:4] == ["4", "1", "∞", "admitted, 1 strike"]
    assert table["alice"][:4] == ["4", "0", "0.25", "admitted"]
    assert list(table)[1] == "mallory", "the banned come first"
    assert "\x1b" not in out
    assert "\x07" not in out
    assert r"\x1b]0;evil\x07[bold]" in out


def test_the_time_of_an_action_does_not_control_the_terminal(call, db):
    with contextlib.closing(sqlite3.connect(db)) as file, file:
        file.execute("UPDATE actions SET time = ?", ("\x1b[2J",))
    _, out, _ = call("ledger", "show", db, "mallory")
    assert "\x1b" not in out
    assert r"by the guard, \x1b[2J" in out


def test_show_a_part(call, db):
    _, out, _ = call("ledger", "show", db, "--banned")
    assert "mallory" in out
    assert "alice" not in out
    _, out, _ = call("ledger", "show", db, "--limit", "1")
    assert "3 more; --limit shows them" in out


def test_show_explains_a_ban_in_words(call, db):
    status, out, _ = call("ledger", "show", db, "mallory")
    assert status == 0
    assert "client mallory is banned since round 2, for good." in out
    assert re.search(
        r"Why: banned for good: krum score 9: not among the chosen \(by the guard, 20.*\)\.", out
    )
    assert "Judged in 3 rounds; a strike in 3 of the 3 on record (rounds 0, 1, 2)." in out
    assert rows(out)["1"] == ["9", "strike", "excluded, strike 2 of 3: krum score 9"]
    _, out, _ = call("ledger", "show", db, "7")
    assert "client 7 is admitted, 1 strike." in out
    assert "(round 1)" in out


def test_ban_and_unban_by_hand(call, db):
    status, out, _ = call("ledger", "ban", db, "alice", "--why", "stolen key", "--by", "ann", "--rounds", "3")
    assert status == 0
    assert "client alice is banned since round 4, until round 7" in out
    ledger = SQLiteLedger(db)
    assert [ledger.is_banned("alice", t) for t in (4, 6, 7)] == [True, True, False]
    status, _, err = call("ledger", "ban", db, "alice", "--why", "again", "--by", "ann", "--rounds", "2")
    assert (status, "alice is banned since round 4, until round 7; nothing was changed" in err) == (2, True)
    status, out, _ = call("ledger", "unban", db, "alice", "--why", "new key", "--by", "bob")
    assert (status, "unbanned" in out) == (0, True)
    assert not ledger.is_banned("alice", 4)
    _, out, _ = call("ledger", "show", db, "alice")
    assert re.search(r"Unbanned in round 4 by bob, 20.*: new key\.", out)
    who = [(a.what, a.by, a.why) for a in ledger.actions("alice")]
    assert who == [("ban", "ann", "banned by ann: stolen key"), ("unban", "bob", "new key")]


def test_a_ban_beforehand_meets_the_client_under_any_type_of_id(call, db):
    call("ledger", "ban", db, "99", "--why", "known from elsewhere", "--by", "ann")
    guard = Guard(ledger=SQLiteLedger(db))
    outcome = guard.process(Round(np.ones((2, 3)), [99, "alice"], index=4))
    assert outcome.banned.tolist() == [True, False]
    assert outcome.reasons[0] == "banned since round 4: banned by ann: known from elsewhere"


def test_the_login_name_answers_if_nobody_is_named(call, db, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "carol")
    call("ledger", "unban", db, "mallory", "--why", "a mistake")
    assert SQLiteLedger(db).actions("mallory")[-1].by == "carol"

    def nobody():
        raise OSError

    monkeypatch.setattr("getpass.getuser", nobody)
    status, _, err = call("ledger", "ban", db, "alice", "--why", "x")
    assert (status, "--by" in err) == (2, True)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["show", "DB", "malory"], "knows no client 'malory', did you mean 'mallory'?"),
        (["unban", "DB", "alice", "--why", "x"], "client alice is not banned"),
        (["unban", "DB", "nobody", "--why", "x"], "knows no client 'nobody'"),
        (["ban", "DB", "alice", "--why", " "], "--why is empty"),
        (["unban", "DB", "mallory", "--why", " "], "--why is empty"),
        (["unban", "DB", "mallory"], "Missing option '--why'"),
        (["show", "nowhere.db"], "there is no such file"),
        (["ban", "nowhere.db", "x", "--why", "x"], "there is no such file"),
        (["export", "DB", "--what", "all"], "there are clients, verdicts, actions as csv, and json"),
        (["export", "DB", "-f", "xml"], "there are clients"),
        (["export", "DB", "-o", "nowhere/x.csv"], "cannot write nowhere/x.csv"),
    ],
)
def test_mistakes(call, db, args, expected, tmp_path):
    before = db.read_bytes()
    status, _, err = call("ledger", *[db if a == "DB" else a for a in args])
    assert status == 2
    assert expected in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not (tmp_path / "nowhere.db").exists()
    assert SQLiteLedger(db, read_only=True).actions() == SQLiteLedger(db).actions()
    assert len(before) == db.stat().st_size


def test_export(call, db, tmp_path):
    _, out, _ = call("ledger", "export", db, "--what", "verdicts")
    table = list(csv.DictReader(io.StringIO(out)))
    assert len(table) == 12
    assert table[4] == {
        "client": "mallory",
        "round": "0",
        "score": "9.0",
        "suspect": "True",
        "forgiven": "False",
        "reason": "excluded, strike 1 of 3: krum score 9",
    }
    assert "\x1b" not in out
    _, out, _ = call("ledger", "export", db)
    assert [row["banned"] for row in csv.DictReader(io.StringIO(out))] == ["False", "True", "False", "False"]
    call("ledger", "export", db, "--format", "json", "--out", "all.json")
    whole = json.loads((tmp_path / "all.json").read_text())
    assert [len(whole[name]) for name in ("clients", "verdicts", "actions")] == [4, 12, 1]
    assert whole["clients"][2]["client"] == 7
    assert [whole["clients"][k]["last_score"] for k in (0, 2, 3)] == [0.25, "inf", None]
    assert whole["actions"][0]["by"] == "guard"


def test_an_empty_ledger(call, tmp_path):
    SQLiteLedger(tmp_path / "new.db")
    assert "0 clients, 0 banned, no round yet" in call("ledger", "show", "new.db")[1]
    assert call("ledger", "export", "new.db")[0] == 0


def test_the_operators_commands_do_not_load_torch(db):
    code = (
        "import sys; sys.argv = ['fedguard', 'ledger', 'show', sys.argv[1]]\n"
        "from fedguard.cli import entry as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(db)], check=True, capture_output=True)


# --- fedguard watch


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.jsonl"
    detector = make_detector("krum", num_malicious=1, select="m_krum")
    guard = Guard(detector, make_policy("ban", strikes=2), observers=[EventLog(path)])
    for index in range(3):
        updates = np.random.default_rng(index).normal(size=(6, 5))
        updates[4] += 30
        guard.process(Round(updates, ["alice", "bob", "carol", "dora", ESCAPE, 7], index=index))
    return path


def test_one_frame(call, events):
    status, out, _ = call("watch", events, "--once")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("round 2  ")
    assert "6 clients, " in lines[0]
    assert "1 banned" in lines[0]
    assert lines[1].split() == ["client", "score", "verdict", "weight", "reason"]
    assert "\x1b" not in out
    banned = next(line for line in lines if "evil" in line)
    assert "banned" in banned
    assert "–" in banned
    assert "█" not in banned, "it was not scored"
    lengths = {line.split()[0]: line.count("█") for line in lines[2:8]}
    last = json.loads(events.read_text().splitlines()[-1])["verdicts"]
    scores = {v["id"]: v["score"] for v in last}
    honest = ["alice", "bob", "carol", "dora", "7"]
    by_score = sorted(honest, key=lambda c: scores[c if c != "7" else 7])
    bars = [lengths[c] for c in by_score]
    assert bars == sorted(bars)
    assert (bars[0], bars[-1]) == (1, 16)
    shown = [line.split()[0] for line in lines[2:8] if line.split()[0] in honest]
    places = {v["id"]: (not v["suspect"], -v["score"]) for v in last if v["score"] is not None}
    assert shown == sorted(honest, key=lambda c: places[c if c != "7" else 7]), "the most suspicious first"
    assert re.search(r"‖aggregate‖ \d\.\d+, cosine to the last [+-]\d\.\d\d  [▁-█]{3}$", lines[-1])


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_frames_fit_the_terminal(call, events, columns):
    _, out, _ = call("watch", events, "--once", "--rows", "2", columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    assert "and 4 more clients" in out


def test_new_bans_and_notes(call, tmp_path):
    path = tmp_path / "e.jsonl"
    detector = make_detector("krum", num_malicious=1, select="m_krum")
    guard = Guard(detector, make_policy("ban"), observers=[EventLog(path)])
    updates = np.full((8, 3), np.nan)
    updates[4:] = 1.0
    guard.process(Round(updates, list("abcdefgh")))
    _, out, _ = call("watch", path, "--once")
    assert "banned (new: a, b, c, d" in out
    assert out.count("∞") == 4
    guard.process(Round(np.ones((4, 3)), list("abcd")))
    _, out, _ = call("watch", path, "--once")
    assert "every client was excluded: the global model stays as it is" in out
    assert "cosine to the last –" in out


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "holds no round"),
        (lambda path: path.write_text("no JSON\n[]\n3\n{}\n"), "holds no round"),
        (lambda path: path.write_text('{"event": "round", "round": 3}\n'), "holds no round"),
        (lambda path: path.mkdir(), "cannot read"),
    ],
)
def test_nothing_to_watch(call, tmp_path, make, expected):
    make(tmp_path / "e.jsonl")
    status, _, err = call("watch", "e.jsonl", "--once")
    assert (status, expected in err) == (2, True)


def test_the_file_is_followed_through_torn_lines_and_rotation(events, tmp_path):
    tail = Tail(events)
    assert tail.read()
    assert [e["round"] for e in tail.rounds] == [0, 1, 2]
    assert not tail.read()
    line = events.read_text().splitlines()[-1].replace('"round": 2', '"round": 3')
    with events.open("a") as file:
        file.write(line[:50])
        file.flush()
        assert not tail.read(), "half a line is no round yet"
        file.write(line[50:] + "\n")
    assert tail.read()
    assert tail.rounds[-1]["round"] == 3
    events.replace(tmp_path / "events.jsonl.1")
    assert not tail.read(), "between two files"
    events.write_text(line.replace('"round": 3', '"round": 4') + "\n")
    assert tail.read()
    assert [e["round"] for e in tail.rounds] == [0, 1, 2, 3, 4]


def test_watching_goes_on_until_it_is_stopped(call, events, monkeypatch):
    shown, pauses = [], []
    line = events.read_text().splitlines()[-1]

    def sleep(_):
        pauses.append(1)
        if len(pauses) == 1:
            with events.open("a") as file:
                file.write(line.replace('"round": 2', '"round": 3') + "\n")
        if len(pauses) == 3:
            raise KeyboardInterrupt

    from fedguard.cli import watch

    real = watch.frame
    monkeypatch.setattr(watch, "frame", lambda r, n: shown.append(r[-1]["round"]) or real(r, n))
    monkeypatch.setattr(watch.time, "sleep", sleep)
    status, _, err = call("watch", events)
    assert (status, err) == (0, "")
    assert shown == [2, 3]


def test_small_things():
    assert plain("a\tb\u202e") == "a\\tb\\u202e"
    assert plain("abcdef", 4) == "abc…"
    assert spark([0.0, 1.0, 2.0, math.nan, math.inf]) == "▁▅█▁█"
    assert spark([0.0, 0.0]) == "▁▁"
