"""CIFAR-10 batches: every dialect of pickle that they come in, and nothing that a pickle could do besides."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from fedguard.core.errors import DataError
from fedguard.simulation.datasets import load_dataset
from fedguard.simulation.datasets.cifar10 import read_pickle

rng = np.random.default_rng(0)


def python2_pickle(data, labels):
    """What Python 2's cPickle writes (protocol 2) for {"data": ndarray, "labels": list}."""

    def text(content):
        return b"U" + bytes([len(content)]) + content

    rows, columns = (b"J" + struct.pack("<i", n) for n in data.shape)
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R" + b"(K\3" + text(b"|") + b"NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    raw = b"T" + struct.pack("<i", data.size) + data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\0\x85" + text(b"b") + b"\x87R"
    )
    array += b"(K\1" + rows + columns + b"\x86" + dtype + b"\x89" + raw + b"tb"
    items = (
        text(b"data") + array + text(b"labels") + b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    )
    return b"\x80\2}(" + items + b"u."


def python3_pickle(protocol):
    return lambda data, labels: pickle.dumps({"data": data, "labels": labels, "batch_label": "x"}, protocol)


def cifar_arrays(sizes=(4, 3, 2, 5, 1, 3)):
    return [(rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).tolist()) for n in sizes]


def write_cifar(root, batches, write=python2_pickle):
    folder = Path(root) / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, (data, labels) in zip(names, batches, strict=True):
        (folder / name).write_bytes(write(data, labels))
    return folder


def test_the_python2_pickle_is_one():
    (data, labels), *_ = cifar_arrays()
    loaded = pickle.loads(python2_pickle(data, labels), encoding="latin1")  # noqa: S301
    assert np.array_equal(loaded["data"], data)
    assert loaded["labels"] == labels


@pytest.mark.parametrize("write", [python2_pickle, python3_pickle(2), python3_pickle(4)])
def test_reads_cifar_batches(tmp_path, write):
    batches = cifar_arrays()
    write_cifar(tmp_path, batches, write)
    data = load_dataset("cifar10", tmp_path)
    assert data.input_shape == (3, 32, 32)
    images = np.concatenate([batch[0] for batch in batches[:5]]).reshape(-1, 3, 32, 32)
    assert np.array_equal((data.train.pixels * 255).round().numpy(), images)
    assert data.train.labels.tolist() == [label for batch in batches[:5] for label in batch[1]]
    assert data.test.labels.tolist() == batches[5][1]


def test_fortran_order_is_understood(tmp_path):
    (data, labels), *_ = cifar_arrays()
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"data": np.asfortranarray(data), "labels": labels}, 2))
    assert np.array_equal(read_pickle(path)["data"].value, data)


class _Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class _Call:
    """Unpickling this calls a function with arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, getattr, __import__, np.fromfile])
def test_pickles_cannot_call_anything(tmp_path, function):
    folder = write_cifar(tmp_path, cifar_arrays())
    mark = tmp_path / "mark"
    (folder / "data_batch_2").write_bytes(pickle.dumps([_Touch(mark), _Call(function, "0")]))
    with pytest.raises(DataError, match=r"data_batch_2 cannot be read: .* not allowed"):
        load_dataset("cifar10", tmp_path)
    assert not mark.exists()
    (folder / "data_batch_2").write_bytes(pickle.dumps(_Call(function, "0")))
    with pytest.raises(DataError, match="not allowed"):
        load_dataset("cifar10", tmp_path)


def test_the_mark_would_be_made_by_an_ordinary_unpickler(tmp_path):
    pickle.loads(pickle.dumps(_Touch(tmp_path / "mark")))  # noqa: S301
    assert (tmp_path / "mark").exists()


OBJECTS = np.array([[None] * 3072], dtype=object)
BAD_CIFAR = {
    "cut short": (python2_pickle(*cifar_arrays()[0])[:-5000], "cannot be read"),
    "no pickle": (b"<html>not found</html>", "cannot be read"),
    "empty": (b"", "cannot be read"),
    "objects": (pickle.dumps({"data": OBJECTS, "labels": [1]}, 2), "unsigned bytes"),
    "floats": (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}, 2), "unsigned bytes"),
    "bare list": (pickle.dumps([1, 2]), "not a CIFAR-10 batch"),
    "no labels": (pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}, 2), "not a CIFAR-10 batch"),
    "data is text": (pickle.dumps({"data": "x", "labels": [1]}, 2), "not a CIFAR-10 batch"),
    "other width": (pickle.dumps({"data": np.zeros((1, 3071), np.uint8), "labels": [1]}, 2), "shape"),
    "too few labels": (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, 2), "2 labels"),
    "label 10": (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, 2), "0 … 9"),
}


@pytest.mark.parametrize("case", BAD_CIFAR)
def test_damaged_cifar_batches_are_named(tmp_path, case):
    content, message = BAD_CIFAR[case]
    folder = write_cifar(tmp_path, cifar_arrays())
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("cifar10", tmp_path)
    assert str(folder / "data_batch_3") in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FEDGUARD_DATA"), reason="FEDGUARD_DATA is not set")
def test_real_cifar_batches_agree_with_an_ordinary_unpickler():
    path = Path(os.environ["FEDGUARD_DATA"]) / "cifar-10-batches-py" / "data_batch_1"
    with path.open("rb") as file:
        expected = pickle.load(file, encoding="latin1")  # noqa: S301
    found = read_pickle(path)
    assert np.array_equal(found["data"].value, expected["data"])
    assert found["labels"] == expected["labels"]
