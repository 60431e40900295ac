"""Detectors against slow versions written out from their formulas (loops), or scikit-learn by hand."""

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN, MeanShift, estimate_bandwidth

from fedguard import Guard, LabeledData, Round, Server, make_aggregator, make_detector
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import NeedError, ParameterError
from fedguard.detectors.deepsight import normalized_energies, output_layer
from fedguard.detectors.flame import model_cosine_distances
from fedguard.detectors.flanders import forecast
from fedguard.detectors.fldetector import hessian_product
from fedguard.detectors.rflbat import principal_components
from fedguard.geometry.clusters import gap_statistic, two_means


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def near(first, second, **tolerance):
    np.testing.assert_allclose(first, second, **{"rtol": 1e-6, "atol": 1e-9, **tolerance})


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / scale if scale else 0.0


# --- clusters


@pytest.mark.parametrize("seed", range(6))
def test_two_means_against_every_cut(seed):
    values = np.random.default_rng(seed).exponential(size=11).round(1)
    cuts = sorted(set(values))[1:]

    def inertia(cut):
        return sum(
            ((part - part.mean()) ** 2).sum() for part in (values[values < cut], values[values >= cut])
        )

    best = min(inertia(cut) for cut in cuts)
    found = two_means(values)
    assert inertia(values[found].min()) == pytest.approx(best)
    assert values[found].min() > values[~found].max()


def test_two_means_at_the_edges():
    assert two_means(np.array([1.0, np.inf, 2, np.inf])).tolist() == [False, True, False, True]
    assert not two_means(np.full(5, 3.0)).any()
    assert not two_means(np.array([7.0])).any()


@pytest.mark.parametrize(("centers", "k"), [([0], 1), ([0, 10], 2), ([0, 10, 30], 3)])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_gap_statistic_counts_clusters_and_one_can_win(centers, k, dimensions):
    rng = np.random.default_rng(3)
    points = np.concatenate([c + rng.normal(size=(20, dimensions)) for c in centers])
    draw = torch.Generator().manual_seed(0)
    assert gap_statistic(points.squeeze(), 6, 20, draw) == k


def test_the_gap_statistic_of_equal_points_is_one():
    assert gap_statistic(np.ones(8), 5, 10, torch.Generator()) == 1
    assert gap_statistic(np.ones(1), 5, 10, torch.Generator()) == 1


# --- FLAME


def test_cosine_distances_of_nearly_identical_models():
    """In float64 the textbook formula has lost all digits here; the oracle has 64 bits of mantissa."""
    start = 100 * normal(2000, seed=1)
    updates = 1e-3 * normal(6, 2000, seed=2)
    updates[4] = updates[3]
    models = start.astype(np.longdouble) + updates.astype(np.longdouble)
    unit = models / np.sqrt((models**2).sum(1, keepdims=True))
    exact = np.array([[((a - b) ** 2).sum() / 2 for b in unit] for a in unit], dtype=float)
    found = model_cosine_distances(Round(updates, global_params=start))
    near(found, exact, rtol=1e-6, atol=1e-24)
    assert found[3, 4] == 0
    assert exact.max() < 1e-9


def test_flame_labels_whom_hdbscan_on_the_models_leaves_out():
    start, updates = normal(30, seed=1), 0.1 * normal(1, 30, seed=2) + 0.02 * normal(12, 30, seed=3)
    updates[[2, 7, 9]] = -1.5 * updates[[2, 7, 9]] + 0.2 * normal(3, 30, seed=4)
    models = start + updates
    distances = np.array([[max(0.0, 1 - cosine(a, b)) for b in models] for a in models])
    np.fill_diagonal(distances, 0)
    expected = HDBSCAN(
        min_cluster_size=7, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    ).fit(distances)
    scores = make_detector("flame")(Round(updates, global_params=start))
    assert scores.suspects.tolist() == (expected.labels_ < 0).tolist()
    assert set(np.flatnonzero(scores.suspects)) >= {2, 7, 9}
    assert ((scores.values > 1) == scores.suspects).all()
    assert scores.info["median_norm"] == pytest.approx(np.median(np.linalg.norm(updates, axis=1)), rel=1e-6)


