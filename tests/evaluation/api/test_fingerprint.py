"""Fingerprints: equal for what does the same, different for what may not."""

import contextlib
import functools
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from fedguard.evaluation.api.fingerprint import fingerprint
from fedguard.simulation.datasets import load_dataset

BODY = """
import functools, numpy as np
LIMIT = {limit}
def helper(x):
    return x * LIMIT{tail}
class Base:
    def run(self, x):
        return helper(x)
class Own(Base):
    '''{doc}'''
    @functools.cache
    def one(self): return {one}
    @property
    def two(self): return 2
    @staticmethod
    def three(x=1, *, y=2): return np.add(x, y){default}
"""
PLAIN = {"limit": 1, "tail": "", "doc": "", "one": 1, "default": ""}


def made(name="Own", **changes):
    space = {"__name__": "users_module"}
    exec(BODY.format(**{**PLAIN, **changes}), space)  # noqa: S102 - the code is above
    return space[name]


def test_what_does_the_same_has_the_same_fingerprint():
    assert fingerprint(made()) == fingerprint(made()) == fingerprint(made(doc="words", tail="  # a comment"))
    assert fingerprint(made("helper")) == fingerprint(made("helper", one=5)), "what it does not use"


@pytest.mark.parametrize("change", [{"limit": 2}, {"tail": " + 1"}, {"one": 2}, {"default": " + 1"}])
def test_code_and_globals_count(change):
    assert fingerprint(made(**change)) != fingerprint(made())
    assert fingerprint(made(**change)()) != fingerprint(made()()), "of instances, too"


def test_another_process_finds_the_same():
    code = (
        "from fedguard.evaluation.api.fingerprint import fingerprint\n"
        f"space = {{'__name__': '__main__'}}\nexec({BODY.format(**PLAIN)!r}, space)\n"
        "print(fingerprint(space['Own']()), fingerprint({'a', 'b', 'c'}))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
    ).stdout
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(code, {"__name__": "__main__"})  # noqa: S102
    assert here.getvalue() == there


class Parts:
    def __init__(self, *values):
        self.values = values


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def cyclic():
    found = []
    found.append(found)
    return found


STATES = {
    "tensor": lambda k: torch.arange(3.0) + k,
    "bfloat": lambda k: torch.ones(2, dtype=torch.bfloat16) + k,
    "scalar": lambda k: torch.tensor(float(k)),
    "array": lambda k: np.arange(3) + k,
    "objects": lambda k: np.array([{}, k], dtype=object),
    "module": net,
    "generator": lambda k: torch.Generator().manual_seed(k),
    "numpy generator": np.random.default_rng,
    "partial": lambda k: functools.partial(pow, k),
    "set": lambda k: {"a", "b", k},
    "nested": lambda k: {"a": [(k, {1: 2}), None]},
    "closure": lambda k: lambda: k,
    "default": lambda k: lambda x=k: x,
    "method": lambda k: [k].append,
    "cycle": lambda k: [*cyclic(), k],
}


@pytest.mark.parametrize("kind", STATES)
def test_state_counts(kind):
    make = STATES[kind]
    first, again, other = (fingerprint(Parts(make(k))) for k in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_shape_or_a_type_counts():
    assert fingerprint(torch.zeros(2, 3)) != fingerprint(torch.zeros(3, 2))
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(2, dtype=torch.int32))
    assert fingerprint(1) != fingerprint(1.0) != fingerprint("1.0")
    assert fingerprint([1, 2]) != fingerprint((1, 2))


def test_computed_attributes_do_not_count():
    data = load_dataset("digits")
    before = fingerprint(data)
    _ = data.training_set
    assert fingerprint(data) == before


def test_what_cannot_be_read_never_matches():
    lock = Parts(threading.Lock())
    assert fingerprint(lock) != fingerprint(lock)
