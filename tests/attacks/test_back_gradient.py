"""Back-gradient poisoning against finite differences of a training loop in NumPy, and scikit-learn."""

import functools
import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from fedguard.attacks.back_gradient import BackGradient
from fedguard.contracts.attack import DataView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_attack
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation import client_data
from fedguard.simulation.keys import CellKey

CLASSES = 3


def problem(points=3, train=12, held_out=10, shape=(1, 2, 2), seed=0):
    """Points, training and held-out samples in float64, away from 0 and 1, in classes that differ."""
    draw = torch.Generator().manual_seed(seed)

    def samples(n):
        labels = torch.arange(n) % CLASSES
        pixels = 0.4 + 0.1 * torch.rand(n, *shape, generator=draw, dtype=torch.float64)
        pixels.flatten(1)[torch.arange(n), labels] += 0.1
        return Samples(pixels, labels)

    start = samples(points)
    return Samples(start.pixels, (start.labels + 1) % CLASSES), samples(train), samples(held_out)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def damage(pixels, labels, train, held_out, steps, lr):
    """Mean cross-entropy on the held-out samples after training on the others and the points."""
    x = np.concatenate([train.pixels.numpy().reshape(len(train.labels), -1), pixels.reshape(len(labels), -1)])
    y = np.concatenate([train.labels.numpy(), labels.numpy()])
    weights, bias = np.zeros((CLASSES, x.shape[1])), np.zeros(CLASSES)
    for _ in range(steps):
        grad_w, grad_b = np.zeros_like(weights), np.zeros_like(bias)
        for row, label in zip(x, y, strict=True):
            error = softmax((weights @ row + bias)[None])[0]
            error[label] -= 1
            grad_w += np.outer(error, row) / len(x)
            grad_b += error / len(x)
        weights -= lr * grad_w
        bias -= lr * grad_b
    held = held_out.pixels.numpy().reshape(len(held_out.labels), -1)
    chance = softmax(held @ weights.T + bias)[np.arange(len(held)), held_out.labels.numpy()]
    return -np.log(chance).mean()


def slope(points, train, held_out, steps, lr, h=1e-5):
    """(points, pixels) central differences of the damage."""
    base = points.pixels.numpy().reshape(len(points.labels), -1)
    result = np.zeros_like(base)
    for at in np.ndindex(*base.shape):
        there, back = base.copy(), base.copy()
        there[at] += h
        back[at] -= h
        loss = [damage(p, points.labels, train, held_out, steps, lr) for p in (there, back)]
        result[at] = (loss[0] - loss[1]) / (2 * h)
    return result