# --- FreqFed


def test_freqfed_clusters_low_frequencies_by_angle():
    d = 24
    k, t = np.arange(d)[:, None], np.arange(d)[None]
    basis = np.sqrt(2 / d) * np.cos(np.pi * k * (2 * t + 1) / (2 * d))
    basis[0] /= np.sqrt(2)
    low = normal(1, 8, seed=1) + 0.1 * normal(9, 8, seed=2)
    low[[1, 5]] = 3 * normal(2, 8, seed=3)
    updates = np.hstack([low, 5 * normal(9, 16, seed=4)]) @ basis  # high frequencies are noise
    spectrum = (updates @ basis.T)[:, :8]
    distances = np.array([[0.0 if a is b else 1 - cosine(a, b) for b in spectrum] for a in spectrum])
    labels = (
        HDBSCAN(min_cluster_size=5, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True)
        .fit(distances)
        .labels_
    )
    suspects = make_detector("freqfed", fraction=1 / 3)(updates).suspects
    assert suspects.tolist() == (labels != 0).tolist()
    assert suspects[[1, 5]].all()
    assert not suspects.all()


# --- RFLBAT


def test_principal_components_are_those_of_the_singular_value_decomposition():
    x = normal(7, 40)
    centerd = x.astype(float) - x.astype(float).mean(0)
    left, values, _ = np.linalg.svd(centerd, full_matrices=False)
    found = principal_components(Round(x).updates.centered_gram, 2)
    scale = np.sqrt(np.diag(centerd @ centerd.T).max())
    for column, expected in zip(found.T, (left * values)[:, :2].T / scale, strict=True):
        near(np.abs(column), np.abs(expected), atol=1e-6)


def test_rflbat_drops_the_far_one_first_and_then_the_group_that_is_alike():
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(12, 60)) + 0.5
    alike = 4 * rng.normal(size=60) + 0.05 * rng.normal(size=(5, 60))
    far = 500 * rng.normal(size=(1, 60))
    scores = make_detector("rflbat")(np.vstack([honest, alike, far]))
    assert scores.suspects[12:].all()
    assert scores.suspects[:12].sum() <= 3


# --- norms


def test_norm_bound_by_hand():
    x = normal(9, 5)
    norms = np.linalg.norm(x.astype(float), axis=1)
    for params, bound in (
        ({}, 2 * np.median(norms)),
        ({"factor": 0.9}, 0.9 * np.median(norms)),
        ({"bound": 2.5}, 2.5),
        ({"typical": "mean", "factor": 1.0}, np.mean(norms)),
    ):
        scores = make_detector("norm_bound", **params)(x)
        near(scores.values, norms / bound)
        assert scores.suspects.tolist() == (norms > bound).tolist()
    zero = make_detector("norm_bound")(np.array([[0.0], [0], [3]]))
    assert zero.suspects.tolist() == [False, False, True]


@pytest.mark.parametrize("center", ["mean", "median", "krum"])
def test_three_sigma_by_hand(center):
    x = normal(15, 6)
    x[4] += 40
    middle = {"mean": x.mean(0), "median": np.median(x, 0)}.get(center)
    if middle is None:
        f = (15 - 3) // 2
        sums = [sorted(((a - b) ** 2).sum() for b in x)[1 : 15 - f - 1] for a in x]
        middle = x[int(np.argmin([sum(s) for s in sums]))]
    distances = np.array([np.linalg.norm(row.astype(float) - middle) for row in x])
    limit = distances.mean() + 3 * distances.std()
    scores = make_detector("three_sigma", center=center)(x)
    near(scores.values, distances, rtol=1e-5, atol=1e-6)
    assert scores.suspects.tolist() == (distances > limit).tolist()
    assert scores.suspects[4]
    assert scores.info["limit"] == pytest.approx(limit, rel=1e-5)


