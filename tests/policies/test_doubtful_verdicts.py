"""Verdicts that are none: against most clients, about nothing but zeros, about everybody's updates."""

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Ledger, PolicyInput, Round, Scores, make_detector, make_policy
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack

IDS = tuple("abcdefghij")


class Above(Detector):
    """s_i = the first parameter; above 10 is a suspect, and so is a zero update."""

    card = Card("above", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, (values > 10) | (values == 0), "above 10")


def updates(bad, zeros=0):
    """Ten updates, of which the last ``bad`` are suspects and the first ``zeros`` zero."""
    matrix = np.ones((10, 2), np.float32)
    matrix[10 - bad :] = 50
    matrix[:zeros] = 0
    return matrix


@pytest.mark.parametrize("bad", [5, 6, 10])
def test_ban_strikes_at_no_majority_and_says_so(bad):
    guard = Guard(Above(), make_policy("ban", strikes=2))
    for _ in range(3):
        outcome = guard.process(Round(updates(bad), IDS))
    assert not outcome.weights[-bad:].any(), "they are left out of the round all the same"
    if bad == 5:
        assert outcome.banned.sum() == 5
        return
    assert not outcome.banned.any()
    assert all(guard.ledger[c].strikes == [] for c in IDS)
    note = f"{bad} of 10 clients are suspects, more than half"
    assert note in outcome.note
    assert outcome.reasons[-1].startswith(f"excluded, no strike: {note}")


@pytest.mark.parametrize(("share", "banned"), [(0.5, 0), (0.7, 7), (1.0, 7), (0.69, 0)])
def test_what_is_most_can_be_set(share, banned):
    outcome = Guard(Above(), make_policy("ban", max_share=share)).process(Round(updates(7), IDS))
    assert outcome.banned.sum() == banned


@pytest.mark.parametrize("policy", ["ban", "evidence"])
@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(policy, share):
    with pytest.raises(ParameterError, match=f"{policy}: max_share is"):
        make_policy(policy, max_share=share)


def evidence(guard, client):
    past = {c: wealth for c, wealth, *_ in guard.policy.state_dict()["past"]}
    return sum(past.get(client, [1.0]))


def test_evidence_grows_in_no_round_against_most():
    guard = Guard(Above(), make_policy("evidence", rate=0.05))
    for _ in range(40):
        outcome = guard.process(Round(updates(6), IDS))
    assert not outcome.banned.any()
    assert evidence(guard, "j") == pytest.approx(1)
    assert evidence(guard, "a") < 1, "who is no suspect loses its bets as ever"
    assert "no evidence is counted" in outcome.note
    for _ in range(5):
        outcome = guard.process(Round(updates(4), IDS))
    assert outcome.banned.sum() == 4


def test_wealth_never_grows_where_it_must_not():
    """M_t ← min(M_t, M_t−1) keeps a supermartingale one; also with scores that were learnt."""
    rng = np.random.default_rng(0)
    policy = make_policy("evidence", rounds=3)
    for t in range(30):
        values = rng.normal(size=10)
        case = PolicyInput(t, IDS, {"one": Scores(values, values > -0.5 + (t % 2), "x")}, Ledger())
        before = {c: sum(w) for c, w, *_ in policy.state_dict()["past"]}
        policy.commit(case, policy.decide(case))
        if case.scores["one"].suspects.sum() > 5:
            for client, wealth, *_ in policy.state_dict()["past"]:
                assert sum(wealth) <= before.get(client, 1.0) + 1e-12


@pytest.mark.parametrize("policy", ["ban", "evidence"])
def test_an_idle_client_is_excluded_and_never_banned(policy):
    guard = Guard(Above(), policy)
    for _ in range(20):
        outcome = guard.process(Round(updates(1, zeros=1), IDS))
    assert outcome.suspects[0]
    assert outcome.weights[0] == 0
    assert not outcome.banned[0]
    assert guard.ledger["a"].strikes == []
    assert outcome.banned[9], "who sends anything else is banned as ever"


class Copies(Detector):
    """The first two clients are a pair of copies, the last is no copy; all three are suspects."""

    card = Card("copies", "for tests", "FedGuard")

    def score(self, round):
        suspects = np.isin(np.arange(round.n), [0, 1, 9])
        return Scores(suspects.astype(float), suspects, "x", framed=np.arange(round.n) < 2)


@pytest.mark.parametrize(
    "policy",
    ["ban", "evidence", {"name": "evidence", "rounds": 2}, {"name": "ban", "strikes": 2, "max_bans": 3}],
)
def test_a_client_that_may_be_framed_is_excluded_and_never_banned(policy):
    made = make_policy(policy) if isinstance(policy, str) else make_policy(policy.pop("name"), **policy)
    guard = Guard(Copies(), made)
    for _ in range(20):
        outcome = guard.process(Round(updates(0), IDS))
    assert outcome.suspects[:2].all()
    assert not outcome.weights[:2].any()
    assert not outcome.banned[:2].any()
    assert guard.ledger["a"].strikes == []
    if getattr(made, "rounds", 0) == 0:
        assert outcome.banned[9], "who is suspected for something of its own is banned as ever"


