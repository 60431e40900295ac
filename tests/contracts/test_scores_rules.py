"""What detectors return, how it is checked, and how rules turn scores into suspects."""

import math

import numpy as np
import pytest
import torch

from fedguard import Card, Detector, LabeledData, Round, Scores, Server
from fedguard.contracts.rules import RULES, Rule
from fedguard.core.errors import DetectorError, NeedError, ParameterError, TooFewClientsError

INF = float("inf")
X = np.arange(8.0).reshape(4, 2)
HURT = np.where(np.arange(4)[:, None] == 1, np.nan, X)  # client 1 sends NaN


class Tell(Detector):
    """Returns what it is told to; remembers the round it saw."""

    card = Card("tell", "for tests", "FedGuard")

    def __init__(self, answer):
        self.answer = answer

    def score(self, round: Round):
        return self.answer(round) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [1, 2, 3, 4],
        np.array([1, 2, 3, 4], dtype=np.float32),
        torch.tensor([1.0, 2, 3, 4], requires_grad=True),
        torch.tensor([1, 2, 3, 4], dtype=torch.bfloat16),
        Scores([1, 2, 3, 4]),
        Scores(torch.tensor([1.0, 2, 3, 4], requires_grad=True), suspects=[0, 0, 0, 1], weights=[1, 1, 1, 0]),
        Scores((1, 2, 3, 4), suspects=torch.tensor([False, False, False, True])),
    ],
    ids=repr,
)
def test_whatever_holds_n_numbers_becomes_plain_arrays(answer):
    scores = Tell(answer)(X)
    assert scores.values.dtype == np.float64
    assert scores.values.tolist() == [1, 2, 3, 4]
    if scores.suspects is not None:
        assert scores.suspects.dtype == bool
        assert scores.suspects.tolist() == [False, False, False, True]
    if scores.weights is not None:
        assert scores.weights.dtype == np.float64


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2, 3], r"scores of shape \(3,\) for 4 clients"),
        ([[1, 2, 3, 4]], "shape"),
        (None, "shape"),
        ("abcd", "not numbers"),
        ([1, 2, "x", 4], "not numbers"),
        ([[1, 2], [3]], "not numbers"),
        ([1, np.nan, 3, 4], "NaN for client 1; use"),
        (Scores(np.ones(4), suspects=[True]), "suspects of shape"),
        (Scores(np.ones(4), weights=np.ones(5)), "weights of shape"),
        (Scores(np.ones(4), weights=[1, 1, np.nan, 1]), "NaN"),
    ],
)
def test_anything_else_is_the_detectors_error(answer, message):
    with pytest.raises(DetectorError, match=message):
        Tell(answer)(X)


def test_a_detector_that_promises_weights_must_give_them():
    class Weigher(Tell):
        gives_weights = True

    assert Weigher(Scores(np.ones(4), weights=np.ones(4)))(X).weights.tolist() == [1] * 4
    with pytest.raises(DetectorError, match="gives weights"):
        Weigher(np.ones(4))(X)


def test_infinite_scores_are_allowed():
    assert Tell([1, INF, 3, -INF])(X).values.tolist() == [1, INF, 3, -INF]


def test_unusable_updates_are_suspects_and_otherwise_absent():
    seen = []

    def answer(round):
        seen.append((round.client_ids, round.updates.matrix.tolist()))
        return Scores(np.arange(3.0), np.zeros(3, bool), "why", np.ones(3), {"k": 1.0}, memory="m")

    scores = Tell(answer)(Round(HURT, client_ids=list("abcd")))
    assert seen == [(("a", "c", "d"), X[[0, 2, 3]].tolist())]
    assert scores.values.tolist() == [0, INF, 1, 2]
    assert scores.suspects.tolist() == [False, True, False, False]
    assert scores.weights.tolist() == [1, 0, 1, 1]
    assert (scores.reason, scores.info, scores.memory) == ("why", {"k": 1.0}, "m")


def test_nobody_usable_is_answered_without_asking_the_detector():
    scores = Tell(lambda round: pytest.fail("asked"))(np.full((3, 2), np.nan))
    assert scores.values.tolist() == [INF] * 3
    assert scores.suspects.tolist() == [True] * 3


@pytest.mark.parametrize("need", ["model", "validation", "root", "global_params"])
def test_needs_are_checked_before_scoring(need):
    class Needy(Tell):
        needs = frozenset({need})

    labeled = LabeledData(torch.zeros(1, 2), torch.zeros(1))
    have = {"model": torch.nn.Linear(1, 1), "validation": labeled, "root": labeled}
    detector = Needy(np.zeros(4))
    with pytest.raises(NeedError, match=f"tell needs {need}: give the round"):
        detector(X)
    if need == "global_params":
        assert detector(Round(X, global_params=np.zeros(2))).values.tolist() == [0] * 4
    else:
        assert detector(Round(X, server=Server(**{need: have[need]}))).values.tolist() == [0] * 4


