"""LFighter against Procedures 1 and 2 of arXiv 2207.01982, written out in loops.

k-means and HDBSCAN are scikit-learn's in both; everything before and after them is by hand.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN, KMeans

from fedguard import Round, Server, make_detector
from fedguard.core.errors import NeedError, ParameterError

OUTPUTS, INPUTS = 5, 4


def server(outputs=OUTPUTS, bias=True):
    return Server(
        model=torch.nn.Sequential(torch.nn.Linear(3, INPUTS), torch.nn.Linear(INPUTS, outputs, bias=bias))
    )


def flips(seed, n=12, attackers=(1, 4, 9), outputs=OUTPUTS):
    """(n, d) updates; the attackers move neurons 1 and 3 against the others, and are more alike."""
    rng = np.random.default_rng(seed)
    updates = 0.1 * rng.normal(size=(n, 3 * INPUTS + INPUTS + INPUTS * outputs + outputs))
    layer = updates[:, 16 : 16 + INPUTS * outputs].reshape(n, outputs, INPUTS)
    push = rng.normal(size=INPUTS)
    for i in range(n):
        way, noise = (-1, 0.05) if i in attackers else (1, 0.3)
        layer[i, 1] += way * push + noise * rng.normal(size=INPUTS)
        layer[i, 3 % outputs] -= way * push + noise * rng.normal(size=INPUTS)
    return updates.astype(np.float32)


def neurons(update, outputs=OUTPUTS):
    """Rows of weights, and the size of each neuron's change."""
    rows = update[16 : 16 + INPUTS * outputs].astype(float).reshape(outputs, INPUTS)
    bias = update[16 + INPUTS * outputs :].astype(float)
    return rows, [math.sqrt(sum(x * x for x in rows[c])) + abs(bias[c]) for c in range(outputs)]


def angle(a, b):
    cosine = sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))
    return math.acos(max(-1, min(1, cosine)))


def mild_by_hand(updates, outputs=OUTPUTS):
    n = len(updates)
    total = [sum(neurons(update, outputs)[1][c] for update in updates) for c in range(outputs)]
    first, second = sorted(range(outputs), key=lambda c: -total[c])[:2]
    points = [np.concatenate([neurons(u, outputs)[0][c] for c in (first, second)]) for u in updates]
    labels = KMeans(2, n_init=10, random_state=0).fit(np.array(points)).labels_
    scores = []
    for label in (0, 1):
        members = [i for i in range(n) if labels[i] == label]
        largest = [max(angle(points[i], points[j]) if i != j else 0 for j in members) for i in members]
        scores.append(len(members) / n * sum(largest) / len(members))
    return [bool(label == np.argmin(scores)) for label in labels], {first, second}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("attackers", [(1, 4, 9), (0, 1, 2, 3, 4), ()])
def test_mild(seed, attackers):
    updates = flips(seed, attackers=attackers)
    expected, chosen = mild_by_hand(updates)
    assert chosen == {1, 3}
    scores = make_detector("lfighter")(Round(updates, server=server()))
    assert scores.suspects.tolist() == expected
    assert (scores.suspects == (scores.values >= 1)).all()
    if attackers:
        assert np.flatnonzero(scores.suspects).tolist() == list(attackers)
    else:
        assert scores.suspects.any(), "one of the two clusters always is suspected"


def test_the_smaller_of_equally_dense_clusters_and_the_denser_of_equally_large_ones():
    model = torch.nn.Linear(2, 2, bias=False)
    detector = make_detector("lfighter")

    def at(*degrees):
        turned = [math.radians(x) for x in degrees]
        return [[math.cos(x), math.sin(x), 0, 0] for x in turned]

    smaller = detector(Round(at(0, 8, 0, 8, 180, 188), server=Server(model=model)))
    assert smaller.suspects.tolist() == [False] * 4 + [True] * 2
    denser = detector(Round(at(0, 3, 6, 180, 190, 200), server=Server(model=model)))
    assert denser.suspects.tolist() == [True] * 3 + [False] * 3
    alone = detector(Round(at(0, 0.1, 0.2, 180), server=Server(model=model)))
    assert alone.suspects.tolist() == [False] * 3 + [True], "a single client has density 0"


def extreme_by_hand(updates):
    points = []
    for update in updates:
        rows, sizes = neurons(update)
        first, second = sorted(range(OUTPUTS), key=lambda c: -sizes[c])[:2]
        points.append(np.concatenate([rows[first], rows[second]]))
    table = np.linalg.norm(np.array(points)[:, None] - np.array(points)[None], axis=2)
    labels = HDBSCAN(
        min_cluster_size=2, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    ).fit_predict(table)
    peak, size = {}, {}
    for label in set(labels) - {-1}:
        members = [neurons(u)[0] for u, k in zip(updates, labels, strict=True) if k == label]
        mean = sum(members) / len(members)
        peak[label] = max(range(OUTPUTS), key=lambda c: math.sqrt(sum(mean[c] ** 2)))
        size[label] = len(members)
    bad = {-1} | {j for i in peak for j in peak if peak[i] == peak[j] and size[i] > size[j]}
    return [k in bad for k in labels]


@pytest.mark.parametrize("seed", range(5))
def test_extreme(seed):
    """Five classes with three clients each; two attackers push class 1 and pull class 3; one stray client."""
    rng = np.random.default_rng(seed)
    updates = 0.005 * rng.normal(size=(18, 41))
    directions = rng.normal(size=(OUTPUTS, INPUTS))
    layer = updates[:, 16:36].reshape(18, OUTPUTS, INPUTS)
    for i in range(15):
        layer[i, i // 3] += 2 * directions[i // 3] / np.linalg.norm(directions[i // 3])
    for i in (15, 16):
        layer[i, 1] += 3 * directions[1] / np.linalg.norm(directions[1])
        layer[i, 3] -= 2 * directions[3] / np.linalg.norm(directions[3])
    layer[17] += 9 * rng.normal(size=(OUTPUTS, INPUTS))
    updates = updates.astype(np.float32)
    scores = make_detector("lfighter", data="extreme")(Round(updates, server=server()))
    assert scores.suspects.tolist() == extreme_by_hand(updates)
    assert scores.suspects[[15, 16, 17]].all()
    assert not scores.suspects[3:6].any()


def test_two_outputs_compare_the_whole_layer():
    updates = flips(0, outputs=2)
    expected, _ = mild_by_hand(updates, outputs=2)
    assert make_detector("lfighter")(Round(updates, server=server(2))).suspects.tolist() == expected


def test_clients_that_agree_are_not_accused():
    for data in ("mild", "extreme"):
        updates = np.tile(flips(0)[:1], (6, 1))
        scores = make_detector("lfighter", data=data)(Round(updates, server=server()))
        assert not scores.suspects.any()


def test_without_a_linear_layer():
    with pytest.raises(NeedError, match="lfighter needs a model with a linear output layer"):
        make_detector("lfighter")(Round(np.ones((4, 2)), server=Server(model=torch.nn.Conv1d(1, 1, 1))))


def test_refuses_data_that_it_does_not_know():
    with pytest.raises(ParameterError, match="'mild' or 'extreme'"):
        make_detector("lfighter", data="iid")
