"""The ledger: bans, strikes, ids, round trip."""

import math

import pytest

from fedguard import Ledger
from fedguard.state import pack, unpack


def filled():
    ledger = Ledger()
    ledger.judge(7, 0, 0.5, suspect=False)
    ledger.judge("client", 0, math.inf, suspect=True)
    ledger.judge("client", 1, 2.0, suspect=True)
    ledger.ban("client", 1, 4, "why")
    ledger.ban("ghost", 2, None, "for good")
    return ledger


def test_records():
    ledger = filled()
    record = ledger["client"]
    assert (record.rounds, record.strikes, record.last_score) == (2, [0, 1], 2.0)
    assert (record.banned_since, record.banned_until, record.ban_reason) == (1, 4, "why")
    assert ledger.clients() == [7, "client", "ghost"]


@pytest.mark.parametrize(
    ("client", "banned_in", "ever"),
    [("client", [2, 3], True), ("ghost", [2, 3, 4, 1000], True), (7, [], False), ("stranger", [], False)],
)
def test_bans_end_when_they_should(client, banned_in, ever):
    ledger = filled()
    assert [t for t in (2, 3, 4, 1000) if ledger.is_banned(client, t)] == banned_in
    assert ledger.ever_banned(client) is ever


def test_a_later_ban_replaces_an_earlier_one():
    ledger = filled()
    ledger.ban("client", 6, 8, "again")
    assert [t for t in range(6, 10) if ledger.is_banned("client", t)] == [6, 7]
    assert ledger["client"].ban_reason == "again"


def test_looking_up_a_stranger_leaves_no_trace():
    ledger = Ledger()
    ledger["x"].strikes.append(1)
    assert ledger["x"].strikes == []
    assert ledger.clients() == []
    assert ledger.state_dict() == Ledger().state_dict()


@pytest.mark.parametrize(("first", "later"), [(7, "7"), ("7", 7)])
def test_ids_that_read_the_same_are_the_same_client(first, later):
    ledger = Ledger()
    ledger.ban(first, 0, None, "why")
    assert ledger.is_banned(later, 1)
    ledger.judge(later, 1, 0.0, suspect=False)
    assert ledger.clients() == [first]
    assert ledger[first].rounds == 1


def test_round_trip_through_bytes():
    ledger, back = filled(), Ledger()
    state = ledger.state_dict()
    back.load_state_dict(unpack(pack(state)))
    assert back.state_dict() == state
    assert back.clients() == [7, "client", "ghost"], "ids keep their types"


def test_states_are_snapshots_on_both_ways():
    ledger = filled()
    state = ledger.state_dict()
    back = Ledger()
    back.load_state_dict(state)
    for changed in (ledger, back):
        changed.judge("client", 9, 1.0, suspect=True)
    assert state == filled().state_dict()
    assert ledger["client"].strikes == back["client"].strikes == [0, 1, 9]


def test_loading_replaces_everything():
    ledger = filled()
    ledger.load_state_dict(Ledger().state_dict())
    assert ledger.clients() == []
    assert not ledger.ever_banned("ghost")
