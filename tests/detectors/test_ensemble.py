"""The ensemble's rules of combination against plain loops, and small cases done by hand."""

import math

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Round, Scores, make_detector, make_policy
from fedguard.contracts.decision import Decision
from fedguard.contracts.nested import make
from fedguard.core.errors import DetectorError, NeedError, ParameterError, RegistryError, TooFewClientsError
from fedguard.core.state import pack, unpack
from fedguard.detectors.ensemble import Ensemble

INF = math.inf


class Told(Detector):
    """Says per client id what it is told; with a limit, whoever is above it is a suspect."""

    card = Card("told", "says what it is told", "FedGuard")

    def __init__(self, values, limit=None, name="told", why="too high"):
        self.values, self.limit, self.why = values, limit, why
        self.card = Card(name, "says what it is told", "FedGuard")
        self.seen = []

    def score(self, round):
        values = np.array([self.values[c] for c in round.client_ids], dtype=float)
        suspects = None if self.limit is None else values > self.limit
        return Scores(values, suspects, self.why, info={"count": float(round.n)}, memory=list(values))

    def commit(self, round, scores, decision=None):
        self.seen.append([scores.memory, None if decision is None else decision.suspects.tolist()])

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


def round_of(n, index=0, ids=None):
    return Round(np.arange(3.0 * n).reshape(n, 3), client_ids=ids, index=index)


