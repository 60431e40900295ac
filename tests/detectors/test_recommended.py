"""The detector "recommended" against its signals written out client by client."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Round, make_detector
from fedguard.contracts.data import LabeledData
from fedguard.contracts.server import Server
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack
from fedguard.detectors._class_cone import cone_cosines
from fedguard.detectors._signals import FEW

LIMITS = {"copies": 4.0, "size": 6.0, "direction": 4.5, "gain": 4.0, "reconstruction": 4.0}
OVER_ROUNDS = {"size": 5.0, "direction": 5.0, "gain": 4.5, "reconstruction": 5.0}
FLOORS = {"size": 0.2, "direction": 0.1, "gain": 0.2, "reconstruction": 0.1}
FEATURES, CLASSES = 6, 3
D = FEATURES * CLASSES + CLASSES


def model():
    return nn.Linear(FEATURES, CLASSES)


def validation(samples=100, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % CLASSES
    inputs = torch.randn(samples, FEATURES, generator=draw)
    inputs[torch.arange(samples), labels] += 2.0
    return LabeledData(inputs, labels)


def updates(n=9, seed=0, scale=0.3, noise=0.7):
    """Towards the right model, each in its own way."""
    draw = torch.Generator().manual_seed(seed)
    right = torch.zeros(CLASSES, FEATURES)
    right[torch.arange(CLASSES), torch.arange(CLASSES)] = 1.0
    good = torch.cat([right.flatten(), torch.zeros(CLASSES)])
    return scale * (good + noise * torch.randn(n, D, generator=draw))


def a_round(matrix, index=0, server=True, counts=None, data=None):
    start = torch.linspace(-0.1, 0.1, D)
    owned = Server(model=model(), validation=data or validation()) if server else None
    return Round(matrix, index=index, global_params=start, server=owned, num_examples=counts)


# --- the oracle: loops over clients and samples, float64


def shorth(values, floor):
    n = len(values)
    if n < 4:
        return [0.0] * n
    half = n // 2 + 1
    order = sorted(values)
    best = min(range(n - half + 1), key=lambda i: (order[i + half - 1] - order[i], i))
    part = order[best : best + half]
    scale = max(FEW.get(n, 1.0) * (part[-1] - part[0]) / 2 / 0.6745, floor)
    return [(v - statistics.fmean(part)) / scale for v in values]


def norm(v):
    return math.sqrt(math.fsum(x * x for x in v))


def copies_by_hand(u):
    nearest = []
    for i, a in enumerate(u):
        nearest.append(
            min(
                norm([x - y for x, y in zip(a, b, strict=True)]) / math.sqrt(norm(a) * norm(b))
                for j, b in enumerate(u)
                if j != i
            )
        )
    middle = statistics.median(nearest)
    return [middle / max(r, middle * 1e-6) for r in nearest]


def size_by_hand(u, counts):
    logs = [math.log(norm(v)) for v in u]
    slopes = [
        (logs[i] - logs[j]) / (math.log(counts[i]) - math.log(counts[j]))
        for i in range(len(u))
        for j in range(i + 1, len(u))
        if abs(math.log(counts[i]) - math.log(counts[j])) > 0.05
    ]
    slope = min(max(statistics.median(slopes), 0.0), 1.0) if slopes else 0.0
    return [a - slope * math.log(c) for a, c in zip(logs, counts, strict=True)]


def direction_by_hand(u):
    center = [statistics.median(column) for column in zip(*u, strict=True)]
    return [-math.fsum(x * y for x, y in zip(v, center, strict=True)) / norm(v) / norm(center) for v in u]


def losses_by_hand(vector, data):
    weight, bias = vector[: FEATURES * CLASSES].reshape(CLASSES, FEATURES), vector[FEATURES * CLASSES :]
    per_class = {c: [] for c in range(CLASSES)}
    for x, label in zip(data.inputs.double().numpy(), data.labels.tolist(), strict=True):
        logits = [float(weight[c] @ x + bias[c]) for c in range(CLASSES)]
        per_class[label].append(math.log(math.fsum(math.exp(z) for z in logits)) - logits[label])
    return [statistics.fmean(values) for values in per_class.values()]


def gain_by_hand(u, start, data):
    middle = sorted(norm(v) for v in u)[(len(u) - 1) // 2]  # torch's median: the lower of two
    base = losses_by_hand(start, data)
    gains = []
    for v in u:
        after = losses_by_hand(start + np.array(v) * min(1.0, middle / norm(v)), data)
        gains.append(math.fsum(max(0.0, a - b) for a, b in zip(base, after, strict=True)))
    return [max(-10.0, min(1.0, 1 - g / statistics.median(gains))) for g in gains]


def class_gradients_by_hand(start, data):
    """−∇L_c of softmax regression: x (1{k = c} − p_k), averaged over the samples of class c."""
    weight, bias = start[: FEATURES * CLASSES].reshape(CLASSES, FEATURES), start[FEATURES * CLASSES :]
    rows = {c: [] for c in range(CLASSES)}
    for x, label in zip(data.inputs.double().numpy(), data.labels.tolist(), strict=True):
        odds = [math.exp(float(weight[k] @ x + bias[k])) for k in range(CLASSES)]
        push = [float(k == label) - odds[k] / math.fsum(odds) for k in range(CLASSES)]
        rows[label].append(np.concatenate([np.outer(push, x).ravel(), push]))
    return [np.mean(part, axis=0) for part in rows.values()]


def cosine_to_cone_by_hand(v, directions):
    """The nearest point of the cone, by trying every set of directions that may have a positive weight."""
    best = 0.0
    for size in range(1, len(directions) + 1):
        for some in itertools.combinations(directions, size):
            mix = np.linalg.lstsq(np.stack(some, 1), v, rcond=None)[0]
            if (mix >= 0).all():
                best = max(best, norm(np.stack(some, 1) @ mix) / norm(v))
    return best


def reconstruction_by_hand(u, start, data):
    directions = class_gradients_by_hand(start, data)
    return [-cosine_to_cone_by_hand(np.array(v), directions) for v in u]


def scores_by_hand(rounds, window=8):
    """The scores of the last round, all clients in every one."""
    past = {name: [] for name in FLOORS}
    for round in rounds:
        u = round.updates.matrix.double().tolist()
        raw = {"size": size_by_hand(u, round.num_examples), "direction": direction_by_hand(u)}
        if round.server is not None:
            start = round.global_params.double().numpy()
            raw["gain"] = gain_by_hand(u, start, round.server.validation)
            raw["reconstruction"] = reconstruction_by_hand(u, start, round.server.validation)
        for name, values in raw.items():
            past[name].append([v - statistics.median(values) for v in values])
    lengths = [norm(v) for v in u]
    middle = statistics.median([math.log(x) for x in lengths])
    shares = [[c / 4.0 for c in copies_by_hand(u)]]
    for name in raw:
        recent = past[name][-window:]
        means = [statistics.fmean(values) for values in zip(*recent, strict=True)]
        pairs = [(shorth(past[name][-1], FLOORS[name]), LIMITS[name])]
        if len(recent) >= 3:
            pairs.append((shorth(means, FLOORS[name] / 2), OVER_ROUNDS[name]))
        for z, limit in pairs:
            if name == "size":
                z = [
                    v if math.log(x) - middle > math.log(1.3) else 0.0
                    for v, x in zip(z, lengths, strict=True)
                ]
            shares.append([v / limit for v in z])
    return np.max(shares, axis=0)


# --- tests


@pytest.mark.parametrize("n", [3, 4, 9, 10])
@pytest.mark.parametrize("server", [True, False])
def test_scores_are_those_by_hand(n, server):
    counts = np.linspace(20, 90, n).round()
    matrix = updates(n) * torch.linspace(0.8, 2.5, n)[:, None]
    matrix[0] *= -1
    round = a_round(matrix, server=server, counts=counts)
    expected = scores_by_hand([round])
    scores = make_detector("recommended")(round)
    assert scores.values == pytest.approx(expected, rel=2e-4, abs=1e-5)
    assert scores.suspects.tolist() == (expected > 1).tolist()


def test_scores_over_rounds_are_those_by_hand():
    detector, rounds = make_detector("recommended", window=4), []
    for t in range(7):
        matrix = updates(8, seed=t)
        matrix[5] *= 1.9  # too long, but only just
        matrix[2] = -0.4 * matrix[2]
        rounds.append(a_round(matrix, index=t, counts=np.linspace(20, 90, 8).round()))
        scores = detector(rounds[-1])
        assert scores.values == pytest.approx(scores_by_hand(rounds, window=4), rel=5e-4, abs=1e-5)
        detector.commit(rounds[-1], scores)


ATTACKS = {
    "copies": lambda u: u.__setitem__(slice(0, 3), u[0].clone()),
    "size": lambda u: u.__setitem__(0, 20 * u[0]),
    "direction": lambda u: u.__setitem__(0, -u[0]),
}


@pytest.mark.parametrize("signal", sorted(ATTACKS))
def test_each_attack_is_seen_by_its_signal(signal):
    matrix = updates(12, noise=0.3)
    ATTACKS[signal](matrix)
    scores = make_detector("recommended")(a_round(matrix))
    bad = [0, 1, 2] if signal == "copies" else [0]
    assert np.flatnonzero(scores.suspects).tolist() == bad
    for i in bad:
        assert f"{signal}: " in scores.reasons[i]
        assert "limit" in scores.reasons[i]
    assert all(scores.reasons[i] == "" for i in range(12) if i not in bad)


def test_a_client_of_no_use_is_seen_with_validation_data_alone():
    """Everybody learns one class of three; one client swaps labels, in a direction of its own."""
    draw = torch.Generator().manual_seed(1)
    matrix = torch.zeros(12, D)
    for i in range(12):
        here = matrix[i, : FEATURES * CLASSES].view(CLASSES, FEATURES)
        here += 0.05 * torch.randn(CLASSES, FEATURES, generator=draw)
        here[i % CLASSES, i % CLASSES] += 1.0
    matrix[0].view(-1)[: FEATURES * CLASSES].view(CLASSES, FEATURES)[0, 0] = -1.0
    with_data = make_detector("recommended")(a_round(matrix))
    without = make_detector("recommended")(a_round(matrix, server=False))
    assert with_data.values[0] == pytest.approx(scores_by_hand([a_round(matrix)])[0], rel=1e-3)
    assert "gain" in " ".join(with_data.info)
    assert "gain suspects" not in without.info


#: A direction of length 1 that no gradient has: the outputs of all classes move together.
WRONG = np.concatenate([np.tile(np.eye(FEATURES)[5], CLASSES), np.zeros(CLASSES)]) / math.sqrt(CLASSES)


def learnt(labels, seed):
    """What training on some classes gives: their gradients mixed at random, and a little noise."""
    draw = np.random.default_rng(seed)
    start = np.linspace(-0.1, 0.1, D)
    directions = np.stack(class_gradients_by_hand(start, validation()))[labels]
    return draw.uniform(0.5, 1.5, len(labels)) @ directions + 0.02 * draw.standard_normal(D)


def test_one_class_is_explained_and_a_wrong_label_is_not():
    """Clients of one class each, in directions of their own; client 0 has class 0 and calls it 1."""
    matrix = torch.tensor(np.stack([learnt([i % CLASSES], i) for i in range(12)]), dtype=torch.float32)
    honest = make_detector("recommended")(a_round(matrix))
    assert honest.info["reconstruction suspects"] == 0
    assert honest.memory.today["reconstruction"] == pytest.approx(np.zeros(12), abs=0.05)
    weight = matrix[0, : FEATURES * CLASSES].view(CLASSES, FEATURES)
    weight[[0, 1]] = weight[[1, 0]]
    scores = make_detector("recommended")(a_round(matrix))
    assert scores.info["reconstruction suspects"] == 1
    assert "reconstruction: " in scores.reasons[0]
    assert "explained by any mix" in scores.reasons[0]


def test_an_update_turned_round_is_not_explained():
    """The negative of a mix of all classes: least squares without a ≥ 0 would explain it as well."""
    matrix = torch.tensor(np.stack([learnt([0, 1, 2], i) for i in range(10)]), dtype=torch.float32)
    matrix[3] *= -1
    scores = make_detector("recommended")(a_round(matrix))
    assert scores.info["reconstruction suspects"] == 1
    assert "reconstruction: " in scores.reasons[3]
    assert scores.memory.today["reconstruction"][3] > 0.9


@pytest.mark.parametrize("kind", ["uneven", "twice the same", "nearly the same"])
def test_the_nearest_point_of_a_cone_is_that_by_hand(kind):
    draw = np.random.default_rng(3)
    directions = draw.standard_normal((5, 8)) + 2 * draw.standard_normal(8)  # one large eigenvalue
    if kind != "uneven":
        directions[3] = directions[1] + (1e-3 * directions[0] if kind == "nearly the same" else 0)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    vectors = [*draw.standard_normal((6, 8)), directions[2], -directions[2], directions.sum(0)]
    vectors = [v / norm(v) for v in vectors]
    found = cone_cosines(directions @ directions.T, np.stack(vectors) @ directions.T)
    expected = [cosine_to_cone_by_hand(v, directions) for v in vectors]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_class_that_cannot_be_learnt_better_explains_nothing():
    """Bias 200 for class 0: its probability is exactly 1, so its gradient is 0, and the others' are not."""
    start = torch.zeros(D)
    start[FEATURES * CLASSES] = 200.0
    matrix = updates()
    round = dataclasses.replace(a_round(matrix), global_params=start)
    directions = class_gradients_by_hand(start.double().numpy(), validation())
    cosines = [-cosine_to_cone_by_hand(v, directions[1:]) for v in matrix.double().numpy()]
    assert norm(directions[0]) < 1e-80
    expected = [c - statistics.median(cosines) for c in cosines]
    assert make_detector("recommended")(round).memory.today["reconstruction"] == pytest.approx(
        expected, abs=1e-5
    )


