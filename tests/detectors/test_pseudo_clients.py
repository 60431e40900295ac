"""Pseudo-clients of the detector "recommended": gradients, mixes and deviations, against loops by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Round, make_detector
from fedguard.contracts.data import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.server import Server
from fedguard.core.state import pack, unpack
from fedguard.detectors._calibration import Calibration, Pseudo
from fedguard.detectors._explained import Cones, Explained
from fedguard.detectors._generators import generators
from fedguard.detectors._label_gradients import Written
from fedguard.detectors._pseudo_clients import generic_mixes, sample_counts, train_pseudo_clients
from fedguard.geometry.updates import Updates
from fedguard.training.local import train_client

FEATURES, CLASSES = 6, 3
D = FEATURES * CLASSES + CLASSES
START = torch.linspace(-0.1, 0.1, D)


def samples(count=90, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    inputs = torch.randn(count, FEATURES, generator=draw)
    inputs[torch.arange(count), labels] += 2.0
    return LabeledData(inputs, labels)


def server(**changes):
    owned = {
        "model": nn.Linear(FEATURES, CLASSES),
        "validation": samples(120),
        "root": samples(60, seed=1),
        "training": LocalTraining(epochs=2, batch_size=10, lr=0.1),
    }
    return Server(**{**owned, **changes})


def judged(detector, round):
    """The scores of a round that then belongs to the detector's history."""
    scores = detector(round)
    detector.commit(round, scores)
    return scores


def recommended():
    return make_detector("recommended", pseudo_clients=True)


def a_round(matrix, index=0, counts=None, ids=None, **changes):
    return Round(
        matrix,
        index=index,
        client_ids=ids,
        num_examples=counts,
        global_params=START,
        server=server(**changes),
    )


def honest(n=12, index=0, flipped=(), ids=None):
    """Clients that train on 40 samples of their own; some on wrong labels."""
    rows = []
    for i in range(n) if ids is None else ids:
        data = samples(40, seed=100 + i)
        if i in flipped:
            data = LabeledData(data.inputs, (data.labels + 1) % CLASSES)
        draw = torch.Generator().manual_seed(1000 * index + i)
        rows.append(train_client(nn.Linear(FEATURES, CLASSES), START, data, server().training, draw))
    return torch.stack(rows)


def gradients_by_hand(data):
    """−∇ of the mean cross-entropy of softmax regression, inputs of class s with the label t."""
    weight, bias = START[: FEATURES * CLASSES].double().view(CLASSES, FEATURES), START[-CLASSES:].double()
    found = np.zeros((CLASSES, CLASSES, D))
    for s, t in itertools.product(range(CLASSES), repeat=2):
        inputs = data.inputs[data.labels == s].double()
        rows = []
        for x in inputs:
            odds = torch.softmax(weight @ x + bias, 0)
            push = (torch.arange(CLASSES) == t).double() - odds
            rows.append(torch.cat([torch.outer(push, x).flatten(), push]))
        found[s, t] = torch.stack(rows).mean(0)
    return found


def test_gradients_by_class_and_label():
    data = samples()
    found = generators(nn.Linear(FEATURES, CLASSES), START, data)
    assert found.numpy() == pytest.approx(gradients_by_hand(data), abs=1e-6)


def test_no_gradients_without_a_sample_of_every_class():
    data = samples()
    rows = data.labels != 1
    part = LabeledData(data.inputs[rows], data.labels[rows])
    assert generators(nn.Linear(FEATURES, CLASSES), START, part) is None


def test_a_mix_of_right_labels_is_recovered_and_a_wrong_label_is_not_explained():
    directions = torch.from_numpy(gradients_by_hand(samples())).float()
    cones = Cones(Written(directions))
    mixes = np.array([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.0, 0.1, 0.9]])
    right = torch.einsum("ks,sd->kd", torch.from_numpy(mixes).float(), directions[range(3), range(3)])
    found = cones.explain(Updates(torch.cat([3 * right, directions[0, 1][None], torch.zeros(1, D)])))
    assert found.mixes[:3] == pytest.approx(mixes, abs=1e-4)
    assert found.mixes[4] == pytest.approx([1 / 3] * 3)
    assert found.values[:3, :2] == pytest.approx(np.full((3, 2), -math.log(1.05)), abs=1e-5)
    assert found.values[3, 1] == pytest.approx(-math.log(1.05), abs=1e-5)
    assert found.values[3, 0] > found.values[3, 1] + 0.3
    assert found.values[3, 2] == pytest.approx(found.values[3, 0] - found.values[3, 1])
    assert found.values[4, 0] == pytest.approx(-math.log(0.05))
    assert found.values[1, 3] == pytest.approx(float((3 * right[1]).norm().log()), abs=1e-5)