def random_scores(seed, n=9, members=3):
    """Scores with ties, negative ones, and one infinite."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=n).round(1) * 10.0**k for k in range(members)]
    values[0][rng.integers(n)] = INF
    return values


def ranks_by_hand(values):
    """(rank − 1)/(n − 1); of equal scores each gets the mean of the ranks that they take up."""
    n = len(values)
    result = []
    for own in values:
        below = sum(other < own for other in values)
        equal = sum(other == own for other in values)
        result.append((below + (equal - 1) / 2) / (n - 1))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_rank_mean_by_hand(seed):
    values = random_scores(seed)
    scores = Ensemble([Told(v) for v in values])(round_of(9))
    expected = np.mean([ranks_by_hand(v) for v in values], axis=0)
    np.testing.assert_allclose(scores.values, expected, rtol=1e-12)
    assert scores.suspects is None


def test_rank_mean_of_a_case_done_by_hand():
    """Ranks 0, 1/2, 1 and, with a tie for the two highest, 0, 3/4, 3/4."""
    scores = Ensemble([Told([1, 2, 7]), Told([-5, 4, 4])])(round_of(3))
    assert scores.values.tolist() == [0, 0.625, 0.875]
    assert Ensemble([Told([3])])(round_of(1)).values.tolist() == [0]


def robust_by_hand(values):
    finite = sorted(v for v in values if math.isfinite(v))
    m = len(finite)
    median = (finite[(m - 1) // 2] + finite[m // 2]) / 2
    away = sorted(abs(v - median) for v in finite)
    spread = 1.4826 * (away[(m - 1) // 2] + away[m // 2]) / 2
    if spread == 0:
        spread = 1.2533 * sum(away) / m
    return [v if not math.isfinite(v) else 0.0 if spread == 0 else (v - median) / spread for v in values]


@pytest.mark.parametrize("seed", range(4))
def test_max_by_hand(seed):
    values = random_scores(seed)
    scores = Ensemble([Told(v) for v in values], combine="max")(round_of(9))
    expected = [max(column) for column in zip(*map(robust_by_hand, values), strict=True)]
    np.testing.assert_allclose(scores.values, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 100], [-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 98 / 1.4826]),
        ([5, 5, 5, 5, 10], [0, 0, 0, 0, 5 / 1.2533]),  # MAD is 0, the mean deviation 1
        ([5, 5, 5], [0, 0, 0]),
        ([5, 5, INF, 6, -INF], [0, 0, INF, 3 / 1.2533, -INF]),
        ([INF, INF], [INF, INF]),
        ([0, 1e308, -1e308], [0, 1 / 1.4826, -1 / 1.4826]),
        ([1.7e308, -1.7e308, -1.7e308], [3 / 1.2533, 0, 0]),
        ([1e-320, 1e-320], [0, 0]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_robust_z_scores_of_awkward_scores(values, expected):
    scores = Ensemble([Told(values)], combine="max")(round_of(len(values)))
    np.testing.assert_allclose(scores.values, expected, rtol=1e-12, atol=1e-12)


def p_by_hand(own, past):
    return (1 + sum(value >= own for value in past)) / (1 + len(past))


def test_calibrated_by_hand_over_several_rounds():
    """Suspects do not enter the past, and the past holds the last two rounds only."""
    rng = np.random.default_rng(0)
    members = [Told(None, limit=2.0), Told(None, limit=25.0)]
    ensemble = Ensemble(members, combine="calibrated", vote="any", window=2)
    past = [[], []]
    for t in range(5):
        ids = [int(i) for i in rng.permutation(8)[:6]]
        table = [rng.normal(size=8).round(1) * 10.0**k for k in range(2)]
        table[t % 2][ids[0]] = 99.0
        for member, values in zip(members, table, strict=True):
            member.values = values
        scores = ensemble(round_ := round_of(6, t, ids))
        for i, client in enumerate(ids):
            total = 0.0
            for values, rounds in zip(table, past, strict=True):
                before = [value for part in rounds for value in part]
                if not before:
                    before = [values[other] for other in ids if other != client]
                total -= 2 * math.log(p_by_hand(values[client], before))
            assert scores.values[i] == pytest.approx(total, rel=1e-12, abs=1e-12), (t, client)
        ensemble.commit(round_, scores)
        bad = {c for c in ids if table[0][c] > 2.0 or table[1][c] > 25.0}
        for values, rounds in zip(table, past, strict=True):
            rounds.append([values[c] for c in ids if c not in bad])
            del rounds[:-2]
        assert scores.suspects.tolist() == [c in bad for c in ids]


def test_what_the_policy_decides_says_who_enters_the_past():
    member = Told([1.0, 2.0, 3.0])
    ensemble = Ensemble([member], combine="calibrated")
    scores = ensemble(round_ := round_of(3))
    decision = Decision(np.ones(3), np.array([False, False, True]), ("a", "b", "c"))
    ensemble.commit(round_, scores, decision)
    assert ensemble.state_dict()["past"]["told"][0].tolist() == [1, 2]
    assert member.seen == [[[1, 2, 3], [False, False, True]]]
    everybody = Decision(np.zeros(3), np.ones(3, bool), ("a", "b", "c"))
    ensemble.commit(round_, scores, everybody)
    assert len(ensemble.state_dict()["past"]["told"]) == 1, "no empty round pushes out a full one"
    np.testing.assert_allclose(ensemble(round_).values, [0, -2 * math.log(2 / 3), -2 * math.log(1 / 3)])


def test_a_member_beyond_everything_past_counts_as_much_as_the_past_is_long():
    """p = 1/(1 + k) however far a score is off: one wild member does not drown the others."""
    member, other = Told([0.0] * 9), Told([0.0] * 9)
    ensemble = Ensemble([member, other], combine="calibrated")
    ensemble.commit(round_of(9), ensemble(round_of(9)))
    member.values, other.values = [1.0, 1e9] + [0.0] * 7, [0.0] * 9
    scores = ensemble(round_of(9, 1)).values
    np.testing.assert_allclose(scores, [2 * math.log(10)] * 2 + [0] * 7)


@pytest.mark.parametrize(("vote", "expected"), [("any", "xxx.."), ("majority", "xx..."), ("all", "x....")])
def test_votes_by_hand(vote, expected):
    """Client 0 has three votes of three, 1 two, 2 one; the member without a rule has no vote."""
    members = [
        Told([9, 9, 9, 0, 0], 5, "one", "a"),
        Told([9, 9, 0, 0, 0], 5, "two", "b"),
        Told([9, 0, 0, 0, 0], 5, "three", "c"),
        Told([9, 9, 9, 9, 9], None, "mute"),
    ]
    scores = Ensemble(members, vote=vote)(round_of(5))
    assert "".join(".x"[int(s)] for s in scores.suspects) == expected
    assert scores.info == {
        "one.suspects": 3, "two.suspects": 2, "three.suspects": 1,
        "one.count": 5, "two.count": 5, "three.count": 5, "mute.count": 5,
    }  # fmt: skip
    assert scores.reasons == ("one: a; two: b; three: c", "one: a; two: b", "one: a", "", "")


def test_half_of_the_votes_are_no_majority():
    members = [Told([9, 9], 5, "one"), Told([9, 0], 5, "two")]
    assert Ensemble(members, vote="majority")(round_of(2)).suspects.tolist() == [True, False]


def test_the_reason_of_a_verdict_names_the_members():
    ensemble = Ensemble([Told([9, 9, 0], 5, "one", "a"), Told([0, 9, 0], 5, "two", "")], vote="any")
    outcome = Guard(ensemble).process(round_of(3))
    assert outcome.reasons[0].endswith(": one: a")
    assert outcome.reasons[1].endswith(": one: a; two: by its own rule")
    assert outcome.reasons[2] == "accepted: ensemble score 0.125"
    top = make_policy("exclude", rule={"name": "top", "count": 1})
    assert Guard(ensemble, top).process(round_of(3)).reasons[1].endswith("among the 1 highest scores")


def test_an_ensemble_in_an_ensemble_passes_reasons_on():
    inner = Ensemble([Told([9, 0, 0], 5, "one", "a")])
    assert Ensemble([inner])(round_of(3)).reasons == ("ensemble: one: a", "", "")


def test_members_of_one_name_are_told_apart_in_state_and_memory():
    def build():
        members = [Told([1, 2]), Told([3, 4]), Told([5, 6], name="told_2"), Told([7, 8])]
        return Ensemble(members, combine="calibrated")

    ensemble, copy = build(), build()
    assert list(ensemble.members) == ["told", "told_2", "told_2_2", "told_3"]
    for t in range(2):
        ensemble.commit(round_of(2, t), ensemble(round_of(2, t)))
    copy.load_state_dict(unpack(pack(ensemble.state_dict())))
    assert [m.seen for m in copy.members.values()] == [m.seen for m in ensemble.members.values()]
    assert copy.members["told_3"].seen == [[[7, 8], None]] * 2
    assert pack(copy.state_dict()) == pack(ensemble.state_dict())
    assert copy(round_of(2)).values.tolist() == ensemble(round_of(2)).values.tolist()
    with pytest.raises(
        ParameterError, match="an ensemble of told, told_2, told_2_2, told_3, this one has one"
    ):
        Ensemble([Told([1, 2], name="one")]).load_state_dict(ensemble.state_dict())


def test_the_past_survives_infinite_scores_and_is_bounded():
    ensemble = Ensemble([Told([0.1, INF, -INF])], combine="calibrated", window=3)
    for t in range(7):
        ensemble.commit(round_of(3, t), ensemble(round_of(3, t)))
    state = unpack(pack(ensemble.state_dict()))
    assert [part.tolist() for part in state["past"]["told"]] == [[0.1, INF, -INF]] * 3
    assert Ensemble([Told([1, 2])]).state_dict()["past"] == {}


def test_a_state_is_a_snapshot():
    ensemble = Ensemble([Told([1.0, 2.0])], combine="calibrated")
    ensemble.commit(round_of(2), ensemble(round_of(2)))
    state = ensemble.state_dict()
    ensemble.commit(round_of(2, 1), ensemble(round_of(2, 1)))
    assert len(state["past"]["told"]) == 1


def test_a_repeated_member_draws_other_numbers_than_the_first():
    updates = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    spec = {"name": "dnc", "coordinates": 3, "niters": 1, "num_malicious": 2}
    alone = make(spec, "detectors")(updates)
    said = make_detector("ensemble", members=[spec, spec])(updates).memory
    assert said["dnc"].values.tolist() == alone.values.tolist(), "the first is what it is alone"
    assert said["dnc_2"].values.tolist() != alone.values.tolist()


def test_members_remember_under_their_own_names():
    """FoolsGold's history in an ensemble is its history alone."""
    rng = np.random.default_rng(1)
    alone, ensemble = make_detector("foolsgold"), make_detector("ensemble", members=["foolsgold", "krum"])
    for t in range(3):
        round_ = Round(rng.normal(size=(6, 8)).astype(np.float32), index=t)
        scores, said = alone(round_), ensemble(round_)
        assert said.memory["foolsgold"].values.tolist() == scores.values.tolist()
        alone.commit(round_, scores)
        ensemble.commit(round_, said)
    assert pack(ensemble.members["foolsgold"].state_dict()) == pack(alone.state_dict())


