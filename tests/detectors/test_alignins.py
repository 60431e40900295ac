"""AlignIns against its two alignments and its rule, written out in loops over entries."""

import math

import numpy as np
import pytest
import torch

from fedguard import Round, make_detector
from fedguard.core.errors import ParameterError


def sign(x):
    return int(x > 0) - int(x < 0)


def by_hand(updates, start, sparsity, lambda_s, lambda_c):
    """Per client the larger of both deviations, as multiples of their limits."""
    n, d = updates.shape
    count = max(1, int(sparsity * d))
    principal = [sign(sum(sign(updates[i][c]) for i in range(n))) for c in range(d)]
    shares, cosines = [], []
    for row in updates:
        largest = sorted(range(d), key=lambda c: -abs(row[c]))[:count]
        shares.append(sum(sign(row[c]) == principal[c] for c in largest) / count)
        inner = sum(float(a) * float(b) for a, b in zip(row, start, strict=True))
        lengths = math.sqrt(sum(float(a) ** 2 for a in row)), math.sqrt(sum(float(b) ** 2 for b in start))
        cosines.append(inner / (lengths[0] * lengths[1]))
    result = []
    for i in range(n):
        z = []
        for values, limit in ((shares, lambda_s), (cosines, lambda_c)):
            mean = sum(values) / n
            std = math.sqrt(sum((v - mean) ** 2 for v in values) / n)
            z.append(abs(values[i] - np.median(values)) / std / limit)
        result.append(max(z))
    return result


def federation(seed, n=11, d=70):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=d)
    updates = common + 0.8 * rng.normal(size=(n, d))
    updates[[2, 7]] -= 1.5 * common
    return updates.astype(np.float32), (common + rng.normal(size=d)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("sparsity", "lambda_s", "lambda_c"), [(0.3, 1.0, 1.0), (0.05, 2.0, 1.5), (1.0, 1.2, 0.7), (1e-9, 1, 1)]
)
def test_alignins(seed, sparsity, lambda_s, lambda_c):
    updates, start = federation(seed)
    expected = by_hand(updates, start, sparsity, lambda_s, lambda_c)
    params = {"sparsity": sparsity, "lambda_s": lambda_s, "lambda_c": lambda_c}
    scores = make_detector("alignins", **params)(Round(updates, global_params=start))
    np.testing.assert_allclose(scores.values, expected, rtol=1e-6)
    assert scores.suspects.tolist() == [z >= 1 for z in expected]
    assert 0 < scores.suspects.sum() < len(updates)


def test_a_deviation_that_reaches_the_limit_is_a_suspect():
    """Signs agree throughout; cosines 1, 1, 1, 1 and 0: median 1, std 0.4, so the last deviates by 2.5."""
    updates = np.array([[1.0, 1]] * 4 + [[1, 1e-30]], dtype=np.float32)
    start = np.array([1.0, 1.0])
    updates[4], start = [2, 1], np.array([1.0, -2])
    updates[:4] = [1, -2]
    for limit, caught in ((2.5, True), (2.4999, True), (2.5001, False)):
        detector = make_detector("alignins", lambda_s=9, lambda_c=limit, sparsity=0.5)
        scores = detector(Round(updates, global_params=start))
        assert scores.suspects.tolist() == [False] * 4 + [caught]
        assert scores.values[4] == pytest.approx(2.5 / limit)


def test_clients_that_agree_are_not_accused():
    """The authors' code divides 0 by 0 here, and accepts nobody."""
    updates = np.tile(np.arange(-3.0, 4), (6, 1))
    scores = make_detector("alignins")(Round(updates, global_params=np.ones(7)))
    assert scores.values.tolist() == [0] * 6
    assert not scores.suspects.any()


def test_entries_that_tie_with_the_last_all_count():
    """Of (2, 1, -1, 1) two entries are asked for, and four inspected: three have the majority's sign."""
    from fedguard.detectors.alignins import sign_alignment
    from fedguard.geometry.updates import Updates

    rows = torch.tensor([[2.0, 1, -1, 1], [2, 1, 1, 1], [3, 2, 1, 1]])
    assert sign_alignment(Updates(rows), 2).tolist() == [0.75, 1, 1]


@pytest.mark.parametrize(
    "params",
    [{"sparsity": 0}, {"sparsity": 1.5}, {"lambda_s": 0}, {"lambda_c": -1}, {"lambda_c": math.nan}],
)
def test_refuses_parameters_that_make_no_sense(params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make_detector("alignins", **params)