def test_a_model_without_gradient_accuses_nobody_of_it():
    start = torch.zeros(D)
    start[: FEATURES * CLASSES].view(CLASSES, FEATURES)[:, :CLASSES] = 1000 * torch.eye(CLASSES)
    inputs = torch.zeros(120, FEATURES)
    inputs[torch.arange(120), torch.arange(120) % CLASSES] = 1.0
    data = LabeledData(inputs, torch.arange(120) % CLASSES)
    scores = make_detector("recommended")(
        dataclasses.replace(a_round(updates(), data=data), global_params=start)
    )
    assert scores.memory.today["reconstruction"].tolist() == [0.0] * 9
    assert scores.info["reconstruction suspects"] == 0


def test_a_little_wrong_in_every_round_is_seen_over_rounds():
    """Half of client 0's update is wrong: too little for a round, enough for five."""
    detector, rounds = make_detector("recommended"), []
    for t in range(5):
        matrix = np.stack([learnt([i % CLASSES], 100 * t + i) for i in range(21)])
        matrix[0] += norm(matrix[0]) * WRONG
        rounds.append(a_round(torch.tensor(matrix, dtype=torch.float32), index=t))
        scores = detector(rounds[-1])
        assert scores.values == pytest.approx(scores_by_hand(rounds), rel=5e-3, abs=1e-4)
        detector.commit(rounds[-1], scores)
    assert scores.reasons[0].startswith("reconstruction over rounds: ")


