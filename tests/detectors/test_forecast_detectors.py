"""FLDetector and FLANDERS over several rounds with clients that come and go, each written out by hand."""

import itertools

import numpy as np
import pytest
import torch

from fedguard import Guard, Round, Server, make_detector

D = 12


def present(rng, n):
    """Who takes part: most of the clients, in any order."""
    return rng.permutation(n)[: int(rng.integers(max(3, n - 2), n + 1))]


# --- FLDetector


def bfgs_product(s, y, v):
    """B v with B from the compact representation (Byrd et al. 1994), entry by entry."""
    k = len(s)
    sigma = (s[-1] @ y[-1]) / (s[-1] @ s[-1])
    lower = np.array([[s[i] @ y[j] if i > j else 0.0 for j in range(k)] for i in range(k)])
    middle = np.zeros((2 * k, 2 * k))
    for i in range(k):
        for j in range(k):
            middle[i, j] = sigma * (s[i] @ s[j])
            middle[i, k + j] = lower[i, j]
            middle[k + i, j] = lower[j, i]
        middle[k + i, k + i] = -(s[i] @ y[i])
    right = np.array([sigma * (row @ v) for row in s] + [row @ v for row in y])
    weights = np.linalg.solve(middle, right)
    return (
        sigma * v
        - sum(w * sigma * row for w, row in zip(weights[:k], s, strict=True))
        - sum(w * row for w, row in zip(weights[k:], y, strict=True))
    )


class FLDetectorByHand:
    def __init__(self, window):
        self.window, self.models, self.last, self.past = window, [], {}, {}

    def round(self, x, ids, model):
        self.models.append(model)
        distances = {}
        if len(self.models) >= 3:
            path = self.models[-(self.window + 2) :]
            applied = [b - a for a, b in itertools.pairwise(path)]  # g_k = w_{k+1} − w_k
            steps = [path[k + 1] - path[k] for k in range(len(path) - 2)]
            changes = [b - a for a, b in itertools.pairwise(applied)]
            change = bfgs_product(steps, changes, path[-1] - path[-2])
            for row, client in zip(x, ids, strict=True):
                if client in self.last:
                    distances[client] = np.linalg.norm(self.last[client] + change - row)
            total = sum(distances.values())
            for client, value in distances.items():
                self.past.setdefault(client, []).append(value / total)
        self.last = dict(zip(ids, x, strict=True))
        values = {c: np.mean(self.past[c][-self.window :]) for c in ids if c in self.past}
        rest = np.median(list(values.values())) if values else 0.0
        return [values.get(client, rest) for client in ids], [client in values for client in ids]


@pytest.mark.thin(3)
@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_fldetector(seed, window):
    rng = np.random.default_rng((seed, window))
    hand, detector = FLDetectorByHand(window), make_detector("fldetector", window=window, start=5)
    model, curvature = rng.normal(size=D), rng.uniform(0.1, 0.5, size=D)
    for index in range(9):
        ids = present(rng, 8)
        model = model.astype(np.float32).astype(float)
        x = -curvature * (model - rng.normal(size=(len(ids), D))) + 0.05 * rng.normal(size=(len(ids), D))
        x[ids == 6] += rng.normal(size=D)  # does not follow from anything
        x = x.astype(np.float32)
        part = Round(x, ids.tolist(), index=index, global_params=model)
        scores = detector(part)
        values, judged = hand.round(x.astype(float), ids.tolist(), model)
        np.testing.assert_allclose(scores.values, values, rtol=1e-5, atol=1e-9, err_msg=f"round {index}")
        if index < 5:
            assert not scores.suspects.any()
        assert not scores.suspects[~np.array(judged)].any()
        if scores.suspects.any():  # the higher of two clusters
            assert scores.values[scores.suspects].min() > scores.values[~scores.suspects].max()
            assert scores.info["clusters"] > 1
        else:
            assert scores.info["clusters"] == 1
        detector.commit(part, scores)
        model = model + x.mean(0)


