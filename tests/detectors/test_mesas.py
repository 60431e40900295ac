"""MESAS against the steps of its docstring. SciPy's tests and scikit-learn's linkage are in both."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import AgglomerativeClustering

from fedguard import Round, make_detector
from fedguard.core.errors import ParameterError
from fedguard.detectors.mesas import metrics


def metrics_by_hand(updates, start):
    rows, largest = [], float(np.abs(updates).max())
    for update in updates.astype(np.longdouble):
        model = start.astype(np.longdouble) + update
        unit, base = (
            model / np.sqrt((model**2).sum()),
            start / np.sqrt((start.astype(np.longdouble) ** 2).sum()),
        )
        mean = sum(update) / len(update)
        rows.append(
            [
                float(((unit - base) ** 2).sum() / 2),
                math.sqrt(sum(x * x for x in update)),
                sum(1 for x in update if x > 0),
                float(sum((x - mean) ** 2 for x in update) / (len(update) - 1)),
                min([float(x) for x in update if x > 0], default=largest),
                max(abs(float(x)) for x in update),
            ]
        )
    return np.array(rows)


def by_hand(updates, start, significance):
    """The suspects, and how many clients each metric rejects."""
    table = metrics_by_hand(updates, start)
    n, left, counts = len(table), set(range(len(table))), []
    for x in table.T:
        median, kept = np.median(x), set()
        away = abs(x - median)
        for half in (x >= median, x <= median):
            p = [
                stats.ttest_ind(away[half], away).pvalue,
                stats.levene(away[half], away).pvalue,
                stats.kstest(away[half], away).pvalue,
            ]
            if min(p) > significance:
                kept |= set(np.flatnonzero(half))
        kept = {i for i in kept if abs(x[i] - x.mean()) < 3 * x.std()}
        counts.append(n - len(kept))
        left &= kept
    order = sorted(left)
    if len(order) < 2:
        return [i not in left for i in range(n)], counts
    labels = AgglomerativeClustering(2).fit((table / abs(table).max(0))[order]).labels_
    stays = labels[0] if 2 * (labels == labels[0]).sum() >= len(order) else 1 - labels[0]
    accepted = {i for i, label in zip(order, labels, strict=True) if label == stays}
    return [i not in accepted for i in range(n)], counts


def federation(seed, n=30, d=40):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=d).astype(np.float32)
    updates = 0.1 * (rng.normal(size=d) + rng.normal(size=(n, d)))
    updates[3] *= 6  # beyond 3 std by its length
    updates[10:14] = abs(updates[10:14])  # many positive entries
    return updates.astype(np.float32), start


def test_the_six_metrics():
    updates, start = federation(0)
    updates[5] = -abs(updates[5])  # no positive entry
    found = metrics(Round(updates, global_params=start))
    np.testing.assert_allclose(found, metrics_by_hand(updates, start), rtol=1e-5)
    assert found[5, 4] == np.abs(updates).max()


@pytest.mark.parametrize("significance", [1e-4, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_mesas(seed, significance):
    updates, start = federation(seed)
    expected, counts = by_hand(updates, start, significance)
    scores = make_detector("mesas", significance=significance)(Round(updates, global_params=start))
    assert scores.suspects.tolist() == expected
    assert list(scores.info.values()) == counts
    assert (scores.suspects == (scores.values >= 1)).all()
    assert scores.suspects[3]


def test_a_half_that_differs_is_rejected():
    """30 clients with a length near 1, and 30 from 1 to 2, which are farther from the median than all are."""
    rng = np.random.default_rng(1)
    lengths = np.concatenate([rng.uniform(0.99, 1, 30), np.linspace(1.01, 2, 30)])
    directions = rng.normal(size=(60, 50))
    updates = lengths[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    start = rng.normal(size=50).astype(np.float32)
    scores = make_detector("mesas")(Round(updates.astype(np.float32), global_params=start))
    assert scores.info["eucl"] == 30
    expected, _ = by_hand(updates.astype(np.float32), start, 1e-4)
    assert scores.suspects.tolist() == expected


def test_clients_that_agree_are_not_accused():
    updates = np.tile(np.arange(-3.0, 4), (6, 1))
    assert not make_detector("mesas")(Round(updates, global_params=np.ones(7))).suspects.any()


@pytest.mark.parametrize("value", [0, 1, -1, math.nan])
def test_refuses_parameters_that_make_no_sense(value):
    with pytest.raises(ParameterError, match="significance"):
        make_detector("mesas", significance=value)