def test_a_model_with_batch_norm_and_a_label_with_one_sample():
    """The model is used as for predictions: without dropout, and with running statistics of 0 and 1 here."""
    data = validation(180)
    keep = (data.labels > 0) | (torch.arange(180) == 0)
    data = LabeledData(data.inputs[keep], data.labels[keep])
    norm_layer = nn.BatchNorm1d(CLASSES, affine=False)
    network = nn.Sequential(nn.Linear(FEATURES, CLASSES), norm_layer, nn.Dropout(0.5)).train()
    matrix = updates()
    plain = make_detector("recommended")(a_round(matrix, data=data))
    server = Server(model=network, validation=data)
    scores = make_detector("recommended")(dataclasses.replace(a_round(matrix), server=server))
    assert scores.memory.today["reconstruction"] == pytest.approx(
        plain.memory.today["reconstruction"], abs=1e-4
    )
    assert network.training
    assert norm_layer.num_batches_tracked == 0


def test_a_label_without_samples_leaves_reconstruction_out():
    """A client might have just that label."""
    data = validation(180)
    some = LabeledData(data.inputs[data.labels > 0], data.labels[data.labels > 0])
    scores = make_detector("recommended")(a_round(updates(), data=some))
    assert "gain suspects" in scores.info
    assert "reconstruction suspects" not in scores.info