def fldetector_state(window, rounds=8):
    """A federation in which client 3 is far off in every round."""
    rng = np.random.default_rng(0)
    detector, model, found = make_detector("fldetector", window=window, start=4), rng.normal(size=D), []
    for index in range(rounds):
        x = 0.1 * rng.normal(size=(9, D)) - 0.2 * model
        x[3] += 5 * rng.normal(size=D)
        part = Round(x, index=index, global_params=model)
        scores = detector(part)
        detector.commit(part, scores)
        found.append(scores.suspects)
        model = model + np.delete(x, 3, 0).mean(0)
    return detector, found


def test_fldetector_judges_from_round_start_on():
    _, found = fldetector_state(window=3)
    assert [suspects.tolist() for suspects in found] == [
        [t >= 4 and i == 3 for i in range(9)] for t in range(8)
    ]


@pytest.mark.parametrize("window", [1, 3])
def test_fldetector_keeps_a_window(window):
    state = fldetector_state(window)[0].state_dict()
    assert len(state["models"]) == window + 2
    assert {len(values) for _, values in state["distances"]} == {window}
    assert len(state["last"]) == 9


def test_a_newcomer_is_no_suspect_of_fldetector_however_high_the_median():
    """Five of eight lie, so that the median is that of a liar, and the newcomer gets it."""
    rng = np.random.default_rng(0)
    detector, model = make_detector("fldetector", window=3, start=0), rng.normal(size=D)
    for index in range(7):
        x = 0.01 * rng.normal(size=(8, D)) - 0.2 * model
        x[:5] += 5 * rng.normal(size=(5, D))
        ids = [*range(8)] if index < 6 else ["new", *range(1, 8)]
        part = Round(x, ids, index=index, global_params=model)
        scores = detector(part)
        detector.commit(part, scores)
        model = model + x[5:].mean(0)
    assert scores.suspects.tolist() == [False] + [True] * 4 + [False] * 3
    assert scores.values[0] == pytest.approx(np.median(scores.values[1:]))
    assert scores.values[0] > 2 * scores.values[5:].max()


def test_a_restart_asks_forgets_and_warms_up_again():
    """By hand: detected in round 4 (its ``start``), then silent for four rounds, found again in round 9."""
    rng = np.random.default_rng(0)
    guard = Guard(make_detector("fldetector", window=3, start=4, restart=True), "exclude")
    first = model = rng.normal(size=D)
    asked = []
    for index in range(11):
        x = 0.1 * rng.normal(size=(9, D)) - 0.2 * model
        x[3] += 5 * rng.normal(size=D)
        outcome = guard.process(Round(x, index=index, global_params=model))
        assert outcome.restart == ("restart from the initial model" in outcome.note) == outcome.suspects.any()
        asked += [index] * outcome.restart
        model = first if outcome.restart else model + np.delete(x, 3, 0).mean(0)
    assert asked == [4, 9]


@pytest.mark.parametrize(("restart", "policy"), [(False, "exclude"), (True, "observe")])
def test_no_restart_unless_asked_and_unless_somebody_is_excluded(restart, policy):
    rng, model = np.random.default_rng(0), np.ones(D)
    guard = Guard(make_detector("fldetector", window=3, start=4, restart=restart), policy)
    for index in range(6):
        x = 0.1 * rng.normal(size=(9, D)) - 0.2 * model
        x[3] += 5 * rng.normal(size=D)
        outcome = guard.process(Round(x, index=index, global_params=model))
        assert (outcome.restart, outcome.note) == (False, "")
        model = model + np.delete(x, 3, 0).mean(0)
    assert guard.detectors["fldetector"].state_dict()["since"] == 0
    assert outcome.info["fldetector"]["clusters"] > 1


# --- FLANDERS


def ridge(pairs, penalty):
    """Σ f pᵀ (Σ p pᵀ + λ · mean diagonal · I)⁻¹ of pairs (f, p)."""
    right = sum(f @ p.T for f, p in pairs)
    normal = sum(p @ p.T for _, p in pairs)
    return right @ np.linalg.inv(normal + penalty * np.mean(np.diag(normal)) * np.eye(len(normal)))