# --- cross-round check


def test_cross_round_compares_each_client_with_itself():
    start, first, second = normal(9, seed=1), normal(4, 9, seed=2), normal(4, 9, seed=3)
    for on, base in (("models", start), ("updates", 0 * start)):
        detector = make_detector("cross_round", on=on, threshold=0.2)
        one = Round(first, ["a", "b", "c", "d"], global_params=start)
        scores = detector(one)
        assert scores.values.tolist() == [0] * 4
        assert not scores.suspects.any()
        detector.commit(one, scores)
        scores = detector(Round(second, ["b", "a", "new", "d"], index=1, global_params=start))
        expected = []
        for row, past in zip(second, [first[1], first[0], None, first[3]], strict=True):
            others = [] if past is None else [base + past, *([start] if on == "models" else [])]
            expected.append(1 - min((cosine(base + row, other) for other in others), default=1.0))
        near(scores.values, expected, rtol=1e-5, atol=1e-6)
        assert scores.suspects.tolist() == [value > 0.8 for value in expected]


def test_models_need_the_global_model_and_updates_do_not():
    with pytest.raises(NeedError, match="cross_round needs global_params"):
        make_detector("cross_round")(normal(3, 4))
    make_detector("cross_round", on="updates")(normal(3, 4))


# --- FLTrust


def test_fltrust_scores_the_angle_to_the_servers_update():
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    root = LabeledData(torch.randn(12, 4, generator=draw), torch.randint(0, 3, (12,), generator=draw))
    training = LocalTraining(epochs=None, steps=1, batch_size=12, lr=0.5)
    start = normal(15, seed=2)
    w, b = start[:12].reshape(3, 4).astype(float), start[12:].astype(float)
    x, y = root.inputs.numpy().astype(float), np.eye(3)[root.labels.numpy()]
    z = np.exp(x @ w.T + b)
    error = z / z.sum(1, keepdims=True) - y
    guide = -0.5 * np.concatenate([(error.T @ x / 12).ravel(), error.mean(0)])
    updates = normal(6, 15, seed=3)
    updates[1], updates[4] = 3 * guide, -guide
    server = Server(model=model, root=root, training=training)
    scores = make_detector("fltrust")(Round(updates, global_params=start, server=server))
    cosines = np.array([cosine(row, guide) for row in updates])
    near(scores.values, 1 - cosines, rtol=1e-4, atol=1e-5)
    near(scores.weights, np.maximum(cosines, 0), rtol=1e-4, atol=1e-5)
    assert scores.suspects[4]
    assert not scores.suspects[1]


# --- AFA


def afa_by_hand(x, counts, reputation, xi=2.0, step=0.5):
    x = x.astype(float)
    good, left, iteration = set(range(len(x))), {}, 0
    while True:
        iteration += 1
        aggregate = sum(reputation[i] * counts[i] * x[i] for i in good)
        similarity = {i: cosine(x[i], aggregate) for i in good}
        inside = np.array(list(similarity.values()))
        mean, median, std = inside.mean(), np.median(inside), inside.std()
        if mean < median:
            out = {i for i, s in similarity.items() if s < median - xi * std}
        else:
            out = {i for i, s in similarity.items() if s > median + xi * std}
        if not out:
            return left
        left.update(dict.fromkeys(out, iteration))
        good -= out
        xi += step


@pytest.mark.parametrize("seed", range(5))
def test_afa_removes_whom_the_loop_removes_and_the_earlier_the_worse(seed):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=20)
    x = (base + 0.4 * rng.normal(size=(16, 20))).astype(np.float32)
    x[3], x[9] = -4 * base, 0.5 * rng.normal(size=20)
    counts = rng.integers(1, 50, 16).astype(float)
    scores = make_detector("afa")(Round(x, num_examples=counts))
    left = afa_by_hand(x, counts, np.full(16, 0.5))
    assert set(np.flatnonzero(scores.suspects)) == set(left)
    assert 3 in left
    for i, j in ((i, j) for i in left for j in left if left[i] < left[j]):
        assert scores.values[i] > scores.values[j]
    assert scores.values[~scores.suspects].max() < 1 < scores.values[scores.suspects].min()


