"""A small real federation for the checks: eight clients train on a few digits each."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from ..contracts.data import LabeledData, Samples
from ..contracts.local_training import LocalTraining
from ..contracts.round import Round
from ..contracts.server import Server
from ..core.seeds import generator
from ..core.threads import single_thread
from ..training.local import train_client
from ..training.parameters import flat_parameters

N, SHAPE, CLASSES = 8, (1, 8, 8), 10
#: Integers and strings, unordered.
IDS = (5, "b", 2, "a", 0, 11, "5b", 7)
TRAINING = LocalTraining(epochs=None, steps=4, batch_size=32, lr=0.02)


@functools.cache
def digits() -> Samples:
    """Return scikit-learn's digits: pixels in [0, 1] and labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Samples(torch.tensor(pixels / 16, dtype=torch.float32).view(-1, *SHAPE), torch.tensor(labels))


def small_model() -> nn.Module:
    """Return a perceptron for the digits with 12 hidden units; always the same."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, CLASSES))
    draw = generator(0, "model of the checks")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=draw) - 0.5) / 4)
    return model


@functools.cache
def federation() -> tuple[Round, ...]:
    """Return three rounds; the server owns everything that a method can need."""
    pixels, labels = digits()
    server = Server(
        model=small_model(),
        input_shape=SHAPE,
        num_classes=CLASSES,
        validation=LabeledData(pixels[:80], labels[:80]),
        root=LabeledData(pixels[80:160], labels[80:160]),
        training=TRAINING,
        seed=1,
    )
    start, rounds = flat_parameters(small_model()), []
    with single_thread():
        for index in range(3):
            updates = torch.stack([_train(start, client, index) for client in range(N)])
            counts = np.arange(30, 30 + N)
            rounds.append(Round(updates, IDS, counts, index=index, global_params=start, server=server))
            start = start + updates.mean(0)
    return tuple(rounds)


def _train(start: Tensor, client: int, index: int) -> Tensor:
    pixels, labels = digits()
    own = torch.tensor([(client + k) % CLASSES for k in (0, 1, 3, 7)])
    mine = torch.isin(labels, own).nonzero().flatten()[160:]
    data = LabeledData(pixels[mine], labels[mine])
    return train_client(small_model(), start, data, TRAINING, generator(client, "checks", index))


def fresh(round: Round) -> Round:
    """Return the round with its own copy of the updates, without cached geometry."""
    return round.with_updates(round.updates.matrix.clone())
