"""The one place that imports torchvision: it works on any build, also in spawned processes."""

import importlib
import multiprocessing

import pytest
import torch

from fedguard.simulation import vision


def test_data_sets_transforms_and_models_import():
    from fedguard.simulation.vision import datasets, torchvision

    importlib.import_module("torchvision.transforms.v2")
    assert issubclass(datasets.CIFAR10, torch.utils.data.Dataset)
    logits = torchvision.models.squeezenet1_1(weights=None).eval()(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 1000)


def test_imports_in_a_spawned_process_and_recovers_from_an_import_that_failed_before():
    code = """
try:
    import torchvision
except Exception:
    pass
from fedguard.simulation.vision import datasets
assert datasets.MNIST
"""
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0


def _fails(path):
    raise OSError(f"could not load {path}")


@pytest.mark.parametrize(("load", "expected"), [(lambda _: None, True), (_fails, False)])
def test_knows_whether_the_compiled_operators_load(monkeypatch, load, expected):
    monkeypatch.setattr(torch.ops, "load_library", load)
    assert vision._compiled_operators_load() is expected


def test_leaves_a_proper_build_alone(monkeypatch):
    monkeypatch.setattr(torch.ops, "load_library", lambda _: None)
    monkeypatch.setattr(torch.library, "Library", None)  # declaring anything would fail
    assert vision._declare_operators() is None


def test_does_not_declare_twice(monkeypatch):
    monkeypatch.setattr(torch.ops, "load_library", _fails)
    assert isinstance(vision._declare_operators(), torch.library.Library)
    assert "float iou_threshold" in str(torch.ops.torchvision.nms.default._schema)