def test_afas_reputation_counts_good_and_bad_rounds():
    rng = np.random.default_rng(0)
    base = rng.normal(size=20)
    detector = make_detector("afa")
    for index in range(3):
        x = (base + 0.2 * rng.normal(size=(10, 20))).astype(np.float32)
        x[2] = -3 * base
        round_ = Round(x, index=index)
        scores = detector(round_)
        assert scores.suspects.tolist() == [i == 2 for i in range(10)]
        detector.commit(round_, scores)
    assert detector._reputation(2) == 3 / 9
    assert detector._reputation(5) == 6 / 9
    assert detector._reputation("stranger") == 1 / 2


# --- SignGuard


def test_signguard_by_length_and_by_signs():
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(12, 50))) * np.where(rng.random((12, 50)) < 0.7, 1, -1)
    x[2] *= -1  # most entries shrink
    x[5] *= 4  # too long
    x[8] *= 0.05  # too short
    features = make_detector("signguard", fraction=1.0)._features(Round(x))
    near(features, [[(row > 0).mean(), (row == 0).mean(), (row < 0).mean()] for row in x])
    shift = MeanShift(bandwidth=estimate_bandwidth(features, quantile=0.5)).fit(features).labels_
    largest = shift == np.bincount(shift).argmax()
    norms = np.linalg.norm(x, axis=1)
    for lower, upper in ((0.1, 3.0), (0.01, 100.0)):
        right = (norms >= lower * np.median(norms)) & (norms <= upper * np.median(norms))
        scores = make_detector("signguard", fraction=1.0, lower=lower, upper=upper)(x)
        assert scores.suspects.tolist() == (~(largest & right)).tolist()
        assert scores.suspects[2]
        assert scores.suspects[5] == scores.suspects[8] == (upper == 3.0) or not largest[[5, 8]].all()


@pytest.mark.parametrize("similarity", ["cosine", "distance"])
def test_signguard_with_similarity(similarity):
    x = normal(7, 30)
    feature = make_detector("signguard", similarity=similarity)._features(Round(x))[:, 3]
    if similarity == "cosine":
        expected = [np.median([cosine(a, b) for b in x]) for a in x]
    else:
        typical = [np.median([np.linalg.norm(a.astype(float) - b) for b in x]) for a in x]
        expected = np.array(typical) / np.median(typical)
    near(feature, expected, rtol=1e-5, atol=1e-6)


def test_signguard_looks_at_the_same_new_coordinates_of_everybody_each_round():
    x = np.tile(normal(1, 200), (5, 1))
    detector = make_detector("signguard")
    first, second = (detector._features(Round(x, index=index)) for index in (0, 1))
    assert (first == first[0]).all()
    assert (first != second).any()


# --- multi-metric


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_multi_metric_by_hand(keep):
    start, x = normal(25, seed=5), normal(10, 25, seed=6)
    x[3] *= 6
    metrics = []
    for row in x.astype(float):
        metrics.append([np.abs(row).sum(), np.linalg.norm(row), cosine(start, start + row)])
    metrics = np.array(metrics) / np.abs(metrics).max(0)
    sums = np.array([[sum(abs(a - b) for b in column) for a in column] for column in metrics.T]).T
    inverse = np.linalg.inv(np.cov(sums.T))
    expected = np.sqrt([row @ inverse @ row for row in sums])
    scores = make_detector("multi_metric", keep=keep)(Round(x, global_params=start))
    near(scores.values, expected, rtol=1e-5, atol=1e-6)
    kept = set(np.argsort(expected)[: round(keep * 10)])
    assert set(np.flatnonzero(~scores.suspects)) == kept


