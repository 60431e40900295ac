"""Data sets by name.

Two come with scikit-learn. The others are read from a data root: the argument ``data_root``, else the
environment variable ``FEDGUARD_DATA``. FedGuard never writes to these folders. Without either, it uses a
per-user cache, into which torchvision downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import ParameterError
from ..parts import Parts
from .base import Dataset
from .cifar10 import load_cifar10
from .embedded import load_breast_cancer, load_digits
from .mnist import load_fashion_mnist, load_mnist
from .tiny_shakespeare import load_tiny_shakespeare

__all__ = [
    "CATALOGUE",
    "Dataset",
    "datasets",
    "load_breast_cancer",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_tiny_shakespeare",
]

#: The data sets that come with FedGuard; the entry point ``fedguard.datasets`` offers them.
CATALOGUE = {
    "digits": "fedguard.simulation.datasets.embedded:load_digits",
    "breast_cancer": "fedguard.simulation.datasets.embedded:load_breast_cancer",
    "mnist": "fedguard.simulation.datasets.mnist:load_mnist",
    "fashion_mnist": "fedguard.simulation.datasets.mnist:load_fashion_mnist",
    "cifar10": "fedguard.simulation.datasets.cifar10:load_cifar10",
    "tiny_shakespeare": "fedguard.simulation.datasets.tiny_shakespeare:load_tiny_shakespeare",
}

datasets = Parts("data set", "fedguard.datasets", ("data_root",))


def load_dataset(name: str, data_root: str | Path | None = None, **params: Any) -> Dataset:
    """Load a data set by name.

    Args:
        name: a name in :data:`datasets`, ``module:function`` (one that returns a :class:`Dataset`), or
            ``given:NAME`` for such a function or a :class:`Dataset`.
        data_root: the folder that holds ``MNIST/raw``, ``FashionMNIST/raw``, ``cifar-10-batches-py``,
            ``tinyshakespeare``.
        params: the data set's own parameters.

    Raises:
        ParameterError: the name or a parameter is unknown, or the function returns something else.
        DataError: a file is missing or damaged, or cannot be downloaded.
    """
    found = datasets.get(name)
    if not isinstance(found, Dataset):
        found = datasets.make(name, {"data_root": data_root}, params)
    elif params:
        raise ParameterError(f"data {name} is loaded already: it takes no parameters")
    if not isinstance(found, Dataset):
        raise ParameterError(f"data {name} made a {type(found).__name__}, not a Dataset")
    return found
