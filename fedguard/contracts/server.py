"""What the server owns and provides to methods. It holds no ground truth about clients."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..core.devices import on_device
from ..core.seeds import generator
from ..geometry.updates import Updates
from .data import LabeledData
from .local_training import LocalTraining


class AggregationRule(Protocol):
    """The part of an aggregator (:class:`fedguard.Aggregator`) that other methods use."""

    @property
    def name(self) -> str:
        """The registered name."""

    def min_clients(self) -> int:
        """The smallest number of surviving clients that the rule is defined for."""

    def aggregate(self, round: Any, weights: Any) -> Tensor:
        """(d,) the aggregate of a round in which every client has a positive weight."""

    def __call__(self, round: Any, weights: Any = None) -> Tensor:
        """(d,) the aggregate of a round without the clients of weight 0."""


def map_in_order(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Apply a function to each item sequentially; the default of ``Server.map``."""
    return [function(item) for item in items]


@dataclass(frozen=True, eq=False)
class Server:
    """What the server owns; every part is optional.

    Attributes:
        model: the architecture. ``Round.global_params`` holds the current learned parameters (those that
            require gradients), or all, flattened in the order of ``model.parameters()``; what it holds of
            the model's own is ignored.
        input_shape: the shape of one model input, for example (1, 28, 28).
        num_classes: the number of labels.
        task: what labels are: "classification", "multilabel", "regression" or "causal"; or
            "generative".
        validation: samples disjoint from every client's, for evaluating models.
        root: samples disjoint from every client's, for training (FLTrust).
        training: the configuration of local training, for methods that train on the root data.
        aggregator: the aggregation rule in use; the guard sets it.
        seed: the seed of all random numbers that methods draw on the server.
        map: maps a function over independent tasks, in order (for example one reconstruction per client);
            the map of a worker pool runs them in parallel. Every task is single-threaded, so that results
            do not depend on the number of workers.
        rounds: how many rounds there will be, if that is known.
        received: the updates of all judged clients, including those that the policy then excludes; the guard
            sets it for the stages.

    Example:
        >>> from torch import nn
        >>> from fedguard import Round, Server
        >>> server = Server(model=nn.Linear(2, 1), input_shape=(2,))
        >>> Round([[0.1, 0.2, 0.3]], global_params=[0.0, 0.0, 0.0], server=server)
        Round(index=0, n=1, d=3, server=…)
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
    rounds: int | None = None
    received: Updates | None = None
    task: str = "classification"

    def generator(self, purpose: str, *keys: object) -> torch.Generator:
        """An independent random generator for one purpose, for example ``("dnc", round.index)``."""
        return generator(self.seed, purpose, *keys)

    def to(self, device: torch.device) -> Server:
        """The same server with its model, validation and root data on a device; copies only what is not."""
        model = self.model
        if model is not None and any(
            part.device != device for part in (*model.parameters(), *model.buffers())
        ):
            model = copy.deepcopy(model).to(device)
        validation, root = (_moved(data, device) for data in (self.validation, self.root))
        return dataclasses.replace(self, model=model, validation=validation, root=root)


def _moved(data: LabeledData | None, device: torch.device) -> LabeledData | None:
    return None if data is None else LabeledData(*(on_device(part, device) for part in data))
