"""Metrics: shapes, refusals, degenerate tables. Values: test_metric_values.py."""

import math

import numpy as np
import pytest
import torch

from fedguard.core.errors import ParameterError
from fedguard.evaluation import metrics
from fedguard.evaluation.metrics import aar, auroc, detection_metrics, mean_auroc

TRUTH = np.array([True, False, False])
ROUNDS = np.array([[True, False, False], [True, True, False]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: detection_metrics(TRUTH, [True, False]),
        lambda: detection_metrics(TRUTH, True),
        lambda: detection_metrics([TRUTH], [TRUTH]),
        lambda: detection_metrics(TRUTH, np.zeros((2, 3, 3), bool)),
        lambda: detection_metrics(TRUTH, ROUNDS, participated=ROUNDS[:1]),
        lambda: detection_metrics(TRUTH, ROUNDS, participated=[True, True]),
        lambda: detection_metrics(TRUTH, ROUNDS, scores=np.zeros((2, 4))),
        lambda: detection_metrics(TRUTH, TRUTH, scores=np.zeros((3, 3)), participated=ROUNDS),
        lambda: detection_metrics(TRUTH, TRUTH, aggregated=np.zeros((3, 3)), participated=ROUNDS),
        lambda: detection_metrics(TRUTH, TRUTH, aggregated=np.zeros((2, 2))),
        lambda: auroc(TRUTH, [1, 2]),
        lambda: auroc(TRUTH, [[1, 2, 3]]),
        lambda: auroc([TRUTH], [[1, 2, 3]]),
        lambda: mean_auroc(TRUTH, np.zeros((2, 2))),
        lambda: aar(TRUTH, [True, False]),
        lambda: aar([TRUTH], [TRUTH]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(ParameterError, match="shape"):
        call()


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_anything_array_like_will_do(kind):
    result = detection_metrics(
        kind([1, 0, 0]),
        kind([[1, 0, 0], [1, 1, 0]]),
        scores=kind([[3.0, 1, 1], [3, 2, 1]]),
        participated=kind([[1, 1, 1], [1, 1, 0]]),
        aggregated=kind([[0, 1, 1], [0, 0, 0]]),
    )
    assert result == {
        **{"dacc": 0.75, "fpr": 0.5, "fnr": 0.0, "auroc": 1.0, "aar": 0.0},
        **{"tp": 2.0, "fp": 1.0, "tn": 2.0, "fn": 0.0},
    }
    assert {type(v) for v in result.values()} == {float}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("truth", "suspects"), [([], []), ([True, False], np.zeros((0, 2))), ([], [[], []])])
def test_nothing_to_measure_is_nan_not_zero(truth, suspects):
    shape = np.shape(suspects)
    result = detection_metrics(truth, suspects, scores=np.zeros(shape), aggregated=np.zeros(shape))
    assert all(math.isnan(result[k]) for k in ("dacc", "fpr", "fnr", "auroc"))
    assert [result[k] for k in ("tp", "fp", "tn", "fn")] == [0, 0, 0, 0]


def test_labels_at_the_end_of_a_run_concern_absent_clients_too():
    nobody = np.zeros((4, 3), bool)
    assert detection_metrics(TRUTH, TRUTH, participated=nobody)["dacc"] == 1.0


def test_absent_clients_count_neither_in_scores_nor_in_aggregation():
    present = np.array([[True, True, False], [False, True, True]])
    result = detection_metrics(
        TRUTH, TRUTH, scores=[[2, 1, 99], [99, 1, 1]], participated=present, aggregated=np.ones((2, 3))
    )
    assert result["auroc"] == 1.0  # the second round has no malicious client; the first one's 99 is absent
    assert result["aar"] == 1.0


def test_inputs_are_left_alone():
    given = [TRUTH.copy(), ROUNDS.copy(), np.ones((2, 3)), np.ones((2, 3), bool), np.ones((2, 3), bool)]
    for array in given:
        array.setflags(write=False)
    detection_metrics(*given)


def test_the_module_is_public():
    import fedguard

    assert fedguard.evaluation.metrics is metrics
