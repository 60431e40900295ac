"""Attacks that prepare rounds or train in their own way, against loops, SciPy and torch.optim."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from fedguard import LabeledData
from fedguard.attacks._descent import descend
from fedguard.attacks.chameleon import contrastive_loss, encoded, last_linear
from fedguard.attacks.iba import generated, initial_network
from fedguard.contracts.attack import UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.local_view import LocalView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError

CLASSES = 3


def local_view(model, count=12, side=8, batch=32, seed=0):
    """Images in [0, 1]; the model's inputs are (x − 0.5)/0.5."""
    draw = torch.Generator().manual_seed(seed)
    samples = Samples(torch.rand(count, 1, side, side, generator=draw), torch.arange(count) % CLASSES)
    return LocalView(
        index=0,
        model=model,
        samples=samples,
        data=LabeledData((samples.pixels - 0.5) / 0.5, samples.labels),
        normalize=lambda pixels: (pixels - 0.5) / 0.5,
        training=LocalTraining(batch_size=batch, lr=0.1),
        num_classes=CLASSES,
        generator=draw,
    )


def network(hidden=0, side=8, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(side * side, hidden), nn.ReLU()] if hidden else []
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(hidden or side * side, CLASSES))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_descent_is_that_of_torch_optim():
    ours, theirs, data = network(4), network(4), torch.randn(5, 64)

    def loss(model):
        return model(data).square().mean()

    descend(ours.parameters(), [torch.arange(5)] * 3, lambda rows: loss(ours), 0.1, 0.9, 0.01)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss(theirs).backward()
        optimizer.step()
    torch.testing.assert_close(flat(ours), flat(theirs))


# --- Chameleon