# --- FLDetector


def dense_bfgs(steps, changes):
    """The direct BFGS update of B, pair by pair, from σ I."""
    sigma = changes[-1] @ steps[-1] / (steps[-1] @ steps[-1])
    b = sigma * np.eye(steps.shape[1])
    for s, y in zip(steps, changes, strict=True):
        bs = b @ s
        b = b - np.outer(bs, bs) / (s @ bs) + np.outer(y, y) / (y @ s)
    return b


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_the_compact_representation_is_bfgs_written_out(pairs):
    rng = np.random.default_rng(pairs)
    root = rng.normal(size=(6, 6))
    hessian = root @ root.T + np.eye(6)
    steps = rng.normal(size=(pairs, 6))
    changes = steps @ hessian
    vector = rng.normal(size=6)
    found = hessian_product(torch.tensor(steps), torch.tensor(changes), torch.tensor(vector))
    near(found, dense_bfgs(steps, changes) @ vector, rtol=1e-8)
    last = hessian_product(torch.tensor(steps), torch.tensor(changes), torch.tensor(steps[-1]))
    near(last, changes[-1], rtol=1e-8)
    down = hessian_product(torch.tensor(steps), -torch.tensor(changes), torch.tensor(vector))
    near(down, -found, rtol=1e-8)


def quadratic_federation(rounds, curvature=0.3, n=5, liar=None):
    """Client i goes down ½ c ‖w − b_i‖²: u_i = −c (w − b_i). The same curvature in all directions."""
    rng = np.random.default_rng(0)
    optima, w, found = rng.normal(size=(n, 8)), rng.normal(size=8), []
    for t in range(rounds):
        updates = -curvature * (w - optima)
        if liar is not None:
            updates[liar] += rng.normal(size=8)
        found.append(Round(updates.astype(np.float32), index=t, global_params=w.astype(np.float32)))
        w = w + updates.mean(0)
    return found


def run(detector, rounds):
    scores = []
    for round_ in rounds:
        scores.append(detector(round_))
        detector.commit(round_, scores[-1])
    return scores


def test_predictions_on_a_quadratic_are_exact_in_the_right_round():
    """Misaligned by a round, or with the wrong sign, they would be off by the size of a step."""
    rounds = quadratic_federation(6)
    detector = make_detector("fldetector", window=3)
    run(detector, rounds[:5])
    path = torch.stack([*(r.global_params for r in rounds)]).double()
    moves = path.diff(dim=0)
    change = hessian_product(moves[-4:-1], moves[-4:].diff(dim=0), moves[-1])
    near(change, -0.3 * moves[-1], rtol=1e-3, atol=1e-6)
    for i in range(5):
        near(rounds[4].updates.matrix[i].double() + change, rounds[5].updates.matrix[i], rtol=1e-3, atol=1e-5)


def test_fldetector_finds_the_client_that_does_not_follow():
    scores = run(make_detector("fldetector", start=5, window=4), quadratic_federation(9, n=12, liar=2))
    for t, found in enumerate(scores):
        assert found.suspects.tolist() == [t >= 5 and i == 2 for i in range(12)], t
    assert scores[-1].values[2] > 3 * np.delete(scores[-1].values, 2).max()


@pytest.mark.parametrize("size", [1e3, 3e38])
def test_a_poisoned_history_blinds_fldetector_no_longer_than_its_window(size):
    rounds = quadratic_federation(14, n=12, liar=2)
    poison = rounds[6].updates.matrix.numpy().copy()
    poison[5] = size
    rounds[6] = rounds[6].with_updates(poison)
    scores = run(make_detector("fldetector", start=5, window=4), rounds)
    assert scores[6].suspects[5]
    assert all(not np.delete(found.suspects, [2, 5]).any() for found in scores), "no honest client is framed"
    for found in scores[12:]:  # the poison is out of the predictions and of the window
        assert found.suspects.tolist() == [i == 2 for i in range(12)]


