"""The two data sets that come with scikit-learn: no files, no network."""

from __future__ import annotations

import functools
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...contracts.data import Samples
from .base import Dataset, image_dataset
from .split import SPLIT_SEED, TEST_SHARE


@functools.cache
def load_digits() -> Dataset:
    """1,797 8×8 digits, 10 classes; comes with scikit-learn.

    17 gray levels; split 1,437 / 360, stratified.
    """
    table = np.loadtxt(_sklearn() / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = _split(images, table[:, -1])
    return image_dataset("digits", (train_x, train_y), (test_x, test_y), white=16)


def load_breast_cancer() -> Dataset:
    """569 cases, 30 features, 2 classes; comes with scikit-learn.

    0 = malignant, 1 = benign; split 455 / 114, stratified.
    The sizes are those of Fang et al., USENIX Security 2020, §4.1; the split itself is ours.
    """
    from sklearn import datasets

    bunch = datasets.load_breast_cancer()
    train_x, test_x, train_y, test_y = _split(bunch.data, bunch.target)
    return Dataset(
        "breast_cancer",
        _features(train_x, train_y),
        _features(test_x, test_y),
        num_classes=2,
        mean=tuple(train_x.mean(axis=0).tolist()),
        std=tuple(train_x.std(axis=0).tolist()),
        class_names=tuple(bunch.target_names.tolist()),
    )


def _sklearn() -> Path:
    """Where scikit-learn is; importing it takes longer than reading MNIST."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ImportError("scikit-learn is not installed")
    return Path(spec.origin).parent


def _split(inputs: NDArray[Any], labels: NDArray[Any]) -> list[NDArray[Any]]:
    train, test = stratified(labels, TEST_SHARE, SPLIT_SEED)
    return [inputs[train], inputs[test], labels[train], labels[test]]


def stratified(labels: NDArray[Any], test: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the training and of the test samples: those of scikit-learn's ``train_test_split``.

    Args:
        labels: (N,) the classes.
        test: the share of test samples.
        seed: its ``random_state``.
    """
    draw = np.random.RandomState(seed)
    _, kinds = np.unique(labels, return_inverse=True)
    counts, held = np.bincount(kinds), math.ceil(test * len(labels))
    trained = _in_proportion(counts, len(labels) - held, draw)
    tested = _in_proportion(counts - trained, held, draw)
    train, rest = [], []
    for kind, (many, few) in enumerate(zip(trained, tested, strict=True)):
        rows = np.flatnonzero(kinds == kind)[draw.permutation(counts[kind])]
        train.append(rows[:many])
        rest.append(rows[many : many + few])
    return draw.permutation(np.concatenate(train)), draw.permutation(np.concatenate(rest))


def _in_proportion(counts: NDArray[np.int64], wanted: int, draw: np.random.RandomState) -> NDArray[np.int64]:
    """How many of each class: as near to proportional as can be; chance decides between equal remainders."""
    exact = counts / counts.sum() * wanted
    found = np.floor(exact)
    missing = wanted - int(found.sum())
    rest = exact - found
    for remainder in np.unique(rest)[::-1]:
        if missing == 0:
            break
        equal = np.flatnonzero(rest == remainder)
        more = min(len(equal), missing)
        found[draw.choice(equal, size=more, replace=False)] += 1
        missing -= more
    whole: NDArray[np.int64] = found.astype(np.int64)
    return whole


def _features(inputs: NDArray[Any], labels: NDArray[Any]) -> Samples:
    return Samples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)))
