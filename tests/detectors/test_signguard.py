"""SignGuard against mean shift, bandwidth and filters written out as loops."""

import math

import numpy as np
import pytest

from fedguard import Round, Server, make_detector
from fedguard.core.errors import ParameterError


def bandwidth_by_hand(points):
    """The mean distance to the ⌊n/2⌋-th nearest, oneself counted."""
    k = max(2, len(points) // 2)
    return sum(sorted(math.dist(a, b) for b in points)[k - 1] for a in points) / len(points)


def mean_shift_by_hand(points, bandwidth):
    """Clusters with a flat kernel, the densest first; −1 for who is in no kernel; and the nearest for all."""
    found = {}
    for point in points:
        center = point
        for _ in range(300):
            near = [p for p in points if math.dist(center, p) <= bandwidth]
            new = tuple(sum(column) / len(near) for column in zip(*near, strict=True))
            if math.dist(new, center) <= 1e-3 * bandwidth:
                break
            center = new
        found[new] = len(near)
    centers = []
    for center in sorted(found, key=lambda c: (found[c], c), reverse=True):
        if all(math.dist(center, better) > bandwidth for better in centers):
            centers.append(center)
    nearest = [min(range(len(centers)), key=lambda c: math.dist(point, centers[c])) for point in points]
    within = [
        c if math.dist(p, centers[c]) <= bandwidth else -1 for p, c in zip(points, nearest, strict=True)
    ]
    return within, nearest


def suspects_by_hand(x, features, orphans, lower=0.1, upper=3.0):
    within, nearest = mean_shift_by_hand(features, bandwidth_by_hand(features))
    labels = within if orphans == "suspects" else nearest
    sizes = [labels.count(c) for c in range(max(labels) + 1)]
    norms = [math.sqrt(sum(float(v) ** 2 for v in row)) for row in x]
    ordered, n = sorted(norms), len(norms)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return [
        not (label == sizes.index(max(sizes)) and lower * median <= norm <= upper * median)
        for label, norm in zip(labels, norms, strict=True)
    ]


def signs(x):
    d = len(x[0])
    return [(sum(v > 0 for v in r) / d, sum(v == 0 for v in r) / d, sum(v < 0 for v in r) / d) for r in x]


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def round_with(seed, attackers, n=15, d=120):
    """Shares of positive entries differ, the attackers' are low; one client too long, one too short."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.5, 0.8, n)
    share[attackers] = 0.15
    x = np.abs(rng.normal(size=(n, d))) * np.where(rng.random((n, d)) < share[:, None], 1, -1)
    x[rng.random((n, d)) < 0.1] = 0
    x[7] *= 4
    x[8] *= 0.05
    return x.astype(np.float32)


@pytest.mark.parametrize("orphans", ["suspects", "nearest"])
@pytest.mark.parametrize("attackers", [[], [2], [1, 3, 5, 6]])
@pytest.mark.parametrize("seed", range(4))
def test_signguard_on_all_coordinates(seed, attackers, orphans):
    x = round_with(seed, attackers)
    scores = make_detector("signguard", fraction=1.0, orphans=orphans)(x)
    assert scores.suspects.tolist() == suspects_by_hand(x, signs(x), orphans)
    assert scores.suspects[[*attackers, 7, 8]].all()
    assert ((scores.values >= 1) == scores.suspects).all()
    assert scores.info["accepted"] == (~scores.suspects).sum()


@pytest.mark.parametrize("similarity", ["cosine", "distance"])
@pytest.mark.parametrize("seed", range(3))
def test_signguard_with_similarity(seed, similarity):
    x = round_with(seed, [1, 3, 5])
    if similarity == "cosine":
        more = [np.median([cosine(a, b) for b in x]) for a in x]
    else:
        typical = [np.median([math.dist(a.astype(float), b.astype(float)) for b in x]) for a in x]
        more = [t / np.median(typical) for t in typical]
    features = [(*three, float(fourth)) for three, fourth in zip(signs(x), more, strict=True)]
    detector = make_detector("signguard", fraction=1.0, similarity=similarity)
    np.testing.assert_allclose(detector._features(Round(x)), features, atol=1e-6)
    scores = detector(x)
    assert scores.suspects.tolist() == suspects_by_hand(x, features, "suspects")


def test_similarity_tells_what_the_signs_do_not():
    """As many entries grow as with the others, but others than theirs."""
    rng = np.random.default_rng(0)
    base = np.where(rng.random(400) < 0.6, 1.0, -1.0)
    x = base * (1 + 0.1 * rng.normal(size=(12, 400)))
    x[4] = rng.permutation(base)
    plain, cosines, distances = (
        make_detector("signguard", fraction=1.0, similarity=s, orphans="nearest")(x)
        for s in ("none", "cosine", "distance")
    )
    assert not plain.suspects[4]
    assert cosines.suspects.tolist() == distances.suspects.tolist() == [i == 4 for i in range(12)]


def test_lengths_are_taken_relative_to_the_median_of_all():
    x = np.ones((9, 10)) * np.array([1, 1, 1, 1, 1, 0.11, 0.09, 2.9, 3.1])[:, None]
    assert make_detector("signguard")(x).suspects.tolist() == [i in (6, 8) for i in range(9)]
    wide = make_detector("signguard", lower=0.0, upper=4.0)(x)
    assert not wide.suspects.any()


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_clients_that_differ_are_one_cluster_if_nobody_is_far(n):
    """With half of them as neighbors, each would be its own, at distance 0."""
    x = np.ones((n, 20))
    for i in range(n):
        x[i, : 8 + i] = -1
    assert not make_detector("signguard", fraction=1.0)(x).suspects.any()


def test_a_tenth_of_the_coordinates_others_every_round_the_same_for_everybody():
    """One coordinate in 50 grows: a sample of 10 % says a multiple of 1/20, and not always the same."""
    x = -np.ones((4, 200), dtype=np.float32)
    x[:, ::5] = 1
    detector, seen = make_detector("signguard"), set()
    for index in range(12):
        server = Server(seed=3)
        features = detector._features(Round(x, index=index, server=server))
        assert (features == features[0]).all()
        assert features[0, 0] * 20 == pytest.approx(round(features[0, 0] * 20))
        again = detector._features(Round(x[::-1].copy(), index=index, server=server))
        assert (again == features).all()
        seen.add(float(features[0, 0]))
    assert len(seen) > 2


@pytest.mark.parametrize(
    "params", [{"similarity": "sign"}, {"orphans": "all"}, {"upper": math.inf}, {"fraction": 1.5}]
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(ParameterError, match="signguard: "):
        make_detector("signguard", **params)
