"""Rounding decides no verdict: what is equal by construction stays a tie, a hundred tolerances decide."""

import numpy as np
import pytest
import torch

from fedguard import Round, Server, make_aggregator, make_detector
from fedguard.aggregators.krum import multi_krum
from fedguard.aggregators.lasa import usual
from fedguard.contracts.rules import Rule
from fedguard.contracts.scores import Scores
from fedguard.core.seeds import generator
from fedguard.core.ties import EPSILON, above, levels, lowest, snapped, tolerance
from fedguard.detectors._clusters import hdbscan_labels
from fedguard.detectors._ranking import ranks
from fedguard.geometry.clusters import gap_statistic, mean_shift, nearest_center, two_means
from fedguard.geometry.updates import Updates

N, D = 12, 60


# --- the helper


def test_above_is_more_than_rounding():
    slack = tolerance(10, 1000)
    assert above([1 + 2 * slack, 1 + slack / 2, 1.0, 0.5], 1.0, slack).tolist() == [True, False, False, False]
    assert above([-1 + 2 * slack, -1 + slack / 2], -1.0, slack).tolist() == [True, False]
    assert above([2 * slack, slack / 2], 0.0, slack, scale=1.0).tolist() == [True, False]
    assert above([5e-324], 0.0, slack).all(), "next to 0 nothing is rounding, unless there is a scale"


def test_infinite_values_are_equal_to_themselves_and_above_all_others():
    inf, slack = np.inf, tolerance(10)
    assert above([inf, 1e308, -inf], 1e308, slack).tolist() == [True, False, False]
    assert above([inf, 1e308], inf, slack).tolist() == [False, False]
    assert above([1.0, -inf], -inf, slack).tolist() == [True, False]
    assert levels(np.array([inf, -inf, 0.0, inf]), slack).tolist() == [2, 0, 1, 2]
    assert lowest(np.array([inf, inf]), slack) == 0


def test_a_level_is_no_wider_than_the_tolerance():
    """A chain of small steps is cut: nobody can link two scores by others in between."""
    slack = 1e-9
    chain = 1 + 0.4 * slack * np.arange(1000)
    found = levels(chain, slack)
    assert found[0] == found[2] != found[3]
    for level in np.unique(found):
        assert np.ptp(chain[found == level]) <= slack * 1.01
    assert (np.diff(found) >= 0).all()


def test_levels_keep_shape_and_order():
    values = np.random.default_rng(0).permutation(np.repeat([3.0, 1.0, 2.0], 4)).reshape(3, 4)
    shaken = values * (1 + 4 * EPSILON * np.random.default_rng(1).normal(size=values.shape))
    assert (levels(shaken, tolerance(12)) == values - 1).all()
    for k in (1.0, 2.0, 3.0):
        assert len(np.unique(snapped(shaken, tolerance(12))[values == k])) == 1
    assert levels(np.empty(0), 0.1).tolist() == []


def test_the_tolerance_grows_with_what_is_summed_and_with_the_rounding():
    assert tolerance(100, 10**6) == pytest.approx(64 * EPSILON * 1e4)
    assert tolerance(10, 100, digits=9) == pytest.approx(1e-9, rel=1e-3)


# --- verdicts


def shake(monkeypatch, seed):
    """Everything that is summed is off in its last bits, as on another machine."""
    rng = np.random.default_rng(seed)
    gram, sums = Updates._gram, Updates.sum_blocks

    def noise(shape):
        return 1 + 2 * EPSILON * torch.from_numpy(rng.uniform(-1, 1, size=tuple(shape)))

    def other_gram(self, origin):
        table = gram(self, origin)
        factors = noise(table.shape).triu()
        return table * (factors + factors.triu(1).T)

    def other_sums(self, work, *vectors):
        total = sums(self, work, *vectors)
        return total * noise(total.shape)

    monkeypatch.setattr(Updates, "_gram", other_gram)
    monkeypatch.setattr(Updates, "sum_blocks", other_sums)


