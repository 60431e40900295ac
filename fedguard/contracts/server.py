"""What the server owns and may lend to a method. Nothing here says who is malicious."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..core.seeds import generator
from ..geometry.updates import Updates
from .data import LabeledData
from .local_training import LocalTraining


class AggregationRule(Protocol):
    """The shape of an aggregator (:class:`fedguard.Aggregator`), as far as methods on the server use it."""

    @property
    def name(self) -> str:
        """The registered name."""

    def min_clients(self) -> int:
        """The smallest number of surviving clients that the rule is defined for."""

    def aggregate(self, round: Any, weights: Any) -> Tensor:
        """(d,) of a round in which everybody counts."""

    def __call__(self, round: Any, weights: Any = None) -> Tensor:
        """(d,) of a round, without the clients of weight 0."""


def map_in_order(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The default way to run independent pieces of work: one after the other."""
    return [function(item) for item in items]


@dataclass(frozen=True, eq=False)
class Server:
    """The server's side of a round, each part only if configured.

    Attributes:
        model: the architecture; its own parameters are ignored in favor of ``Round.global_params``,
            which holds them flattened in the order of ``model.parameters()``.
        input_shape: the shape of one input of the model, say (1, 28, 28).
        num_classes: the number of labels.
        validation: samples disjoint from every client's, to measure models with.
        root: samples disjoint from every client's, to train on (FLTrust).
        training: how clients are told to train, for methods that train on the root data likewise.
        aggregator: the aggregation rule in use; the guard fills it in.
        seed: the root of every random choice that a method makes on the server.
        map: runs independent pieces of work (one client's reconstruction, say), in order; a pool's
            map makes them parallel. Every piece runs single-threaded, so that the number of workers
            does not show in the results.
        received: the updates of all judged clients, including those that the policy then excludes; the
            guard fills it in for the stages.
    """

    model: nn.Module | None = None
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    validation: LabeledData | None = None
    root: LabeledData | None = None
    training: LocalTraining | None = None
    aggregator: AggregationRule | None = None
    seed: int = 0
    map: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]] = map_in_order
    received: Updates | None = None

    def generator(self, purpose: str, *keys: object) -> torch.Generator:
        """A generator of its own for one purpose, say ``("dnc", round.index)``."""
        return generator(self.seed, purpose, *keys)