def test_the_contrastive_loss_is_its_formula():
    draw = np.random.default_rng(0)
    z = draw.normal(size=(6, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    y, tau = [0, 0, 1, 1, 1, 2], 0.5
    total = 0.0
    for i in range(6):
        others = [p for p in range(6) if p != i and y[p] == y[i]]
        bottom = sum(math.exp(z[i] @ z[a] / tau) for a in range(6) if a != i)
        weight = 6.0 if y[i] == 1 else 1.0
        for p in others:
            total -= weight / len(others) * math.log(math.exp(z[i] @ z[p] / tau) / bottom)
    labels = torch.tensor(y)
    loss = contrastive_loss(torch.tensor(z), labels, torch.where(labels == 1, 6.0, 1.0), tau)
    assert float(loss) == pytest.approx(total / 6)


def test_chameleon_trains_the_encoder_then_the_classifier_alone():
    before = network(5)
    for params, part in (({"classifier_epochs": 0}, 3), ({"encoder_epochs": 0}, 1)):
        view = local_view(network(5))
        make_attack("chameleon", **params).train(view)
        kept, moved = part, 4 - part
        assert torch.equal(view.model[kept].weight, before[kept].weight)
        assert not torch.equal(view.model[moved].weight, before[moved].weight)


def test_chameleon_brings_the_features_of_a_label_together():
    view = local_view(network(16), count=30)
    attack = make_attack("chameleon", encoder_lr=0.05, classifier_epochs=0, target=1)

    def loss():
        features = encoded(view.model, last_linear(view.model), view.data.inputs)
        weights = torch.where(view.data.labels == 1, 6.0, 1.0)
        return contrastive_loss(nn.functional.normalize(features), view.data.labels, weights, 0.07).item()

    before = loss()
    attack.train(view)
    assert loss() < 0.9 * before


def test_chameleon_refuses_models_without_an_encoder_or_a_classifier():
    for model, message in ((network(), "one linear layer"), (nn.Conv2d(1, 3, 8), "no linear layer")):
        with pytest.raises(ParameterError, match=message):
            make_attack("chameleon").train(local_view(model))


# --- A3FL


def softmax_gradient(model, pixels, trigger, target, corner):
    """∂/∂δ of the mean cross-entropy of a linear model on the stamped images, and the stamped images."""
    weights, bias = model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()
    stamped = pixels.double().numpy().copy()
    (top, end), gradient = corner, 0.0
    stamped[:, 0, top:end, top:end] = trigger
    for image in stamped:
        logits = weights @ ((image.ravel() - 0.5) / 0.5) + bias
        share = np.exp(logits - logits.max())
        share /= share.sum()
        share[target] -= 1
        back = (weights.T @ share / 0.5).reshape(8, 8)
        gradient = gradient + back[top:end, top:end] / len(stamped)
    return gradient, stamped


def test_a3fl_steps_along_the_sign_of_the_gradient_of_both_models():
    """Two passes of one batch: the first step has no adversary, the second one trained for one epoch."""
    view, model = local_view(network()), network()
    attack = make_attack("a3fl", target=2, patch=3, offset=1, epochs=2, alpha=0.1, balance=50.0, unlearn=1)
    attack.prepare(view)
    pixels, corner = view.samples.pixels, (1, 4)
    trigger = np.full((3, 3), 0.5)
    gradient, _ = softmax_gradient(model, pixels, trigger, 2, corner)
    trigger = np.clip(trigger - 0.1 * np.sign(gradient), 0, 1)

    gradient, stamped = softmax_gradient(model, pixels, trigger, 2, corner)
    adversary = network()
    optimizer = torch.optim.SGD(adversary.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    inputs = torch.tensor((stamped - 0.5) / 0.5).float()
    nn.functional.cross_entropy(adversary(inputs), view.samples.labels).backward()
    optimizer.step()
    a, b = flat(model).double(), flat(adversary).double()
    weight = 50.0 * float(a @ b / a.norm() / b.norm())
    other, _ = softmax_gradient(adversary, pixels, trigger, 2, corner)
    expected = np.clip(trigger - 0.1 * np.sign(gradient + weight * other), 0, 1)
    np.testing.assert_allclose(attack.trigger[0].numpy(), expected, atol=1e-6)
    white = attack.stamp(torch.ones(1, 1, 8, 8), None)[0, 0]
    np.testing.assert_allclose(white[1:4, 1:4].numpy(), expected, atol=1e-6)
    assert white.sum() - white[1:4, 1:4].sum() == 64 - 9, "and nothing else changes"


# --- IBA


def test_the_generator_is_three_convolutions():
    weights = initial_network(1)
    image = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    values = image[0].numpy()
    for i in range(3):
        kernels, bias = weights[f"kernel{i}"].numpy(), weights[f"bias{i}"].numpy()
        summed = [
            sum(correlate2d(v, k, mode="same") for v, k in zip(values, kernel, strict=True)) + b
            for kernel, b in zip(kernels, bias, strict=True)
        ]
        values = np.tanh(summed) if i == 2 else np.maximum(summed, 0)
    np.testing.assert_allclose(generated(image, weights)[0].numpy(), values, atol=1e-5)


def test_iba_learns_the_target_within_epsilon():
    view = local_view(network(seed=1), count=60, batch=20)
    attack = make_attack("iba", target=1, epsilon=0.2, test_epsilon=0.1, epochs=20, lr=0.01)
    pixels = view.samples.pixels

    def towards_target():
        outputs = view.model(view.normalize(attack.stamp(pixels, 0)))
        return outputs.softmax(1)[:, 1].mean().item()

    before = towards_target()
    attack.prepare(view)
    assert towards_target() > before + 0.2
    for rank, most in ((0, 0.2), (None, 0.1)):
        change = (attack.stamp(pixels, rank) - pixels).abs().max()
        assert 0.5 * most < change <= most + 1e-6


# --- the guard-tailored attack


class Longest:
    """A guard that suspects updates longer than a bound."""

    def __init__(self, bound):
        self.bound = bound

    def suspects(self, round):
        return (round.updates.matrix.double().norm(dim=1) > self.bound).numpy()


def test_guard_tailored_goes_as_far_as_the_guard_allows():
    """For p = g/‖g‖ and a bound B on the norm, ‖g − γ p‖ = |‖g‖ − γ| ≤ B: the largest γ is ‖g‖ + B."""
    draw = torch.Generator().manual_seed(0)
    benign = torch.randn(6, 20, generator=draw) * 0.1 + 1.0
    view = UpdateView(
        index=0,
        num_clients=8,
        global_params=torch.zeros(20),
        initial_params=torch.zeros(20),
        own_updates=benign[:2].clone(),
        generator=draw,
        benign_updates=benign,
        defense=Longest(2.0),
    )
    crafted = make_attack("guard_tailored", perturbation="unit", tolerance=1e-4).craft(view)
    mean = benign.double().mean(0)
    expected = mean - (mean.norm() + 2.0) * mean / mean.norm()
    torch.testing.assert_close(crafted.double(), expected.repeat(2, 1), rtol=2e-3, atol=1e-6)
    view._known["defense"] = Longest(0.0)
    assert torch.equal(make_attack("guard_tailored").craft(view)[0], mean.float()), "nothing is accepted: g"
