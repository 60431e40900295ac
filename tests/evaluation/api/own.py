"""A user's own model, data, split, attack and detectors, for the tests of the front door."""

import numpy as np
import torch
from torch import nn

from fedguard import Attack, Card, Detector, Scores
from fedguard.contracts.data import Samples
from fedguard.simulation.datasets import Dataset

SCALE = 3.0


class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


class Mine(Attack):
    """u' = −3 factor u."""

    card = Card("mine", "the opposite", "nobody, 2026")
    kind = "model"
    goal = "untargeted"

    def __init__(self, factor: float = 2.0):
        self.factor = factor

    def craft(self, view):
        return -self.factor * SCALE * view.own_updates


class Far(Detector):
    """s_i = ‖u_i‖; counts its calls, to see that every run starts afresh."""

    card = Card("far", "length", "nobody, 2026")

    def __init__(self, limit: float = 2.0):
        self.limit = limit
        self.rounds = 0

    def score(self, round):
        norms = np.asarray(round.updates.norms, dtype=float)
        info = {"rounds": self.rounds}
        return Scores(norms, suspects=norms > self.limit * np.median(norms), info=info)

    def commit(self, round, scores, decision):
        self.rounds += 1


class Breaks(Detector):
    """Raises in round 1."""

    card = Card("breaks", "raises", "nobody, 2026")

    def score(self, round):
        if round.index == 1:
            raise ZeroDivisionError("on purpose")
        return Scores(np.zeros(round.n), suspects=np.zeros(round.n, bool))


def plane(count: int = 200) -> Dataset:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 2))).float()
    samples = Samples(points, (points[:, 0] > 0).long())
    return Dataset("plane", samples, samples, 2, mean=(0.0,), std=(1.0,))


def in_turn(labels, n):
    return [np.arange(k, len(labels), n) for k in range(n)]


#: A federation on all of these.
FEDERATION = {
    "data": plane,
    "model": Net,
    "partition": in_turn,
    "clients": 8,
    "malicious": 2,
    "rounds": 2,
    "training": {"lr": 0.3},
}
