"""DPOT's places and values, against softmax regression by hand."""

import numpy as np
import torch
from torch import nn

from fedguard.contracts.data import LabeledData, Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.local_view import LocalView
from fedguard.contracts.registry import make_attack

CLASSES, SIDE, TARGET = 3, 4, 1


def samples(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return Samples(torch.rand(count, 2, SIDE, SIDE, generator=draw), torch.arange(count) % CLASSES)


def view():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Flatten(), nn.Linear(2 * SIDE * SIDE, CLASSES))
    own = samples(9, 0)
    return LocalView(
        index=0,
        model=model,
        samples=own,
        data=LabeledData((own.pixels - 0.5) / 0.25, own.labels),
        normalize=lambda pixels: (pixels - 0.5) / 0.25,
        training=LocalTraining(batch_size=4),
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(1),
        colluding=lambda: [samples(6, 3)],
    )


def gradients(images, model):
    """∂ℓ/∂pixel of every image by the formula Wᵀ(p − e_target), divided by the normalization's 0.25."""
    weight, bias = (part.detach().double().numpy() for part in model[1].parameters())
    found = []
    for image in images:
        logits = weight @ ((image.ravel() - 0.5) / 0.25) + bias
        odds = np.exp(logits - logits.max())
        odds /= odds.sum()
        odds[TARGET] -= 1
        found.append((weight.T @ odds / 0.25).reshape(2, SIDE * SIDE))
    return np.array(found)


def test_places_and_values_by_hand():
    local = view()
    everyone = [*zip(*local.samples, strict=True), *zip(*samples(6, 3), strict=True)]
    images = np.array([image.double().numpy().reshape(2, -1) for image, label in everyone if label != TARGET])
    score = np.abs(gradients(images, local.model)).sum((0, 1))
    places = sorted(np.argsort(-score)[:3].tolist())
    values = images[:, :, places].mean(0)
    for _ in range(4):
        stamped = images.copy()
        stamped[:, :, places] = values
        slope = gradients(stamped, local.model)[:, :, places].sum(0)
        values = np.clip(values - 0.1 * np.sign(slope), 0, 1)

    attack = make_attack("dpot", target=TARGET, pixels=3, steps=4, alpha=0.1)
    attack.prepare(local)
    assert attack.places.tolist() == places
    np.testing.assert_allclose(attack.values.numpy(), values, atol=1e-5)

    stamped = attack.stamp(local.samples.pixels, 0).flatten(2)
    rest = [place for place in range(SIDE * SIDE) if place not in places]
    assert torch.equal(stamped[:, :, rest], local.samples.pixels.flatten(2)[:, :, rest])
    assert torch.equal(stamped[:, :, places], attack.values.expand(9, -1, -1))


def test_without_an_image_of_another_class_nothing_changes():
    local = view()
    only = Samples(local.samples.pixels, torch.full_like(local.samples.labels, TARGET))
    attack = make_attack("dpot", target=TARGET)
    attack.prepare(LocalView(**{**vars(local), "samples": only, "colluding": tuple}))
    assert attack.places is None
    assert torch.equal(attack.stamp(only.pixels, 0), only.pixels)
