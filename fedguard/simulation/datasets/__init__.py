"""Data sets by name.

Two come with scikit-learn. The others are read from a data root: the argument ``data_root``, else the
environment variable ``FEDGUARD_DATA``. FedGuard never writes to these folders. Without either, it uses a
per-user cache, into which torchvision downloads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...core.errors import ParameterError
from ...core.params import nearest
from .base import Dataset
from .cifar10 import load_cifar10
from .embedded import load_breast_cancer, load_digits
from .mnist import load_fashion_mnist, load_mnist
from .tiny_shakespeare import load_tiny_shakespeare

__all__ = ["DATASETS", "Dataset", "Source", "load_dataset"]


class Source(NamedTuple):
    """A summary for ``fedguard list datasets``, and the function that loads from a data root."""

    summary: str
    load: Callable[[str | Path | None], Dataset]


DATASETS: dict[str, Source] = {
    "digits": Source("1,797 8×8 digits, 10 classes; comes with scikit-learn", lambda _: load_digits()),
    "breast_cancer": Source(
        "569 cases, 30 features, 2 classes; comes with scikit-learn", lambda _: load_breast_cancer()
    ),
    "mnist": Source("60,000 + 10,000 28×28 digits, 10 classes", load_mnist),
    "fashion_mnist": Source("60,000 + 10,000 28×28 pictures of clothes, 10 classes", load_fashion_mnist),
    "cifar10": Source("50,000 + 10,000 32×32 color photos (or a subset), 10 classes", load_cifar10),
    "tiny_shakespeare": Source(
        "50,189 + 5,573 passages of 80 characters, 65 classes (the next one); for bilstm",
        load_tiny_shakespeare,
    ),
}


def load_dataset(name: str, data_root: str | Path | None = None) -> Dataset:
    """Load a data set of :data:`DATASETS`.

    Args:
        name: its name.
        data_root: the folder that holds ``MNIST/raw``, ``FashionMNIST/raw``, ``cifar-10-batches-py``,
            ``tinyshakespeare``.

    Raises:
        ParameterError: unknown name.
        DataError: a file is missing or damaged, or cannot be downloaded.
    """
    if name not in DATASETS:
        raise ParameterError(
            f"unknown data set {name!r}{nearest(name, DATASETS)} (known: {', '.join(DATASETS)})"
        )
    return DATASETS[name].load(data_root)
