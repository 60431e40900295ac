"""States as bytes."""

import json
import math

import pytest
import torch

from fedguard.core.errors import ParameterError, ResultsError
from fedguard.core.state import load, pack, save, unpack


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"empty": {}, "list": [], "none": None},
        {"number": 1, "float": 0.1, "text": "ä \x00 \U0001f600", "flag": True, "inf": math.inf},
        {"big": 2**80, "small": 5e-324},
        {"nested": [{"a": [1, [2, {"b": None}]]}], "": {"": ""}},
    ],
    ids=str,
)
def test_json_values_come_back_equal(state):
    assert unpack(pack(state)) == state


def test_nan_comes_back():
    assert math.isnan(unpack(pack({"x": math.nan}))["x"])


def raw(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).T,
        torch.randn(10)[::3],
        torch.randn(2, 1).expand(2, 5),
        torch.tensor(3.5),
        torch.zeros(0),
        torch.zeros(0, 5),
        torch.tensor([math.nan, math.inf, -0.0]),
        torch.randn(3, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16),
        torch.tensor([True, False]),
        torch.tensor([2**62, -1]),
        torch.randn(3, requires_grad=True),
        torch.nn.Parameter(torch.randn(2)),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}{t.stride()}",
)
def test_tensors_come_back_bit_for_bit(tensor):
    back = unpack(pack({"a": {"b": [tensor, 1, tensor]}}))["a"]["b"]
    assert back[1] == 1
    for copy in (back[0], back[2]):
        assert copy.dtype == tensor.dtype
        assert copy.shape == tensor.shape
        assert not copy.requires_grad
        assert raw(copy) == raw(tensor)


def test_shared_memory_is_split():
    whole = torch.arange(6.0)
    back = unpack(pack({"a": whole, "b": whole[2:], "c": whole}))
    back["a"].zero_()
    assert back["b"].tolist() == [2, 3, 4, 5]
    assert back["c"].tolist() == [0, 1, 2, 3, 4, 5]


def test_tuples_come_back_as_lists():
    assert unpack(pack({"t": (1, ("a", torch.zeros(1)))}))["t"][:1] == [1]


def test_packing_is_deterministic():
    state = {"b": torch.ones(2), "a": [torch.zeros(1), {"x": 1}]}
    assert pack(state) == pack(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({1: "int keys would come back as strings"}, "key 1"),
        ({"a": {None: 1}}, "key None"),
        ({"a": [{"__tensor__": "0"}]}, "key '__tensor__'"),
        ({"a": torch.zeros(1).numpy()}, "tensors and JSON values"),
        ({"a": {1, 2}}, "tensors and JSON values"),
        ({"a": object()}, "tensors and JSON values"),
    ],
    ids=["int key", "None key", "reserved key", "array", "set", "object"],
)
def test_what_would_not_come_back_is_refused(state, message):
    with pytest.raises(ParameterError, match=message):
        pack(state)


def forged(metadata):
    header = json.dumps({"__metadata__": metadata} if metadata is not None else {}).encode()
    return len(header).to_bytes(8, "little") + header


GOOD = pack({"a": torch.arange(5.0), "b": "text"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        *(GOOD[:k] for k in (4, 8, 20, len(GOOD) - 1)),
        GOOD + b"x",
        b"\xff" * 8 + GOOD[8:],
        forged(None),
        forged({}),
        forged({"fedguard": "{"}),
        forged({"fedguard": "3"}),
        forged({"fedguard": "[1]"}),
        forged({"fedguard": '{"a": {"__tensor__": "7"}}'}),
        forged({"fedguard": '{"a": {"__tensor__": {}}}'}),
        forged({"fedguard": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"}),
    ],
    ids=range(15 + 1),
)
def test_damaged_or_foreign_bytes_are_refused(data):
    with pytest.raises(ResultsError, match="not a FedGuard state"):
        unpack(data)


# --- on disk


def test_a_file_gives_back_what_was_written_and_the_state_before_is_kept(tmp_path):
    path = tmp_path / "new" / "guard.state"
    assert load(path) is None, "nothing was ever written"
    save(path, {"index": 1, "w": torch.arange(3.0)})
    save(path, {"index": 2})
    assert load(path) == {"index": 2}
    path.write_bytes(path.read_bytes()[:-1])
    assert load(path)["index"] == 1
    assert load(path)["w"].tolist() == [0.0, 1.0, 2.0]


def test_a_file_without_a_whole_state_is_not_taken_for_an_absent_one(tmp_path):
    path = tmp_path / "guard.state"
    save(path, {"index": 1})
    path.write_bytes(b"rubbish")
    with pytest.raises(ResultsError, match="no whole state"):
        load(path)
