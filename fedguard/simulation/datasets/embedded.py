"""The two data sets that come with scikit-learn: no files, no network."""

from __future__ import annotations

import functools
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
    from sklearn import datasets  # imported here because it takes longer than reading MNIST

    bunch = datasets.load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    train_x, test_x, train_y, test_y = _split(images, bunch.target)
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


def _split(inputs: NDArray[Any], labels: NDArray[Any]) -> list[NDArray[Any]]:
    from sklearn.model_selection import train_test_split

    parts: list[NDArray[Any]] = train_test_split(
        inputs, labels, test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    return parts


def _features(inputs: NDArray[Any], labels: NDArray[Any]) -> Samples:
    return Samples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)))
