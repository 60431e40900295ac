"""Erasing a client's verdicts, how long verdicts are kept, and a ledger by the page."""

import pickle
import sqlite3
import sys

import pytest

from fedguard import SQLiteLedger
from fedguard.cli import entry as cli
from fedguard.core.errors import ParameterError
from fedguard.ledger.pages import page, story

REASON = "krum score 123456789"


@pytest.fixture
def ledger(tmp_path):
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    for index in range(4):
        for client in ("ann", "bob", 7):
            ledger.judge(client, index, 123456789.0 if client == "bob" else 1.0, client == "bob", REASON)
    ledger.ban("bob", 4, None, f"banned for good: {REASON}")
    return ledger


def test_forget_erases_verdicts_and_leaves_a_record(ledger):
    assert ledger.forget("bob", "ann", "asked for it") == 4
    assert ledger.judgements("bob") == []
    record = ledger["bob"]
    assert (record.strikes, record.rounds, record.ban_reason) == ([], 0, "erased")
    assert record.last_score != record.last_score, "no score"
    last = ledger.actions("bob")[-1]
    assert (last.what, last.by, last.why, last.since) == ("forget", "ann", "asked for it", 4)
    assert len(ledger.judgements("ann")) == 4


def test_a_ban_outlives_it_and_so_do_round_numbers(ledger):
    ledger.forget("bob", "ann", "asked for it")
    assert ledger.is_banned("bob", 100)
    assert ledger.next_round() == 4


def test_what_is_erased_is_in_no_byte_of_the_file(tmp_path):
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    ledger.judge("bob", 0, 1.0, True, "a reason about bob alone")
    ledger.ban("bob", 1, None, "a ban about bob alone")
    files = lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: E731
    assert b"about bob alone" in files()
    ledger.forget("bob", "ann", "asked for it")
    assert b"about bob alone" not in files()
    assert b"asked for it" in files()


def test_who_and_why_are_needed_and_the_client_must_be_known(ledger):
    before = [ledger.judgements("bob"), ledger.actions()]
    for client, by, why in (("bob", " ", "why"), ("bob", "ann", ""), ("eve", "ann", "why")):
        with pytest.raises(ParameterError, match=r"recorded; say who|knows no client"):
            ledger.forget(client, by, why)
    assert [ledger.judgements("bob"), ledger.actions()] == before


def test_the_command(ledger, monkeypatch, capsys):
    words = ["ledger", "forget", str(ledger.path), "bob", "--why", "asked for it", "--by", "ann"]
    monkeypatch.setattr(sys, "argv", ["fedguard", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "4 verdicts of client bob erased" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["fedguard", "ledger", "show", str(ledger.path), "bob"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "Verdicts erased in round 4 by ann" in capsys.readouterr().out


def test_verdicts_are_kept_for_so_many_rounds(tmp_path):
    ledger = SQLiteLedger(tmp_path / "ledger.db", keep_rounds=3)
    ledger.judge("gone", 0, 1.0, True)
    for index in range(6):
        with ledger.transaction():
            ledger.judge("ann", index, 1.0, index < 4)
    assert [j.round for j in ledger.judgements("ann")] == [3, 4, 5]
    assert ledger["ann"].strikes == [3]
    assert ledger.judgements("gone") == [], "of clients that have left, too"
    assert ledger["ann"].rounds == 6
    assert pickle.loads(pickle.dumps(ledger)).keep_rounds == 3  # noqa: S301 - our own bytes
    with pytest.raises(ParameterError, match="keep_rounds is 0"):
        SQLiteLedger(tmp_path / "other.db", keep_rounds=0)


# --- pages


def test_a_page_has_the_banned_first_then_by_score(ledger):
    ledger.judge("eve", 3, float("inf"), False)
    ledger.ban("dan", 2, 3, "a while")
    found = page(ledger, 0, 10)
    assert [entry.client for entry in found.entries] == ["bob", "dan", "eve", "ann", 7]
    assert (found.next_round, found.clients, found.banned, found.found) == (4, 5, 1, 5)
    assert [e.client for e in page(ledger, 1, 2).entries] == ["dan", "eve"]
    assert {s: [e.client for e in page(ledger, 0, 10, s).entries] for s in ("banned", "back")} == {
        "banned": ["bob"], "back": ["dan"],
    }  # fmt: skip
    assert [entry.client for entry in page(ledger, 0, 10, search="an").entries] == ["dan", "ann"]
    assert page(ledger, 0, 10, search='"').found == 0, "quotes of the stored text are not part of the id"


def test_a_story_is_of_a_row(ledger):
    (bob,) = page(ledger, 0, 10, "banned").entries
    told = story(ledger, bob.number)
    assert (told.entry.client, len(told.judgements), told.actions[0].what) == ("bob", 4, "ban")
    with pytest.raises(ParameterError, match="no client in row 99"):
        story(ledger, 99)


def test_odd_pages_are_refused(ledger):
    for offset, limit, standing in ((-1, 10, "all"), (0, 0, "all"), (0, 10**6, "all"), (0, 10, "1; DROP")):
        with pytest.raises(ParameterError):
            page(ledger, offset, limit, standing)


def test_a_hundred_thousand_clients_by_the_page(tmp_path):
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    rows = [(f'"c{k}"', f'"c{k}"', 1, 0, k / 7) for k in range(100_000)]
    with sqlite3.connect(ledger.path) as db:
        db.executemany(
            "INSERT INTO clients (key, id, rounds, last_round, last_score) VALUES (?, ?, ?, ?, ?)", rows
        )
    found = page(ledger, 99_990, 50)
    assert (found.found, len(found.entries), found.entries[-1].client) == (100_000, 10, "c0")
    assert page(ledger, 0, 50, search="c9999").found == 11


def test_a_ban_by_hand_evicts_nobody(tmp_path, monkeypatch, capsys):
    ledger = SQLiteLedger(tmp_path / "ledger.db", max_clients=200_000)
    with sqlite3.connect(ledger.path) as db:
        rows = [(f'"c{k}"', f'"c{k}"') for k in range(100_500)]
        db.executemany("INSERT INTO clients (key, id) VALUES (?, ?)", rows)
    words = ["ledger", "ban", str(ledger.path), "new", "--why", "w", "--by", "ann"]
    monkeypatch.setattr(sys, "argv", ["fedguard", *words])
    with pytest.raises(SystemExit):
        cli.main()
    assert page(ledger, 0, 1).clients == 100_501
