"""AGSD against its steps in NumPy; gradients by finite differences, spectral clustering is scikit-learn's."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering

from fedguard import LabeledData, Round, Server, make_detector
from fedguard.core.errors import ParameterError
from fedguard.detectors.agsd import adversarial_inputs, similarities, trust_index
from fedguard.geometry.updates import Updates

INPUTS, CLASSES = 6, 4
D = (INPUTS + 1) * CLASSES


def unit(values):
    values = np.asarray(values, dtype=float)
    return (values - values.min()) / (values.max() - values.min())


def softmax(values):
    powers = np.exp(values)
    return powers / powers.sum(-1, keepdims=True)


def logits_of(vector, inputs):
    """A linear layer: W (classes, inputs), then the bias."""
    weight = np.asarray(vector[: INPUTS * CLASSES], dtype=float).reshape(CLASSES, INPUTS)
    return inputs @ weight.T + np.asarray(vector[INPUTS * CLASSES :], dtype=float)


def objective(vector, inputs, labels):
    logits = logits_of(vector, inputs)
    losses = [math.log(softmax(row)[y]) for row, y in zip(logits, labels, strict=True)]
    apart = abs(logits - logits.mean(0)).mean(1)
    return (unit(losses) + unit(apart)).mean()


def slope_by_hand(vector, inputs, labels, step=1e-6):
    slope = np.zeros_like(inputs)
    for place in np.ndindex(inputs.shape):
        up, down = inputs.copy(), inputs.copy()
        up[place] += step
        down[place] -= step
        slope[place] = (objective(vector, up, labels) - objective(vector, down, labels)) / (2 * step)
    return slope


def held_out(seed, count=15):
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1, 2, (count, INPUTS)).astype(np.float32)
    return LabeledData(torch.from_numpy(inputs), torch.from_numpy(rng.integers(0, CLASSES, count)))


@pytest.mark.parametrize("seed", range(3))
def test_the_inputs_take_one_step_against_the_slope(seed):
    data, rng = held_out(seed), np.random.default_rng(seed)
    vector = rng.normal(size=D).astype(np.float32)
    start = rng.uniform(-0.15, 0.15, (15, INPUTS)).astype(np.float32)
    model = torch.nn.Linear(INPUTS, CLASSES)
    found = adversarial_inputs(model, torch.from_numpy(vector), data, torch.from_numpy(start), 0.3).numpy()
    low, high = float(data.inputs.min()), float(data.inputs.max())
    slope = slope_by_hand(vector, start.astype(float), data.labels.numpy())
    expected = np.clip(start - 0.3 * (high - low) * np.sign(slope), low, high)
    clear = abs(slope) > 1e-6
    assert clear.mean() > 0.9
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-5)


def cosine(a, b):
    lengths = math.sqrt(sum(a * a)), math.sqrt(sum(b * b))
    return sum(a * b) / lengths[0] / lengths[1] if min(lengths) > 0 else 0.0


def similarities_by_hand(updates):
    lengths = [math.sqrt(sum(row * row)) for row in updates]
    median = np.median(lengths)
    rows = [row * median / size if size else row for row, size in zip(updates, lengths, strict=True)]
    mean = sum(rows) / len(rows)
    mean = mean * median / math.sqrt(sum(mean * mean))
    return unit([[cosine(a - mean, b - mean) + cosine(a, b) for b in rows] for a in rows])


@pytest.mark.parametrize("seed", range(3))
def test_similarities(seed):
    updates = np.random.default_rng(seed).normal(size=(8, 20)) + 0.5
    updates[3] *= 40
    updates[5] = 0
    found = similarities(Updates(torch.from_numpy(updates.astype(np.float32))))
    np.testing.assert_allclose(
        found, similarities_by_hand(updates.astype(np.float32).astype(float)), atol=1e-6
    )


def gamma_by_hand(diversity, confidence):
    first = softmax(np.array(diversity))
    second = softmax(-np.array(confidence))
    damping = math.exp((min(first) - max(first)) / (sum(first) / len(first) - min(first) + 1e-4))
    return unit(first + damping * second)


def test_the_trust_index():
    """Diverse and unsure models are trusted; the damping is e^(-range / (mean - min))."""
    found = trust_index(np.array([0.4, 0.3, 0.1]), np.array([0.3, 0.5, 0.9]))
    np.testing.assert_allclose(found, gamma_by_hand([0.4, 0.3, 0.1], [0.3, 0.5, 0.9]), atol=1e-8)
    assert found[0] == 1
    assert found[2] == 0


def round_of(seed, index, start, data, bad=(2, 5, 7)):
    """Ten clients; the bad ones push their models towards class 0 for every input."""
    rng = np.random.default_rng([seed, index])
    updates = 0.3 * (rng.normal(size=D) + 0.7 * rng.normal(size=(10, D)))
    for i in bad:
        updates[i] = 0.1 * rng.normal(size=D)
        updates[i, INPUTS * CLASSES] += 3
    server = Server(model=torch.nn.Linear(INPUTS, CLASSES), validation=data, seed=seed)
    return Round(updates.astype(np.float32), index=index, global_params=start, server=server)


@pytest.mark.parametrize("seed", range(3))
def test_three_rounds(seed):
    data = held_out(seed)
    start = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    detector = make_detector("agsd", samples=15, start="data")
    trust = np.zeros(10)
    for index in range(3):
        round = round_of(seed, index, start, data)
        scores = detector(round)
        updates = round.updates.matrix.double().numpy()
        mean = torch.from_numpy((start + updates.mean(0)).astype(np.float32))
        inputs = adversarial_inputs(round.server.model, mean, data, data.inputs, 0.3).double().numpy()
        diversity, confidence = [], []
        for update in updates:
            logits = logits_of(start + update, inputs)
            shares = [(logits.argmax(1) == c).mean() for c in range(CLASSES)]
            diversity.append(np.mean([math.sqrt(p * (1 - p)) for p in shares]))
            confidence.append(max(softmax(logits).mean(0)))
        gamma = gamma_by_hand(diversity, confidence)
        affinity = similarities_by_hand(updates).round(9)
        labels = SpectralClustering(2, affinity="precomputed", random_state=0).fit(affinity).labels_
        better = int(gamma[labels == 1].mean() > gamma[labels == 0].mean())
        trust += np.where(labels == better, gamma, gamma - 1)
        assert scores.suspects.tolist() == ((labels != better) | (trust < 0)).tolist()
        np.testing.assert_allclose([scores.memory[i][0] for i in range(10)], trust, atol=1e-4)
        detector.commit(round, scores)
    assert scores.suspects[[2, 5, 7]].all()


def test_a_client_pays_for_its_past():
    """Clients that were in the worse cluster stay suspects in a round in which all send the same."""
    data, start = held_out(0), np.zeros(D, dtype=np.float32)
    detector = make_detector("agsd", samples=15)
    first = round_of(0, 0, start, data)
    scores = detector(first)
    detector.commit(first, scores)
    again = Round(np.ones((11, D)), index=1, global_params=start, server=first.server)
    assert detector(again).suspects.tolist() == [*scores.suspects, False]
    assert 0 < scores.suspects.sum() < 10
    other = make_detector("agsd", samples=15)
    other.load_state_dict(detector.state_dict())
    assert other(again).suspects.tolist() == detector(again).suspects.tolist()


@pytest.mark.parametrize("params", [{"samples": 0}, {"epsilon": 0}, {"epsilon": math.nan}, {"start": "ood"}])
def test_refuses_parameters_that_make_no_sense(params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make_detector("agsd", **params)