def of_copies(seed):
    """Four different updates, each sent by three clients: distances, norms, cosines and scores are tied."""
    rng = np.random.default_rng(seed)
    four = rng.normal(size=D) + rng.normal(size=(4, D))
    return rng.permutation(np.repeat(four, N // 4, axis=0)).astype(np.float32)


def of_corners(seed):
    """Everybody is equally far from everybody, but for two who went elsewhere."""
    rng = np.random.default_rng(seed)
    x = np.full((N, D), 0.1)
    x[np.arange(N), np.arange(N)] += 1
    x[:2, -3:] -= 0.7
    return rng.permutation(x).astype(np.float32)


def of_one_length(seed):
    """Everybody has the same lengths, in every norm."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=D)
    return np.stack([rng.permutation(x) for _ in range(N)]).astype(np.float32)


def of_one_line(seed):
    """Multiples of one update: there is one direction, and everything else is rounding."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.outer(np.repeat([1, 2, 3, -1], N // 4), rng.normal(size=D))).astype(np.float32)


DETECTORS = [
    ("krum", {}),
    ("krum", {"select": "m_krum"}),
    ("krum", {"select": "multi_krum", "num_malicious": 3}),
    ("foolsgold", {}),
    ("afa", {"xi": 1.0}),
    ("norm_bound", {"factor": 1.0}),
    ("signguard", {"fraction": 1.0}),
    ("signguard", {"fraction": 1.0, "similarity": "cosine"}),
    ("signguard", {"fraction": 1.0, "similarity": "distance"}),
    ("freqfed", {}),
    ("flame", {}),
    ("three_sigma", {"sigmas": 1.0}),
    ("three_sigma", {"sigmas": 1.0, "center": "krum"}),
    ("multi_metric", {}),
    ("cross_round", {}),
    ("recommended", {}),
    ("ensemble", {"members": ["norm_bound", {"name": "krum", "select": "m_krum"}]}),
    ("ensemble", {"members": ["norm_bound", "foolsgold"], "combine": "max"}),
]
#: They look along principal components, which are not defined where all directions vary equally.
SPECTRAL = [("dnc", {}), ("rflbat", {"eps1": 1.0}), ("sklearn", {"features": "pca"})]
CASES = [(make, *d) for make in (of_copies, of_corners) for d in DETECTORS]
CASES += [(of_copies, *d) for d in SPECTRAL]
LENGTHS = [("multi_metric", {}), ("multi_metric", {"distances": "pairwise"}), ("norm_bound", {})]
CASES += [(of_one_length, *d) for d in LENGTHS]
CASES += [(of_one_line, *d) for d in (*LENGTHS, ("rflbat", {}), ("krum", {}), ("recommended", {}))]


def verdict(x, name, params):
    start = np.random.default_rng(5).normal(size=D)
    detector = make_detector(name, **params)
    for index in range(2):
        part = Round(x, index=index, global_params=start)
        scores = detector(part)
        detector.commit(part, scores)
    rule = Rule("mad")
    return scores.values, [scores.suspects.tolist(), rule(scores)[0].tolist()]


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
@pytest.mark.parametrize(("make", "name", "params"), CASES)
def test_a_verdict_does_not_depend_on_the_last_bits(make, name, params, seed, monkeypatch):
    x = make(seed)
    values, said = verdict(x, name, params)
    for trial in range(4):
        with monkeypatch.context() as patch:
            shake(patch, 10 * seed + trial)
            others, again = verdict(x, name, params)
        assert again == said, f"trial {trial}"
        np.testing.assert_allclose(others, values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [of_copies, of_corners, of_one_line])
@pytest.mark.parametrize("name", ["krum", "bulyan", "median", "trimmed_mean", "caf"])
def test_an_aggregate_does_not_depend_on_the_last_bits(name, make, monkeypatch):
    params = {"num_malicious": 2} if name != "median" else {}
    expected = make_aggregator(name, **params)(Round(make(0)))
    for trial in range(5):
        with monkeypatch.context() as patch:
            shake(patch, trial)
            torch.testing.assert_close(make_aggregator(name, **params)(Round(make(0))), expected)


def test_a_layer_where_the_clients_are_two_halves_does_not_depend_on_the_last_bits(monkeypatch):
    """Then everybody is exactly one standard deviation from the median, which is LASA's radius."""
    server = Server(model=torch.nn.Linear(D // 2 - 1, 2))
    x = np.repeat(np.random.default_rng(0).normal(size=(2, D)), N // 2, axis=0).astype(np.float32)
    expected = make_aggregator("lasa")(Round(x, server=server))
    for trial in range(5):
        with monkeypatch.context() as patch:
            shake(patch, trial)
            torch.testing.assert_close(make_aggregator("lasa")(Round(x, server=server)), expected)


def test_a_hundred_tolerances_decide_what_is_usual():
    slack = tolerance(4, D)
    halves = np.array([1.0, 1.0, 2.0, 2.0])
    assert not usual(halves * (1 + EPSILON * np.array([1, -1, 0, 2])), 1.0, slack).any()
    assert usual(halves, 1 + 200 * slack, slack).all()
    assert usual(np.full(4, 0.1) * (1 + EPSILON * np.array([1, -1, 0, 2])), 0.5, slack).all()
    assert not usual(np.array([1.0, 1.0, 1.0, 1 + 100 * slack]), 1.0, slack)[3]


def test_lengths_that_differ_by_more_than_rounding_are_whitened():
    x = of_one_length(0)
    x[6] *= 1 + 1e-6  # float32 has no smaller difference
    before = verdict(of_one_length(0), "multi_metric", {})[0]
    assert verdict(x, "multi_metric", {})[0][6] > before[6] + 1


RULES = ["mad", "three_sigma", "two_means", {"name": "top", "count": 4}, {"name": "keep", "count": 5}]
RULES += [{"name": "threshold", "value": 1.0}, {"name": "three_sigma", "k": 1.0}]
TIED = [
    [1.0] * 9,
    [1.0] * 6 + [2.0] * 3,
    [0.0, 1.0] * 5,
    [1.0] * 9 + [4.0],  # one of ten can be 3 σ out at most: it is, exactly
    [0.5, 1.0, 1.5, 2.0, 1.0, 1.0],
]


@pytest.mark.parametrize("values", TIED, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_does_not_depend_on_the_last_bits(rule, values):
    exact = Rule(rule)(Scores(np.array(values)))[0].tolist()
    rng = np.random.default_rng(0)
    for _ in range(10):
        shaken = np.array(values) * (1 + 8 * EPSILON * rng.uniform(-1, 1, len(values)))
        assert Rule(rule)(Scores(shaken))[0].tolist() == exact


# --- a hundred tolerances decide


def test_a_hundred_tolerances_decide_by_threshold_rank_and_cut():
    step = 100 * tolerance(6)
    values = np.array([1.0, 1.0 + step, 1.0, 1.0 - step, 1.0, 1.0])
    assert Rule({"name": "threshold", "value": 1.0})(Scores(values))[0].tolist() == [i == 1 for i in range(6)]
    assert Rule({"name": "top", "count": 1})(Scores(values))[0].tolist() == [i == 1 for i in range(6)]
    assert Rule({"name": "keep", "count": 1})(Scores(values))[0].tolist() == [i != 3 for i in range(6)]
    assert Rule("mad")(Scores(values))[0].tolist() == [i == 1 for i in range(6)]
    assert ranks(values, range(6)).tolist() == [1, 5, 2, 0, 3, 4]
    assert two_means(np.array([1.0, 1.0, 1.0 + step])).tolist() == [False, False, True]
    assert not two_means(np.array([1.0, 1.0, 1.0 + step / 1000])).any()
    points = np.array([0.0] * 5 + [1.0] * 5)
    assert gap_statistic(points, 5, 10, generator(0, "ties")) == 2


def test_a_hundred_tolerances_decide_about_a_length():
    x = of_copies(0)
    length = float(Updates(x).norms.max())
    slack = tolerance(N, D)
    for bound, above_it in ((length * (1 - 100 * slack), True), (length * (1 - slack / 2), False)):
        assert make_detector("norm_bound", bound=bound)(x).suspects.any() == above_it


def test_a_hundred_tolerances_decide_whom_krum_selects():
    table = np.ones((5, 5)) - np.eye(5)
    table[3, :] = table[:, 3] = 1 - 100 * tolerance(5)
    table[3, 3] = 0
    assert multi_krum(torch.from_numpy(table), 0, 1) == [3]
    table[table > 0] = 1 - 4 * EPSILON * np.random.default_rng(0).random(20)
    assert multi_krum((torch.from_numpy(table) + torch.from_numpy(table).T) / 2, 0, 1) == [0]


def test_a_hundred_tolerances_decide_about_a_cluster():
    """A point at the bandwidth belongs to the kernel, one a hundred tolerances beyond does not."""
    slack = tolerance(4, D, digits=8)
    for reach, alone in ((1 + slack / 2, False), (1 + 100 * slack, True)):
        points = np.array([[0.0], [0.0], [0.0], [reach]])
        centers = mean_shift(points, 1.0, slack)
        assert (len(centers) == 2) == alone
        labels = nearest_center(points, centers, 1.0, slack)
        assert (labels[3] == labels[0]) == (not alone)


def test_clusters_of_equal_distances_do_not_depend_on_how_numpy_sorts(monkeypatch):
    from sklearn.cluster._hdbscan import hdbscan

    class OtherMachine:
        """NumPy whose sort leaves ties in another order."""

        def __getattr__(self, name):
            return getattr(np, name)

        def argsort(self, values):
            return np.lexsort((rng.random(len(values)), values))

    rng = np.random.default_rng(0)
    for size in (2, 3, 8):
        points = rng.integers(0, 4, (15, 2)).astype(float)
        distances = np.abs(points[:, None] - points[None]).sum(2)
        found = hdbscan_labels(distances, size, range(15))
        monkeypatch.setattr(hdbscan, "np", OtherMachine())
        for _ in range(5):
            again = hdbscan_labels(distances, size, range(15))
            assert ((again[:, None] == again) == (found[:, None] == found)).all()
            assert ((again < 0) == (found < 0)).all()
        monkeypatch.undo()