def test_a_pseudo_client_trains_as_a_client_does_on_its_classes():
    round = a_round(honest(4), counts=[30, 40, 50, 60])
    root = round.server.root
    (update,) = train_pseudo_clients(round, root, np.array([[0.0, 1.0, 0.0]]), np.array([30]), ["a"])
    draw = round.server.generator("pseudo-clients", 0, "a")
    weights = (root.labels == 1).double() / 20
    rows = torch.multinomial(weights, 30, replacement=True, generator=draw)
    data = LabeledData(root.inputs[rows], root.labels[rows])
    assert set(data.labels.tolist()) == {1}
    by_hand = train_client(nn.Linear(FEATURES, CLASSES), START, data, round.server.training, draw)
    assert torch.equal(update, by_hand)


def test_pseudo_clients_pass_their_samples_twice_at_most():
    root = samples(60, seed=1)
    mix, count = np.array([[0.2, 0.3, 0.5]]), np.array([40])

    def trained(**settings):
        round = a_round(honest(4), training=LocalTraining(batch_size=10, lr=0.1, **settings))
        return train_pseudo_clients(round, root, mix, count, ["a"])

    assert torch.equal(trained(epochs=9), trained(epochs=2))
    assert torch.equal(trained(epochs=None, steps=50), trained(epochs=None, steps=8))
    assert not torch.equal(trained(epochs=1), trained(epochs=2))


def test_claims_count_within_bounds():
    round = a_round(honest(5), counts=[1, 40, 40, 50, 10**9])
    assert sample_counts(round, samples(60)).tolist() == [10, 40, 40, 50, 120]
    assert sample_counts(round, samples(12)).tolist() == [10, 24, 24, 24, 24]
    assert sample_counts(a_round(honest(5)), samples(60)).tolist() == [60] * 5  # nobody claims anything


def test_mixes_are_drawn_from_few_and_from_all_classes():
    drawn = np.stack([generic_mixes(a_round(honest(4), index=t), 3) for t in range(50)])
    assert drawn.sum(2) == pytest.approx(np.ones((50, 4)))
    largest = drawn.max(2).mean(0)
    assert largest[0] > largest[1] > largest[2] > largest[3]
    assert largest[3] < 0.45


# --- deviations


def entropy(mix):
    return -math.fsum(p * math.log(p) for p in mix if p > 0)


def made_up(count, seed):
    draw = np.random.default_rng(seed)
    mixes = draw.dirichlet([1.0] * CLASSES, count)
    return mixes, Explained(mixes, draw.normal(size=(count, 4)))


def made_up_pseudo(count, seed):
    mixes, found = made_up(count, seed)
    return Pseudo(mixes, found.values)


def shortest_half_by_hand(values):
    order, half = sorted(values), len(values) // 2 + 1
    start = min(range(len(order) - half + 1), key=lambda i: order[i + half - 1] - order[i])
    return sum(order[start : start + half]) / half


def test_deviations_of_a_first_round_by_hand():
    n = 7
    _, found = made_up(n, 0)
    generic, matched = made_up_pseudo(4, 1), made_up_pseudo(n, 2)
    everyone = np.ones(n, dtype=bool)
    measured = Calibration(8).measure(
        list(range(n)), found, np.ones(n), found.mixes, generic, matched, everyone
    )
    at = [entropy(mix) for mix in (*generic.mixes, *matched.mixes)]
    values = np.concatenate([generic.values, matched.values])
    for j, kind in enumerate(("right labels", "any labels", "wrong labels", "length")):
        fit = np.polyfit(at, values[:, j], 2)
        beyond = values[:, j] - np.polyval(fit, at)
        scale = max(0.08 if j == 3 else 0.005, math.sqrt((np.var(beyond[:4]) + np.var(beyond[4:])) / 2))
        here = np.polyval(fit, [entropy(mix) for mix in found.mixes])
        own = found.values[:, j]
        halves = ((own - here) + (own - here - beyond[4:])) / 2  # beside the fit, and the matched one
        expected = (halves - shortest_half_by_hand(halves)) / scale
        assert measured.signals[kind] == pytest.approx(expected, abs=1e-8)
        assert measured.signals[f"{kind} over rounds"] == pytest.approx(expected, abs=1e-8)


def test_matched_pseudo_clients_are_renewed_every_eighth_round():
    calibration, clients = Calibration(8), list(range(8))
    renewed = []
    for t in range(24):
        due = calibration.due(clients)
        renewed.append(due)
        mixes, found = made_up(8, t)
        args = (found, np.ones(8), mixes, made_up_pseudo(4, 50 + t), made_up_pseudo(len(due), 90 + t))
        calibration.commit(calibration.measure(clients, *args, np.ones(8, dtype=bool)))
    assert renewed[0] == clients
    assert all(len(due) == 1 for due in renewed[1:])
    for i in clients:
        rounds = [t for t in range(1, 24) if i in renewed[t]]
        assert set(np.diff(rounds)) == {8}


