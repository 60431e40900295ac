"""Metrics against scikit-learn and against tables worked out by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from fedguard.metrics import aar, auroc, detection_metrics, mean_auroc

NAN, INF = math.nan, math.inf


def rates(truth, labels):
    tn, fp, fn, tp = confusion_matrix(truth, labels, labels=[False, True]).ravel()
    return {
        "dacc": (tp + tn) / len(truth),
        "fpr": fp / (fp + tn) if fp + tn else NAN,
        "fnr": fn / (fn + tp) if fn + tp else NAN,
        **{"tp": tp, "fp": fp, "tn": tn, "fn": fn},
    }


@pytest.mark.parametrize("seed", range(8))
def test_labels_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    truth, labels = rng.random(n) < 0.3, rng.random(n) < 0.5
    assert detection_metrics(truth, labels) == pytest.approx(rates(truth, labels), nan_ok=True)


@pytest.mark.parametrize("seed", range(8))
def test_rounds_against_scikit_learn_with_partial_participation(seed):
    rng = np.random.default_rng(seed)
    truth, shape = np.arange(12) < 4, (9, 12)
    labels, present = rng.random(shape) < 0.4, rng.random(shape) < 0.5
    present[3], present[4] = False, ~truth  # a round without anybody, one without attackers
    per_round = [rates(truth[p], row[p]) for row, p in zip(labels, present, strict=True) if p.any()]
    result = detection_metrics(truth, labels, participated=present)
    for key in ("dacc", "fpr", "fnr"):
        assert result[key] == pytest.approx(np.nanmean([r[key] for r in per_round]))
    for key in ("tp", "fp", "tn", "fn"):
        assert result[key] == sum(r[key] for r in per_round)


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_auroc_against_scikit_learn_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    truth, scores = np.arange(40) < 13, rng.integers(levels, size=40).astype(float)
    assert auroc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
    some = rng.random(40) < 0.3
    infinite = np.where(some, INF, scores)
    assert auroc(truth, infinite) == pytest.approx(roc_auc_score(truth, np.where(some, levels + 1, scores)))
    unscored = np.where(some, NAN, scores)
    assert auroc(truth, unscored) == pytest.approx(roc_auc_score(truth[~some], scores[~some]))


@pytest.mark.parametrize(
    ("truth", "scores", "expected"),
    [
        ([1, 1, 0, 0], [4, 3, 2, 1], 1.0),
        ([1, 1, 0, 0], [1, 2, 3, 4], 0.0),
        ([1, 1, 0, 0], [4, 2, 3, 1], 0.75),
        ([1, 0], [2, 2], 0.5),
        ([1, 0], [INF, 5], 1.0),
        ([1, 0], [INF, INF], 0.5),
        ([1, 0], [-INF, 0], 0.0),
        ([1, 1], [1, 2], NAN),
        ([0, 0], [1, 2], NAN),
        ([1, 0, 0], [NAN, 1, 2], NAN),
        ([1, 0, 0], [2, NAN, 1], 1.0),
        ([], [], NAN),
    ],
)
def test_auroc_by_hand(truth, scores, expected):
    assert auroc(truth, scores) == pytest.approx(expected, nan_ok=True)


def test_mean_auroc_skips_rounds_in_which_it_is_undefined():
    truth = [1, 0, 0]
    table = [[3, 2, 1], [NAN, 2, 1], [1, 2, 0], [NAN, NAN, NAN]]
    assert mean_auroc(truth, table) == (1.0 + 0.5) / 2
    assert math.isnan(mean_auroc(truth, table[1:2]))


def test_a_run_by_hand():
    """5 clients, 0 and 1 malicious, 3 rounds; "." absent, upper case = suspect.

    round 0:  M m b . .      TP 1 FN 1 TN 1        dacc 2/3  fpr 0    fnr 1/2
    round 1:  . m B b b      FN 1 FP 1 TN 2        dacc 2/4  fpr 1/3  fnr 1
    round 2:  . . B . b      FP 1 TN 1             dacc 1/2  fpr 1/2  fnr undefined
    """
    truth = np.array([1, 1, 0, 0, 0], bool)
    present = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 1, 0, 1]], bool)
    suspects = np.array([[1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]], bool)
    result = detection_metrics(truth, suspects, participated=present, aggregated=present & ~suspects)
    assert result == pytest.approx(
        {
            "dacc": (2 / 3 + 2 / 4 + 1 / 2) / 3,
            "fpr": (0 + 1 / 3 + 1 / 2) / 3,
            "fnr": (1 / 2 + 1) / 2,
            **{"tp": 1, "fp": 2, "tn": 4, "fn": 2},
            "aar": (0 + 2) / 2,
        }
    )


@pytest.mark.parametrize(
    ("truth", "aggregated", "expected"),
    [
        ([1, 1, 0], [[1, 0, 1], [1, 1, 1], [1, 0, 0]], (3 + 1) / 2),
        ([1, 0], [[0, 1], [0, 1]], 0.0),
        ([1, 0], [1, 1], 1.0),
        ([0, 0], [[1, 1]], NAN),
        ([1, 0], np.zeros((0, 2)), 0.0),
    ],
)
def test_aar_by_hand(truth, aggregated, expected):
    assert aar(truth, aggregated) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("truth", "labels", "nan"),
    [([0, 0, 0], [0, 1, 0], {"fnr"}), ([1, 1, 1], [0, 1, 1], {"fpr"}), ([1, 0], [1, 0], set())],
)
def test_undefined_rates_are_nan(truth, labels, nan):
    result = detection_metrics(truth, labels)
    assert {key for key, value in result.items() if math.isnan(value)} == nan
