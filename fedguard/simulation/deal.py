"""Who gets which samples: the server, the clients, and what each client's inputs look like."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from ..contracts.data import LabeledData, Samples
from ..core.errors import FedGuardError, ParameterError
from ..core.files import save_tensors
from ..core.seeds import generator, numpy_generator
from .datasets import Dataset
from .partitions import Change, split_samples
from .settings import Cell

#: The settings that decide who gets which samples.
DEALING = {"data", "partition", "clients", "server", "seed"}


class Deal(NamedTuple):
    """The rows of the training set, by owner.

    Attributes:
        validation: what the server keeps to measure models with.
        root: what it keeps to train on.
        samples: the rows of each client.
        change: how clients' inputs differ; None if they do not.
        notes: for each client, how its inputs differ, in words; may be empty.
    """

    validation: Tensor
    root: Tensor
    samples: list[Tensor]
    change: Change | None
    notes: Sequence[str]


def deal(cell: Cell, dataset: Dataset) -> Deal:
    """Deal the training samples of a federation: the server's first, the rest to the clients.

    Raises:
        FedGuardError: there are too few, or the partition cannot be made; ``key`` is the setting to blame.
    """
    labels, server = dataset.train.labels, cell.server
    held = server.validation + server.root
    if held >= len(labels):
        raise _blamed(
            "server", ParameterError(f"the server keeps {held} samples, but there are only {len(labels)}")
        )
    order = torch.randperm(len(labels), generator=generator(cell.seed, "held out"))
    rest = order[held:].sort().values
    groups = getattr(dataset, "clients", None)
    try:
        split = split_samples(
            cell.partition.name,
            labels[rest].numpy(),
            cell.clients,
            numpy_generator(cell.seed, "partition"),
            {"groups": None if groups is None else np.asarray(groups)[rest.numpy()]},
            cell.partition.params,
        )
        samples = [rest[torch.as_tensor(part)] for part in split.parts]
        if split.change is not None:  # on one sample, so that a mistake shows before anything trains
            _changed(split.change, 0, dataset.train.pixels[samples[0][:1]], cell)
    except FedGuardError as error:
        raise _blamed("partition", error) from None
    return Deal(
        order[: server.validation], order[server.validation : held], samples, split.change, split.notes
    )


def malicious_clients(cell: Cell) -> list[int]:
    """The malicious clients, in the order in which they are compromised."""
    order: list[int] = torch.randperm(cell.clients, generator=generator(cell.seed, "malicious")).tolist()
    return order[: cell.malicious]


def with_changes(dataset: Dataset, dealt: Deal, cell: Cell, folder: Path | None = None) -> Dataset:
    """The data set with every client's inputs changed; the same object if nothing changes.

    Every sample has one owner, so the changed samples take the place of the original ones.

    Args:
        dataset: the data set.
        dealt: who owns what.
        cell: the federation.
        folder: a folder in which processes share the changed samples, each mapping the same file.
    """
    change = dealt.change
    if change is None:
        return dataset

    def make() -> dict[str, Tensor]:
        pixels = dataset.train.pixels.clone()
        for client, rows in enumerate(dealt.samples):
            pixels[rows] = _changed(change, client, pixels[rows], cell)
        return {"pixels": pixels, "inputs": dataset.normalize(pixels)}

    made = make() if folder is None else _through(folder, cell, make)
    labels = dataset.train.labels
    result = dataclasses.replace(dataset, train=Samples(made["pixels"], labels))
    result.__dict__["training_set"] = LabeledData(made["inputs"], labels)  # fills the cached property
    return result


def _through(folder: Path, cell: Cell, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    settings = cell.model_dump_json(include=DEALING)
    path = folder / f"{hashlib.sha256(settings.encode()).hexdigest()}-inputs"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            save_tensors(make(), path)
    return load_file(path)


def _changed(change: Change, client: int, pixels: Tensor, cell: Cell) -> Tensor:
    """A client's changed inputs, checked."""
    changed = change(client, pixels, generator(cell.seed, "inputs", client))
    if not isinstance(changed, Tensor) or changed.shape != pixels.shape or changed.dtype != pixels.dtype:
        found = f"{changed.dtype} of shape {tuple(changed.shape)}" if isinstance(changed, Tensor) else changed
        raise ParameterError(
            f"partition {cell.partition.name}: it changed client {client}'s inputs from {pixels.dtype} of "
            f"shape {tuple(pixels.shape)} to {found}; shape and type must stay"
        )
    if not bool(torch.isfinite(changed).all()):
        raise ParameterError(
            f"partition {cell.partition.name}: it changed client {client}'s inputs to infinite values or NaN"
        )
    return changed


def _blamed(key: str, error: FedGuardError) -> FedGuardError:
    error.key = f"{key}.{error.key}" if error.key else key
    return error
