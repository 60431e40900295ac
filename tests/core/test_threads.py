"""One thread in every library, however many threads ask for it at the same time."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from fedguard.core.threads import (
    Unwanted,
    block_threads,
    blocks_on,
    go_on,
    helping,
    is_helping,
    one_blas_thread,
    single_thread,
)


@pytest.fixture
def three():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def overlapping(first, second):
    """Enter one context here and one in another thread, and leave them in the order in which they began."""
    entered, leave, seen = threading.Event(), threading.Event(), []

    def other():
        with second():
            entered.set()
            leave.wait(60)
            seen.append((torch.get_num_threads(), blas()))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    with first():
        thread.start()
        assert entered.wait(60)
    after_first = torch.get_num_threads()
    leave.set()
    thread.join(60)
    return after_first, *seen


@pytest.mark.usefixtures("three")
def test_two_threads_that_overlap_leave_torch_as_it_was():
    before = blas()
    after_first, (within, libraries), after_second = overlapping(single_thread, single_thread)
    assert after_first == 3, "the first thread has its threads back"
    assert within == 1, "the second is still limited"
    assert libraries == {1}
    assert after_second == 3
    assert torch.get_num_threads() == 3
    with one_blas_thread():
        pass
    assert blas() == before
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join(60)
    assert fresh == [3], "new threads begin with what the process has"


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    "pair",
    [(one_blas_thread, one_blas_thread), (one_blas_thread, single_thread), (single_thread, one_blas_thread)],
)
def test_blas_is_limited_until_the_last_has_left(pair):
    before = blas()
    _, (_, libraries), _ = overlapping(*pair)
    assert libraries == {1}
    with one_blas_thread():  # the last one to leave was not the one that lowered OpenBLAS's number
        assert blas() == {1}
    assert blas() == before


@pytest.mark.usefixtures("three")
def test_nested():
    with single_thread(), single_thread():
        torch.set_num_threads(2)
        with single_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_threads_for_blocks():
    assert block_threads() == torch.get_num_threads()
    with blocks_on(4), single_thread():
        assert block_threads() == 4
    assert block_threads() == torch.get_num_threads()


def test_help_that_nobody_wants_ends():
    ended = threading.Event()
    go_on()
    with helping(ended):
        assert is_helping()
        go_on()
        ended.set()
        with pytest.raises(Unwanted):
            go_on()
    assert not is_helping()
    go_on()
