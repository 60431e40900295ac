"""Clients of one federation trained by several threads: the same bits, where the code bears it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from fedguard.contracts.server import map_in_order
from fedguard.core.errors import ParameterError
from fedguard.core.threads import blocks_on, go_on
from fedguard.evaluation.running.executors.pool import Pool
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation import jobs, threaded
from fedguard.simulation.federation import Federation
from fedguard.simulation.threaded import Threads

SEEN: set[int] = set()


def conv(*more):
    return nn.Sequential(nn.Conv2d(1, 4, 3), *more, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def plain():
    return conv()


def with_batchnorm():
    return conv(nn.BatchNorm2d(4))


def with_dropout():
    return conv(nn.Dropout(0.5))


class Unsafe(nn.Module):
    """Somebody's module, which keeps something for the whole class."""

    def forward(self, inputs):
        SEEN.add(threading.get_ident())
        return inputs


def with_foreign_code():
    return conv(Unsafe())


def hooked():
    model = conv()
    model[0].register_forward_hook(lambda *_: SEEN.add(threading.get_ident()))
    return model


def foreign_loss(outputs, labels):
    SEEN.add(threading.get_ident())
    return nn.functional.cross_entropy(outputs, labels)


def cell(model="plain", attack="none", defense=None, **training):
    suite = Suite(
        data="digits",
        model=f"test_threaded:{model}",
        clients=8,
        malicious=0 if attack == "none" else 2,
        rounds=2,
        training={"steps": 3, "batch_size": 8, "lr": 0.05, **training},
        attacks={"it": attack},
        defenses={"d": defense or {}},
    )
    return suite.cells()[0]


@pytest.fixture(autouse=True)
def anything_pays(monkeypatch):
    """The networks here are tiny, and named as modules of a user's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(threaded, "SECONDS_PER_MODULE", 0.0)
    SEEN.clear()


@pytest.fixture
def trainers(monkeypatch):
    """The threads that trained, each of which waits for another one before its first client."""
    seen: list[int] = []
    real = jobs.train_job

    def noted(job):
        seen.append(threading.get_ident())
        deadline = time.monotonic() + 20
        while len(seen) == 1 and time.monotonic() < deadline:
            time.sleep(0.001)  # so that the second thread gets one, however late it starts
        return real(job)

    monkeypatch.setattr(jobs, "train_job", noted)
    monkeypatch.setattr(threaded, "train_job", noted)
    return seen


def run(cell, threads):
    federation = Federation(cell, Threads(threads) if threads else map_in_order)
    with blocks_on(max(1, threads)):
        records = federation.run()
    found = [(r.tacc, r.loss, r.asr, [row.weight for row in r.clients]) for r in records]
    return found, federation.params, federation.statistics


CASES = {
    "mean": {},
    "batchnorm": {"model": "with_batchnorm"},
    "dropout": {"model": "with_dropout"},
    "NNM and trimmed mean": {
        "attack": "ipm",
        "defense": {"stages": "nearest_neighbor_mixing", "aggregator": "trimmed_mean"},
    },
    "poisoned data": {"attack": "label_flip", "defense": {"detector": "krum"}},
    "attackers that adjust": {"attack": "neurotoxin"},
    "augmented": {"augment": ["flip", "crop"], "momentum": 0.9, "clip": 1.0, "proximal": 0.1},
    "stopping early": {"epochs": 3, "steps": None, "patience": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_with_any_number_of_threads(case):
    expected, params, statistics = run(cell(**CASES[case]), 0)
    state = torch.random.get_rng_state()
    for threads in (1, 2, 3):
        again, other, others_statistics = run(cell(**CASES[case]), threads)
        assert repr(again) == repr(expected)
        assert torch.equal(other, params)
        assert torch.equal(others_statistics, statistics)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_several_threads_train(trainers):
    run(cell(), 2)
    assert len(set(trainers)) == 2


@pytest.mark.parametrize(
    "case",
    [
        {"model": "with_foreign_code"},
        {"model": "hooked"},
        {"loss": "test_threaded:foreign_loss"},
        {"model": "with_dropout"},
        {"optimizer": "adam"},
    ],
)
def test_code_that_may_not_bear_threads_runs_in_one(case):
    federation = Federation(cell(**case), Threads(3))
    assert federation._work is map_in_order
    federation.step(0)
    assert not SEEN - {threading.get_ident()}


def test_small_networks_do_without(monkeypatch):
    monkeypatch.setattr(threaded, "SECONDS_PER_MODULE", 1e3)
    assert Federation(cell(), Threads(2))._work is map_in_order


def test_clients_of_dense_networks_are_one_product():
    suite = Suite(data="digits", model="mlp", clients=8, malicious=0, rounds=1)
    assert Federation(suite.cells()[0], Threads(2))._work is map_in_order


def test_the_first_clients_error_is_raised(monkeypatch):
    real = jobs.train_job

    def failing(job):
        if job[1][0] in (3, 6):
            raise ParameterError(f"client {job[1][0]} has no samples")
        return real(job)

    monkeypatch.setattr(jobs, "train_job", failing)
    monkeypatch.setattr(threaded, "train_job", failing)
    for _ in range(5):
        with pytest.raises(ParameterError, match=r"^client 3 has no samples$"):
            Federation(cell(), Threads(2)).step(0)


@pytest.fixture
def interruptible():
    """A process started in the background may ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_other_threads_do():
    """Ctrl-C in the calling thread; the other one would train for a minute."""
    main, begun, ends = threading.get_ident(), threading.Event(), []

    def work(_):
        if threading.get_ident() == main:
            assert begun.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
            raise AssertionError("not interrupted")
        begun.set()
        try:
            while True:
                go_on()
                time.sleep(0.001)
        finally:
            ends.append(time.monotonic())

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Threads(2).spread(work, range(4))
    assert len(ends) == 1
    assert ends[0] - start < 50


@pytest.mark.usefixtures("forked_workers")
def test_fewer_runs_than_workers_share_them(tmp_path, monkeypatch):
    counts, real = [], Threads.spread

    def noted(threads, function, items):
        counts.append(threads.count)
        return real(threads, function, items)

    monkeypatch.setattr(Threads, "spread", noted)

    def table(name, workers, **defenses):
        suite = Suite(
            data="digits",
            model="test_threaded:plain",
            clients=6,
            malicious=0,
            rounds=2,
            training={"steps": 2, "batch_size": 8, "lr": 0.05},
            attacks={"none": "none"},
            defenses=defenses,
        )
        counts.clear()
        found = run_suite(suite, tmp_path / name, workers, executor=Pool(workers)).table("runs")
        return found[["defense", "tacc", "loss", "status"]].to_dict("records"), set(counts)

    expected, used = table("alone", 1, mean={})
    assert not used
    assert expected[0]["status"] == "done"
    assert table("alone in two threads", 2, mean={}) == (expected, {2})
    assert table("three of them", 3, mean={}) == (expected, {3})
    both, _ = table("both", 1, mean={}, median={"aggregator": "median"})
    processes, used = table("in processes", 4, mean={}, median={"aggregator": "median"})
    assert processes == both
    assert not used, "no clients are trained in this process"
