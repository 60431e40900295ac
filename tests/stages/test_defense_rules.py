"""Aggregators and stages against slow versions written out from their formulas (float64, loops)."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import siegelslopes

from fedguard import (
    Detector,
    Guard,
    LabeledData,
    Round,
    Scores,
    Server,
    make_aggregator,
    make_detector,
    make_stage,
)
from fedguard.aggregators._trust import root_update, trust_scores
from fedguard.aggregators.bulyan import bulyan_selection
from fedguard.aggregators.mean import Mean
from fedguard.contracts.card import Card
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.stage import Staged
from fedguard.core.errors import ParameterError, TooFewClientsError

RNG = np.random.default_rng


def updates(n, d, seed=0):
    return RNG(seed).standard_t(3, size=(n, d)).astype(np.float32)


def close(result, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(result), expected, rtol=rtol, atol=atol)


# --- Bulyan


def bulyan_by_hand(x, f):
    x = x.astype(float)
    left, chosen = list(range(len(x))), []
    while len(chosen) < len(x) - 2 * f:
        scores = []
        for i in left:
            distances = sorted(((x[i] - x[j]) ** 2).sum() for j in left if j != i)
            count = max(1, len(left) - f - 2)
            total = sum(((x[i] - x[j]) ** 2).sum() for j in range(len(x)))
            scores.append((sum(distances[:count]), total))
        best = min(range(len(left)), key=lambda k: (round(scores[k][0], 9), scores[k][1]))
        chosen.append(left.pop(best))
    beta = len(chosen) - 2 * f
    result = []
    for column in x[chosen].T:
        median = np.median(column)
        result.append(np.mean(sorted(column, key=lambda v: (abs(v - median), v))[:beta]))
    return chosen, result


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (12, 2), (15, 3), (5, 0), (3, 0)])
def test_bulyan(n, f):
    x = updates(n, 9, seed=n)
    chosen, expected = bulyan_by_hand(x, f)
    assert bulyan_selection(Round(x).updates.sq_distances, f) == chosen
    assert len(set(chosen)) == n - 2 * f, "distinct clients"
    close(make_aggregator("bulyan", num_malicious=f)(x), expected)


@pytest.mark.parametrize("seed", range(30))
def test_bulyan_takes_the_closest_values_where_coordinates_tie(seed):
    """The closest values as a set: of equally close ones any, so the mean is between two by hand."""
    n, f = [(7, 1), (8, 1), (11, 2), (12, 2)][seed % 4]
    x = RNG(seed).integers(-2, 3, size=(n, 200)).astype(np.float32)
    chosen = bulyan_selection(Round(x).updates.sq_distances, f)
    found = make_aggregator("bulyan", num_malicious=f)(x).numpy()
    for column, value in zip(x[chosen].T, found, strict=True):
        distances = np.sort(np.abs(column - np.median(column)))[: len(chosen) - 2 * f]
        inside = column[np.abs(column - np.median(column)) < distances[-1]]
        edge = np.sort(column[np.abs(column - np.median(column)) == distances[-1]])
        free = len(distances) - len(inside)
        low, high = (np.mean([*inside, *part]) for part in (edge[:free], edge[len(edge) - free :]))
        assert low - 1e-6 <= value <= high + 1e-6


def test_bulyan_by_hand_with_two_identical_colluders():
    x = np.array([[-1], [-1], [0], [0.5], [1], [30], [-30]], dtype=np.float32)
    assert float(make_aggregator("bulyan", num_malicious=1)(x)) == pytest.approx(-1 / 6)


def test_bulyan_needs_4f_plus_3():
    with pytest.raises(TooFewClientsError, match="at least 7"):
        make_aggregator("bulyan", num_malicious=1)(updates(6, 3))


# --- geometric median, with sample counts


def test_rfa_takes_three_steps_from_the_weighted_mean():
    x, counts, trust = updates(6, 4), np.array([1.0, 5, 2, 9, 3, 3]), np.array([1, 0.5, 1, 1, 0, 1])
    a = counts * trust
    v = (a[:, None] * x.astype(float)).sum(0) / a.sum()
    for _ in range(3):
        b = [a_i / max(1e-6, np.linalg.norm(x_i - v)) for a_i, x_i in zip(a, x.astype(float), strict=True)]
        v = sum(b_i * x_i for b_i, x_i in zip(b, x.astype(float), strict=True)) / sum(b)
    close(make_aggregator("rfa")(Round(x, num_examples=counts), trust), v)


# --- centerd clipping


def test_centerd_clipping_from_the_last_aggregate():
    x, trust = updates(5, 6), np.array([1, 0.5, 1, 0.25, 1])
    v = np.zeros(6)
    rule = make_aggregator("centered_clipping", tau=1.5, iterations=3)
    for index in range(3):
        round_ = Round(x + index, index=index)
        for _ in range(3):
            moves = []
            for row in (x + index).astype(float):
                difference = row - v
                moves.append(difference * min(1, 1.5 / np.linalg.norm(difference)))
            v = v + sum(t * m for t, m in zip(trust, moves, strict=True)) / trust.sum()
        update = rule(round_, trust)
        close(update, v)
        close(rule(round_, trust), v)  # nothing is remembered before the commit
        rule.commit(round_, update)


def test_a_radius_far_above_all_differences_is_the_mean():
    x = updates(5, 6)
    close(make_aggregator("centered_clipping", tau=1e6)(x), x.mean(0))


# --- SLSGD, robust learning rate, FedNova


def test_slsgd_goes_a_part_of_the_way():
    x = updates(7, 5)
    trimmed = np.sort(x, 0)[2:5].mean(0)
    close(make_aggregator("slsgd", num_malicious=2, alpha=0.3)(x), 0.3 * trimmed)
    close(make_aggregator("slsgd", num_malicious=2)(x), trimmed)


@pytest.mark.parametrize("threshold", [0, 2, 3, 99])
def test_the_learning_rate_is_reversed_where_signs_disagree(threshold):
    x, counts = updates(6, 40), np.array([1.0, 2, 3, 4, 5, 6])
    x[:, 7] = 0
    expected = []
    for column in x.T.astype(float):
        mean = (counts * column).sum() / counts.sum()
        expected.append(mean if abs(np.sign(column).sum()) >= threshold else -mean)
    rule = make_aggregator("robust_learning_rate", threshold=threshold)
    close(rule(Round(x, num_examples=counts)), expected)


def test_fednova_by_hand_and_fedavg_for_equal_steps():
    x, counts, steps = updates(4, 5), np.array([3.0, 1, 4, 2]), np.array([1.0, 7, 2, 5])
    trust = np.array([1, 1, 0.5, 0])
    p = trust * counts / (trust * counts).sum()
    tau = sum(p_i * t for p_i, t in zip(p, steps, strict=True))
    expected = tau * sum(p_i * row / t for p_i, row, t in zip(p, x.astype(float), steps, strict=True))
    rule = make_aggregator("fednova")
    close(rule(Round(x, num_examples=counts, num_steps=steps), trust), expected)
    equal = Round(x, num_examples=counts, num_steps=np.full(4, 9.0))
    close(rule(equal, trust), make_aggregator("mean")(equal, trust))


def test_an_absurd_number_of_steps_is_its_senders_problem():
    round_ = Round(updates(3, 4), num_steps=[1, 0, np.nan])
    assert [p is None for p in round_.problems] == [True, False, False]
    assert "step count 0 is not a positive" in round_.problems[1]


# --- residual-based reweighting


def irls_by_hand(x, scale=2.0, threshold=0.1):
    x = x.astype(float)
    n, d = x.shape
    confidence, line = np.zeros((n, d)), np.zeros((n, d))
    for j in range(d):
        order = np.argsort(x[:, j], kind="stable")
        rank = np.empty(n)
        rank[order] = np.arange(n)
        fit = siegelslopes(x[:, j], rank)
        intercept = np.median(
            [
                np.median(
                    [
                        (rank[k] * x[i, j] - rank[i] * x[k, j]) / (rank[k] - rank[i])
                        for k in range(n)
                        if k != i
                    ]
                )
                for i in range(n)
            ]
        )
        line[:, j] = intercept + fit.slope * rank
        residual = x[:, j] - line[:, j]
        spread = 1.4826 * (1 + 5 / (n - 1)) * np.median(np.abs(residual))
        hat = np.column_stack([np.ones(n), rank])
        leverage = np.diag(hat @ np.linalg.inv(hat.T @ hat) @ hat.T)
        for i in range(n):
            e = abs(residual[i]) / spread
            root = np.sqrt(1 - leverage[i])
            confidence[i, j] = root / e * min(e / root, scale * np.sqrt(2 / n)) if e > 0 else 1
    weight = (confidence * confidence.std(0)).sum(1)
    repaired = np.where(confidence >= threshold, x, line)
    return (weight[:, None] * repaired).sum(0) / weight.sum()


@pytest.mark.parametrize("n", [5, 9, 10])
def test_irls_with_scipy_repeated_median(n):
    x = updates(n, 7, seed=n)
    x[0] *= 30
    close(make_aggregator("irls")(x), irls_by_hand(x), rtol=1e-4, atol=1e-5)
    close(make_aggregator("irls", threshold=0.5)(x), irls_by_hand(x, threshold=0.5), rtol=1e-4, atol=1e-5)


def test_irls_keeps_an_outlier_out():
    x = RNG(0).normal(1, 0.1, (12, 50)).astype(np.float32)
    x[3] = 1000
    assert abs(make_aggregator("irls")(x).mean().item() - 1) < 0.1


# --- FLTrust


def linear_server():
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    root = LabeledData(torch.randn(8, 3, generator=draw), torch.randint(0, 2, (8,), generator=draw))
    return Server(model=model, root=root, training=LocalTraining(epochs=None, steps=3, batch_size=8, lr=0.5))


def root_by_hand(server, start):
    """Three full-batch steps of softmax regression."""
    w, b = start[:6].reshape(2, 3).astype(float), start[6:].astype(float)
    x, y = server.root.inputs.numpy().astype(float), np.eye(2)[server.root.labels.numpy()]
    for _ in range(3):
        z = np.exp(x @ w.T + b)
        error = z / z.sum(1, keepdims=True) - y
        w, b = w - 0.5 * error.T @ x / 8, b - 0.5 * error.mean(0)
    return np.concatenate([w.ravel(), b]) - start


def test_the_servers_own_update_and_the_trusted_mean():
    server, start = linear_server(), RNG(1).normal(size=8).astype(np.float32)
    x = updates(6, 8, seed=3)
    x[2] = 0
    before = [p.clone() for p in server.model.parameters()]
    round_ = Round(x, global_params=start, server=server)
    g = root_by_hand(server, start)
    close(root_update(round_), g, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, server.model.parameters(), strict=True))
    trust = np.array([1, 1, 1, 0.5, 1, 1])
    total, share = np.zeros(8), 0.0
    for row, a in zip(x.astype(float), trust, strict=True):
        norm = np.linalg.norm(row)
        score = a * max(0, row @ g / (norm * np.linalg.norm(g))) if norm else 0
        total += score * row * np.linalg.norm(g) / norm if norm else 0
        share += score
    close(make_aggregator("fltrust")(round_, trust), total / share, rtol=1e-4)
    cosines, length = trust_scores(round_.updates, torch.tensor(g, dtype=torch.float32))
    assert cosines[2] == 0
    assert length == pytest.approx(np.linalg.norm(g))


def test_nobody_trusted_keeps_the_global_model():
    """Trap: falling back to equal weights."""
    server, start = linear_server(), np.zeros(8, dtype=np.float32)
    g = root_by_hand(server, start).astype(np.float32)
    against = np.stack([-g, -2 * g])
    assert not make_aggregator("fltrust")(Round(against, global_params=start, server=server)).any()


# --- stages


def staged(stage, x, aggregator="mean", index=0, weights=None, rounds=None, **round_):
    server = Server(seed=5, rounds=rounds)
    guard = Guard(aggregator=make_aggregator(aggregator), stages=stage)
    return guard.process(Round(x, index=index, server=server, **round_)).aggregate


def test_clipping_to_a_bound_and_to_the_median_norm():
    x = updates(5, 8)
    norms = np.linalg.norm(x.astype(float), axis=1)
    for stage, bound in (
        (make_stage("norm_clipping", bound=2.0), 2.0),
        (make_stage("norm_clipping"), np.median(norms)),
        (make_stage("norm_clipping", typical="mean"), np.mean(norms)),
        (make_stage("weak_dp", noise=0.0, bound=2.0), 2.0),
        (make_stage("clip_and_noise", noise=0.0), np.median(norms)),
    ):
        expected = np.mean([row * min(1, bound / norm) for row, norm in zip(x, norms, strict=True)], axis=0)
        close(staged(stage, x), expected)


class Odd(Detector):
    """Suspects whoever moves the second coordinate."""

    card = Card("odd", "for this test", "FedGuard")

    def score(self, round):
        moved = round.updates.matrix[:, 1].numpy()
        return Scores(np.abs(moved).astype(float), moved != 0)


#: Norms 1, 2 and 3 are admitted (median 2), 0.2 and 0.25 are not (of all five: 1); a NaN counts nowhere.
SHORT_ONES_OUT = np.array([[1, 0], [2, 0], [3, 0], [0, 0.2], [0, 0.25], [np.nan, 0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("params", "middle"),
    [({}, 1.0), ({"bound": "all"}, 1.0), ({"bound": "admitted"}, 2.0)],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_flame_takes_its_bound_over_everybody(params, middle, reverse):
    """FLAME, Algorithm 1: S is the median of all norms, then the admitted updates are clipped to it."""
    x = SHORT_ONES_OUT[::-1] if reverse else SHORT_ONES_OUT
    outcome = Guard(Odd(), stages=make_stage("clip_and_noise", noise=0.0, **params)).process(Round(x.copy()))
    assert (outcome.weights > 0).sum() == 3
    close(outcome.aggregate, [(1 + min(2, middle) + min(3, middle)) / 3, 0])


def test_flames_noise_goes_by_the_same_bound():
    x = np.pad(SHORT_ONES_OUT, ((0, 0), (0, 4000)))
    by_bound = []
    for bound in ("all", "admitted"):
        guard = Guard(Odd(), stages=make_stage("clip_and_noise", noise=0.1, bound=bound))
        by_bound.append(float(guard.process(Round(x, server=Server(seed=1))).aggregate[2:].std()))
    assert by_bound[0] == pytest.approx(0.1 * 1.0, rel=0.05)
    assert by_bound[1] == pytest.approx(0.1 * 2.0, rel=0.05)


def test_what_everybody_sent_stays_out_of_leave_one_out():
    """Were S still that of all, a round without a client would not be as if it had never taken part."""
    stage = make_stage("clip_and_noise", noise=0.0)
    start, x = np.zeros(8, dtype=np.float32), updates(6, 8)
    server = dataclasses.replace(linear_server(), validation=linear_server().root)
    alone = make_detector("lfr")(
        Round(x, global_params=start, server=server).with_server(aggregator=Staged([stage], Mean()))
    )
    outcome = Guard(make_detector("lfr"), stages=stage).process(Round(x, global_params=start, server=server))
    assert outcome.scores.tolist() == alone.values.tolist()


def noise_of(stage, x, **round_):
    return [staged(stage, x, index=index, **round_) for index in range(2)]


@pytest.mark.parametrize(
    ("name", "params", "std"),
    [
        ("weak_dp", {"noise": 0.3}, 0.3),
        ("clip_and_noise", {"noise": 0.1}, None),
        ("crfl", {"noise": 0.2}, 0.2),
    ],
)
def test_noise_has_the_right_size_and_differs_between_rounds_only(name, params, std):
    x = np.tile(updates(1, 4000), (4, 1))
    norm = float(np.linalg.norm(x[0].astype(float)))
    more = {"bound": 1e9} if name == "crfl" else {}
    given = {"global_params": np.zeros(4000)} if name == "crfl" else {}
    first, second = noise_of(make_stage(name, **params, **more), x, **given)
    again, _ = noise_of(make_stage(name, **params, **more), x, **given)
    assert torch.equal(first, again)
    noise = (first - torch.tensor(x[0])).numpy()
    assert noise.std() == pytest.approx(0.1 * norm if std is None else std, rel=0.05)
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(4000)
    assert abs(np.corrcoef(noise, (second - torch.tensor(x[0])).numpy())[0, 1]) < 0.1


@pytest.mark.parametrize("bound", [1.0, 3.0, 100.0])
def test_crfl_clips_the_model_not_the_update(bound):
    x, start = updates(3, 8), RNG(4).normal(size=8).astype(np.float32)
    model = start.astype(float) + x.astype(float).mean(0)
    expected = model * min(1, bound / np.linalg.norm(model)) - start
    close(staged(make_stage("crfl", bound=bound, noise=0.0), x, global_params=start), expected)


def test_crfl_adds_no_noise_after_the_last_round():
    """Algorithm 1 of the paper: the model of round T is clipped, and deployed as it is."""
    x, start = updates(3, 8), np.zeros(8, dtype=np.float32)
    mean = x.astype(float).mean(0)
    clipped = mean * min(1, 0.5 / np.linalg.norm(mean))
    stage = make_stage("crfl", bound=0.5, noise=0.1)
    for index, rounds, noisy in [(0, 3, True), (1, 3, True), (2, 3, False), (2, None, True)]:
        found = staged(stage, x, index=index, rounds=rounds, global_params=start)
        assert (np.abs(np.asarray(found) - clipped).max() > 1e-3) == noisy


def test_neighbors_are_mixed():
    x = updates(7, 5)
    expected = []
    for i in range(7):
        order = sorted(range(7), key=lambda j: ((x[i].astype(float) - x[j]) ** 2).sum())
        expected.append(x[order[:5]].astype(float).mean(0))
    stage = make_stage("nearest_neighbor_mixing", num_malicious=2)
    mixed, _ = stage.before(Round(x), np.ones(7))
    close(mixed.updates.matrix, expected)
    copies = np.vstack([x[:1]] * 4 + [x[1:2]] * 3)
    mixed, _ = stage.before(Round(copies), np.ones(7))
    close(mixed.updates.matrix[5], (3 * x[1].astype(float) + 2 * x[0]) / 5)


@pytest.mark.parametrize(("n", "size"), [(6, 2), (7, 3), (5, 1), (4, 9)])
def test_buckets_hold_everybody_once_and_their_weighted_means(n, size):
    x, counts, trust = updates(n, 4), np.arange(1.0, n + 1), RNG(0).uniform(0.2, 1, n)
    round_ = Round(x, num_examples=counts, server=Server(seed=1), index=3)
    merged, weights = make_stage("bucketing", size=size).before(round_, trust)
    assert merged.n == -(-n // size)
    assert weights.tolist() == [1] * merged.n
    assert merged.num_examples.sum() == counts.sum()
    found = []
    for row, count in zip(merged.updates.matrix.numpy(), merged.num_examples, strict=True):
        for members in itertools.combinations(range(n), min(size, n)):
            for group in (members, *itertools.combinations(range(n), n % size or size)):
                mean = np.average(x[list(group)].astype(float), axis=0, weights=trust[list(group)])
                if np.allclose(row, mean, atol=1e-5) and counts[list(group)].sum() == count:
                    found.append(group)
                    break
            else:
                continue
            break
    assert sorted(itertools.chain(*found)) == list(range(n))


def test_buckets_depend_on_the_round_and_not_on_the_order_of_arrival():
    x = updates(8, 3)
    stage = make_stage("bucketing")
    ids = list("abcdefgh")

    def means(order, index):
        round_ = Round(x[order], [ids[i] for i in order], server=Server(seed=1), index=index)
        merged, _ = stage.before(round_, np.ones(8))
        return merged.updates.matrix.numpy()

    close(means(range(8), 0), means([3, 1, 7, 0, 2, 6, 5, 4], 0))
    assert not np.allclose(means(range(8), 0), means(range(8), 1))


@pytest.mark.parametrize(
    ("make", "name", "params"),
    [
        (make_aggregator, "bulyan", {"num_malicious": -1}),
        (make_aggregator, "centered_clipping", {"tau": 0.0}),
        (make_aggregator, "centered_clipping", {"iterations": 0}),
        (make_aggregator, "slsgd", {"alpha": 0.0}),
        (make_aggregator, "irls", {"scale": 0.0}),
        (make_aggregator, "irls", {"threshold": 1.5}),
        (make_aggregator, "robust_learning_rate", {"threshold": -1}),
        (make_stage, "norm_clipping", {"bound": 0.0}),
        (make_stage, "norm_clipping", {"typical": "mode"}),
        (make_stage, "bucketing", {"size": 0}),
        (make_stage, "nearest_neighbor_mixing", {"num_malicious": -1}),
        (make_stage, "clip_and_noise", {"noise": -1.0}),
        (make_stage, "clip_and_noise", {"bound": "median"}),
        (make_stage, "crfl", {"bound": 0.0}),
        (make_stage, "crfl", {"noise": -1.0}),
        (make_stage, "weak_dp", {"noise": -1.0}),
        (make_stage, "weak_dp", {"bound": 0.0}),
    ],
)
def test_parameters_out_of_range_are_refused(make, name, params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make(name, **params)
