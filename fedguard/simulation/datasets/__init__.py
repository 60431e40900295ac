"""Data sets by name.

Two come with scikit-learn, and files of one's own are named by their paths. The others are read from a data
root: the argument ``data_root``, else the environment variable ``FEDGUARD_DATA``. FedGuard never writes to
these folders. Without either, it uses a per-user cache, into which it downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import DataError, ParameterError
from ...evaluation.terminal import plain
from ..parts import Parts, called
from .base import Dataset
from .checks import checked
from .cifar10 import load_cifar10
from .embedded import load_breast_cancer, load_digits
from .given import as_dataset
from .huggingface import huggingface_set
from .mnist import load_fashion_mnist, load_mnist
from .openml import openml_set
from .tiny_shakespeare import load_tiny_shakespeare
from .torchvision_sets import torchvision_set

__all__ = [
    "CATALOGUE",
    "Dataset",
    "as_dataset",
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
    "csv": "fedguard.simulation.datasets.csv_file:load_csv",
    "parquet": "fedguard.simulation.datasets.parquet:load_parquet",
    "npz": "fedguard.simulation.datasets.npz:load_npz",
    "image_folder": "fedguard.simulation.datasets.image_folder:load_image_folder",
    "text": "fedguard.simulation.datasets.text:load_text",
    "instructions": "fedguard.simulation.datasets.text:load_instructions",
    "topics": "fedguard.simulation.datasets.topics:load_topics",
}

datasets = Parts(
    "data set",
    "fedguard.datasets",
    ("data_root",),
    {"torchvision": torchvision_set, "huggingface": huggingface_set, "openml": openml_set},
)


def load_dataset(name: str, data_root: str | Path | None = None, **params: Any) -> Dataset:
    """Load a data set by name.

    Args:
        name: a name in :data:`datasets`; ``torchvision:NAME``, ``huggingface:NAME`` or ``openml:NUMBER``;
            ``module:function``; or ``given:NAME``. The function, or the given object, makes or is anything
            that :func:`as_dataset` takes.
        data_root: the folder that holds ``MNIST/raw``, ``FashionMNIST/raw``, ``cifar-10-batches-py``,
            ``tinyshakespeare`` and so on.
        params: the data set's own parameters.

    Raises:
        ParameterError: the name or a parameter is unknown, or the function fails or returns something else.
        DataError: a file is missing or damaged, cannot be downloaded, or the data are not usable.
    """
    found = datasets.get(name)

    def load() -> Dataset:
        if callable(found):
            return checked(as_dataset(datasets.make(name, {"data_root": data_root}, params), name), name)
        return checked(as_dataset(found, name, **params), name)

    try:
        return called(load, {}, f"data set {name}")  # type: ignore[no-any-return]
    except (DataError, ParameterError) as error:
        error.args = (plain(str(error)),)  # names of columns and files may be anything
        raise