def test_fldetector_is_silent_when_nobody_attacks():
    rng = np.random.default_rng(4)
    rounds = [
        Round(
            r.updates.matrix.numpy() + 0.01 * rng.normal(size=(12, 8)).astype(np.float32),
            index=r.index,
            global_params=r.global_params,
        )
        for r in quadratic_federation(12, n=12)
    ]
    flagged = [found.suspects.any() for found in run(make_detector("fldetector", start=3, window=4), rounds)]
    assert sum(flagged) <= 2, "k = 1 wins"


def test_who_was_away_has_no_prediction_and_is_not_judged():
    rounds = quadratic_federation(5)
    detector = make_detector("fldetector", start=0)
    run(detector, [rounds[0], rounds[1], rounds[2].take([0, 1, 2, 3])])
    scores = detector(rounds[3])
    _, now, _ = scores.memory
    assert np.isnan(now).tolist() == [False] * 4 + [True]
    assert not scores.suspects[4]


# --- FLANDERS


def test_a_matrix_autoregression_is_forecast():
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    b = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    series = [rng.normal(size=(4, 5))]
    for _ in range(12):
        series.append(a @ series[-1] @ b)
    found = forecast(torch.tensor(np.array(series[:-1])), 200, 1e-9)
    near(found, series[-1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("n", "sweeps"), [(4, 1), (20, 1), (20, 3)])
def test_sweeps_of_the_alternating_regressions_by_hand(n, sweeps):
    x = np.random.default_rng(1).normal(size=(5, 3, n))
    past, future, b = x[:-1], x[1:], np.eye(n)
    for _ in range(sweeps):
        mixed = past @ b
        right, normal_ = sum(f @ p.T for f, p in zip(future, mixed, strict=True)), sum(p @ p.T for p in mixed)
        a = right @ np.linalg.inv(normal_ + 0.1 * np.mean(np.diag(normal_)) * np.eye(3))
        right = sum((a @ p).T @ f for f, p in zip(future, past, strict=True))
        normal_ = sum((a @ p).T @ (a @ p) for p in past)
        b = np.linalg.inv(normal_ + 0.1 * np.mean(np.diag(normal_)) * np.eye(n)) @ right
    near(forecast(torch.tensor(x), sweeps, 0.1), a @ x[-1] @ b, rtol=1e-8)


def test_flanders_finds_who_breaks_with_the_past_and_keeps_n_minus_f():
    rng = np.random.default_rng(2)
    base = rng.normal(size=(8, 30))
    detector = make_detector("flanders", num_malicious=2, window=3)
    for t in range(5):
        x = base * 0.9**t + 0.01 * rng.normal(size=(8, 30))
        if t == 4:
            x[[1, 6]] = rng.normal(size=(2, 30)) * 3
        round_ = Round(x.astype(np.float32), index=t)
        scores = detector(round_)
        assert scores.suspects.sum() == (2 if t >= 2 else 0)
        detector.commit(round_, scores)
    assert set(np.flatnonzero(scores.suspects)) == {1, 6}


# --- DeepSight


def test_normalized_energies_by_hand():
    rows, bias = normal(3, 4, 5), normal(3, 4, seed=1)
    expected = []
    for i in range(3):
        energy = [abs(bias[i, c]) + sum(abs(rows[i, c, h]) for h in range(5)) for c in range(4)]
        expected.append([e**2 / sum(x**2 for x in energy) for e in energy])
    near(normalized_energies(torch.tensor(rows).double(), torch.tensor(bias).double()), expected)
    zero = normalized_energies(torch.zeros(1, 4, 5, dtype=torch.float64), None)
    assert zero.tolist() == [[0.25] * 4]


def deepsight_round(poisoned):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(9, 7), torch.nn.ReLU(), torch.nn.Linear(7, 5)
    )
    d = sum(p.numel() for p in model.parameters())
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    rng = np.random.default_rng(1)
    x = 0.02 * rng.normal(size=(9, d)) + 0.05 * rng.normal(size=d)
    for i in poisoned:
        x[i, -40:] = 0
        x[i, -40:-33], x[i, -5] = 1.0, 2.0  # one class only
    server = Server(model=model, input_shape=(1, 3, 3), num_classes=5, seed=1)
    return Round(x.astype(np.float32), global_params=start, server=server)


