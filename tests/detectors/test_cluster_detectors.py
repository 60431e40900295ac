"""FLAME, FreqFed, RFLBAT and DeepSight from beginning to end, each written out by hand.

HDBSCAN is scikit-learn's in both; everything before and after it is loops over the papers' formulas.
"""

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN

from fedguard import Round, Server, make_detector
from fedguard.detectors._clusters import hdbscan_labels, largest_cluster, mean_to
from fedguard.geometry import blocks


def labels_of(distances, size):
    if not np.any(distances):
        return np.zeros(len(distances), int)
    found = HDBSCAN(
        min_cluster_size=size, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    )
    return found.fit(distances).labels_


def one_minus_cosine(rows):
    """By differences of unit vectors, in 64 bits of mantissa; a zero row is at distance 1."""
    rows = np.asarray(rows, dtype=np.longdouble)
    table = np.zeros((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            lengths = np.sqrt((a**2).sum()), np.sqrt((b**2).sum())
            if i != j:
                one = min(lengths) > 0
                table[i, j] = ((a / lengths[0] - b / lengths[1]) ** 2).sum() / 2 if one else 1.0
    return table


def agree_in_order(scores, suspects, how_far):
    """Above 1 for suspects and nobody else; within each of the two, growing with ``how_far``."""
    assert (scores.values[suspects] >= 1).all()
    assert (scores.values[~suspects] < 1).all()
    for part in (suspects, ~suspects):
        order = np.argsort(how_far[part], kind="stable")
        assert (np.diff(scores.values[part][order]) >= 0).all()
        if len(set(how_far[part].round(9))) > 1:
            assert np.ptp(scores.values[part]) > 0


def mean_distance(distances, members):
    n = len(distances)
    members = members if any(members) else [True] * n
    return np.array(
        [np.mean([distances[i, j] for j in range(n) if j != i and members[j]] or [0]) for i in range(n)]
    )


def test_clusters_belong_to_ids():
    """HDBSCAN gets the clients in the order of their ids, and its labels find their way back."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(9, 2))
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        size, ids = 2 + seed % 4, rng.permutation(9).tolist()
        order = np.argsort(ids)
        expected = labels_of(distances[np.ix_(order, order)], size)
        assert hdbscan_labels(distances, size, ids)[order].tolist() == expected.tolist()


def test_clients_that_are_all_the_same_are_one_cluster():
    for n in (1, 2, 5):
        assert hdbscan_labels(np.zeros((n, n)), max(2, n // 2 + 1), range(n)).tolist() == [0] * n


def test_the_largest_cluster():
    for labels, members in (
        ([0, 1, 1, -1, 1, 0], [1, 2, 4]),
        ([2, 2, 0, 0, 1, -1, -1, -1], [2, 3]),
        ([-1, -1], []),
    ):
        assert np.flatnonzero(largest_cluster(np.array(labels))).tolist() == members


def test_mean_distances_leave_out_oneself():
    distances = np.array([[0, 2, 4], [2, 0, 6], [4, 6, 0.0]])
    assert mean_to(distances, np.array([True, True, False])).tolist() == [2, 2, 5]
    assert mean_to(distances, np.array([False, False, False])).tolist() == [3, 4, 5], "to everybody"
    assert mean_to(distances, np.array([True, False, False])).tolist() == [0, 2, 4]


# --- FLAME


@pytest.mark.parametrize("size", [0.05, 1.0, 8.0], ids=["short", "as long as the model", "longer"])
@pytest.mark.parametrize("seed", range(3))
def test_flame(seed, size, monkeypatch):
    rng = np.random.default_rng(seed)
    n, d = 13 + seed % 2, 24
    start = rng.normal(size=d).astype(np.float32)
    x = size * (rng.normal(size=d) + 0.3 * rng.normal(size=(n, d)))
    x[[1, 4, 6]] = size * 2 * rng.normal(size=(3, d))
    x[8] *= 1.7
    x = x.astype(np.float32)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "MIN_WIDTH", 7)  # four blocks of columns
    distances = one_minus_cosine(start.astype(np.longdouble) + x)
    labels = labels_of(distances, n // 2 + 1)
    scores = make_detector("flame")(Round(x, global_params=start))
    suspects = labels < 0
    assert scores.suspects.tolist() == suspects.tolist()
    assert 0 < suspects.sum() < n
    agree_in_order(scores, suspects, mean_distance(distances, ~suspects))
    assert scores.info["accepted"] == n - suspects.sum()
    assert scores.info["median_norm"] == pytest.approx(np.median(np.linalg.norm(x, axis=1)))


def test_two_halves_are_no_majority_for_flame():
    """⌊n/2⌋ + 1: half of the clients cannot be the accepted cluster."""
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(2, 20))
    x = np.concatenate([c + 0.01 * rng.normal(size=(5, 20)) for c in centers]).astype(np.float32)
    start = rng.normal(size=20).astype(np.float32)
    expected = labels_of(one_minus_cosine(start + x.astype(float)), 6)
    scores = make_detector("flame")(Round(x, global_params=start))
    assert scores.suspects.tolist() == (expected < 0).tolist()
    assert scores.suspects[:5].all() == scores.suspects[5:].all(), "both or neither"


def test_a_model_of_zeros_is_at_a_right_angle_to_all_others():
    from fedguard.detectors.flame import model_cosine_distances

    start = np.arange(1.0, 6, dtype=np.float32)
    x = np.eye(5, dtype=np.float32)
    x[2], x[4] = -start, -start
    found = model_cosine_distances(Round(x, global_params=start))
    np.testing.assert_allclose(found[2, [0, 1, 3, 4]], 1)
    assert (np.diag(found) == 0).all()
    away = model_cosine_distances(Round(np.stack([x[0], -2 * start - x[0]]), global_params=start))
    assert away[0, 1] == pytest.approx(2)


# --- FreqFed


def dct_matrix(d):
    k, t = np.arange(d)[:, None], np.arange(d)[None]
    basis = np.sqrt(2 / d) * np.cos(np.pi * k * (2 * t + 1) / (2 * d))
    basis[0] /= np.sqrt(2)
    return basis


@pytest.mark.parametrize(
    ("d", "fraction", "count"), [(20, 0.5, 10), (21, 0.34, 7), (9, 1.0, 9), (5, 0.01, 1)]
)
def test_freqfed_keeps_the_lowest_frequencies(d, fraction, count):
    row = np.random.default_rng(d).normal(size=d).astype(np.float32)
    found = make_detector("freqfed", fraction=fraction)._low_frequencies(row)
    expected = (dct_matrix(d) @ row.astype(float))[:count]
    assert len(found) == count
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_freqfed(seed):
    rng = np.random.default_rng(seed)
    n, d = 11 + seed % 2, 30
    x = rng.normal(size=d) + 0.5 * rng.normal(size=(n, d))
    x[[0, 5]] *= -1  # backwards
    x[2] *= 40  # long, but in the others' direction
    x[7] = 2 * rng.normal(size=d)
    x = x.astype(np.float32)
    distances = one_minus_cosine((x.astype(float) @ dct_matrix(d).T)[:, :15])
    suspects = labels_of(distances, n // 2 + 1) != 0
    scores = make_detector("freqfed")(x)
    assert scores.suspects.tolist() == suspects.tolist()
    assert suspects[[0, 5]].all()
    agree_in_order(scores, suspects, mean_distance(distances, ~suspects))
    assert scores.info["accepted"] == n - suspects.sum()


def test_freqfed_does_not_see_lengths_or_overflow():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=12) + 0.2 * rng.normal(size=(7, 12))).astype(np.float32)
    x[3] = -x[3]
    plain = make_detector("freqfed")(x)
    grown = x * (np.float32(2.0) ** np.array([[0], [126], [-100], [60], [0], [-20], [3]], dtype=np.float32))
    scores = make_detector("freqfed")(grown / 8)
    assert plain.suspects[3]
    assert scores.suspects.tolist() == plain.suspects.tolist()
    np.testing.assert_allclose(scores.values, plain.values, rtol=1e-4)


def test_the_longest_updates_have_frequencies_still():
    """The lowest frequency of a constant row is √d times its entries, which float32 cannot hold here."""
    row = np.full(12, 3e38, dtype=np.float32)
    found = make_detector("freqfed")._low_frequencies(row)
    assert np.isfinite(found).all()
    assert found[0] > 0
    np.testing.assert_allclose(found[1:] / found[0], 0, atol=1e-6)


def test_equal_directions_are_one_point_for_freqfed():
    """Their distances are the rounding of a cosine, which HDBSCAN must not take for structure."""
    row = np.random.default_rng(3).normal(size=17)
    x = np.outer([1, 2, 3, 5, 7, 11, 0.1, 0.3], row).astype(np.float32)
    x = np.concatenate([x, -x[:2]])
    scores = make_detector("freqfed")(x)
    assert scores.suspects.tolist() == [False] * 8 + [True] * 2
    assert len(set(scores.values[:8])) == 1


# --- RFLBAT


def plane(points, d=40, seed=0, mean=3):
    """Updates that vary in a plane only, as given, about a common mean outside of it."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, 3)))[0].T
    return (np.asarray(points, dtype=float) @ basis[:2] + mean * basis[2]).astype(np.float32)


def rflbat_by_hand(x, groups, eps1=10.0, eps2=4.0):
    """``groups``: the cluster of every client that passes the first filter, by construction."""
    x = x.astype(float)
    centerd = x - x.mean(0)
    left, values, _ = np.linalg.svd(centerd, full_matrices=False)
    points = (left * values)[:, :2]

    def near(members, eps):
        sums = {i: sum(np.linalg.norm(points[i] - points[j]) for j in members) for i in members}
        limit = eps * np.median(list(sums.values()))
        return [i for i in members if sums[i] <= limit]

    def alike(group):
        if len(group) == 1:
            return 1.0
        unit = {i: x[i] / np.linalg.norm(x[i]) for i in group}
        return np.median([np.mean([unit[i] @ unit[j] for j in group if j != i]) for i in group])

    kept = near(range(len(x)), eps1)
    clusters = [[i for i in kept if groups[i] == g] for g in sorted({groups[i] for i in kept})]
    kept = near(min(clusters, key=alike), eps2)
    spread = [sum(np.linalg.norm(points[i] - points[j]) for j in range(len(x))) for i in range(len(x))]
    return np.array([i not in kept for i in range(len(x))]), np.array(spread)


def square(center, size, side=3):
    """Points on a grid: one group to the gap statistic, which compares with uniform points."""
    steps = np.linspace(-size, size, side)
    return np.asarray(center) + np.array([[a, b] for a in steps for b in steps])


def rounds_of_groups():
    wide, tight = square((0, 0), 1.0), square((14, 3), 0.1, 2)
    line = np.stack([np.linspace(-1, 1, 9), np.zeros(9)], 1)
    yield "one group", wide, [0] * 9
    yield "a tight group beside", np.concatenate([wide, tight]), [0] * 9 + [1] * 4
    yield "a larger tight group", np.concatenate([square((14, 3), 0.1, 4), wide]), [0] * 16 + [1] * 9
    yield "a lonely client beside", np.concatenate([wide, [[14, 3]]]), [0] * 9 + [1]
    yield "the first filter", np.concatenate([wide, [[400, 0]]]), [0] * 9 + [1]
    yield "the second filter", np.concatenate([line, [[9, 0.1]]]), [0] * 10


@pytest.mark.parametrize(
    ("name", "points", "groups"), list(rounds_of_groups()), ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.parametrize("order", [0, 1])
def test_rflbat(name, points, groups, order):
    x, groups = plane(points), np.asarray(groups)
    if order:
        moved = np.random.default_rng(order).permutation(len(x))
        x, groups = x[moved], groups[moved]
    suspects, spread = rflbat_by_hand(x, groups)
    ids = np.random.default_rng(2).permutation(len(x)).tolist()
    scores = make_detector("rflbat")(Round(x, ids))
    assert scores.suspects.tolist() == suspects.tolist(), name
    agree_in_order(scores, suspects, spread)
    assert scores.info["accepted"] == len(x) - suspects.sum()


def test_rflbat_compares_directions_and_not_distances():
    """A small group about the origin points everywhere; a wide one far away points one way: rejected."""
    points = np.concatenate([square((0, 0), 0.5), square((14, 3), 1.5)])
    x = plane(points, mean=0.3)
    suspects, _ = rflbat_by_hand(x, [0] * 9 + [1] * 9)
    assert suspects[9:].all()
    assert make_detector("rflbat")(x).suspects.tolist() == suspects.tolist()


def test_a_group_is_as_alike_as_its_median_member():
    from fedguard.detectors.rflbat import _similarity

    unit = np.array([[1, 0], [0.8, 0.6], [0.96, 0.28], [-1, 0], [0, 1]])
    group = [0, 1, 2, 3]
    means = [np.mean([unit[i] @ unit[j] for j in group if j != i]) for i in group]
    assert _similarity(unit @ unit.T, np.array(group)) == pytest.approx(np.median(means))
    assert np.median(means) != pytest.approx(np.mean(means))


@pytest.mark.parametrize(("eps1", "eps2"), [(1.2, 50.0), (50.0, 1.2), (1.6, 1.1)])
def test_both_of_rflbats_filters(eps1, eps2):
    rng = np.random.default_rng(1)
    x = plane(rng.standard_cauchy(size=(15, 2)).clip(-4, 4))
    scores = make_detector("rflbat", eps1=eps1, eps2=eps2)(x)
    found = rflbat_by_hand(x, [0] * 15, eps1, eps2)[0]
    assert scores.suspects.tolist() == found.tolist()
    assert 0 < found.sum() < 15


def test_components_beyond_the_second_count_if_asked_for():
    """One client is off in the third direction only."""
    rng = np.random.default_rng(3)
    x = np.zeros((12, 9))
    x[:, :2] = 10 * rng.normal(size=(12, 2))
    x[:, 2] = 0.01 * rng.normal(size=12)
    x[4] = 0
    x[4, 2] = 25.0
    x = x.astype(np.float32)
    two, three = (make_detector("rflbat", components=k)(x).values for k in (2, 3))
    spread = {k: rank(x, k) for k in (2, 3)}
    assert np.argsort(two % 1).tolist() == np.argsort(spread[2]).tolist()
    assert np.argsort(three % 1).tolist() == np.argsort(spread[3]).tolist()
    assert np.argsort(spread[2]).tolist() != np.argsort(spread[3]).tolist()


def rank(x, k):
    left, values, _ = np.linalg.svd(x.astype(float) - x.astype(float).mean(0), full_matrices=False)
    points = (left * values)[:, :k]
    return np.array([sum(np.linalg.norm(a - b) for b in points) for a in points])


# --- DeepSight

CLASSES, HIDDEN = 6, 5


class Net(torch.nn.Sequential):
    def __init__(self, bias):
        super().__init__(
            torch.nn.Flatten(),
            torch.nn.Linear(4, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, CLASSES, bias=bias),
        )


def forward(vector, inputs, bias):
    sizes = [4 * HIDDEN, HIDDEN, HIDDEN * CLASSES, CLASSES if bias else 0]
    w1, b1, w2, b2 = np.split(vector.astype(float), np.cumsum(sizes)[:-1])
    hidden = np.maximum(inputs @ w1.reshape(HIDDEN, 4).T + b1, 0)
    logits = hidden @ w2.reshape(CLASSES, HIDDEN).T + (b2 if bias else 0)
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def deepsight_by_hand(x, start, server, bias, tau, seeds, samples, index):
    n = len(x)
    weight = slice(4 * HIDDEN + HIDDEN, 4 * HIDDEN + HIDDEN + HIDDEN * CLASSES)
    rows = x.astype(float)[:, weight].reshape(n, CLASSES, HIDDEN)
    shift = x.astype(float)[:, weight.stop :] if bias else rows.sum(2)
    energy = np.abs(rows).sum(2) + (np.abs(shift) if bias else 0)
    neup = energy**2 / (energy**2).sum(1, keepdims=True)
    count = np.array([sum(v > max(0.01, 1 / CLASSES) * max(row) for v in row) for row in neup])
    poisoned = count <= np.median(count) / 2

    def apart(distances):
        distances = np.where(distances < 1e-9, 0, distances)
        labels = labels_of(distances, n // 2 + 1)
        return np.array(
            [[0.0 if i == j or labels[i] == labels[j] >= 0 else 1.0 for j in range(n)] for i in range(n)]
        )

    def euclidean(table):
        return np.array([[np.linalg.norm(a - b) for b in table] for a in table]) / np.abs(table).max()

    ratios = []
    for seed in range(seeds):
        draw = server.generator("deepsight", index, seed)
        inputs = torch.rand((samples, 1, 2, 2), generator=draw).flatten(1).double().numpy()
        base = forward(start, inputs, bias)
        table = np.array([(forward(start + row, inputs, bias) / base).mean(0) for row in x])
        ratios.append(apart(euclidean(table)))
    parts = [apart(one_minus_cosine(shift)), apart(euclidean(neup)), np.mean(ratios, axis=0)]
    labels = labels_of(without_ties(np.mean(parts, axis=0)), 2)
    suspects = np.array(
        [poisoned[i] if labels[i] < 0 else poisoned[labels == labels[i]].mean() >= tau for i in range(n)]
    )
    return suspects, poisoned, CLASSES - count, (parts, labels)


def without_ties(distances):
    """Of equal distances, that of the first pair by id is the shorter; NumPy leaves it open."""
    apart, place = distances.copy(), 0
    for i in range(len(distances)):
        for j in range(i + 1, len(distances)):
            apart[i, j] = apart[j, i] = distances[i, j] * (1 + 1e-12 * place)
            place += 1
    return apart


def deepsight_case(seed, bias):
    rng = np.random.default_rng(seed)
    model = Net(bias)
    d = sum(p.numel() for p in model.parameters())
    n = int(rng.integers(8, 15))
    x = 0.3 * rng.normal(size=d) + 0.15 * rng.normal(size=(n, d))
    some = rng.permutation(n)[: rng.integers(2, n // 2 + 1)]
    tail = HIDDEN * CLASSES + (CLASSES if bias else 0)
    for k, i in enumerate(some):  # trained on few classes; how few differs
        keep = rng.permutation(CLASSES)[: 1 + k % 3] if rng.random() < 0.5 else np.arange(1 + k % 2)
        mask = np.zeros(CLASSES)
        mask[keep] = 3
        x[i, d - tail : d - tail + HIDDEN * CLASSES] *= np.repeat(0.05 + mask, HIDDEN)
        if bias:
            x[i, d - CLASSES :] *= 0.05 + mask
    start = (0.5 * rng.normal(size=d)).astype(np.float32)
    server = Server(model=model, input_shape=(1, 2, 2), num_classes=CLASSES, seed=seed)
    return x.astype(np.float32), start, server


@pytest.mark.parametrize("bias", [True, False], ids=["with bias", "without"])
@pytest.mark.parametrize("seed", range(24))
def test_deepsight(seed, bias):
    x, start, server = deepsight_case(seed, bias)
    tau, seeds = (1 / 3, 0.5)[seed % 2], 1 + seed % 3
    detector = make_detector("deepsight", tau=tau, seeds=seeds, samples=30)
    scores = detector(Round(x, index=seed, global_params=start, server=server))
    suspects, poisoned, fewest, _ = deepsight_by_hand(x, start, server, bias, tau, seeds, 30, seed)
    assert scores.suspects.tolist() == suspects.tolist()
    assert scores.info["poisoned_looking"] == poisoned.sum()
    agree_in_order(scores, suspects, fewest)


def test_an_outlier_is_in_a_cluster_with_itself_only():
    from fedguard.detectors.deepsight import _apart

    found = _apart(np.array([-1, 0, -1, 0, 1]))
    expected = 1 - np.eye(5)
    expected[1, 3] = expected[3, 1] = 0
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(("tau", "rejected"), [(0.3, True), (1 / 3, True), (0.34, False), (0.5, False)])
def test_a_cluster_is_rejected_at_a_share_of_tau(tau, rejected, monkeypatch):
    """One cluster of six of which two look poisoned: the share is a third."""
    from fedguard.detectors import deepsight

    x, start, server = deepsight_case(0, bias=True)
    x = np.repeat(x[:1], 6, axis=0)
    tail = slice(x.shape[1] - CLASSES * (HIDDEN + 1), x.shape[1])
    x[:, tail] = 1.0
    x[4:, tail] = 1e-3
    x[4:, -1] = 5.0  # one neuron only
    monkeypatch.setattr(deepsight, "hdbscan_labels", lambda *_, **__: np.zeros(6, int))
    detector = make_detector("deepsight", tau=tau, samples=5, seeds=1)
    scores = detector(Round(x, global_params=start, server=server))
    assert scores.info["poisoned_looking"] == 2
    assert scores.suspects.tolist() == [rejected] * 6


def test_the_cases_of_deepsight_are_of_every_kind():
    """Clusters are rejected with members that look well, and accepted with some that look poisoned."""
    seen = set()
    for seed in range(24):
        for bias in (True, False):
            tau = (1 / 3, 0.5)[seed % 2]
            x, start, server = deepsight_case(seed, bias)
            suspects, poisoned, _, (parts, labels) = deepsight_by_hand(
                x, start, server, bias, tau, 1 + seed % 3, 30, seed
            )
            seen |= {"rejected along"} if (suspects & ~poisoned).any() else set()
            seen |= {"accepted along"} if (~suspects & poisoned).any() else set()
            seen |= {"outliers"} if (labels < 0).any() else set()
            seen |= {"clusters"} if labels.max() > 0 else set()
            seen |= {"parts differ"} if not (parts[0] == parts[1]).all() else set()
    assert seen == {"rejected along", "accepted along", "outliers", "clusters", "parts differ"}