def test_reconstruction_of_zero_and_of_no_direction_is_defined():
    matrix = updates()
    matrix[4] = 0
    scores = make_detector("recommended")(a_round(matrix))
    start, others = np.linspace(-0.1, 0.1, D), [v for v in matrix.double().tolist() if any(v)]
    middle = statistics.median([*reconstruction_by_hand(others, start, validation()), 0.0])
    assert scores.memory.today["reconstruction"][4] == pytest.approx(-middle, rel=1e-3)
    flat = LabeledData(torch.zeros(120, FEATURES), torch.arange(120) % CLASSES)
    assert np.isfinite(make_detector("recommended")(a_round(matrix, data=flat)).values).all()


def test_few_validation_samples_are_not_looked_at():
    round = a_round(updates(), data=validation(99))
    for name in ("gain suspects", "reconstruction suspects"):
        assert name not in make_detector("recommended")(round).info
        assert name in make_detector("recommended", validation=99)(round).info


@pytest.mark.parametrize("pseudo_clients", [False, True])
def test_next_tokens_are_no_classes(pseudo_clients):
    tokens = LabeledData(validation().inputs, validation().labels[:, None].repeat(1, 4))
    detector = make_detector("recommended", pseudo_clients=pseudo_clients)
    found, blind = (detector(a_round(updates(), data=d)) for d in (tokens, validation(99)))
    assert found.values.tolist() == blind.values.tolist()
    assert "gain suspects" not in found.info