def test_deepsight_rejects_the_cluster_that_looks_poisoned():
    detector = make_detector("deepsight", samples=200)
    scores = detector(deepsight_round([1, 4, 8]))
    assert set(np.flatnonzero(scores.suspects)) == {1, 4, 8}
    assert scores.info["poisoned_looking"] == 3
    assert not detector(deepsight_round([])).suspects.any()


def test_the_ratio_of_outputs_is_a_mean_over_random_inputs():
    round_ = deepsight_round([])
    detector = make_detector("deepsight", samples=50, seeds=2)
    found = detector._ratios(round_)[1]
    inputs = torch.rand((50, 1, 3, 3), generator=round_.server.generator("deepsight", 0, 1))

    def outputs(vector):
        w1, b1, w2, b2 = torch.split(vector.double(), [63, 7, 35, 5])
        hidden = (inputs.flatten(1).double() @ w1.view(7, 9).T + b1).relu()
        return torch.softmax(hidden @ w2.view(5, 7).T + b2, 1)

    base = outputs(round_.global_params)
    expected = [
        (outputs(round_.global_params + update) / base).mean(0).numpy() for update in round_.updates.matrix
    ]
    near(found, expected, rtol=1e-4, atol=1e-5)


def test_the_output_layer_is_found_by_type():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.LayerNorm(2))
    assert output_layer(model, 30) == (slice(16, 24), slice(24, 26), 2)
    with pytest.raises(NeedError, match="linear output layer"):
        output_layer(torch.nn.Conv2d(1, 1, 1), 2)


# --- in a guard


def test_a_gate_that_the_cross_round_check_opens_lets_three_sigma_judge():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(12, 40)).astype(np.float32)
    from fedguard import make_policy

    guard = Guard(
        [make_detector("cross_round", on="updates"), make_detector("three_sigma")],
        make_policy("gate"),
        make_aggregator("median"),
    )
    start = np.zeros(40)
    calm = guard.process(Round(base, index=0, global_params=start))
    assert not calm.suspects.any()
    assert torch.equal(calm.aggregate, make_aggregator("mean")(base))
    attacked = base.copy()
    attacked[7] = -30 * base[7]
    outcome = guard.process(Round(attacked, index=1, global_params=start))
    assert outcome.suspects.tolist() == [i == 7 for i in range(12)]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("norm_bound", {"bound": 0.0}),
        ("norm_bound", {"factor": -1.0}),
        ("three_sigma", {"sigmas": -1.0}),
        ("cross_round", {"threshold": 2.0}),
        ("afa", {"xi": 0.0}),
        ("afa", {"delta_xi": -1.0}),
        ("afa", {"alpha": 0.0}),
        ("signguard", {"lower": 4.0}),
        ("signguard", {"fraction": 0.0}),
        ("rflbat", {"components": 0}),
        ("rflbat", {"eps2": 0.0}),
        ("freqfed", {"fraction": 0.0}),
        ("multi_metric", {"keep": 0.0}),
        ("fldetector", {"window": 0}),
        ("fldetector", {"start": -1}),
        ("flanders", {"num_malicious": -1}),
        ("flanders", {"window": 1}),
        ("flanders", {"ridge": 0.0}),
        ("flanders", {"coordinates": 0}),
        ("deepsight", {"tau": 0.0}),
        ("deepsight", {"samples": 0}),
    ],
)
def test_parameters_out_of_range_are_refused(name, params):
    with pytest.raises(ParameterError, match=f"{name}: {next(iter(params))} is"):
        make_detector(name, **params)
