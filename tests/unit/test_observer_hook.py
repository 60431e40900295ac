"""Observers: told once a round is committed; their failures are theirs."""

import copy
import logging

import numpy as np
import pytest

from fedguard import Guard, Round, make_detector, make_policy
from fedguard.errors import FedGuardError
from fedguard.state import pack

X = np.array([[1.0, 0.0], [1.1, 0.0], [0.9, 0.1], [1.0, 0.1], [50.0, 0.0]])


class Notes:
    def __init__(self, guard=None):
        self.seen, self.guard = [], guard

    def observe(self, round, outcome):
        self.seen.append((round, outcome, pack(self.guard.state_dict()) if self.guard else None))


class Fails:
    def observe(self, round, outcome):
        raise OSError("disk full")


def krum():
    return make_detector("krum", num_malicious=1, select="m_krum")


def test_an_observer_is_called_after_the_state_is_committed():
    notes = Notes()
    guard = Guard(krum(), make_policy("ban"), observers=[notes])
    notes.guard = guard
    round = Round(X)
    outcome = guard.process(round)
    ((seen, said, state),) = notes.seen
    assert seen is round
    assert said is outcome
    assert state == pack(guard.state_dict())
    assert b"banned_since" in state
    assert guard.ledger.is_banned(4, 1)


def test_watching_is_observed_too_and_asking_is_not():
    notes = Notes()
    guard = Guard(krum(), observers=[notes])
    guard.suspects(Round(X))
    assert notes.seen == []
    guard.watch(Round(X))
    assert len(notes.seen) == 1


def test_a_refused_round_is_not_observed():
    notes = Notes()
    guard = Guard(make_detector("lfr"), observers=[notes])
    with pytest.raises(FedGuardError):
        guard.process(Round(X))
    assert notes.seen == []


def test_an_observer_that_fails_costs_a_warning_only(caplog):
    notes = Notes()
    guard = Guard(krum(), observers=[Fails(), notes])
    with caplog.at_level(logging.WARNING, "fedguard"):
        outcome = guard.process(Round(X, index=3))
    assert outcome.suspects.tolist() == [False] * 4 + [True]
    assert len(notes.seen) == 1
    assert "observer Fails failed in round 3" in caplog.text
    assert "disk full" in caplog.text


def test_a_copy_of_the_guard_tells_nobody():
    notes = Notes()
    twin = copy.deepcopy(Guard(krum(), observers=[notes]))
    twin.process(Round(X))
    assert notes.seen == []
