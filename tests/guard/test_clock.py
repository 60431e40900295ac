"""The clock goes backwards: nothing is ordered by it, so nothing is lost or mixed up."""

import datetime
import json

import numpy as np
import pytest

from fedguard import EventLog, Guard, Round, make_policy
from fedguard.ledger.sqlite import SQLiteLedger

X = np.array([[1.0, 0.0], [1.1, 0.0], [0.9, 0.1], [1.0, 0.1], [50.0, 0.0]])


@pytest.fixture
def backwards(monkeypatch):
    """Every question for the time gets an answer an hour before the last one."""
    asked = []

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            asked.append(1)
            return datetime.datetime(2026, 6, 1, tzinfo=tz) - datetime.timedelta(hours=len(asked))

    for module in ("fedguard.observers.events", "fedguard.ledger.sqlite"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    return asked


def test_rounds_bans_and_events_keep_their_order(backwards, tmp_path):
    from fedguard import make_detector

    path = tmp_path / "ledger.sqlite"
    guard = Guard(
        make_detector("norm_bound"),
        make_policy("ban", strikes=2, window=3, duration=2, rule={"name": "mad", "k": 3.5}),
        ledger=SQLiteLedger(path),
        observers=[EventLog(tmp_path / "events.jsonl")],
    )
    banned = []
    for index in range(6):
        outcome = guard.process(Round(X, tuple("abcde"), index=index))
        banned.append(bool(outcome.banned[4]))
    assert len(backwards) >= 6, "the clock was asked"
    assert banned == [False, True, True, False, True, True]
    assert SQLiteLedger(path)["e"].strikes == guard.ledger["e"].strikes
    rounds = [json.loads(line)["round"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert rounds == list(range(6))
    guard.ledger.unban("e", by="operator", why="a faulty sensor")
    assert not SQLiteLedger(path).is_banned("e", 6)