def test_a_suspicion_by_a_second_detector_counts():
    guard = Guard([Copies(), Above()], make_policy("ban", strikes=3))
    matrix = updates(0)
    matrix[0] = 50
    for _ in range(3):
        outcome = guard.process(Round(matrix, IDS))
    assert outcome.banned.tolist() == [True, *[False] * 8, True]


@pytest.mark.parametrize("policy", ["ban", "evidence", "exclude", "observe"])
def test_a_round_without_any_usable_update_blames_nobody(policy):
    guard = Guard(Above(), policy)
    for _ in range(10):
        outcome = guard.process(Round(updates(0) * np.nan, IDS))
    assert not outcome.banned.any()
    assert guard.ledger.clients() == []
    assert outcome.kept_global
    assert outcome.note == "no update can be used: nobody gets a strike, and the global model stays as it is"
    assert outcome.reasons[0] == "non-finite update"


def poisoned(*who):
    matrix = updates(0)
    matrix[list(who)] = np.nan
    return matrix


@pytest.mark.parametrize("build", [lambda: Guard.recommended(), lambda: Guard(Above(), "evidence")])
def test_nan_for_ever_is_banned_after_the_stated_number_of_rounds(build):
    guard = build()
    rng = np.random.default_rng(0)
    banned = []
    for _ in range(6):
        matrix = rng.normal(1, 0.1, (10, 30)).astype(np.float32)
        matrix[3] = np.nan
        outcome = guard.process(Round(matrix, IDS))
        banned.append(bool(outcome.banned[3]))
    assert banned == [False] * 4 + [True] * 2
    assert outcome.reasons[3].startswith(
        "banned since round 4: banned for good: 5 unusable updates: non-finite"
    )
    assert not outcome.banned[[i for i in range(10) if i != 3]].any()


def test_unusable_updates_are_counted_apart_and_over_usable_ones():
    guard = Guard(Above(), make_policy("evidence", max_unusable=3))
    reasons = []
    for t in range(5):
        outcome = guard.process(Round(poisoned(3) if t % 2 == 0 else updates(0), IDS))
        reasons.append(outcome.reasons[3].split(":")[0])
    assert reasons[::2] == [
        "excluded, unusable update 1 of 3",
        "excluded, unusable update 2 of 3",
        "banned for good",
    ]
    assert evidence(guard, "d") < 1, "they are no evidence"


def test_the_count_survives_packing_is_forgiven_by_an_unban_and_can_be_switched_off():
    guard = Guard(Above(), make_policy("evidence", max_unusable=2))
    guard.process(Round(poisoned(3), IDS))
    other = Guard(Above(), make_policy("evidence", max_unusable=2))
    other.load_state_dict(unpack(pack(guard.state_dict())))
    assert other.process(Round(poisoned(3), IDS)).banned[3]
    other.ledger.unban("d", "ann", "a broken scanner, repaired")
    assert other.process(Round(poisoned(3), IDS)).reasons[3].startswith("excluded, unusable update 1 of 2")
    assert other.process(Round(poisoned(3), IDS)).banned[3]
    never = Guard(Above(), make_policy("evidence", max_unusable=None))
    for _ in range(60):
        outcome = never.process(Round(poisoned(3), IDS))
    assert not outcome.banned.any()
    with pytest.raises(ParameterError, match="max_unusable is 0"):
        make_policy("evidence", max_unusable=0)


def test_an_unban_forgives_the_evidence():
    guard = Guard(Above(), make_policy("evidence", rate=0.02, alpha=0.002))
    first = [guard.process(Round(updates(1), IDS)).banned[9] for _ in range(2)]
    assert first == [False, True]
    guard.ledger.unban("j", "ann", "a broken scanner, repaired")
    other = Guard(Above(), make_policy("evidence", rate=0.02, alpha=0.002))
    other.load_state_dict(unpack(pack(guard.state_dict())))
    again = [other.process(Round(updates(1), IDS)).banned[9] for _ in range(2)]
    assert again == first, "it takes as long as before"
    guard.process(Round(updates(0), IDS))
    assert evidence(guard, "j") <= 1


def test_evidence_of_an_earlier_version_still_loads():
    policy = make_policy("evidence")
    policy.load_state_dict({"clean": {}, "past": [["a", [0.2] * 5, {}]], "rule": {}})
    assert policy.state_dict()["past"] == [["a", [0.2] * 5, {}, [], -1, False]]


def test_exclude_says_that_most_are_suspects():
    rng = np.random.default_rng(0)
    outcome = Guard(make_detector("krum")).process(Round(rng.normal(size=(10, 5))))
    assert outcome.weights.sum() == 1
    assert "9 of 10 clients are suspects, more than half, and excluded by krum" in outcome.note
    assert Guard(Above()).process(Round(updates(5), IDS)).note == ""


def test_a_gate_hands_on_what_its_policy_says():
    guard = Guard(Above(), make_policy("gate", policy={"name": "ban", "strikes": 1}))
    outcome = guard.process(Round(updates(6), IDS))
    assert "nobody gets a strike" in outcome.note
    assert guard.ledger["j"].strikes == []
    inner = Guard(Above(), make_policy("gate", policy={"name": "evidence", "max_unusable": 2}))
    assert [bool(inner.process(Round(poisoned(3), IDS)).banned[3]) for _ in range(2)] == [False, True]
