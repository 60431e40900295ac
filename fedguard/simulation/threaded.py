"""Threads of this process that share one federation's clients, where a second core would be idle otherwise.

Each client is trained by one thread on a replica of the model, so results have the same bits. Only code that
is known to bear it runs this way: see :func:`own_work`.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.local_training import LocalTraining, named
from ..contracts.server import map_in_order
from ..core.threads import helping, single_thread
from ..geometry.workers import map_in_threads
from ..training.layout import bears_channels_last
from ..training.local import side_by_side
from ..training.randomness import may_draw
from .client_data import training_data
from .jobs import attackers_training, train_job
from .keys import CellKey
from .setup import setup_of

#: From how many seconds of a forward pass per module several threads pay. Below, Python itself takes most of
#: the time, and only one thread at a time runs Python. Measured by benchmarks/client_threads.py.
SECONDS_PER_MODULE = 15e-6

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


class Threads:
    """A map that runs everything in order, and lets a federation train and test in several threads.

    Args:
        count: how many, the calling one included.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """``[function(item) for item in items]``: attacks' and detectors' work, whoever wrote it."""
        return map_in_order(function, items)

    def spread(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """The same in the threads, each of which has one thread in torch; raises the first error.

        What the function reads in context variables is what the calling thread has there. Meanwhile torch's
        global generator is nobody's: it is restored afterwards.
        """
        if self.count < 2 or len(items) < 2:
            return map_in_order(function, items)
        context, caller, ended = copy_context(), threading.get_ident(), threading.Event()

        def work(item: Any) -> Any:
            return function(item) if threading.get_ident() == caller else context.copy().run(helped, item)

        def helped(item: Any) -> Any:
            if torch.get_num_threads() > 1:
                torch.set_num_threads(1)  # this thread's; the process has one already
            with helping(ended):
                return function(item)

        with single_thread(), torch.random.fork_rng(devices=[]):
            return list(map_in_threads(work, items, min(self.count, len(items)), ended))


def own_work(map: Map, key: CellKey) -> Map:
    """The map for a federation's own training and testing.

    Given :class:`Threads`, it uses them if that is faster, and if all that runs there is known to bear it:
    models of PyTorch's, torchvision's and FedGuard's modules that draw no random numbers in training, and
    FedGuard's own losses, augmentations and SGD. Else it runs in order.
    """
    if not isinstance(map, Threads):
        return map
    return _OwnWork(map, key) if map.count > 1 and _bears_threads(key) else map_in_order


class _OwnWork:
    def __init__(self, threads: Threads, key: CellKey) -> None:
        self._threads, self._key = threads, key

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Run a federation's jobs; clients that run an attack's own code are trained here, one by one."""
        jobs = list(items)
        if function is not train_job:
            return self._threads.spread(function, jobs)
        apart = [job for job in jobs if job.before is not None or job.state is not None]
        shared = jobs[: len(jobs) - len(apart)]  # honest clients are the first
        for job in shared:
            for client in job.clients:  # what several threads would make at the same time
                training_data(job.key, client, job.attacking)
            if job.attacking:
                attackers_training(job.key, job.round)
        return self._threads.spread(function, shared) + map_in_order(function, apart)


def _bears_threads(key: CellKey) -> bool:
    setup = setup_of(key)
    if key.cell.device != "cpu" or not _of_known_code(setup.training):
        return False
    inputs = setup.dataset.training_set.inputs
    if side_by_side(setup.model, inputs, setup.training):
        return False  # one product trains many clients, and threads only slow it down
    bears_channels_last(setup.model, inputs)  # noted for all replicas
    batch = inputs[: setup.training.batch_size]
    return not may_draw(setup.model, inputs) and _pays(setup.model, batch)


def _of_known_code(training: LocalTraining) -> bool:
    names = [named(spec)[0] for spec in (training.loss, *training.augment)]
    return training.own_sgd and not any(":" in name for name in names)


@torch.no_grad()
def _pays(model: nn.Module, batch: Tensor) -> bool:
    """Whether a forward pass spends so much time in operations that threads seldom wait for each other.

    Time decides who trains a client, and so how long it takes, but not what the result is.
    """
    replica, least = copy.deepcopy(model).train(), SECONDS_PER_MODULE * len(list(model.modules()))
    with single_thread():
        return all(_seconds(replica, batch) >= least for _ in range(3))  # the first passes are slower


def _seconds(model: nn.Module, batch: Tensor) -> float:
    start = time.perf_counter()
    model(batch)
    return time.perf_counter() - start
