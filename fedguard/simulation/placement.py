"""Where a cell's models, data and rounds live: on the cell's device, found on the machine that runs."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..contracts.data import LabeledData, Share
from ..core.devices import deterministic_on, on_device, resolve_device
from ..core.threads import is_helping
from ..training.layout import same_layout
from .client_data import evaluation_batches, poisons_test, training_data
from .keys import CellKey
from .setup import setup_of


@contextmanager
def cell_device(key: CellKey) -> Iterator[torch.device]:
    """The cell's device, deterministic within the block.

    Raises:
        ParameterError: this machine does not have it.
    """
    device = _resolved(key.cell.device)
    with deterministic_on(device):
        yield device


def guard_device(key: CellKey) -> torch.device:
    """Where attacks craft and the guard judges: the cell's device if it has float64, else the CPU.

    Raises:
        ParameterError: this machine does not have the cell's device.
    """
    device = _resolved(key.cell.device)
    return torch.device("cpu") if device.type == "mps" else device


@dataclass(frozen=True)
class MapOn:
    """A map whose pieces of work run on the cell's device, deterministically."""

    key: CellKey
    map: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """``map(function, items)``."""
        return self.map(_Piece(self.key, function), items)


@dataclass(frozen=True)
class _Piece:
    key: CellKey
    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        with cell_device(self.key):
            return self.function(item)


def map_on(key: CellKey, map: Any) -> Any:
    """The map for the server's own work: :class:`MapOn`; on the CPU the map itself."""
    return map if key.cell.device == "cpu" else MapOn(key, map)


@functools.lru_cache(maxsize=8)
def _resolved(name: str) -> torch.device:
    return resolve_device(name)


def model_on(key: CellKey, device: torch.device) -> nn.Module:
    """The setup's model on a device: a scratch module, whose parameters may be overwritten.

    A thread that helps with the clients has a replica of its own.
    """
    model = setup_of(key).model if device.type == "cpu" else _moved_model(key.setup, device)
    return _replicas.of(model) if is_helping() else model


class _Replicas(threading.local):
    """This thread's replicas of models, as long as these are in use."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()

    def of(self, model: nn.Module) -> nn.Module:
        """The replica of a model; only its learned parameters may differ."""
        if model not in self._made:
            self._made[model] = copy.deepcopy(model)
            same_layout(self._made[model], model)
        return self._made[model]


_replicas = _Replicas()


@functools.lru_cache(maxsize=4)
def _moved_model(key: CellKey, device: torch.device) -> nn.Module:
    return copy.deepcopy(setup_of(key).model).to(device)


def training_data_on(key: CellKey, client: int, attacking: bool, device: torch.device) -> LabeledData | Share:
    """A client's training data on a device; the data set that clients share is moved there once.

    The rows of a share stay in memory: that is where they are shuffled.
    """
    data = training_data(key, client, attacking)
    if device.type == "cpu":
        return data
    if isinstance(data, Share):
        return Share(_moved_training_set(key.setup, device), data.rows)
    return _moved(data, device)


@functools.lru_cache(maxsize=2)
def _moved_training_set(key: CellKey, device: torch.device) -> LabeledData:
    return _moved(setup_of(key).dataset.training_set, device)


def evaluation_batches_on(key: CellKey, targeted: bool, device: torch.device) -> list[LabeledData]:
    """The batches of the test set, or of the attack's trial, on a device; moved there once."""
    if device.type == "cpu":
        return evaluation_batches(key, targeted)
    own = targeted or poisons_test(key)
    return _moved_batches(key.attack if own else key.setup, targeted, device)


@functools.lru_cache(maxsize=4)
def _moved_batches(key: CellKey, targeted: bool, device: torch.device) -> list[LabeledData]:
    return [_moved(batch, device) for batch in evaluation_batches(key, targeted)]


def _moved(data: LabeledData, device: torch.device) -> LabeledData:
    return LabeledData(*(on_device(part, device) for part in data))
