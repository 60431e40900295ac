"""How much one client's update leaks: a passive attack on a simulated client, compared with the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...contracts.data import LabeledData
from ...contracts.local_training import LocalTraining
from ...contracts.registry import make_attack
from ...core.errors import ParameterError
from ...core.files import write_atomically
from ...core.seeds import generator
from ...core.threads import single_thread
from ...passive import Leak, PassiveAttack, measure
from ...simulation.datasets import Dataset, load_dataset
from ...simulation.leaks import input_bounds, input_pixels
from ...simulation.models import build_model
from ...training.local import train_client
from ...training.parameters import flat_parameters


@dataclass(frozen=True)
class LeakSettings:
    """One simulated client whose update is attacked.

    Attributes:
        data: the name of the data set.
        model: the model's name.
        samples: how many samples the client has.
        steps: how many full-batch steps it trains.
        lr: its learning rate.
        seed: of all randomness.
    """

    data: str = "digits"
    model: str = "mlp"
    samples: int = 1
    steps: int = 1
    lr: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class LeakResult:
    """The result of a passive attack.

    Attributes:
        metrics: "psnr", "ssim" and "labels" of the attack, and "noise_psnr" and "noise_ssim" of guessing
            pixels at random, for comparison.
        truth: (n, …) the client's pixels.
        pixels: (k, …) the reconstructed pixels; None if the attack finds only labels.
    """

    metrics: dict[str, float]
    truth: Tensor
    pixels: Tensor | None


def passive(name: str, params: dict[str, Any]) -> PassiveAttack:
    """A passive attack by name.

    Raises:
        ParameterError: the attack is not passive.
    """
    attack = make_attack(name, **params)
    if not isinstance(attack, PassiveAttack):
        raise ParameterError(f"attack {name} is not passive: it changes updates; use it in a suite")
    return attack


def leak_of(settings: LeakSettings, attack: PassiveAttack, start: PassiveAttack | None = None) -> LeakResult:
    """Train a client, attack its update, and measure what leaked.

    Args:
        settings: the client.
        attack: the passive attack to measure.
        start: another attack whose reconstruction is the starting point of this one, for example the
            knowledge that FedREDefense distills.

    Raises:
        ParameterError: the data are not images, or there are too few of them.
    """
    data = load_dataset(settings.data)
    if len(data.input_shape) != 3:
        raise ParameterError(f"leaks are measured on images; {settings.data} has inputs {data.input_shape}")
    if not 1 <= settings.samples <= len(data.train.labels):
        raise ParameterError(f"samples is {settings.samples}; {settings.data} has {len(data.train.labels)}")
    draw = generator(settings.seed, "leak client")
    own = data.train.take(torch.randperm(len(data.train.labels), generator=draw)[: settings.samples])
    with single_thread():
        leak = _leak(settings, data, data.labeled(own))
        if start is not None:
            leak = _begin(leak, start)
        found = attack.reconstruct(leak)
    pixels = None if found.inputs is None else input_pixels(data, found.inputs)
    guess = torch.rand(own.pixels.shape, generator=generator(settings.seed, "leak guess"))
    noise = measure(found, guess, own.pixels, own.labels)
    metrics = measure(found, pixels, own.pixels, own.labels)
    metrics |= {"noise_psnr": noise["psnr"], "noise_ssim": noise["ssim"]}
    return LeakResult(metrics, own.pixels, pixels)


def _leak(settings: LeakSettings, data: Dataset, own: LabeledData) -> Leak:
    model = build_model(
        settings.model, data.input_shape, data.num_classes, generator(settings.seed, "leak model")
    )
    training = LocalTraining(epochs=None, steps=settings.steps, batch_size=len(own.labels), lr=settings.lr)
    start = flat_parameters(model)
    update = train_client(model, start, own, training, generator(settings.seed, "leak batches"))
    return Leak(
        model=model.eval(),
        global_params=start,
        update=update,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        count=settings.samples,
        gradient_scale=settings.lr * settings.steps,
        bounds=input_bounds(data),
        generator=generator(settings.seed, "leak attack"),
        training=training,
    )


def _begin(leak: Leak, start: PassiveAttack) -> Leak:
    found = start.reconstruct(leak)
    if found.inputs is None or found.labels is None:
        raise ParameterError(f"{start.name} does not find inputs and labels to start from")
    logits = torch.nn.functional.one_hot(found.labels, leak.num_classes).float()
    return replace(leak, start=(found.inputs.float(), logits))


def save_picture(result: LeakResult, path: Path) -> None:
    """Write a picture: the client's images above, the reconstructed ones below, eight times enlarged."""
    from ...simulation.vision import torchvision

    rows = [result.truth] if result.pixels is None else [result.truth, result.pixels]
    width = max(len(row) for row in rows)
    grid = torch.cat([_padded(row, width) for row in rows])
    large = grid.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"use a name that ends in {', '.join(kinds)}")
    look = {"nrow": width, "padding": 4, "pad_value": 0.5, "format": kinds[path.suffix.lower()]}
    write_atomically(path, lambda fresh: torchvision.utils.save_image(large, str(fresh), **look))


def _padded(images: Tensor, count: int) -> Tensor:
    blank = images.new_full((count - len(images), *images.shape[1:]), 0.5)
    return torch.cat([images, blank])