def test_needs_and_sizes_are_those_of_the_members():
    ensemble = make_detector("ensemble", members=["lfr", {"name": "krum", "num_malicious": 4}, "dnc"])
    assert ensemble.needs == {"model", "validation", "global_params"}
    assert ensemble.min_clients() == 7
    assert ensemble.num_malicious == 4
    have = frozenset({"model", "validation", "global_params"})
    with pytest.raises(TooFewClientsError, match=r"^ensemble: member 'krum': krum needs at least 7 clients"):
        ensemble.check(6, have)
    with pytest.raises(NeedError, match=r"^ensemble: member 'lfr': lfr needs validation: give the round"):
        ensemble.check(7, have - {"validation"})
    ensemble.check(7, have)
    crowd = make_detector("ensemble", members=["krum", {"name": "krum", "num_malicious": 4}])
    with pytest.raises(TooFewClientsError, match="member 'krum_2': krum needs at least 7"):
        crowd.check(2, have)


def test_a_member_that_breaks_its_contract_is_named():
    with pytest.raises(DetectorError, match=r"^ensemble: member 'told': told returned NaN for client 1"):
        Ensemble([Told([0, math.nan])])(round_of(2))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"members": []}, ParameterError, "ensemble: members is empty"),
        ({"members": ["krum"], "combine": "mean"}, ParameterError, "combine"),
        ({"members": ["krum"], "vote": "most"}, ParameterError, "vote"),
        ({"members": ["krum"], "window": 0}, ParameterError, "ensemble: window is 0"),
        (
            {"members": ["krun"]},
            RegistryError,
            "^ensemble: member 'krun': unknown detector 'krun', did you mean 'krum'",
        ),
        (
            {"members": [{"name": "krum", "selekt": 1}]},
            ParameterError,
            "^ensemble: member 'krum': .*'selekt', did",
        ),
        ({"members": ["median"]}, RegistryError, "^ensemble: member 'median': unknown detector 'median'"),
    ],
)
def test_mistakes_name_the_member(params, error, message):
    with pytest.raises(error, match=message):
        make_detector("ensemble", **params)
    with pytest.raises(error, match=message):
        Ensemble(**params)
