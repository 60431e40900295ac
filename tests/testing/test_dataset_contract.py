"""The contract of data sets: the built-in ones keep it, and each way of breaking it is found."""

import dataclasses
import itertools
import random
import sys
import types

import numpy as np
import pytest
import torch

from fedguard.contracts.data import Samples
from fedguard.core.named_code import GIVEN
from fedguard.simulation.datasets import Dataset
from fedguard.testing.datasets import CHECKS, Case, check_dataset


def good():
    """Twenty points of the plane, two classes."""
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2))).float()
    samples = Samples(points, torch.arange(20) % 2)
    return Dataset("good", samples, samples, 2, (0.0,), (1.0,), np.arange(20) % 3, ("a", "b", "c"))


@pytest.mark.usefixtures("forked_reader")
@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_built_in_data_sets_keep_it(name):
    check_dataset(name).raise_for_failures()


@pytest.mark.usefixtures("forked_reader")
def test_files_keep_it(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,y\n" + "".join(f"{k},{'pq'[k % 2]},{k % 3}\n" for k in range(30)))
    check_dataset("csv", {"path": str(tmp_path / "x.csv"), "label": "y", "client": "b"}).raise_for_failures()


def test_given_data_keep_it(monkeypatch):
    monkeypatch.setitem(GIVEN, "mine", good())
    check_dataset("given:mine").raise_for_failures()


calls = itertools.count()


def undocumented():
    return good()


def changed(**parts):
    return lambda: dataclasses.replace(good(), **parts)


def counting():
    """Another data set at every call."""
    data = good()
    data.train.pixels[0, 0] = next(calls)
    return data


def drawing():
    """Draws from the global generator."""
    data = good()
    data.train.pixels[0] = torch.rand(2)
    return data


def touching():
    """Draws from Python's generator and changes a default."""
    random.seed(5)
    torch.set_default_dtype(torch.float64)
    return good()


double = Samples(good().train.pixels.double(), good().train.labels)
infinite = Samples(good().train.pixels / 0, good().train.labels)
many = Samples(good().train.pixels, good().train.labels * 7)
BROKEN = {
    "docstring": undocumented,
    "shapes and types": changed(train=double),
    "finite numbers": changed(test=infinite),
    "labels": changed(train=many),
    "every class": changed(num_classes=3),
    "natural clients": changed(clients=np.arange(20) % 3 * 2, client_names=()),
    "reading repeats": counting,
    "no global state": touching,
}


@pytest.fixture
def module(monkeypatch, tmp_path):
    made = types.ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", made)
    return made


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_fails_where_its_promise_is_broken(module, name, monkeypatch):
    import fedguard.testing.datasets as contract

    module.load = BROKEN[name]
    monkeypatch.setattr(contract, "load_dataset", lambda _name, **_: module.load())  # without its own checks
    with pytest.raises(AssertionError):
        CHECKS[name](Case("own_data:load", {}))


@pytest.mark.usefixtures("forked_reader")
def test_drawing_from_the_global_generator_is_found(module):
    module.load = drawing
    failed = {result.check for result in check_dataset("own_data:load").failures}
    assert {"reading repeats", "no global state"} <= failed


def test_another_order_in_another_process_is_found(tmp_path, monkeypatch):
    (tmp_path / "set_order.py").write_text(
        '"""A module."""\nimport torch\nfrom fedguard.contracts.data import Samples\n'
        "from fedguard.simulation.datasets import Dataset\n\n\ndef load():\n"
        '    """Twenty points of the plane in the order of a set."""\n'
        "    order = [float(hash(str(k)) % 10**6) for k in range(20)]\n"
        "    samples = Samples(torch.tensor(order)[:, None], torch.arange(20) % 2)\n"
        '    return Dataset("x", samples, samples, 2, (0.0,), (1.0,))\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [r.check for r in check_dataset("set_order:load").failures] == ["another process"]


@pytest.mark.usefixtures("forked_reader")
def test_a_data_set_that_cannot_be_read_fails_with_the_reason():
    report = check_dataset("csv", {"path": "nowhere.csv", "label": "y"})
    assert not report.ok
    assert "nowhere.csv is not a file" in report.failures[0].message
