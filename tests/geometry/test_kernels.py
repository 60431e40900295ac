"""Sorting networks: they sort, and compiled means have NumPy's bits."""

import ctypes
import itertools
import os
import signal
import time

import numpy as np
import pytest
import torch

from fedguard import Round, make_aggregator
from fedguard.geometry import kernels
from fedguard.geometry.networks import comparisons
from fedguard.geometry.order import middle_means
from fedguard.geometry.updates import Updates


@pytest.mark.parametrize("n", range(1, 11))
def test_the_comparisons_sort_every_list_of_zeros_and_ones(n):
    """By the zero-one principle (Knuth, 5.3.4, Theorem Z), they then sort every list."""
    for values in itertools.product((0, 1), repeat=n):
        line = list(values)
        for i, j in comparisons(n):
            line[i], line[j] = min(line[i], line[j]), max(line[i], line[j])
        assert line == sorted(values)


def by_numpy(matrix, low, high):
    rows = np.sort(np.ascontiguousarray(matrix.T), axis=1)
    return (rows.T[low:high].astype(np.float64).sum(0) / (high - low)).astype(np.float32)


def bits(values):
    return np.asarray(values).view(np.int32)


@pytest.fixture
def compiled():
    pytest.importorskip("llvmlite", reason="needs the extra fast")
    return lambda n, low, high: kernels.Kernel(n, low, high)


@pytest.mark.parametrize(("n", "low", "high"), [(3, 1, 2), (4, 1, 3), (9, 0, 9), (25, 5, 20), (40, 10, 27)])
def test_the_same_bits_as_numpy(compiled, n, low, high):
    draw = np.random.default_rng(n)
    matrix = draw.normal(size=(n, 1000)).astype(np.float32)
    matrix[:, ::7] = draw.integers(-2, 3, size=(n, 143))  # ties
    matrix[draw.random(matrix.shape) < 0.05] *= np.float32(1e30)
    matrix[0, 500:520], matrix[1, 510:530] = np.finfo(np.float32).max, np.finfo(np.float32).min
    matrix[2, 3:9], matrix[0, 3:9] = 0.0, -0.0
    rows = Updates(matrix).addresses()
    for start, stop in ((0, 1000), (3, 19), (7, 300), (984, 1000)):
        found = compiled(n, low, high)(rows, start, stop)
        assert np.array_equal(bits(found), bits(by_numpy(matrix[:, start:stop], low, high)))


@pytest.mark.slow
@pytest.mark.parametrize("n", [*range(3, 33), 63, 64, 65, 100, 127, 128, 129, 200, 256])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_same_bits_as_numpy_for_many_sizes(compiled, n, share):
    cut = min(int(share * n), (n - 1) // 2)
    matrix = np.random.default_rng(n).normal(size=(n, 333)).astype(np.float32)
    found = compiled(n, cut, n - cut)(Updates(matrix).addresses(), 0, 333)
    assert np.array_equal(bits(found), bits(by_numpy(matrix, cut, n - cut)))


@pytest.mark.parametrize("place", [(0, 0), (4, 31), (2, 17)])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_goes_back_to_numpy(compiled, place, value):
    matrix = np.ones((5, 32), np.float32)
    matrix[place] = value
    assert compiled(5, 2, 3)(Updates(matrix).addresses(), 0, 32) is None


def test_too_few_columns_go_back_to_numpy(compiled):
    assert compiled(5, 2, 3)(Updates(np.ones((5, 9), np.float32)).addresses(), 0, 9) is None


def ready(shape, columns):
    """Wait until the kernel of a shape is there."""
    deadline = time.monotonic() + 60
    while (found := kernels.kernel_for(*shape, columns)) is None:
        assert time.monotonic() < deadline, "no kernel came"
        time.sleep(0.02)
    return found


def test_a_round_is_the_same_before_and_after_the_kernel_is_there(compiled, monkeypatch):
    monkeypatch.setattr(kernels, "_READY", type(kernels._READY)())
    monkeypatch.setattr(kernels, "_SEEN", {})
    monkeypatch.setattr(kernels, "PAYS", 15 * 3000 * 2)
    matrix = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 3000))).float()
    taken = Round(matrix).take(np.arange(2, 17))
    rule = make_aggregator("trimmed_mean", num_malicious=3)
    first = rule(taken, np.ones(15))
    assert not kernels._READY, "one look does not pay for it"
    rule(taken, np.ones(15))
    ready((15, 3, 12), 0)
    again = rule(taken, np.ones(15))
    assert torch.equal(first, again)
    expected = by_numpy(matrix[2:17].numpy(), 3, 12)
    assert torch.equal(middle_means(taken.updates, 3, 12), torch.from_numpy(expected))


def test_without_the_extra_there_is_none(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    assert kernels.kernel_for(5, 2, 3, 10**9) is None


@pytest.mark.parametrize("n", [2, 257])
def test_shapes_that_a_network_does_not_serve(n):
    assert kernels.kernel_for(n, 0, 1, 10**9) is None


@pytest.mark.parametrize(
    "clients", [[0, 1, 2, 10**9], [-9, 0, 1, 2], np.ones(9, dtype=bool), torch.tensor([0, 1, 2, 8])]
)
def test_no_row_outside_the_matrix_has_an_address(clients):
    """Compiled code reads whatever is there: a row that does not exist would be the process's memory."""
    with pytest.raises(IndexError, match="out of bounds"):
        Updates(torch.zeros(8, 20)).take(clients)


@pytest.mark.parametrize("form", ["transposed", "strided", "reversed", "float64", "read only", "negated"])
def test_addresses_are_those_of_the_rows(form):
    """Whatever matrix is given, each address leads to the d numbers of its row."""
    plain = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    frozen = plain.copy()
    frozen.flags.writeable = False
    given = {
        "transposed": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "reversed": plain[::-1].copy()[::-1],
        "float64": torch.from_numpy(plain).double(),
        "read only": frozen,
        "negated": torch.view_as_complex(torch.from_numpy(np.stack([plain, -plain], -1))).conj().imag,
    }[form]
    updates = Updates(given)
    taken = updates.take([-1, 4, 0])
    for one, rows in ((updates, plain), (taken, plain[[5, 4, 0]])):
        found = [np.ctypeslib.as_array((ctypes.c_float * 40).from_address(int(a))) for a in one.addresses()]
        assert np.array_equal(found, rows)
    assert len(Updates(np.empty((0, 40))).addresses()) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_does_not_have(compiled):
    with kernels._LOCK:  # as a thread that just stores a kernel
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends it if it waits
            os._exit(0 if kernels.kernel_for(17, 3, 5, 10**9) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
