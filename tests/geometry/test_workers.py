"""Work in several threads, of which the caller's is one."""

import os
import signal
import threading
import time
import weakref

import pytest

from fedguard.geometry.workers import WAITING, map_in_threads


def square(item):
    time.sleep(0.001 * (item % 3))
    return item * item


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 50])
def test_results_come_in_order(count, items):
    assert list(map_in_threads(square, range(items), count)) == [i * i for i in range(items)]


def test_several_threads_work_at_the_same_time():
    meet = threading.Barrier(2, timeout=60)  # one thread alone would wait in vain
    assert len(list(map_in_threads(lambda _: meet.wait(), range(2), 2))) == 2


def test_a_call_inside_anothers_work_finishes():
    def outer(item):
        return sum(map_in_threads(lambda k: k + item, range(20), 2))

    assert list(map_in_threads(outer, range(12), 2)) == [190 + 20 * i for i in range(12)]


def test_results_that_nobody_takes_block_no_other_call():
    waiting = [map_in_threads(square, range(100), 2) for _ in range(3)]
    assert [next(one) for one in waiting] == [0, 0, 0]
    assert list(map_in_threads(square, range(30), 2)) == [i * i for i in range(30)]
    for one in waiting:
        one.close()


def test_no_more_results_wait_than_allowed():
    seen, found = [], map_in_threads(lambda i: seen.append(i) or i, range(40), 3)
    for k in range(5):
        assert next(found) == k
        time.sleep(0.01)
        assert len(seen) <= k + 1 + WAITING * 3
    found.close()
    assert len(seen) < 40


def test_an_error_comes_where_its_result_would():
    found = map_in_threads(lambda i: 1 // (i - 3), range(9), 2)
    assert [next(found) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert list(map_in_threads(square, range(4), 2)) == [0, 1, 4, 9]


def test_what_the_user_interrupts_ends_at_once():
    caller = threading.current_thread()

    def work(item):
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        list(map_in_threads(work, range(10_000), 2))


def test_nothing_is_kept_alive_after_the_end():
    class Work:
        def __call__(self, item):
            return item

    work = Work()
    there = weakref.ref(work)
    assert list(map_in_threads(work, range(50), 2)) == list(range(50))
    del work
    deadline = time.monotonic() + 10
    while there() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_forked_process_starts_threads_of_its_own():
    assert list(map_in_threads(square, range(9), 2)) == [i * i for i in range(9)]
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends it if it waits
        meet = threading.Barrier(2, timeout=10)
        os._exit(0 if len(list(map_in_threads(lambda _: meet.wait(), range(2), 2))) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
