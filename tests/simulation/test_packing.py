"""What goes to workers and back: tensors arrive as they were, and take nothing else along."""

import numpy as np
import pytest
import torch
from torch import nn

from fedguard.simulation.packing import ALIGNMENT, Mapped, pack, unpack


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("seen", torch.arange(4))


VALUES = {
    "matrix": torch.arange(12.0).view(3, 4),
    "transposed": torch.arange(12.0).view(3, 4).T,
    "slice": torch.arange(12.0).view(3, 4)[:, 1:3],
    "expanded": torch.tensor([1.0]).expand(5),
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 3),
    "booleans": torch.tensor([True, False]),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "complex conjugate": torch.tensor([1 + 2j]).conj(),
    "with gradient": torch.ones(2, requires_grad=True),
    "sparse": torch.eye(3).to_sparse(),
    "array": np.arange(6).reshape(2, 3),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("road", ["bytes", "file"])
def test_tensors_arrive_as_they_were(tmp_path, name, road):
    value = VALUES[name]
    found = unpack(pack([value]))[0] if road == "bytes" else Mapped.write([value], tmp_path / "x").read()[0]
    assert type(found) is type(value)
    assert found.dtype == value.dtype
    assert found.shape == value.shape
    if isinstance(value, torch.Tensor):
        assert found.requires_grad == value.requires_grad
        assert torch.equal(found.to_dense(), value.to_dense())
        if not value.is_sparse:
            assert found.data_ptr() % ALIGNMENT == 0 or found.numel() == 0
    else:
        assert np.array_equal(found, value)


def test_a_view_does_not_take_its_storage_along():
    assert len(pack(torch.zeros(1000, 1000)[3])) < 10_000


def test_mapped_arrays_are_not_in_the_bytes_and_can_be_written(tmp_path):
    mapped = Mapped.write({"big": torch.zeros(1000, 1000), "odd": np.zeros(3, np.uint8)}, tmp_path / "x")
    assert len(mapped.data) < 1000
    first, second = mapped.read(), mapped.read()
    first["big"][0, 0] = 7
    first["odd"][0] = 7
    assert (second["big"][0, 0], second["odd"][0]) == (0, 0)
    assert (mapped.read()["big"] == 0).all()


def test_modules_travel():
    model = Model()
    found = unpack(pack(model))
    assert isinstance(found.layer.weight, nn.Parameter)
    assert found.layer.weight.requires_grad
    assert torch.equal(found.layer.weight, model.layer.weight)
    assert torch.equal(found.seen, model.seen)
