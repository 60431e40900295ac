"""Bucketing: aggregate the means of random small groups instead of single updates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.server import Server
from ..contracts.stage import Stage
from ..core.errors import ParameterError
from ..geometry.updates import Updates

LARGEST = np.finfo(np.float64).max


class Bucketing(Stage):
    """Shuffle clients into ⌈n/s⌉ buckets; the aggregator gets the mean of each.

    The mean in a bucket is weighted by the policy's weights. A bucket has the sum of its members' samples,
    the mean of their steps, and weight 1.

    Args:
        size: s, clients per bucket; 2 in the paper.

    Raises:
        ParameterError: a size below 1.

    Source: Karimireddy et al., ICLR 2022, Algorithm 1.
    """

    card = Card(
        "bucketing",
        "aggregate the means of random groups of clients",
        "Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets, ICLR 2022",
    )

    def __init__(self, size: int = 2) -> None:
        if size < 1:
            raise ParameterError(f"bucketing: size is {size}; use at least 1")
        self.size = size

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Shuffle and average."""
        draw = (round.server or Server()).generator("bucketing", round.index)
        by_id = sorted(range(round.n), key=lambda i: str(round.client_ids[i]))  # not by order of arrival
        order = np.array(by_id)[torch.randperm(round.n, generator=draw).numpy()]
        buckets = [order[k : k + self.size] for k in range(0, round.n, self.size)]
        mix = np.zeros((len(buckets), round.n))
        for k, members in enumerate(buckets):
            mix[k, members] = weights[members] / weights[members].sum()
        mixing = torch.from_numpy(mix).to(round.updates.device)
        means = torch.cat([(mixing @ block).float() for block in round.updates.blocks()], dim=1)
        with np.errstate(over="ignore"):  # claims may be near the largest float64
            examples = [round.num_examples[members].sum() for members in buckets]
            steps = [round.num_steps[members].mean() for members in buckets]
        merged = Round(
            Updates(means),
            client_ids=[f"bucket {k}" for k in range(len(buckets))],
            num_examples=np.minimum(examples, LARGEST),
            num_steps=np.minimum(steps, LARGEST),
            index=round.index,
            global_params=round.global_params,
            server=round.server,
        )
        return merged, np.ones(len(buckets))
