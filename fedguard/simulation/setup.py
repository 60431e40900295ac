"""What all cells of one seed share: data, partition, initial model, malicious clients."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.attack import Attack
from ..contracts.card import Method
from ..contracts.data import LabeledData, Samples
from ..contracts.detector import NEEDS, check_needs
from ..contracts.local_training import LocalTraining
from ..contracts.server import Server, map_in_order
from ..core.errors import FedGuardError, ParameterError
from ..core.seeds import derive, generator, numpy_generator
from ..guard import Guard
from ..training.parameters import flat_parameters, flat_statistics
from .datasets import Dataset, load_dataset
from .keys import CellKey
from .models import build_model
from .partitions import make_partition
from .pool import shared
from .settings import Cell, Spec
from .skew import label_skew


class Setup:
    """A federation before its first round, the same for every attack and defense of a seed.

    Args:
        cell: its settings and seed.

    Raises:
        DataError: the data set cannot be read.
        FedGuardError: a part cannot be built; ``key`` says which setting is to blame.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        seed = cell.seed
        with _blame("data"):
            self.dataset: Dataset = shared().get(cell.data.key) or dataset_of(cell.data)
        train, held = self.dataset.train, cell.server.validation + cell.server.root
        with _blame("server"):
            if held >= len(train.labels):
                raise ParameterError(
                    f"the server keeps {held} samples, but there are only {len(train.labels)}"
                )
        order = torch.randperm(len(train.labels), generator=generator(seed, "held out"))
        self.validation = self._held_out(order[: cell.server.validation])
        self.root = self._held_out(order[cell.server.validation : held])
        rest = order[held:].sort().values if held else order.sort().values
        with _blame("partition"):
            parts = make_partition(
                cell.partition.name,
                train.labels[rest].numpy(),
                cell.clients,
                numpy_generator(seed, "partition"),
                **cell.partition.params,
            )
        self.samples = [rest[torch.as_tensor(part)] for part in parts]
        with _blame("model"):
            self.model = build_model(
                cell.model.name,
                self.dataset.input_shape,
                self.dataset.num_classes,
                generator(seed, "model"),
                **cell.model.params,
            )
        self.initial = flat_parameters(self.model)
        self.initial_statistics = flat_statistics(self.model)
        self.test = self.dataset.test_set
        self.training = LocalTraining(**cell.training.model_dump())
        chosen = torch.randperm(cell.clients, generator=generator(seed, "malicious"))[: cell.malicious]
        #: In the order in which they are compromised.
        self.malicious: list[int] = chosen.tolist()

    def _held_out(self, index: Tensor) -> LabeledData | None:
        return self.dataset.labeled(self.dataset.train.take(index)) if len(index) else None

    def client_samples(self, client: int) -> Samples:
        """A client's own samples, before any poisoning."""
        return self.dataset.train.take(self.samples[client])

    @property
    def label_skew(self) -> NDArray[np.float64]:
        """(n,) how far each client's labels are from those of all clients, see :func:`~.skew.label_skew`."""
        labels = self.dataset.train.labels
        return label_skew([labels[index].numpy() for index in self.samples], self.dataset.num_classes)

    def server(self, map: Any = map_in_order) -> Server:
        """The server of this federation; ``map`` runs its work."""
        return Server(
            model=self.model,
            input_shape=self.dataset.input_shape,
            num_classes=self.dataset.num_classes,
            validation=self.validation,
            root=self.root,
            training=self.training,
            seed=derive(self.cell.seed, "server"),
            map=map,
            rounds=self.cell.rounds,
        )

    def participants(self, round_index: int, allowed: Iterable[int], members: int) -> list[int]:
        """The participants of a round: a random share of the members, drawn from those allowed, in order."""
        pool = sorted(allowed)
        count = min(self.cell.shrunk_to(members).participants, len(pool))
        order = numpy_generator(self.cell.seed, "participants", round_index).permutation(len(pool))
        return sorted(pool[i] for i in order[:count])

    def check_attack(self, attack: Attack) -> None:
        """Refuse an attack that does not fit the data or the numbers of clients (ParameterError)."""
        if attack.kind != "none" and not self.malicious:
            raise ParameterError(f"attack {attack.name} needs malicious clients; set `malicious` above 0")
        n, m = self.cell.participants, len(self.malicious)
        attack.check(self.dataset.input_shape, self.dataset.num_classes, n, -(-m * n // self.cell.clients))

    def check_guard(self, guard: Guard, n: int) -> None:
        """Refuse a guard that needs what the server lacks, or that does not work with n clients."""
        have = {"model", "training", "global_params"} | {
            name for name in ("validation", "root") if getattr(self, name) is not None
        }
        check_parts(guard, n, frozenset(have & NEEDS.keys()))


def check_parts(guard: Guard, n: int, available: frozenset[str]) -> None:
    """Refuse a guard whose parts need what is not available, or do not work with n clients."""
    for detector in guard.detectors.values():
        detector.check(n, available)
        _check_majority(detector, n)
    for part in guard.aggregation():
        check_needs(part.name, part.needs, available)
        _check_majority(part, n)
        if part.min_clients() > n:
            raise ParameterError(f"{part.name} needs at least {part.min_clients()} clients, a round has {n}")


def _check_majority(method: Method, n: int) -> None:
    """Refuse a method that assumes f attackers without a majority of honest clients."""
    f = getattr(method, "num_malicious", None) or 0
    if 2 * f >= n:
        raise ParameterError(
            f"{method.name} is told of {f} malicious clients among {n} per round; it needs an honest "
            "majority, so lower `assumed_malicious` (or its own num_malicious)"
        )


def setup_for(cell: Cell) -> Setup:
    """The setup of a cell, shared by all attacks and defenses."""
    return _built(CellKey.for_setup(cell))


def setup_of(key: CellKey) -> Setup:
    """The setup of a cell by the cell's key."""
    return _built(key.setup)


@functools.lru_cache(maxsize=4)  # a setup holds its data set: keep few
def _built(key: CellKey) -> Setup:
    return Setup(key.cell)


def dataset_of(spec: Spec) -> Dataset:
    """The data set that a suite names, with its parameters."""
    return load_dataset(spec.name, **spec.params)


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    try:
        yield
    except FedGuardError as error:
        error.key = key
        raise
