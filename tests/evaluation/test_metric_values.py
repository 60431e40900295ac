"""Metrics against scikit-learn and against tables worked out by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from fedguard.core.errors import ParameterError
from fedguard.evaluation.metrics import (
    aar,
    active_metrics,
    auroc,
    average_precision,
    benign_excluded,
    detection_metrics,
    fpr_by_skew,
    harm,
    harm_weighted_fnr,
    mean_auroc,
    rounds_to_detection,
    tpr_at_fpr,
)
from fedguard.simulation.skew import label_skew

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


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_and_tpr_against_scikit_learn_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    truth, scores = np.arange(60) < 17, rng.integers(levels, size=60).astype(float)
    assert average_precision(truth, scores) == pytest.approx(average_precision_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    for rate in (0.01, 0.05, 0.2, 1.0):
        assert tpr_at_fpr(truth, scores, rate) == pytest.approx(true[false <= rate + 1e-9].max())
    some = rng.random(60) < 0.3
    raised = np.where(some, levels + 1, scores)
    infinite = np.where(some, INF, scores)
    assert average_precision(truth, infinite) == pytest.approx(average_precision_score(truth, raised))
    assert tpr_at_fpr(truth, infinite, 0.1) == tpr_at_fpr(truth, raised, 0.1)
    unscored = np.where(some, NAN, scores)
    assert average_precision(truth, unscored) == average_precision(truth[~some], scores[~some])
    assert tpr_at_fpr(truth, unscored, 0.1) == tpr_at_fpr(truth[~some], scores[~some], 0.1)


def test_one_percent_of_a_hundred_benign_clients_is_one():
    scores = np.concatenate([np.arange(100.0), [98.5, 97.5, 200]])
    truth = np.arange(103) >= 100
    assert tpr_at_fpr(truth, scores) == pytest.approx(2 / 3)
    assert tpr_at_fpr(truth[1:], scores[1:]) == pytest.approx(1 / 3), "one of 99 is more than 1 %"


@pytest.mark.parametrize("measure", [average_precision, tpr_at_fpr])
def test_undefined_without_both_kinds_of_client(measure):
    assert math.isnan(measure([False, False], [1, 2]))
    assert math.isnan(measure([True, True], [1, 2]))
    assert math.isnan(measure([True, False], [1, NAN]))
    with pytest.raises(ValueError, match="scores has"):
        measure([True, False], [1, 2, 3])


def test_rounds_to_detection_by_hand():
    truth = [True, True, True, True, False]
    #            caught at once; in its second attack; suspected while waiting only; never attacks
    attacking = [[1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    suspects = [[1, 1, 0, 1, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 0]]
    assert rounds_to_detection(truth, suspects, attacking) == (1.5, 2 / 3)
    nobody = rounds_to_detection(truth, np.zeros((3, 5)), attacking)
    assert math.isnan(nobody[0])
    assert nobody[1] == 0
    assert all(math.isnan(x) for x in rounds_to_detection([False] * 5, suspects, attacking))


def test_benign_exclusions_by_hand():
    weights = [[0, 0, 0.5, 0], [0, 1, 0, 0]]
    present = [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert benign_excluded([True, False, False, False], present, weights) == (1 + 2) / 2


def test_label_skew_by_hand():
    parts = [[0, 0, 0, 0], [1, 1], [0, 1], []]
    everybody = [5 / 8, 3 / 8]
    shares = [[1, 0], [0, 1], [0.5, 0.5], [0, 0]]
    expected = [sum(abs(a - b) for a, b in zip(p, everybody, strict=True)) / 2 for p in shares]
    assert label_skew(parts, 2) == pytest.approx(expected)


def test_false_positives_by_skew_by_hand():
    truth = [False, True, False, False, False, False]
    skew = [0.9, 0.0, 0.1, 0.5, 0.5, 0.2]  # benign, by skew: 2, 5 | 3, 4 | 0
    suspects = [[1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 0]]
    low, mid, high = fpr_by_skew(truth, suspects, skew)
    assert low == pytest.approx((0 / 2 + 1 / 2) / 2)
    assert mid == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert high == pytest.approx(1.0)
    present = [[0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]]
    low, mid, high = fpr_by_skew(truth, suspects, skew, present)
    assert mid == pytest.approx((1 / 2 + 1 / 1) / 2), "who was not asked is not counted"
    assert high == pytest.approx(1.0), "a round in which nobody of a third took part is no round"
    assert fpr_by_skew(truth, [0, 1, 0, 1, 0, 0], skew)[1] == pytest.approx(0.5), "labels at the end of a run"
    assert math.isnan(fpr_by_skew([True, False], [1, 0], [0.1, 0.2])[2]), "a third that is empty"
    with pytest.raises(ParameterError, match="skew"):
        fpr_by_skew(truth, suspects, [0.1])


def test_active_attackers_by_hand():
    """Clients 0 and 1 are malicious; 0 sleeps in round 0, 1 always. Round 1: 0 attacks and is caught."""
    truth = np.array([1, 1, 0, 0], bool)
    active = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], bool)
    suspects = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], bool)
    scores = np.array([[1.0, 1, 1, 9], [9, 1, 1, 1]])
    found = active_metrics(truth, suspects, active, scores)
    assert found == {"dacc_active": 3 / 4, "fnr_active": 0.0, "auroc_active": 1.0}
    labels = active_metrics(truth, suspects.any(0), active)
    assert labels == {"dacc_active": 2 / 3, "fnr_active": 0.0}
    missed = active_metrics(truth, np.zeros((2, 4), bool), active)
    assert missed["fnr_active"] == 1.0
    nobody = active_metrics(truth, suspects, np.zeros((2, 4), bool), scores)
    assert all(math.isnan(nobody[key]) for key in ("fnr_active", "auroc_active"))


@pytest.mark.parametrize("seed", range(4))
def test_without_idle_attackers_nothing_changes(seed):
    rng = np.random.default_rng(seed)
    truth, suspects, present = np.arange(9) < 3, rng.random((5, 9)) < 0.4, rng.random((5, 9)) < 0.7
    scores, active = rng.random((5, 9)), np.tile(truth, (5, 1))
    plain = detection_metrics(truth, suspects, scores, present)
    found = active_metrics(truth, suspects, active, scores, present)
    assert found == {f"{key}_active": plain[key] for key in ("dacc", "fnr", "auroc")}


def test_harm_by_hand():
    assert harm(0.05) == pytest.approx(0.5)
    assert harm(0.3) == 1.0
    assert harm(-0.02, 0.1) == pytest.approx(0.1)
    assert harm(NAN, 0.7) == pytest.approx(0.7)
    assert math.isnan(harm(NAN, NAN))
    assert harm_weighted_fnr([1.0, 0.2, NAN, 0.5], [0.0, 1.0, 1.0, 0.5]) == pytest.approx((0.2 + 0.25) / 1.5)
    assert math.isnan(harm_weighted_fnr([1.0], [0.0]))
    with pytest.raises(ParameterError):
        harm_weighted_fnr([1.0], [0.0, 1.0])
