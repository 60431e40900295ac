"""Round numbers: counted if left out, never going back unnoticed, kept over a restart."""

import dataclasses

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Ledger, Round, Scores, SQLiteLedger, make_policy
from fedguard.core.errors import RoundError
from fedguard.core.state import pack, unpack

IDS = ("a", "b", "c", "d")
CALM = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
ODD = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [40.0, 0.0]])


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect."""

    card = Card("first", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10")


def guard_with(ledger=None, **ban):
    return Guard(First(), make_policy("ban", **ban), ledger=ledger)


@pytest.fixture(params=["memory", "file"])
def ledger(request, tmp_path):
    return Ledger() if request.param == "memory" else SQLiteLedger(tmp_path / "ledger.db")


def test_an_index_left_out_stays_left_out_in_every_copy():
    bare = Round(CALM, IDS)
    copies = [bare.take([0, 2]), bare.with_updates(CALM), bare.with_server(seed=3)]
    assert not any(r.numbered for r in (bare, *copies))
    assert {r.index for r in (bare, *copies)} == {0}
    assert Round(CALM, IDS, index=0).take([1]).numbered
    assert dataclasses.replace(bare, index=0).numbered


def test_the_guard_counts_what_is_left_out(ledger):
    guard = guard_with(ledger)
    assert [guard.process(Round(CALM, IDS)).index for _ in range(3)] == [0, 1, 2]
    assert guard.process(Round(CALM, IDS, index=7)).index == 7
    assert guard.watch(Round(CALM, IDS)).index == 8
    assert guard.next_index == 9


def test_bans_end_although_nobody_gives_numbers(ledger):
    guard = guard_with(ledger, duration=2)
    banned = [bool(guard.process(Round(CALM if t else ODD, IDS)).banned[3]) for t in range(4)]
    assert banned == [True, True, False, False]


def test_strikes_add_up_although_nobody_gives_numbers(ledger):
    guard = guard_with(ledger, strikes=3, window=3)
    assert [bool(guard.process(Round(ODD, IDS)).banned[3]) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("index", [0, 3, 4])
def test_a_number_that_does_not_follow_is_refused_without_a_trace(ledger, index):
    guard = guard_with(ledger, strikes=2)
    guard.process(Round(ODD, IDS, index=4))
    before = pack(guard.state_dict()), guard.ledger["d"].strikes
    for judge in (guard.process, guard.watch):
        with pytest.raises(
            RoundError, match=rf"round {index} .*already judged round 4.*5 or more.*repeat=True"
        ):
            judge(Round(ODD, IDS, index=index))
    assert (pack(guard.state_dict()), guard.ledger["d"].strikes) == before
    assert guard.suspects(Round(ODD, IDS, index=index)).tolist() == [False] * 3 + [True], "a mere question"


def test_a_repeat_counts_once(ledger):
    guard = guard_with(ledger, strikes=3)
    for t in range(2):
        guard.process(Round(ODD, IDS, index=t))
    again = guard.process(Round(ODD, IDS, index=1), repeat=True)
    assert again.reasons[3].startswith("excluded, strike 2 of 3")
    record = guard.ledger["d"]
    assert (record.strikes, record.rounds) == ([0, 1], 2)
    assert guard.process(Round(ODD, IDS), repeat=True).index == 1, "without a number: the last one again"
    assert guard.process(Round(ODD, IDS)).banned[3]


def test_a_repeat_undoes_no_strike_and_serves_no_parole(ledger):
    guard = guard_with(ledger, strikes=1, duration=1, parole=2)
    guard.process(Round(ODD, IDS, index=0))
    guard.process(Round(CALM, IDS, index=1))
    for _ in range(3):
        assert guard.process(Round(CALM, IDS, index=1), repeat=True).weights[3] == 0
    assert guard.ledger["d"].judged_since_ban == 1
    assert guard.ledger["d"].strikes == [0]


def test_numbers_go_on_from_a_repeat():
    guard = guard_with()
    for t in range(5):
        guard.process(Round(CALM, IDS, index=t))
    guard.process(Round(CALM, IDS, index=2), repeat=True)
    assert guard.process(Round(CALM, IDS)).index == 3


def test_evidence_of_a_repeat_is_not_counted_again():
    guard = Guard(First(), make_policy("evidence", rate=0.05))
    guard.process(Round(ODD, IDS, index=0))
    past = guard.policy.state_dict()["past"]
    guard.process(Round(ODD, IDS, index=0), repeat=True)
    assert guard.policy.state_dict()["past"] == past


def test_numbers_are_part_of_the_state_and_old_states_have_none():
    guard = guard_with()
    guard.process(Round(CALM, IDS, index=5))
    state = unpack(pack(guard.state_dict()))
    other = guard_with()
    other.load_state_dict(state)
    assert other.next_index == 6
    with pytest.raises(RoundError):
        other.process(Round(CALM, IDS, index=5))
    old = {key: value for key, value in state.items() if key != "last"}
    fresh = guard_with()
    fresh.load_state_dict(old)
    assert fresh.process(Round(CALM, IDS, index=3)).index == 3


def test_after_a_restart_the_ledger_in_a_file_says_where_to_go_on(tmp_path):
    path = tmp_path / "ledger.db"
    first = guard_with(SQLiteLedger(path), strikes=3)
    for _ in range(2):
        first.process(Round(ODD, IDS))
    second = guard_with(SQLiteLedger(path), strikes=3)
    assert second.process(Round(ODD, IDS), repeat=True).index == 1
    assert second.ledger["d"].strikes == [0, 1]
    third = guard_with(SQLiteLedger(path), strikes=3)
    outcome = third.process(Round(ODD, IDS))
    assert (outcome.index, bool(outcome.banned[3])) == (2, True)


def test_two_guards_on_one_ledger_have_numbers_of_their_own(tmp_path):
    one, two = (guard_with(SQLiteLedger(tmp_path / "ledger.db"), strikes=5) for _ in range(2))
    for t in range(3):
        one.process(Round(CALM, IDS, index=t))
    for t in range(3):
        assert two.process(Round(ODD, IDS, index=t)).index == t
    assert one.process(Round(CALM, IDS)).index == 3
    assert one.ledger["d"].strikes == [0, 1, 2]


def test_observers_see_the_number():
    seen = []

    class Memo:
        def observe(self, round, outcome):
            seen.append((round.index, round.numbered, outcome.index))

    guard = Guard(First(), observers=[Memo()])
    for _ in range(2):
        guard.process(Round(CALM, IDS))
    assert seen == [(0, True, 0), (1, True, 1)]


def test_who_is_banned_next():
    guard = guard_with(duration=1)
    guard.process(Round(ODD, IDS))
    assert guard.banned(IDS) == []
    assert guard.banned(IDS, 0) == ["d"]


def test_arrays_are_counted_too():
    guard = guard_with(duration=2)
    start = [np.zeros(2, np.float32)]
    sent = {name: [row.astype(np.float32)] for name, row in zip(IDS, ODD, strict=True)}
    assert [guard.process_arrays(sent, start)[0].index for _ in range(2)] == [0, 1]
    assert guard.process_arrays(sent, start, index=1, repeat=True)[0].index == 1
    with pytest.raises(RoundError, match="does not follow"):
        guard.process_arrays(sent, start, index=0)