def test_too_few_clients_counts_usable_ones():
    class Crowd(Tell):
        def min_clients(self):
            return 4

    assert Crowd(np.zeros(4))(X).values.tolist() == [0] * 4
    with pytest.raises(TooFewClientsError, match="at least 4 clients, the round has 3"):
        Crowd(np.zeros(3))(HURT)


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        ({"name": "threshold", "value": 2}, [1, 2, 3, INF], "..xx"),
        ({"name": "threshold", "value": "1e-3"}, [0, 1e-3, 2e-3, -INF], "..x."),  # YAML reads 1e-3 as text
        ({"name": "top", "count": 2}, [5, 1, 7, 3], "x.x."),
        ({"name": "top", "count": 2}, [1, 1, 1, 1], "..xx"),
        ({"name": "top", "count": 0}, [5, 1, 7, 3], "...."),
        ({"name": "top", "count": 9}, [5, 1, 7, 3], "xxxx"),
        ({"name": "keep", "count": 1}, [5, 1, 7, 3], "x.xx"),
        ({"name": "keep", "count": 2}, [1, 1, 1, 1], "..xx"),
        ({"name": "keep", "count": 0}, [5, 1, 7, 3], "xxxx"),
        ({"name": "keep", "count": 9}, [5, 1, 7, 3], "...."),
        ("mad", [1, 2, 3, 4, 100], "....x"),
        ("mad", [1, 2, 3, 4, -100], "....."),
        ("mad", [1, 1, 1, 1, 1.1], "....x"),
        ("mad", [1, 1, 1, 1, 1], "....."),
        ("mad", [1, 2, 3, 4, INF], "....x"),
        ("mad", [INF, INF, INF, 1, 2], "....."),
        ("mad", [3], "."),
        ({"name": "mad", "k": 0}, [1, 2, 3, 4], "..xx"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_rules_by_hand(spec, values, expected):
    suspects, why = Rule(spec)(Scores(np.array(values, dtype=float)))
    assert "".join(".x"[int(s)] for s in suspects) == expected
    assert why
    assert "\n" not in why


def test_mad_agrees_with_the_formula():
    values = np.random.default_rng(0).normal(size=30) ** 3
    z = 0.6745 * (values - np.median(values)) / np.median(np.abs(values - np.median(values)))
    for k in np.r_[0, np.sort(z[z > 0]) - 1e-9]:
        assert RULES["mad"](values, k=k)[0].tolist() == (z > k).tolist()


def test_native_takes_the_detectors_own_decision():
    scores = Scores(np.zeros(2), np.array([True, False]), "the reason")
    assert Rule()(scores)[0].tolist() == [True, False]
    assert Rule({"name": "native"})(scores)[1] == "the reason"
    with pytest.raises(ParameterError, match="no decision rule of its own"):
        Rule("native")(Scores(np.zeros(2)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("treshold", "unknown rule 'treshold', did you mean 'threshold'"),
        ("", "unknown rule ''"),
        ({"value": 3}, "unknown rule ''"),
        (None, "a rule is a name or a mapping"),
        (3, "a rule is a name or a mapping"),
        ("top", "parameter 'count' is missing"),
        ({"name": "top", "cuont": 1}, "unknown parameter 'cuont', did you mean 'count'"),
        ({"name": "top", "count": -1}, "greater than or equal to 0"),
        ({"name": "keep", "count": -2}, "greater than or equal to 0"),
        ({"name": "top", "count": 1.5}, "got 1.5"),
        ({"name": "threshold", "value": float("nan")}, "finite"),
        ({"name": "threshold", "value": "high"}, "got 'high'"),
        ({"name": "mad", "k": float("nan")}, "greater than or equal to 0"),
        ({"name": "mad", "values": [1]}, "unknown parameter 'values'"),
        ({"name": "native", "k": 1}, "unknown parameter 'k'"),
        ({"name": "top", 3: 1}, "3 is not a valid parameter name"),
    ],
    ids=str,
)
def test_wrong_rules_are_refused_at_set_up(spec, message):
    with pytest.raises(ParameterError, match=message):
        Rule(spec)


# --- three sigma and two means


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
def test_three_sigma_by_hand(k):
    values = np.concatenate([np.random.default_rng(0).normal(size=20), [50.0]])
    mean = sum(values) / 21
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 21)
    suspects, why = Rule({"name": "three_sigma", "k": k})(Scores(values))
    assert suspects.tolist() == [v > mean + k * deviation for v in values]
    assert f"{k:g} standard deviations" in why


@pytest.mark.parametrize(
    ("values", "suspects"),
    [
        ([1.0] * 6, [False] * 6),
        ([7.0], [False]),
        ([math.inf, 1, 1.1, 0.9], [True, False, False, False]),
        ([math.inf] * 3, [True] * 3),
        ([0.0, 0, 0], [False] * 3),
    ],
)
def test_sigmas_and_clusters_at_the_edges(values, suspects):
    for name in ("three_sigma", "two_means"):
        assert Rule(name)(Scores(np.array(values, dtype=float)))[0].tolist() == suspects


def test_ten_scores_are_too_few_for_three_sigma():
    values = np.array([0.0] * 9 + [1e9])
    assert not Rule("three_sigma")(Scores(values))[0].any()
    assert Rule({"name": "three_sigma", "k": 2.5})(Scores(values))[0].tolist() == [False] * 9 + [True]


def test_two_means_flags_the_higher_cluster_and_nobody_if_there_is_one():
    rng = np.random.default_rng(1)
    low, high = rng.normal(size=14), 12 + rng.normal(size=5)
    order = rng.permutation(19)
    suspects, _ = Rule("two_means")(Scores(np.concatenate([low, high])[order]))
    assert suspects.tolist() == (order >= 14).tolist()
    assert not Rule("two_means")(Scores(low))[0].any(), "k = 1 can win"