def flanders_by_hand(past, now, iterations, penalty):
    """‖x_i − x̂_i‖² of every client; ``past`` is a list of (coordinates, clients), the oldest first."""
    scale = max(np.abs(x).max() for x in past)
    past, now = [x / scale for x in past], now / scale
    b = np.eye(now.shape[1])
    for _ in range(iterations):
        a = ridge([(f, p @ b) for p, f in itertools.pairwise(past)], penalty)
        b = ridge([(f.T, (a @ p).T) for p, f in itertools.pairwise(past)], penalty).T
    forecast = a @ past[-1] @ b
    return ((now - forecast) ** 2).sum(0)


@pytest.mark.parametrize(
    ("window", "iterations", "penalty", "f"), [(2, 1, 0.05, 2), (3, 4, 1e-2, 3), (4, 20, 1e-3, None)]
)
@pytest.mark.parametrize("seed", range(3))
def test_flanders(seed, window, iterations, penalty, f):
    rng = np.random.default_rng(seed)
    detector = make_detector(
        "flanders", num_malicious=f, window=window, iterations=iterations, ridge=penalty, coordinates=99
    )
    assert detector.min_clients() == (f or 0) + 1
    past, base = [], rng.normal(size=(8, D))
    judged_rounds = 0
    for index in range(8):
        ids = present(rng, 8).tolist()
        x = (30 * (0.8**index * base[ids] + 0.1 * rng.normal(size=(len(ids), D)))).astype(np.float32)
        scores = detector(Round(x, ids, index=index))
        known = [c for c in sorted(ids) if past and all(c in rows for rows in past)]
        if len(past) < 2 or not known:
            assert not scores.values.any()
            assert not scores.suspects.any()
        else:
            judged_rounds += 1
            rows = dict(zip(ids, x.astype(float), strict=True))
            series = [np.stack([r[c] for c in known], 1) for r in past]
            exact = flanders_by_hand(series, np.stack([rows[c] for c in known], 1), iterations, penalty)
            by_client = dict(zip(known, exact, strict=True))
            middle = np.median(exact)
            values = [by_client.get(c, middle) for c in ids]
            np.testing.assert_allclose(scores.values, values, rtol=1e-5, atol=1e-9)
            count = (len(ids) - 1) // 2 if f is None else f
            worst = sorted(ids, key=lambda c: (by_client.get(c, middle), c))[len(ids) - count :]
            assert {c for c, s in zip(ids, scores.suspects, strict=True) if s} == set(worst) & set(known)
        detector.commit(Round(x, ids, index=index), scores)
        past = [*past, dict(zip(ids, x.astype(float), strict=True))][-window:]
        assert len(detector.state_dict()["past"]) == len(past)
    assert judged_rounds >= 5


def test_a_stranger_with_the_median_score_is_no_suspect_of_flanders():
    rng = np.random.default_rng(0)
    detector = make_detector("flanders", num_malicious=3, window=2)
    base = rng.normal(size=(6, D))
    for index in range(2):
        part = Round(base + 0.01 * rng.normal(size=(6, D)), index=index)
        detector.commit(part, detector(part))
    x = base + 0.01 * rng.normal(size=(6, D))
    x[[0, 1]] *= 9
    scores = detector(Round(x, [0, 1, 2, 3, 4, "new"], index=2))
    assert scores.suspects.sum() == 2, "the third of the worst would be the stranger, by its id"
    assert not scores.suspects[5]


def test_flanders_samples_the_same_coordinates_in_every_round_and_not_the_first():
    server = Server(seed=4)
    detector = make_detector("flanders", coordinates=5)
    rounds = [Round(np.tile(np.arange(40.0), (3, 1)), index=index, server=server) for index in range(3)]
    seen = [detector._sample(part)[0].tolist() for part in rounds]
    draw = server.generator("flanders")
    assert seen[0] == sorted(torch.randperm(40, generator=draw)[:5].tolist())
    assert seen[0] == seen[1] == seen[2] != [0, 1, 2, 3, 4]
    other = detector._sample(Round(np.tile(np.arange(40.0), (3, 1)), server=Server(seed=5)))[0].tolist()
    assert other != seen[0]