@pytest.mark.parametrize(("steps", "lr"), [(1, 0.5), (2, 0.5), (7, 1.0), (30, 2.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_climbs_the_gradient_through_all_of_training(steps, lr, seed):
    case = problem(seed=seed)
    attack = make_attack("back_gradient", steps=steps, lr=lr, iterations=1, step_size=1e-4, tolerance=0)
    moved = (attack.optimize(*case, CLASSES).pixels - case[0].pixels).flatten(1).numpy() / 1e-4
    expected = slope(*case, steps, lr)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert moved == pytest.approx(expected, abs=1e-5)


def test_the_problem_distinguishes_gradients():
    """The last step of training alone has another gradient than all of it."""
    one, all_of_it = slope(*problem(), 1, 2.0).ravel(), slope(*problem(), 30, 2.0).ravel()
    assert one @ all_of_it < 0.98 * np.linalg.norm(one) * np.linalg.norm(all_of_it)


def loss_of(points, case, steps=20, lr=2.0):
    return damage(points.pixels.numpy(), points.labels, case[1], case[2], steps, lr)


@pytest.mark.parametrize("step_size", [0.01, 0.2, 1.0])
def test_more_iterations_never_do_less_damage(step_size):
    """Also where a step goes too far: the best points seen are taken."""
    case = problem(points=4)
    found = [
        loss_of(
            make_attack(
                "back_gradient", steps=20, lr=2.0, iterations=k, step_size=step_size, tolerance=0
            ).optimize(*case, CLASSES),
            case,
        )
        for k in range(12)
    ]
    assert found[0] == pytest.approx(loss_of(case[0], case))
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(found))
    assert found[-1] > found[0] + 0.01


def test_a_climb_ends_when_the_loss_rises_by_less_than_the_tolerance():
    case = problem()
    first = {"steps": 20, "lr": 2.0, "step_size": 0.01}
    limits = {"iterations": 1}, {"iterations": 9, "tolerance": 0}, {"iterations": 9, "tolerance": 9.0}
    one, many, stopped = (
        make_attack("back_gradient", **first, **limit).optimize(*case, CLASSES) for limit in limits
    )
    assert torch.equal(stopped.pixels, one.pixels)
    assert loss_of(many, case) > loss_of(one, case)


def test_points_stay_in_range_and_keep_their_labels():
    points, train, held_out = problem(points=5)
    attack = make_attack("back_gradient", steps=20, lr=2.0, step_size=3.0)
    found = attack.optimize(points, train, held_out, CLASSES)
    assert torch.equal(found.labels, points.labels)
    assert found.pixels.min() == 0
    assert found.pixels.max() == 1


def test_points_without_a_gradient_stay():
    """With one black held-out sample per class, the trained weights of the pixels do not matter."""
    points, train, _ = problem()
    black = Samples(torch.zeros(CLASSES, 1, 2, 2), torch.arange(CLASSES))
    balanced = Samples(points.pixels * 0, points.labels)
    attack = make_attack("back_gradient", steps=1, iterations=3, tolerance=0)
    assert torch.equal(attack.optimize(balanced, train, black, CLASSES).pixels, balanced.pixels)


@functools.cache
def digits():
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(raw.images / 16, dtype=torch.float32)[order].unsqueeze(1)
    return Samples(pixels, torch.tensor(raw.target)[order])


def poison(own, rank=0, seed=0, **params):
    view = DataView(rank, 4, 10, torch.Generator().manual_seed(seed))
    return make_attack("back_gradient", **params).poison_data(own, view)


def added(own, poisoned):
    """The points: everything after the client's own samples, which are untouched."""
    n = len(own.labels)
    assert torch.equal(poisoned.pixels[:n], own.pixels)
    assert torch.equal(poisoned.labels[:n], own.labels)
    return poisoned.take(torch.arange(n, len(poisoned.labels)))


def test_points_start_as_copies_with_random_wrong_labels():
    own = digits().take(torch.arange(60))
    origin, given = [], []
    for seed in range(20):
        points = added(own, poison(own, seed=seed, iterations=0))
        assert len(points.labels) == 12  # Fang et al.: 240 points for 20 clients of 60 samples
        same = (points.pixels[:, None] == own.pixels[None]).flatten(2).all(2)
        assert (same.sum(1) == 1).all()
        origin += own.labels[same.int().argmax(1)].tolist()
        given += points.labels.tolist()
    shift = (np.array(given) - np.array(origin)) % 10
    assert set(shift) == set(range(1, 10))
    assert np.bincount(shift)[1:].min() > 10  # of 240 / 9


def test_uniform_and_single():
    own = digits().take(torch.arange(60))
    count = {
        (where, rank): len(added(own, poison(own, rank, distribution=where, iterations=0)).labels)
        for where in ("uniform", "single")
        for rank in (0, 1, 3)
    }
    assert [count["uniform", rank] for rank in (0, 1, 3)] == [12, 12, 12]
    assert [count["single", rank] for rank in (0, 1, 3)] == [48, 0, 0]
    assert len(added(own, poison(own, fraction=0.001, iterations=0)).labels) == 1
    assert len(added(own, poison(own, max_samples=20, iterations=0)).labels) == 4


@pytest.mark.parametrize("n", [61, 90])
def test_training_and_held_out_samples_are_halves_and_points_come_from_the_first(monkeypatch, n):
    own = digits().take(torch.arange(n))
    attack = make_attack("back_gradient", max_samples=61)
    seen = []
    monkeypatch.setattr(attack, "optimize", lambda *args: seen.append(args) or args[0])
    attack.poison_data(own, DataView(0, 4, 10, torch.Generator().manual_seed(0)))
    points, train, held_out, classes = seen[0]
    assert (len(train.labels), len(held_out.labels), classes) == (31, 30, 10)
    both = {tuple(row) for part in (train, held_out) for row in part.pixels.flatten(1).tolist()}
    assert len(both) == 61
    assert both <= {tuple(row) for row in own.pixels.flatten(1).tolist()}
    assert {tuple(row) for row in points.pixels.flatten(1).tolist()} <= {
        tuple(row) for row in train.pixels.flatten(1).tolist()
    }


@pytest.mark.parametrize("n", [0, 1])
def test_a_client_with_too_few_samples_is_left_alone(n):
    own = digits().take(torch.arange(n))
    assert len(poison(own).labels) == n


def test_it_works_where_gradients_are_switched_off():
    own = digits().take(torch.arange(30))
    with torch.no_grad():
        quiet = poison(own, iterations=2)
    assert torch.equal(quiet.pixels, poison(own, iterations=2).pixels)
    assert not quiet.pixels.requires_grad


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_another_learner_suffers_too(seed):
    """Scikit-learn's logistic regression, trained to the end, on samples that nobody has seen."""
    own = digits().take(torch.arange(100 * seed, 100 * seed + 100))
    test = digits().take(torch.arange(900, 1700))

    def test_loss(samples):
        x, y = samples.pixels.flatten(1).numpy(), samples.labels.numpy()
        model = LogisticRegression(max_iter=5000).fit(x, y)
        chances = model.predict_proba(test.pixels.flatten(1).numpy())
        return log_loss(test.labels.numpy(), chances, labels=model.classes_)

    clean, flipped, optimized = (
        test_loss(own if iterations is None else poison(own, seed=seed, iterations=iterations))
        for iterations in (None, 0, 30)
    )
    assert clean < flipped < optimized
    assert optimized - clean > 2 * (flipped - clean)


def test_with_full_knowledge_everybodys_data_are_split(monkeypatch):
    """Fang et al.: the points are found on the data of all clients, as many as the own samples ask for."""
    everybody = digits().take(torch.arange(200))
    own = everybody.take(torch.arange(60))
    attack = make_attack("back_gradient", knowledge="full")
    assert attack.knowledge == {"data"}
    seen = []
    monkeypatch.setattr(attack, "optimize", lambda *args: seen.append(args) or args[0])
    view = DataView(0, 4, 10, torch.Generator().manual_seed(0), everybody)
    points = added(own, attack.poison_data(own, view))
    _, train, held_out, _ = seen[0]
    both = {tuple(row) for part in (train, held_out) for row in part.pixels.flatten(1).tolist()}
    assert both == {tuple(row) for row in everybody.pixels.flatten(1).tolist()}
    assert (len(train.labels), len(held_out.labels), len(points.labels)) == (100, 100, 12)


@pytest.mark.parametrize("knowledge", ["partial", "full"])
def test_everybodys_data_are_shown_to_attacks_that_declare_them_only(monkeypatch, knowledge):
    attack = f"attacks=[{{name: back_gradient, iterations: 0, knowledge: {knowledge}}}]"
    cell = load_suite("quickstart", [attack, "rounds=1"])[0].cells()[0]
    setup, seen = client_data.setup_of(CellKey.of(cell)), []
    monkeypatch.setattr(BackGradient, "poison_data", lambda self, own, view: seen.append(view) or own)
    client_data.poison(CellKey.of(cell).attack, setup.malicious[0])
    everybody = seen[0].everybody
    if knowledge == "partial":
        assert everybody is None
    else:
        assert len(everybody.labels) == sum(len(own) for own in setup.samples)
