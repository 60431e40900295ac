"""The contract of data sets as checks: what simulations rely on.

::

    from fedguard.testing.datasets import check_dataset

    check_dataset("my_module:hospital", {"year": 2020}).raise_for_failures()
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.named_code import GIVEN_PREFIX
from ..core.threads import single_thread
from ..simulation.datasets import Dataset, datasets, load_dataset
from ..simulation.packing import pack, unpack
from .core import Check, Report, Result, _message, require


@dataclass(frozen=True)
class Case:
    """A data set by name and its parameters."""

    name: str
    params: Mapping[str, Any]

    def load(self) -> Dataset:
        """Read it anew."""
        return load_dataset(self.name, **self.params)

    @functools.cached_property
    def data(self) -> Dataset:
        """The data set, read once for all checks that do not read it themselves."""
        return self.load()


def check_dataset(name: str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on a data set.

    Args:
        name: as in a suite: a name, ``module:function``, ``library:NAME`` or ``given:NAME``.
        params: its parameters.
    """
    case = Case(name, dict(params or {}))
    return Report(name, case.params, tuple(_result(*check, case) for check in CHECKS.items()))


def _result(name: str, check: Check, case: Case) -> Result:
    advice = " ".join((inspect.getdoc(check) or "").split())
    try:
        with single_thread():
            check(case)
    except Exception as error:  # a user's function may raise anything
        return Result(name, "failed", _message(error), advice)
    return Result(name, "passed", "", advice)


def _parts(data: Dataset) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    yield "train", *data.train
    yield "test", *data.test


def described(case: Case) -> None:
    """The function has a docstring, whose first line lists show. Say how many samples, features, classes."""
    if not case.name.startswith(f"{GIVEN_PREFIX}:"):
        require(datasets.summary(case.name), "there is no docstring")


def shapes(case: Case) -> None:
    """Inputs are (N, …) float32, of one shape in training and test data. Convert them when they are read."""
    for part, inputs, labels in _parts(case.data):
        require(inputs.dtype == torch.float32, f"{part}: inputs are {inputs.dtype}")
        require(inputs.ndim >= 2 and len(inputs) > 0, f"{part}: inputs have shape {tuple(inputs.shape)}")
        require(len(labels) == len(inputs), f"{part}: {len(inputs)} inputs, but {len(labels)} labels")
    first, second = case.data.train.pixels.shape[1:], case.data.test.pixels.shape[1:]
    require(first == second, f"training samples have shape {tuple(first)}, test samples {tuple(second)}")


def finite(case: Case) -> None:
    """Inputs are finite, also normalized. Fill in missing values; std is 1 where inputs are constant."""
    for part, inputs, _ in _parts(case.data):
        require(inputs.isfinite().all(), f"{part}: an input is NaN or infinite")
    for part, data in (("train", case.data.training_set), ("test", case.data.test_set)):
        require(data.inputs.isfinite().all(), f"{part}: a normalized input is NaN or infinite")


def labels_fit(case: Case) -> None:
    """Labels fit the task: int64 below num_classes, float32 (N, num_classes), or next tokens."""
    outputs, task = case.data.num_classes, case.data.task
    for part, inputs, labels in _parts(case.data):
        if task == "classification":
            require(
                labels.ndim == 1 and labels.dtype == torch.int64, f"{part}: {labels.dtype}, {labels.ndim}-d"
            )
            low, high = int(labels.min()), int(labels.max())
            require(low >= 0 and high < outputs, f"{part}: labels from {low} to {high} of {outputs} classes")
        elif task == "causal":
            require(labels.dtype == torch.int64, f"{part}: labels are {labels.dtype}")
            require(labels.shape == inputs.shape, f"{part}: labels have shape {tuple(labels.shape)}")
            require((labels >= 0).any(1).all(), f"{part}: a text has no token to predict")
            require(labels.max() < outputs, f"{part}: a label is beyond the {outputs} tokens")
        else:
            require(labels.dtype == torch.float32, f"{part}: labels are {labels.dtype}")
            require(labels.shape[1:] == (outputs,), f"{part}: labels have shape {tuple(labels.shape)}")
            require(labels.isfinite().all(), f"{part}: a label is NaN or infinite")
        if task == "multilabel":
            require(((labels == 0) | (labels == 1)).all(), f"{part}: a label is neither 0 nor 1")


def every_class(case: Case) -> None:
    """Every class has a training sample. Number the classes without gaps."""
    if case.data.task == "classification":
        counts = case.data.train.labels.bincount(minlength=case.data.num_classes)
        require(counts.all(), f"the class {int((counts == 0).int().argmax())} has no training sample")


def clients_fit(case: Case) -> None:
    """Natural clients, if there are any, are (N,) int64 from 0, each with a sample and a name."""
    clients, names = case.data.clients, case.data.client_names
    if clients is None:
        return
    require(clients.shape == (len(case.data.train.labels),), f"clients have shape {clients.shape}")
    require(
        clients.dtype == np.int64 and clients.min() >= 0, f"clients are {clients.dtype} from {clients.min()}"
    )
    require(len(np.unique(clients)) == clients.max() + 1, "a client has no sample; number them without gaps")
    require(
        not names or len(names) == clients.max() + 1, f"{len(names)} names for {clients.max() + 1} clients"
    )


def repeats(case: Case) -> None:
    """Reading it again gives the same data, wherever the global generators are. Seed your own generators."""
    prints = []
    with _state_kept():
        for _ in range(2):
            torch.rand(1), np.random.random(), random.random()  # noqa: S311 - moves the global ones
            prints.append(case.load().fingerprint)
    require(prints[0] == prints[1], "reading it twice gives different data")


def repeats_elsewhere(case: Case) -> None:
    """Another process reads the same data. Sort what comes from sets and from folders."""
    if case.name.startswith(f"{GIVEN_PREFIX}:"):
        return  # the object exists in this process only
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from fedguard.simulation.datasets import load_dataset; "
        "name, params = json.loads(sys.argv[2]); print(load_dataset(name, **params).fingerprint)"
    )
    arguments = [json.dumps(sys.path), json.dumps([case.name, dict(case.params)], default=str)]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"  # another order of sets
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode == 0, f"another process cannot read it: {done.stderr.strip()[-300:]}")
    require(done.stdout.split()[-1] == case.data.fingerprint, "another process reads other data")


def no_global_state(case: Case) -> None:
    """Reading it changes no global state: no random generator of Python, NumPy or torch, no default."""
    with _state_kept():
        before = _state()
        case.load()
        changed = [name for name, value in _state().items() if value != before[name]]
    require(not changed, f"reading it changes {', '.join(changed)}")


def travels(case: Case) -> None:
    """Workers get the same data. Keep tensors and plain values in it."""
    there = unpack(pack(case.data))
    vars(there).pop("fingerprint", None)
    require(there.fingerprint == case.data.fingerprint, "a worker gets other data")


def _state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "Python's random generator": random.getstate(),
        "NumPy's global random generator": (kind, np.asarray(keys).tobytes(), rest),
        "torch's global random generator": torch.random.get_rng_state().numpy().tobytes(),
        "torch's default type": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
    }


@contextmanager
def _state_kept() -> Iterator[None]:
    """Restore the random generators afterwards."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.random.set_rng_state(pytorch)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


CHECKS: dict[str, Check] = {
    "docstring": described,
    "shapes and types": shapes,
    "finite numbers": finite,
    "labels": labels_fit,
    "every class": every_class,
    "natural clients": clients_fit,
    "reading repeats": repeats,
    "another process": repeats_elsewhere,
    "no global state": no_global_state,
    "workers": travels,
}
