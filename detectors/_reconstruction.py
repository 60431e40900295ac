"""FedREDefense's reconstructions of a round's updates. Runs in any process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from fedguard.core.threads import single_thread

from ._search import Result, Search, Task
from ._search_settings import Settings
from ._spectrum import least_error
from ._unroll import trains_together, unrolled


@dataclass(frozen=True)
class Job:
    """The reconstructions of some clients, with all they need, picklable.

    Attributes:
        network: from ``virtual_network``.
        start: (d,) the global model.
        tasks: one per client.
        settings: the same for all clients.
    """

    network: nn.Module
    start: Tensor
    tasks: list[Task]
    settings: Settings


#: Reconstructions that run together have at most this many parameters in all: more would leave the cache.
TOGETHER = 1 << 19


def together(network: nn.Module, dimension: int, settings: Settings) -> int:
    """How many clients' reconstructions run at once."""
    if settings.inner_loop != "closed" or not trains_together(network):
        return 1
    return max(1, min(32, TOGETHER // dimension))


def reconstruct(job: Job) -> list[Result]:
    """Algorithm 2: minimize e = ‖ŵ_N − w_0 − g‖² / ‖g‖² for each client, each with a new optimizer.

    One torch thread, so that the result does not depend on where it runs. Nor does it depend on the clients
    that are searched at the same time.
    """
    with single_thread():
        settings, network = job.settings, job.network
        # A copy has the alignment of our allocator, so that every process computes the same bits.
        start = job.start.to(next(network.parameters()).device, copy=True)
        inner = settings.inner_loop, network, start, settings.inner_steps, settings.loss_average
        loop = unrolled(*inner, job.tasks[0].knowledge.images)
        results = [_without_search(job, task) for task in job.tasks]
        open_ = [i for i, result in enumerate(results) if result is None]
        size = together(network, len(start), settings)
        for k in range(0, len(open_), size):
            some = open_[k : k + size]
            search = Search([job.tasks[i] for i in some], start, loop, settings)
            for i, result in zip(some, search.run(), strict=True):
                results[i] = result
        return [result for result in results if result is not None]


def _without_search(job: Job, task: Task) -> Result | None:
    """The result where the error is undefined, or known to be above the threshold."""
    if not task.update.any():
        return Result(math.inf, 0, None)
    if job.settings.spectral_bound and task.iterations:
        images, steps = len(task.knowledge.images), job.settings.inner_steps
        bound = least_error(job.network, task.update.to(job.start.device), images, steps)
        if bound > job.settings.threshold:
            return Result(bound, 0, None)
    return None
