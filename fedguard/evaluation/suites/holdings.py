"""Who has what: the samples of every client of a suite's federation, before anything trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, FedGuardError
from ...simulation.datasets import Dataset
from ...simulation.deal import DEALING, deal, malicious_clients
from ...simulation.settings import Cell, Spec
from ...simulation.setup import dataset_of, forget_data
from ...simulation.skew import label_skew
from ..terminal import plain
from .source import Source
from .suite import Suite

#: Longer names are cut.
MAX_NAME = 24


@dataclass(frozen=True)
class Holdings:
    """The samples of every client.

    Attributes:
        title: data set, partition and seed.
        sizes: (n,) samples per client.
        counts: (n, L) samples per client and class; None if labels are numbers.
        skew: (n,) how far a client's labels are from those of all, see
            :func:`~fedguard.simulation.skew.label_skew`; None if labels are no classes.
        notes: for each client, how its inputs differ; may be empty.
        malicious: the malicious clients.
        held: samples that the server keeps.
        unused: samples that nobody gets.
        classes: the names of the L classes; empty if unknown.
        clients: the name of each client; empty if unknown.
    """

    title: str
    sizes: NDArray[np.int64]
    counts: NDArray[np.int64] | None
    skew: NDArray[np.float64] | None
    notes: Sequence[str]
    malicious: frozenset[int]
    held: int
    unused: int
    classes: Sequence[str] = ()
    clients: Sequence[str] = ()

    @property
    def summary(self) -> str:
        """The federation in one line."""
        sizes = self.sizes
        words = [
            f"{len(sizes):,} clients",
            f"{sizes.sum():,} samples: {sizes.min():,} … {sizes.max():,} per client "
            f"(median {np.median(sizes):,.0f})",
        ]
        words += [f"mean label skew {self.skew.mean():.2f}"] if self.skew is not None else []
        words += [f"{self.held:,} with the server"] if self.held else []
        words += [f"{self.unused:,} with nobody"] if self.unused else []
        return "; ".join(words)


def federations(suite: Suite, source: Source, seed: int | None = None) -> list[Cell]:
    """One cell for each way in which the suite deals its samples, at one seed.

    Args:
        suite: the suite.
        source: where it comes from.
        seed: any seed; the suite's first one if absent.

    Raises:
        ConfigError: the suite runs on a recording, or nothing is left to run.
    """
    if suite.recording is not None:
        raise source.error(("recording",), "a recording's samples are not known; give a suite without one")
    found: dict[str, Cell] = {}
    for cell in suite.cells():
        own = cell.model_copy(update={"seed": suite.seeds[0] if seed is None else seed})
        found.setdefault(own.model_dump_json(include=DEALING), own)
    if not found:
        raise source.error((), "nothing is left to run: loosen `only` and `exclude`")
    return list(found.values())


def holdings(cell: Cell, source: Source) -> Holdings:
    """Read the data and deal them as a run would; builds no model.

    Raises:
        ConfigError: the samples cannot be dealt; with file, line and key path.
        DataError: the data set cannot be read.
    """
    forget_data()  # files may have changed
    try:
        dataset = _dataset(cell)
        dealt = deal(cell, dataset)
    except FedGuardError as error:
        path = tuple(error.key.split(".")) if error.key else ()
        if isinstance(error, DataError) and len(path) < 2:
            raise source.data_error(path, error) from None
        raise source.error(path, str(error)) from None
    labels = dataset.train.labels.numpy()
    rows = [own.numpy() for own in dealt.samples]
    sizes = np.array([len(own) for own in rows])
    counts, skew = None, None
    if dataset.task == "multilabel":
        counts = np.stack([(labels[own] > 0).sum(0) for own in rows])
    elif dataset.task == "classification":
        classes = max(dataset.num_classes, int(labels.max()) + 1)
        counts = np.stack([np.bincount(labels[own], minlength=classes) for own in rows])
        skew = label_skew([labels[own] for own in rows], classes)
    held = len(dealt.validation) + len(dealt.root)
    return Holdings(
        title=f"{_words(cell.data)} · {_words(cell.partition)} · seed {cell.seed}",
        sizes=sizes,
        counts=counts,
        skew=skew,
        notes=dealt.notes,
        malicious=frozenset(malicious_clients(cell)),
        held=held,
        unused=len(labels) - held - int(sizes.sum()),
        classes=_named(dataset, counts),
        clients=_client_names(dataset, rows),
    )


def _named(dataset: Dataset, counts: NDArray[np.int64] | None) -> list[str]:
    """The classes' names, if each has one."""
    names = dataset.class_names
    known = counts is not None and len(names) == counts.shape[1]
    return [plain(name, MAX_NAME) for name in names] if known else []


def _client_names(dataset: Dataset, rows: Sequence[NDArray[np.int64]]) -> list[str]:
    """The natural clients that each client is made of; empty unless each of them is in one place."""
    if dataset.clients is None or not dataset.client_names:
        return []
    made_of = [np.unique(dataset.clients[own]).tolist() for own in rows]
    if len({one for owners in made_of for one in owners}) < sum(map(len, made_of)):
        return []
    return [plain(", ".join(dataset.client_names[one] for one in owners), MAX_NAME) for owners in made_of]


def _dataset(cell: Cell) -> Dataset:
    try:
        return dataset_of(cell.data)
    except FedGuardError as error:
        error.key = f"data.{error.key}" if error.key else "data"
        raise


def _words(spec: Spec) -> str:
    """A name and its parameters: "dirichlet (beta 0.5)"."""
    params = ", ".join(f"{name} {_value(value)}" for name, value in spec.params.items())
    return f"{spec.name} ({params})" if params else spec.name


def _value(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return _words(Spec(**value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