def test_only_the_first_samples_count():
    data = validation(200)
    changed = LabeledData(torch.cat([data.inputs[:100], -5 * data.inputs[100:]]), data.labels)
    first = LabeledData(data.inputs[:100], data.labels[:100])
    for given in (data, changed, first):
        round = a_round(updates(), data=given)
        gains = gain_by_hand(
            round.updates.matrix.double().tolist(), round.global_params.double().numpy(), first
        )
        expected = [g - statistics.median(gains) for g in gains]
        scores = make_detector("recommended", samples=100)(round)
        assert scores.memory.today["gain"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        cosines = reconstruction_by_hand(
            round.updates.matrix.double().tolist(), round.global_params.double().numpy(), first
        )
        expected = [c - statistics.median(cosines) for c in cosines]
        assert scores.memory.today["reconstruction"] == pytest.approx(expected, abs=1e-5)


def test_rounds_of_others_do_not_move_a_mean():
    """What is remembered is less the round's median: rounds that are larger as a whole say nothing."""
    detector = make_detector("recommended")
    sent = []
    for t in range(5):
        part = a_round(updates(8, seed=t) * 10**t, index=t, server=False).take(
            [(t + k) % 8 for k in range(7)]
        )
        detector.commit(part, detector(part))
        cosines = direction_by_hand(part.updates.matrix.double().tolist())
        middle = statistics.median(cosines)
        sent.append({c: x - middle for c, x in zip(part.client_ids, cosines, strict=True)})
    for client, past in detector.state_dict()["past"]:
        expected = [values[client] for values in sent if client in values]
        assert past["direction"] == pytest.approx(expected, abs=1e-5)


def test_samples_explain_length():
    """Length grows with the samples; who is six times longer than his explain is seen, if they are known."""
    counts = np.geomspace(10, 1000, 12).round()
    matrix = updates(12) * torch.tensor(counts**0.8, dtype=torch.float32)[:, None]
    matrix[4] *= 10
    explained = make_detector("recommended")(a_round(matrix, server=False, counts=counts))
    bare = make_detector("recommended")(a_round(matrix, server=False))
    assert explained.info["size suspects"] == 1
    assert "size" in explained.reasons[4]
    assert bare.info["size suspects"] == 0


def test_a_short_update_is_not_suspect_for_its_size():
    matrix = updates(10)
    matrix[0] *= 1e-3
    assert make_detector("recommended")(a_round(matrix, server=False)).info["size suspects"] == 0


def test_history_belongs_to_the_client_and_is_bounded():
    detector = make_detector("recommended", window=3)
    for t in range(6):
        part = a_round(updates(6, seed=t), index=t).take([(t + k) % 6 for k in range(5)])
        detector.commit(part, detector(part))
    kept = dict(detector.state_dict()["past"])
    assert set(kept) == set(range(6))
    assert {len(v) for past in kept.values() for v in past.values()} == {3}
    restored = make_detector("recommended", window=3)
    restored.load_state_dict(unpack(pack(detector.state_dict())))
    probe = a_round(updates(6, seed=9), index=6)
    assert restored(probe).values.tolist() == detector(probe).values.tolist()


@pytest.mark.parametrize(("copied", "framed"), [([1], True), ([1, 2], False)])
def test_one_of_a_pair_of_copies_may_be_honest(copied, framed):
    matrix = updates(12)
    matrix[copied] = matrix[0] * 1.0001
    scores = make_detector("recommended")(a_round(matrix))
    everybody = {0, *copied}
    assert everybody <= set(scores.suspects.nonzero()[0])
    assert set(scores.framed.nonzero()[0]) == (everybody if framed else set())


def test_a_copy_that_is_suspected_for_more_may_not_be_framed():
    matrix = updates(12)
    matrix[0] = matrix[1] = -8 * matrix[0]
    scores = make_detector("recommended")(a_round(matrix))
    assert scores.suspects[:2].all()
    assert scores.framed is None or not scores.framed.any()


def test_few_normal_clients_are_suspected_as_rarely_as_twenty():
    draw = np.random.default_rng(0)

    def exceeded(n):
        """What 0.2 % of the clients exceed; shorths by sorting."""
        order = np.sort(draw.normal(size=(100_000, n)), axis=1)
        half = n // 2 + 1
        widths = order[:, half - 1 :] - order[:, : n - half + 1]
        first, row = widths.argmin(1), np.arange(len(order))
        sums = np.concatenate([np.zeros((len(order), 1)), order.cumsum(1)], axis=1)
        center = (sums[row, first + half] - sums[row, first]) / half
        return np.quantile((order - center[:, None]) / widths[row, first, None], 0.998)

    usual = exceeded(20)
    for n in (4, 5, 7, 10, 15, 19):
        assert FEW[n] == pytest.approx(exceeded(n) / usual, rel=0.1)
    assert set(FEW) == set(range(4, 20))


def test_all_copies_accuse_nobody():
    matrix = updates(1).expand(6, D).clone()
    scores = make_detector("recommended")(a_round(matrix))
    assert not scores.suspects.any()
    assert np.isfinite(scores.values).all()


@pytest.mark.parametrize("wrong", [{"validation": 0}, {"samples": 50}, {"window": 2}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ParameterError, match=r"^recommended: "):
        make_detector("recommended", **wrong)
