"""The ledger: bans, strikes, ids, round trip."""

import math

import pytest

from fedguard import Ledger
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack


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


def test_what_fails_half_way_never_was():
    ledger = filled()
    before = ledger.state_dict()

    def write():
        with ledger.transaction():
            ledger.judge("client", 9, 3.0, suspect=True)
            ledger.judge("new", 9, 3.0, suspect=True)
            ledger.ban(7, 9, None, "why")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert ledger.state_dict() == before


@pytest.mark.parametrize(
    ("first", "second", "in_force"),
    [
        ((1, 4), (2, 3), (1, 4)),
        ((1, 4), (2, 4), (1, 4)),
        ((1, 4), (2, 5), (2, 5)),
        ((1, None), (2, 9), (1, None)),
        ((1, 4), (2, None), (2, None)),
        ((1, 4), (4, 5), (4, 5)),
    ],
)
def test_the_longer_of_two_bans_stays(first, second, in_force):
    ledger = Ledger()
    for since, until in (first, second):
        ledger.ban("c", since, until, f"{since}")
    record = ledger["c"]
    assert (record.banned_since, record.banned_until) == in_force
    assert record.ban_reason == str(in_force[0])


def test_an_unban_forgives_and_somebody_answers_for_it(caplog):
    ledger = filled()
    for by, why in (("", "why"), ("ann", " ")):
        with pytest.raises(ParameterError, match="say who decides"):
            ledger.unban("client", by, why)
    with pytest.raises(ParameterError, match="client 7 is not banned"):
        ledger.unban(7, "ann", "why")
    with caplog.at_level("INFO", "fedguard.ledger"):
        ledger.unban("ghost", "ann", "a mistake")
        ledger.unban("client", "ann", "a mistake")
    assert "client ghost was unbanned by ann: a mistake" in caplog.text
    assert not ledger.is_banned("ghost", 3)
    record = ledger["client"]
    assert (record.strikes, record.banned_since, record.rounds, record.last_score) == ([], None, 2, 2.0)


def test_only_the_latest_strikes_are_kept():
    ledger = Ledger(keep=3)
    for index in range(10):
        ledger.judge("c", index, 1.0, suspect=index != 8)
    assert ledger["c"].strikes == [6, 7, 9]
    assert ledger["c"].rounds == 10


def test_sybils_push_out_the_harmless_first_and_the_banned_never(caplog):
    ledger = Ledger(max_clients=20)
    ledger.ban("banned", 0, 1, "long ago")
    ledger.judge("old striker", 0, 1.0, suspect=True)
    ledger.judge("late striker", 5, 1.0, suspect=True)
    for k in range(100):
        ledger.judge(f"sybil-{k}", 6, 1.0, suspect=False)
    assert len(ledger.clients()) <= 20
    assert {"banned", "old striker", "late striker", "sybil-99"} <= set(ledger.clients())
    for k in range(19):
        ledger.judge(f"striker-{k}", 7 + k, 1.0, suspect=True)
    assert "old striker" not in ledger.clients()
    assert {"banned", "striker-18"} <= set(ledger.clients())
    for k in range(40):
        ledger.ban(f"bad-{k}", 30, None, "why")
    assert all(ledger.is_banned(f"bad-{k}", 31) for k in range(40))
    assert "banned are never forgotten" in caplog.text.replace("were banned", "banned").replace("\n", " ")


def test_a_policy_must_not_count_more_strikes_than_are_kept():
    from fedguard import Guard, make_detector, make_policy

    def guard(strikes, **gate):
        ban = {"name": "ban", "strikes": strikes}
        policy = make_policy("gate", policy=ban) if gate else make_policy(**ban)
        return Guard(make_detector("krum"), policy, ledger=Ledger(keep=3))

    guard(4)
    guard(4, gate=True)
    for behind in ({}, {"gate": True}):
        with pytest.raises(ParameterError, match="counts 4 strikes of a client, the ledger keeps 3"):
            guard(5, **behind)


@pytest.mark.parametrize("bad", [{"keep": 0}, {"max_clients": 0}])
def test_bounds_are_checked(bad):
    with pytest.raises(ParameterError, match=f"ledger: {next(iter(bad))} is 0"):
        Ledger(**bad)


def test_the_state_of_a_ledger_in_a_file_is_refused():
    with pytest.raises(ParameterError, match="ledger is a file"):
        Ledger().load_state_dict({"file": True})
