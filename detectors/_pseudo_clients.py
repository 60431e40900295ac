"""Pseudo-clients: honest clients that the server trains on its own data, to know what honest looks like."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.data import LabeledData, Share
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.round import Round
from fedguard.contracts.server import Server
from fedguard.core.errors import NeedError
from fedguard.core.threads import single_thread
from fedguard.training.local import train_clients

#: Dirichlet parameters β of the generic pseudo-clients' mixes, one client of each per round.
BETAS = (0.1, 0.5, 1.0, 100.0)
#: Pseudo-clients pass their samples as often as clients do, within these bounds.
LEAST_PASSES, MOST_PASSES = 1, 2
#: A pseudo-client gets at most so many times the number of the server's samples.
DRAWS = 2
#: No claimed number of samples counts for more, or less, than this factor times the median.
CLAIMS = 4.0


def generic_mixes(round: Round, classes: int) -> NDArray[np.float64]:
    """(4, C) mixes of classes, drawn from Dirichlet distributions with the parameters ``BETAS``."""
    seed = (round.server or Server()).generator("pseudo-clients", round.index)
    draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=seed)))
    return np.stack([draw.dirichlet([beta] * classes) for beta in BETAS])


def sample_counts(round: Round, root: LabeledData) -> NDArray[np.int64]:
    """(n,) how many samples pseudo-clients get: as many as the clients claim, at most twice the root data.

    Claims are cut at a quarter and four times their median. If it is 1, nothing is known: as many as root
    data.
    """
    middle = float(np.median(round.num_examples))
    if middle <= 1:
        return np.full(round.n, len(root.labels))
    claimed = np.clip(round.num_examples, middle / CLAIMS, middle * CLAIMS)
    return np.clip(claimed.round(), 1, DRAWS * len(root.labels)).astype(np.int64)


def train_pseudo_clients(
    round: Round,
    root: LabeledData,
    mixes: NDArray[np.float64],
    counts: NDArray[np.int64],
    keys: Sequence[object],
) -> Tensor:
    """(k, d) the updates of k honest clients whose data are root samples, drawn with replacement.

    They train as clients do, but pass their samples twice at most: more would overfit the server's few.

    Args:
        round: the server has a model and training settings.
        root: the server's samples.
        mixes: (k, C) shares of the classes; classes without root samples are left out.
        counts: (k,) numbers of samples.
        keys: (k) what random numbers are derived from, besides the round.

    Raises:
        NeedError: the model, the training settings or the global model are missing.
    """
    server, start = round.server, round.global_params
    if server is None or server.model is None or server.training is None or start is None:
        raise NeedError("pseudo-clients need model, training and global_params")
    if not len(mixes):
        return start.new_empty((0, len(start)))
    draws = [server.generator("pseudo-clients", round.index, key) for key in keys]
    labels = root.labels.cpu()
    shares = [
        Share(root, _rows(labels, mix, int(count), draw))
        for mix, count, draw in zip(mixes, counts, draws, strict=True)
    ]
    settings = _shortened(server.training, int(np.median(counts)), float(np.median(round.num_examples)))
    with single_thread():
        return torch.stack(train_clients(copy.deepcopy(server.model), start, shares, settings, draws))


def _shortened(settings: LocalTraining, count: int, claimed: float) -> LocalTraining:
    """The clients' training, for ``count`` samples instead of ``claimed`` ones."""
    if settings.epochs is not None:
        return dataclasses.replace(settings, epochs=min(settings.epochs, MOST_PASSES), patience=0)
    steps = settings.steps or 1
    passes = min(max(steps * settings.batch_size / claimed, LEAST_PASSES), MOST_PASSES)
    return dataclasses.replace(settings, steps=min(steps, math.ceil(passes * count / settings.batch_size)))


def _rows(labels: Tensor, mix: NDArray[np.float64], count: int, draw: torch.Generator) -> Tensor:
    """(count,) positions of samples, drawn with replacement such that classes have the shares of the mix."""
    held = torch.bincount(labels, minlength=len(mix)).double()
    each = torch.from_numpy(mix) / held.clamp(min=1)
    weights = each[labels]
    if not float(weights.sum()) > 0:
        weights = torch.ones(len(labels), dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=draw)