def test_only_trusted_clients_set_the_center():
    n = 9
    _, found = made_up(n, 0)
    generic, matched = made_up_pseudo(4, 1), made_up_pseudo(n, 2)
    trusted = np.arange(n) < 6
    both = []
    for shift in (0.0, 50.0):
        values = found.values + shift * ~trusted[:, None]
        args = (found._replace(values=values), np.ones(n), found.mixes, generic, matched, trusted)
        both.append(Calibration(8).measure(list(range(n)), *args).signals)
    for name in both[0]:
        assert both[0][name][trusted] == pytest.approx(both[1][name][trusted], abs=1e-9)


# --- the detector


def test_flipped_labels_are_found_beside_pseudo_clients():
    detector = recommended()
    for t in range(4):
        scores = judged(detector, a_round(honest(12, t, flipped=(2, 7)), index=t, counts=[40] * 12))
        assert np.flatnonzero(scores.suspects).tolist() == [2, 7]
    assert "right labels" in scores.reasons[2]


def test_nobody_stands_out_in_clean_rounds():
    detector = recommended()
    for t in range(6):
        assert not judged(detector, a_round(honest(12, t), index=t, counts=[40] * 12)).suspects.any()


def test_the_order_of_the_clients_does_not_matter():
    plain, turned = recommended(), recommended()
    order = [5, 0, 3, 8, 1, 7, 2, 6, 4]
    for t in range(3):
        matrix = honest(9, t, flipped=(4,))
        counts = np.arange(40, 49)
        one = judged(plain, a_round(matrix, t, counts, [f"c{i}" for i in range(9)]))
        other = judged(turned, a_round(matrix[order], t, counts[order], [f"c{i}" for i in order]))
        assert other.values == pytest.approx(one.values[order], rel=1e-6)


def test_a_restored_detector_goes_on_with_the_same_scores():
    one = recommended()
    for t in range(5):
        judged(one, a_round(honest(9, t), index=t))
    other, state = recommended(), one.state_dict()
    assert state != recommended().state_dict()
    other.load_state_dict(unpack(pack(state)))
    for t in range(5, 8):
        a, b = (judged(detector, a_round(honest(9, t), index=t)) for detector in (one, other))
        assert a.values.tolist() == b.values.tolist()


@pytest.mark.parametrize("missing", ["training", "validation", "model"])
def test_without_a_part_of_the_server_there_are_no_pseudo_clients(missing):
    scores = recommended()(a_round(honest(9), **{missing: None}))
    assert "right labels suspects" not in scores.info
    assert "direction suspects" in scores.info


def test_validation_data_stand_in_for_missing_root_data():
    scores = recommended()(a_round(honest(9, flipped=(3,)), root=None))
    assert scores.suspects.tolist() == [i == 3 for i in range(9)]
    assert "right labels suspects" in scores.info


def test_a_model_beyond_memory_is_judged_without_them(monkeypatch):
    from fedguard.detectors import _beside_pseudo_clients

    monkeypatch.setattr(_beside_pseudo_clients, "MOST_FLOATS", 9 * D - 1)
    assert "direction suspects" in recommended()(a_round(honest(9))).info


def test_a_pseudo_client_that_diverges_accuses_nobody():
    wild = LocalTraining(epochs=2, batch_size=10, lr=1e30)
    scores = recommended()(a_round(honest(9), training=wild))
    assert np.isfinite(scores.values).all()


def test_they_are_trained_only_if_asked_for():
    scores = make_detector("recommended")(a_round(honest(9)))
    assert "direction suspects" in scores.info


def test_newcomers_are_compared_at_the_scale_of_one_round():
    detector = recommended()
    for t in range(6):
        judged(detector, a_round(honest(9, t), index=t))
    round = a_round(honest(11, 6), index=6)
    assert not detector(dataclasses.replace(round)).suspects.any()


def test_rounds_of_few_clients():
    for n in (1, 2, 3, 5):
        detector = recommended()
        for t in range(10):  # in most rounds nobody's pseudo-client is renewed
            assert not judged(detector, a_round(honest(n, t), index=t)).suspects.any()


def test_clients_that_come_and_go_keep_their_past():
    detector = recommended()
    for t in range(8):
        ids = [i for i in range(12) if (i + t) % 3]
        suspects = judged(detector, a_round(honest(index=t, ids=ids, flipped=(4,)), t, ids=ids)).suspects
        assert [i for i, bad in zip(ids, suspects, strict=True) if bad] == [4] * (4 in ids)
