"""Devices by name, and the settings under which CUDA repeats its bits."""

import os

import pytest
import torch

from fedguard import Guard, Round
from fedguard.core import devices
from fedguard.core.devices import deterministic_on, on_cpu, on_device, resolve_device
from fedguard.core.errors import ParameterError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_names_on_a_machine_with_two_gpus(two_gpus):
    found = {name: str(resolve_device(name)) for name in ("cpu", "cuda", "cuda:1", "auto")}
    assert found == {"cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1", "auto": "cuda:0"}
    with pytest.raises(ParameterError, match=r"'cuda:2' is not there: this machine has cpu, cuda:0, cuda:1"):
        resolve_device("cuda:2")


def test_a_machine_without_a_gpu(no_gpu):
    assert str(resolve_device("auto")) == "cpu"
    for name in ("cuda", "mps"):
        with pytest.raises(ParameterError, match=rf"'{name}' is not there: this machine has cpu;") as caught:
            resolve_device(name)
        assert caught.value.key == "device"


def test_apple(monkeypatch, no_gpu):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [str(resolve_device(name)) for name in ("auto", "mps")] == ["mps", "mps"]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CUDA", ""])
def test_an_unknown_name(name):
    with pytest.raises(ParameterError, match="unknown device"):
        resolve_device(name)


def test_cuda_is_made_deterministic_and_everything_is_restored(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    def now():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
        )

    before = now()
    with deterministic_on(torch.device("cuda:0")):
        assert now() == (True, True, False, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert now() == before
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic_on(torch.device("cpu")):
        assert now() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_what_is_there_is_not_copied():
    tensor = torch.ones(3)
    assert on_device(tensor, torch.device("cpu")) is tensor
    assert on_cpu(tensor) is tensor
    round = Round(torch.ones(2, 3), global_params=torch.zeros(3))
    same = round.to("cpu")
    assert same.updates is round.updates
    assert same.global_params.data_ptr() == round.global_params.data_ptr()


def test_a_guard_without_its_device_is_refused_at_once(no_gpu):
    with pytest.raises(ParameterError, match="'cuda' is not there"):
        Guard(device="cuda")
    assert devices.available_devices() == ["cpu"]
