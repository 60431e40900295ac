"""DnC against NumPy's full SVD of the centerd sample in float64 (NDSS 2021, §VII, Algorithm 2)."""

import math

import numpy as np
import pytest
import torch

from fedguard import Guard, Round, Server, make_detector
from fedguard.core.errors import ParameterError, TooFewClientsError
from fedguard.core.seeds import generator


def good_set_by_hand(updates, f, c, niters, b, draw):
    """Intersection over iterations of the n - c·f lowest squared projections on the top direction."""
    n, d = updates.shape
    good = set(range(n))
    for _ in range(niters):
        columns = torch.randperm(d, generator=draw)[: min(b, d)].numpy()
        sample = updates[:, columns].astype(np.float64)
        mean = sum(sample) / n
        top = np.linalg.svd(sample - mean)[2][0]
        scores = [float(np.dot(row - mean, top)) ** 2 for row in sample]
        good &= set(sorted(range(n), key=scores.__getitem__)[: n - math.ceil(c * f)])
    return good


def updates_of(n, d, seed, outliers=2):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, d))
    matrix[:outliers] += 1.5 * np.sign(rng.normal(size=d))
    return (1e-3 * matrix).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("n", "d", "b", "f", "c", "niters"),
    [
        (10, 400, 50, 2, 1.0, 5),
        (10, 400, 10_000, 3, 1.0, 5),  # more coordinates asked for than there are
        (12, 60, 5, 4, 1.0, 3),  # more clients than coordinates
        (9, 200, 30, 3, 1.5, 1),  # ⌈4.5⌉ = 5 removed
        (9, 200, 30, None, 1.0, 2),
        (7, 100, 20, 0, 1.0, 4),
    ],
)
def test_the_good_set_is_the_intersection_over_iterations(n, d, b, f, c, niters, seed):
    updates = updates_of(n, d, seed)
    params = {"num_malicious": f, "coordinates": b, "filter_fraction": c, "niters": niters}
    scores = make_detector("dnc", **params)(Round(updates, index=7, server=Server(seed=seed)))
    assumed = (n - 1) // 2 if f is None else f
    expected = good_set_by_hand(updates, assumed, c, niters, b, generator(seed, "dnc", 7))
    assert set(np.flatnonzero(~scores.suspects)) == expected
    assert (scores.suspects == (scores.values > 1)).all()
    assert scores.info["kept"] == len(expected)


def test_without_a_server_the_coordinates_come_from_seed_zero():
    updates = updates_of(10, 300, seed=1)
    params = {"num_malicious": 3, "coordinates": 20}
    bare = make_detector("dnc", **params)(Round(updates, index=2))
    served = make_detector("dnc", **params)(Round(updates, index=2, server=Server(seed=0)))
    other = make_detector("dnc", **params)(Round(updates, index=3))
    assert bare.values.tolist() == served.values.tolist()
    assert bare.values.tolist() != other.values.tolist()


def test_scores_are_projections_as_multiples_of_the_cut():
    """One coordinate, mean 2: squared deviations 4, 1, 0, 0, 9; f = 2 cuts midway between 1 and 4."""
    scores = make_detector("dnc", num_malicious=2)([[0.0], [1.0], [2.0], [2.0], [5.0]])
    assert scores.suspects.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(scores.values, [1.6, 0.4, 0, 0, 3.6], atol=1e-12)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4, 5], ["f", "e", "d", "c", "b", "a"], [5, "b", 1, "a", 0, 9]])
def test_equal_projections_are_decided_by_client_id_not_by_position(ids):
    updates = np.ones((6, 40), dtype=np.float32)
    updates[0] = -1
    scores = make_detector("dnc", num_malicious=3)(Round(updates, client_ids=ids))
    twins = sorted(ids[1:], key=lambda i: (isinstance(i, str), i))
    assert {i for i, s in zip(ids, scores.suspects, strict=True) if s} == {ids[0], *twins[-2:]}
    assert (scores.suspects == (scores.values > 1)).all()


def test_colluders_that_send_the_same_tie_whatever_the_rounding():
    """Seven identical outliers, three to remove: always the same three, in whatever order they come."""
    updates = updates_of(16, 3000, seed=2, outliers=0)
    updates[:7] = 2 * updates[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = rng.permutation(16)
        scores = make_detector("dnc", num_malicious=3, coordinates=1000)(Round(updates[ids], client_ids=ids))
        assert set(ids[scores.suspects]) <= {4, 5, 6}


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 3e38])
def test_identical_updates_have_no_direction_and_are_cut_by_id(value):
    updates = np.full((7, 30), value, dtype=np.float32)
    scores = make_detector("dnc", num_malicious=2)(Round(updates, client_ids=[6, 5, 4, 3, 2, 1, 0]))
    assert scores.suspects.tolist() == [True, True] + [False] * 5


def test_an_empty_intersection_suspects_everybody_and_keeps_the_global_model():
    """Three coordinates, in each of which another of three clients is the outlier."""
    updates = 5 * np.eye(3, dtype=np.float32)
    detector = make_detector("dnc", num_malicious=1, coordinates=1, niters=40)
    assert detector(updates).suspects.all()
    outcome = Guard(detector).process(Round(updates))
    assert outcome.kept_global
    assert outcome.aggregate.tolist() == [0, 0, 0]


def test_removing_nobody_still_ranks():
    scores = make_detector("dnc", num_malicious=0)(updates_of(6, 50, seed=0, outliers=1))
    assert not scores.suspects.any()
    assert scores.values.argmax() == 0


def test_too_few_clients_to_keep_one():
    with pytest.raises(TooFewClientsError, match="at least 5"):
        make_detector("dnc", num_malicious=4)(updates_of(4, 10, seed=0))
    with pytest.raises(TooFewClientsError, match="filter_fraction"):
        make_detector("dnc", filter_fraction=3.0)(updates_of(7, 10, seed=0))


@pytest.mark.parametrize(
    "params",
    [
        {"num_malicious": -1},
        {"niters": 0},
        {"coordinates": 0},
        {"filter_fraction": -0.5},
        {"filter_fraction": math.nan},
    ],
)
def test_refuses_parameters_that_make_no_sense(params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make_detector("dnc", **params)


@pytest.mark.parametrize(("d", "b"), [(20, 19), (1000, 300)])
def test_coordinates_of_very_large_models_are_different_and_evenly_spread(monkeypatch, d, b):
    """Without a permutation of all of them: each is drawn in b / d of the cases."""
    import importlib

    module = importlib.import_module("fedguard.detectors.dnc")
    monkeypatch.setattr(module, "PERMUTED", 10)
    seen = np.zeros(d)
    for seed in range(300):
        chosen = module._chosen(d, b, torch.Generator().manual_seed(seed))
        assert len(set(chosen.tolist())) == b
        seen[chosen.numpy()] += 1
    expected, spread = 300 * b / d, math.sqrt(300 * b / d * (1 - b / d))
    assert np.abs(seen - expected).max() < 5 * spread


def test_rounding_does_not_remove_one_more():
    """1.1 · 50 is 55.00000000000001 in floating point; 55 are removed, not 56."""
    assert 1.1 * 50 > 55
    assert make_detector("dnc", num_malicious=50, filter_fraction=1.1).min_clients() == 56
