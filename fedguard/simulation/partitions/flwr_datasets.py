"""Any partitioner of flwr-datasets (extra: flwr-datasets)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.params import check_params, nearest
from .base import Partition, checked_size

#: The columns of the table that a partitioner gets.
ROW, LABEL, CLIENT = "row", "label", "client"


@functools.cache
def flwr_partition(name: str) -> Callable[..., Partition]:
    """The partition ``flwr:NAME``: the class NAME of ``flwr_datasets.partitioner``.

    It gets a table of the columns ``label`` and, if the data set has natural clients, ``client``, in random
    order. ``num_partitions`` is the number of clients, ``seed`` comes from the federation's seed, and
    ``partition_by`` is ``label``, or ``client`` for partitioners by natural id, unless you set it.

    Raises:
        ParameterError: the extra is missing, or there is no such partitioner.
    """
    module = extra_module("flwr_datasets.partitioner", "flwr-datasets", f"partition flwr:{name}")
    known = [n for n in module.__all__ if n.endswith("Partitioner") and n != "Partitioner"]
    if name not in known:
        raise ParameterError(f"no partitioner flwr:{name}{nearest(name, known)} (known: {', '.join(known)})")
    cls = getattr(module, name)

    def partition(
        labels: ArrayLike,
        n: int,
        rng: np.random.Generator,
        groups: NDArray[np.int64] | None = None,
        **params: Any,
    ) -> Partition:
        checked_size(labels, n)
        settings = _settings(cls, n, rng, groups is not None, params)
        checked = check_params(cls, settings, f"partition flwr:{name}")
        table = _table(labels, rng, groups)
        try:
            partitioner = cls(**checked)
            partitioner.dataset = table
            return parts_of(partitioner, n)
        except ParameterError:
            raise
        except Exception as error:  # the library raises ValueError, TypeError, KeyError and others
            raise ParameterError(f"partition flwr:{name}: {error}") from error

    partition.__doc__ = f"{(inspect.getdoc(cls) or name).partition(chr(10))[0]} (flwr-datasets)"
    partition.__name__ = name
    return partition


def parts_of(partitioner: Any, n: int) -> Partition:
    """The rows of each client, from any object with ``num_partitions`` and ``load_partition``.

    Args:
        partitioner: it has a table with the column ``row``.
        n: the number of clients.

    Raises:
        ParameterError: it makes another number of parts, or splits columns and not rows.
    """
    if partitioner.num_partitions != n:
        raise ParameterError(
            f"partition flwr:{type(partitioner).__name__}: it makes {partitioner.num_partitions} parts; set "
            f"`clients`, which is {n}, to that number"
        )
    tables = [partitioner.load_partition(client) for client in range(n)]
    if any(ROW not in table.column_names for table in tables):
        raise ParameterError(
            f"partition flwr:{type(partitioner).__name__}: it deals columns; use one that deals samples"
        )
    return [np.array(table[ROW], dtype=np.int64) for table in tables]


def _settings(
    cls: type[Any], n: int, rng: np.random.Generator, natural: bool, params: dict[str, Any]
) -> dict[str, Any]:
    """The partitioner's parameters: the user's, and what the federation knows."""
    by = CLIENT if "NaturalId" in cls.__name__ else LABEL
    if by == CLIENT and not natural:
        raise ParameterError(
            f"partition flwr:{cls.__name__}: the data set does not say which client a sample comes from; use "
            "one that does (a `client` column)"
        )
    ours = {"num_partitions": n, "seed": int(rng.integers(2**31)), "partition_by": by}
    names = inspect.signature(cls).parameters
    return {**{name: value for name, value in ours.items() if name in names}, **params}


def _table(labels: ArrayLike, rng: np.random.Generator, groups: NDArray[np.int64] | None) -> Any:
    """The samples as a table of Hugging Face ``datasets``, shuffled: some partitioners cut it in order."""
    datasets = extra_module("datasets", "flwr-datasets", "a partition flwr:NAME")
    y = np.asarray(labels)
    order = rng.permutation(len(y))
    columns = {ROW: order.tolist(), LABEL: y[order].tolist()}
    if groups is not None:
        columns[CLIENT] = np.asarray(groups)[order].tolist()
    return datasets.Dataset.from_dict(columns)
