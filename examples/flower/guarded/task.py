"""The task, as in any Flower app: data, a model, training, a test. Nothing here knows of FedGuard."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

Data = tuple[torch.Tensor, torch.Tensor]

#: How many of the 1797 images the server keeps to test on.
HELD_BACK = 360


def make_model(seed: int = 0) -> nn.Module:
    """A network with one hidden layer; the same first weights for everybody."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _digits(seed: int) -> Data:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    return inputs[order], torch.tensor(digits.target)[order]


def server_data(seed: int = 0) -> Data:
    """The images that the server keeps."""
    inputs, labels = _digits(seed)
    return inputs[:HELD_BACK], labels[:HELD_BACK]


def client_data(client: int, clients: int, seed: int = 0) -> Data:
    """The images of one client: an equal share."""
    inputs, labels = _digits(seed)
    return inputs[HELD_BACK + client :: clients], labels[HELD_BACK + client :: clients]


def train(model: nn.Module, data: Data, epochs: int, lr: float) -> float:
    """Plain SGD in batches of 16; returns the mean loss of the last epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for inputs, labels in zip(data[0].split(16), data[1].split(16), strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


@torch.no_grad()
def test(model: nn.Module, data: Data) -> tuple[float, float]:
    """Mean loss and accuracy."""
    logits = model(data[0])
    return float(F.cross_entropy(logits, data[1])), float((logits.argmax(1) == data[1]).float().mean())
