"""The pool: order, bits, errors, shared data, and that nothing is left behind."""

import importlib
import multiprocessing
import operator
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from fedguard.core.errors import DataError, FedGuardError, ParameterError
from fedguard.core.threads import single_thread
from fedguard.simulation.pool import Workers, shared

# Functions for the workers, in a module that is found only through a path added while pytest runs.
PIECES = """
import os, signal, time
import torch
from threadpoolctl import threadpool_info
from fedguard.core.errors import DataError
from fedguard.simulation.models import build_model
from fedguard.simulation.pool import Workers, shared
from fedguard.contracts.local_training import LocalTraining
from fedguard.training.local import train_client
from fedguard.contracts.data import LabeledData
from fedguard.training.parameters import flat_parameters

def process(_):
    return os.getpid()

def double(tensor):
    return tensor * 2

def train(seed):
    draw = torch.Generator().manual_seed(seed)
    model = build_model("lenet", (1, 16, 16), 3, draw)
    data = LabeledData(shared()["inputs"], shared()["labels"])
    return train_client(model, flat_parameters(model), data, LocalTraining(), draw)

def matrix_product(pair):
    return pair[0] @ pair[1]

def threads(_):
    return torch.get_num_threads(), [library["num_threads"] for library in threadpool_info()]

def fail(number):
    if number == 3:
        error = DataError("number 3 is missing")
        error.key = "data"
        raise error
    return number

class Unreadable(Exception):
    def __init__(self, one, two):
        super().__init__("unreadable elsewhere")

def fail_unreadably(_):
    raise Unreadable(1, 2)

def die(_):
    os.kill(os.getpid(), signal.SIGKILL)

def refuse():
    raise DataError("the worker has no data")

PLACE = None

def remember(queue, word):
    global PLACE
    PLACE = word
    queue.put(os.getpid())

def place(_):
    return PLACE

def nap(seconds):
    time.sleep(seconds)
    return os.getpid()

def write_down(path):
    with open(path, "a") as file:
        file.write("x")
    time.sleep(0.02)

def spoil(_):
    shared()["inputs"].zero_()

def total(_):
    return float(shared()["inputs"].sum())

def nested(items):
    return shared()["workers"].map(double, items)
"""


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "pool_pieces.py").write_text(PIECES)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield importlib.import_module("pool_pieces")
    sys.path.remove(str(folder))
    del sys.modules["pool_pieces"]


def shared_data():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 1, 16, 16, generator=draw)
    labels = torch.randint(0, 3, (40,), generator=draw)
    return {"inputs": inputs, "labels": labels, "workers": Workers(5), "name": "x"}


@pytest.fixture(scope="module")
def pool(pieces):
    with Workers(2, shared_data()) as workers:
        yield workers


def test_results_come_in_order(pool):
    assert pool.map(operator.neg, range(50)) == [-i for i in range(50)]
    assert list(pool.imap(operator.neg, range(5))) == [0, -1, -2, -3, -4]
    assert pool.map(operator.neg, []) == []


def test_work_is_spread_over_processes_that_stay(pool, pieces):
    seen = set(pool.map(pieces.nap, [0.3] * 4))
    deadline = time.monotonic() + 120  # on a busy machine one worker may start long after the other
    while len(seen) < 2 and time.monotonic() < deadline:
        seen |= set(pool.map(pieces.nap, [0.3] * 4))
    assert os.getpid() not in seen
    assert len(seen) == 2
    assert set(pool.map(pieces.process, range(20))) <= seen


@pytest.mark.parametrize("count", [0, 1])
def test_few_workers_mean_this_process(pieces, count):
    with Workers(count) as workers:
        assert workers.map(pieces.process, range(3)) == [os.getpid()] * 3
        assert list(workers.imap(pieces.process, range(3))) == [os.getpid()] * 3


def test_the_same_bits_whatever_the_number_of_workers(pool, pieces):
    with Workers(0, shared_data()) as here:
        expected = here.map(pieces.train, range(6))
    assert all(torch.equal(a, b) for a, b in zip(pool.map(pieces.train, range(6)), expected, strict=True))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_many_tensors_leave_no_open_files(pool, pieces):
    items = [torch.full((1000,), float(i)) for i in range(200)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    results = pool.map(pieces.double, items)
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10
    assert [float(result[-1]) for result in results] == [2.0 * i for i in range(200)]


@pytest.mark.parametrize("count", [1, 2])
def test_one_thread_in_every_library(pool, pieces, count):
    with single_thread():
        torch.set_num_threads(2)  # what the caller has set is nobody's business
        workers = pool if count == 2 else Workers(count)
        for threads, libraries in workers.map(pieces.threads, range(2)):
            assert threads == 1
            assert libraries == [1] * len(libraries)
        assert torch.get_num_threads() == 2


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), single_thread():
        operator.truediv(1, 0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, 2])
def test_errors_come_back_as_they_were(pool, pieces, count):
    workers = pool if count else Workers()
    with pytest.raises(DataError, match=r"^number 3 is missing$") as caught:
        workers.map(pieces.fail, range(10))
    assert caught.value.key == "data"
    assert workers.map(pieces.fail, [1, 2]) == [1, 2], "the pool goes on"


