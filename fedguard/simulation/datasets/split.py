"""The split of samples into training and test data: part of the data set, not of the experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, ParameterError

#: The split is part of the data set and does not depend on the experiment's seed.
SPLIT_SEED = 0
TEST_SHARE = 0.2


def split(
    labels: NDArray[np.int64] | int, test: float, where: str, class_names: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the training and of the test samples: shuffled by a fixed seed, each class in proportion.

    Args:
        labels: (N,) the classes; or only N, for a split that is not stratified.
        test: the share of test samples.
        where: how messages begin.
        class_names: the names of the classes, for messages.

    Raises:
        DataError: a class has a single sample, or there are too few samples.
        ParameterError: ``test`` is not between 0 and 1.
    """
    from sklearn.model_selection import train_test_split  # takes long to import

    if not 0 < test < 1:
        error = ParameterError(f"test is {test:g}; give the share of test samples, between 0 and 1")
        error.key = "test"
        raise error
    classes = None if isinstance(labels, int) else labels
    if classes is not None:
        counts = np.bincount(classes)
        if (counts == 1).any():
            lone = int((counts == 1).argmax())
            name = repr(class_names[lone]) if class_names else str(lone)
            raise DataError(
                f"{where}: the class {name} has a single sample, which cannot be both in training and test "
                "data; add samples, remove it, or give test data of their own"
            )
    count = labels if isinstance(labels, int) else len(labels)
    try:
        train, held = train_test_split(
            np.arange(count), test_size=test, stratify=classes, random_state=SPLIT_SEED
        )
    except ValueError as error:  # too few samples for this share
        raise DataError(f"{where}: {count} samples cannot be split with test {test:g}: {error}") from None
    return train, held
