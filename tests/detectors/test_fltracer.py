"""FLTracer's local anomaly detection against NumPy's full SVD and loops."""

import math

import numpy as np
import pytest
import torch

from fedguard import Round, Server, make_detector
from fedguard.core.errors import NeedError, ParameterError
from fedguard.detectors import fltracer
from fedguard.detectors.fltracer import robust_deviations

HIDDEN, OUTPUTS = 6, 4
MODEL = torch.nn.Sequential(torch.nn.Linear(5, HIDDEN), torch.nn.Linear(HIDDEN, OUTPUTS))
D = 6 * HIDDEN + (HIDDEN + 1) * OUTPUTS


def deviations_by_hand(features):
    centered = features.astype(float) - features.mean(0)
    places = centered @ np.linalg.svd(centered, full_matrices=False)[2][0]
    away = [abs(p - np.median(places)) for p in places]
    return [0.6744897501960817 * a / np.median(away) for a in away]


def ranks_by_hand(updates):
    return np.array(
        [
            [sum(y < x for y in column) + (sum(y == x for y in column) + 1) / 2 for x in column]
            for column in updates.T
        ]
    ).T


def federation(seed, n=13):
    rng = np.random.default_rng(seed)
    updates = rng.normal(size=D) + rng.normal(size=(n, D))
    updates[2, : -OUTPUTS * (HIDDEN + 1)] *= -1  # signs and ranks
    updates[6, -OUTPUTS * (HIDDEN + 1) :] += 12  # the output layer
    updates[:, :4] = 0  # dead units: everybody ties
    return updates.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limits", [(3.0, 3.0, 2.5), (1.0, 9.0, 9.0), (9.0, 1.0, 9.0), (9.0, 9.0, 1.0)])
def test_fltracer(seed, limits):
    updates = federation(seed)
    output = updates[:, -OUTPUTS * (HIDDEN + 1) :]
    features = (np.sign(updates), ranks_by_hand(updates), output)
    shares = np.array([deviations_by_hand(part) for part in features]) / np.array(limits)[:, None]
    params = dict(zip(("lambda_sign", "lambda_rank", "lambda_output"), limits, strict=True))
    scores = make_detector("fltracer", **params)(Round(updates, server=Server(model=MODEL)))
    np.testing.assert_allclose(scores.values, shares.max(0), rtol=1e-4)
    assert scores.suspects.tolist() == (shares.max(0) > 1).tolist()
    names = ["signs", "ranks", "output layer"]
    for i in np.flatnonzero(scores.suspects):
        assert scores.reasons[i].endswith(names[shares[:, i].argmax()])


def test_what_each_feature_sees():
    scores = make_detector("fltracer")(Round(federation(0), server=Server(model=MODEL)))
    assert scores.suspects[[2, 6]].all()
    assert scores.reasons[6].endswith("output layer")
    assert not scores.reasons[2].endswith("output layer")


def test_a_majority_at_one_place_accuses_everybody_elsewhere():
    rows = torch.ones(7, 5)
    rows[6, 2] = 1.5
    assert robust_deviations(rows).tolist() == [0] * 6 + [math.inf]
    assert robust_deviations(torch.ones(7, 5)).tolist() == [0] * 7


def test_large_models_are_sampled(monkeypatch):
    """With 20 of 64 coordinates, the sample depends on the round and on the server's seed alone."""
    monkeypatch.setattr(fltracer, "COORDINATES", 20)
    updates = federation(1)

    def values(index, seed):
        given = Round(updates, index=index, server=Server(model=MODEL, seed=seed))
        return make_detector("fltracer", lambda_output=1e9)(given).values.tolist()

    assert values(0, 0) == values(0, 0)
    assert values(0, 0) != values(1, 0)
    assert values(0, 0) != values(0, 1)


def test_without_a_linear_layer():
    with pytest.raises(NeedError, match="fltracer needs a model with a linear output layer"):
        make_detector("fltracer")(Round(np.ones((4, 2)), server=Server(model=torch.nn.Conv1d(1, 1, 1))))


@pytest.mark.parametrize("name", ["lambda_sign", "lambda_rank", "lambda_output"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_refuses_parameters_that_make_no_sense(name, value):
    with pytest.raises(ParameterError, match=name):
        make_detector("fltracer", **{name: value})