def test_errors_that_cannot_travel_come_back_in_words(pool, pieces):
    with pytest.raises(FedGuardError, match="Unreadable: unreadable elsewhere"):
        pool.map(pieces.fail_unreadably, range(2))


@pytest.mark.parametrize("bad", [(lambda x: x, 1), (operator.neg, multiprocessing.Lock())])
def test_what_cannot_be_sent_is_an_error_and_no_hang(pool, bad):
    function, item = bad
    with pytest.raises((pickle.PicklingError, AttributeError, RuntimeError)):
        pool.map(function, [item])
    assert pool.map(operator.neg, [1]) == [-1]


@pytest.mark.parametrize("count", [0, 2])
def test_shared_data_are_there_and_only_during_the_work(pool, pieces, count):
    data = shared_data()
    workers = pool if count else Workers(0, data)
    assert workers.map(pieces.total, range(3)) == [float(data["inputs"].sum())] * 3
    assert not shared()


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_spoils_shared_data_spoils_its_own(pieces):
    data = shared_data()
    expected = float(data["inputs"].sum())
    with Workers(2, data) as workers:
        workers.map(pieces.spoil, range(1))
        found = workers.map(pieces.total, range(30))
    assert set(found) <= {expected, 0.0}
    assert float(data["inputs"].sum()) == expected


def test_workers_sent_to_a_worker_run_in_it(pool, pieces):
    results = pool.map(pieces.nested, [[torch.ones(2)] * 3])
    assert torch.equal(torch.stack(results[0]), torch.full((3, 2), 2.0))


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("count", [0, 2])
def test_initializer_runs_once_per_worker(pieces, count):
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    with Workers(count, initializer=pieces.remember, initargs=(queue, "here")) as workers:
        assert workers.map(pieces.place, range(20)) == ["here"] * 20
        ids = {queue.get() for _ in range(max(count, 1))}
        assert queue.empty()
    assert len(ids) == max(count, 1)
    assert (os.getpid() in ids) == (count == 0)


@pytest.mark.usefixtures("forked_workers")
def test_an_initializer_that_fails_is_heard(pieces):
    with Workers(2, initializer=pieces.refuse) as workers, pytest.raises(DataError, match="has no data"):
        workers.map(pieces.process, range(2))


def children():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_dies_is_reported(pieces):
    before = children()
    with Workers(2) as workers, pytest.raises(FedGuardError, match="a worker process died"):
        workers.map(pieces.die, range(2))
    assert children() == before


@pytest.mark.usefixtures("forked_workers")
def test_an_error_inside_the_block_ends_running_work_at_once(pieces):
    def give_up():
        with Workers(2) as workers:
            next(workers.imap(pieces.nap, [0, 600, 600, 600]))
            raise FedGuardError("enough")

    before, start = children(), time.monotonic()
    with pytest.raises(FedGuardError, match="enough"):
        give_up()
    assert time.monotonic() - start < 60
    assert children() == before


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_killed_after_its_pieces_were_given_up_is_no_traceback(pieces):
    """Before Python 3.12 the thread that notices the death fails at pieces that were cancelled."""
    before = children()
    with Workers(2) as workers:
        work = workers.unordered(pieces.nap, [0, *[600] * 40])
        next(work)
        work.close()
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(FedGuardError, match="a worker process died"):
            [workers.map(pieces.double, [1]) for _ in range(1000)]  # until the pool has noticed
    assert children() == before


@pytest.mark.usefixtures("forked_workers")
def test_pieces_nobody_waits_for_are_not_begun(pieces, tmp_path):
    begun = tmp_path / "begun"
    with Workers(2) as workers:
        work = workers.imap(pieces.write_down, [begun] * 40)
        next(work)
        work.close()
        assert workers.map(pieces.double, [1]) == [2], "the pool goes on"
    assert 1 <= len(begun.read_text()) < 20


def test_workers_must_be_running():
    with pytest.raises(FedGuardError, match="with Workers"):
        Workers(2).map(operator.neg, [1])
    with pytest.raises(ParameterError, match="-1 workers"):
        Workers(-1)


SCRIPT = """
import os, signal, sys, time
from fedguard.simulation.pool import Workers

def report(seconds):
    with open(sys.argv[1], "a") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with Workers(2) as workers:
        workers.map(report, [0, 600])
"""


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),  # test_interrupts.py interrupts a command
        signal.SIGKILL,
    ],
)
def test_no_process_outlives_an_interrupted_run(tmp_path, number):
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(textwrap.dedent(SCRIPT))
    log.touch()
    run = subprocess.Popen(
        [sys.executable, str(script), str(log)], start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(log.read_text().split()) < 2:  # one worker is busy, one may wait for work
        assert time.monotonic() < deadline, "the workers did not start"
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    workers = [int(pid) for pid in log.read_text().split()]
    interrupted = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # Ctrl-C reaches the whole group
    else:
        run.send_signal(number)
    output = run.communicate(timeout=60)[1].decode()
    while any(running(pid) for pid in workers):
        assert time.monotonic() < interrupted + 30, "workers are left"
        time.sleep(0.05)
    if number == signal.SIGINT:
        assert output.count("Traceback") == 1, f"only the parent says so: {output}"
