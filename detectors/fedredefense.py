"""FedREDefense: an update that no training can reproduce was not made by training."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch

from fedguard.card import Card
from fedguard.detector import Detector
from fedguard.errors import NeedError
from fedguard.history import History
from fedguard.policy import Decision
from fedguard.round import ClientId, Round
from fedguard.scores import Scores
from fedguard.server import Server
from fedguard.state import State

from ._reconstruction import Job, Knowledge, Result, Settings, check_positive, check_word, reconstruct
from ._unroll import virtual_network


class Memory(NamedTuple):
    """What is kept of a client: its knowledge, and the round in which it was last optimised."""

    knowledge: Knowledge
    refined: int


class FedREDefense(Detector):
    """e = ‖ŵ_N − w_0 − g‖² / ‖g‖², the error of the best reconstruction of g from a few learnt images.

    ŵ_{k+1} = ŵ_k − α ∇f(K, ŵ_k) for N steps from the global model w_0 on the client's knowledge K:
    images, label logits (targets are their softmax) and inner rate α. An outer SGD minimises e over all
    three and stops as soon as e < γ, which is checked before each step; e is always the error of the
    knowledge that is kept. Knowledge persists by client id and is refined in later rounds. e > γ makes a
    suspect; pair it with the policy ``ban``, as the paper expels for good.

    An error that is not finite is +Inf: so is that of a zero update, which has nothing to reconstruct.
    Such a client keeps the knowledge of its last good round; without any it starts anew next time.
    The virtual network has no running statistics and no dropout. ``info`` has "aoi", the paper's average
    of outer iterations over the clients, and "iterations_max".

    Args:
        threshold: γ.
        num_images: K.
        inner_steps: N.
        inner_lr: α at first.
        lr_images: outer learning rate of the images.
        lr_labels: outer learning rate of the label logits.
        lr_inner_lr: outer learning rate of α.
        momentum: of the outer SGD; from the released code, the paper has none to say.
        first_iterations: M when a client takes part for the first time.
        later_iterations: M afterwards.
        loss_average: "classes" averages the inner loss over batch and classes, as the released code;
            "batch" is plain cross-entropy, C times as large: rescale ``inner_lr`` with it.
        init: images at first, "gaussian" N(0, 1) as the released code, or "uniform" on [0, 1): the
            paper says uniform but not where.
        inner_loop: "func" unrolls by ``torch.func``, "higher" by the package higher; they agree.
        schedule: "dynamic" stops early; "continuous" always does all M iterations; "intermittent" does
            so every ``interval`` rounds and only measures the error in between.
        interval: T_I, rounds between two refinements of a client if intermittent.

    The defaults are Table 7's for Fashion-MNIST; for CIFAR-10 inner_lr 0.05 and 500 / 1500 iterations,
    for CINIC 0.05 and 2000 / 4000.

    Source: Xie et al., ICML 2024, Algorithms 1 and 2, §4, Table 7, Appendix B.3.
    """

    card = Card(
        "fedredefense",
        "error of reconstructing the update from distilled knowledge",
        "Xie et al., FedREDefense, ICML 2024",
    )
    exempt = MappingProxyType({"equal updates": "each client's knowledge starts from noise of its own"})
    check_plant_with = MappingProxyType({"lr_images": 3.0, "first_iterations": 60})
    needs = frozenset({"model", "global_params"})
    check_with = MappingProxyType(
        {
            "num_images": 4,
            "inner_steps": 2,
            "inner_lr": 1.0,
            "lr_images": 1.0,
            "first_iterations": 3,
            "later_iterations": 2,
        }
    )

    def __init__(
        self,
        threshold: float = 0.6,
        num_images: int = 10,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        lr_images: float = 0.1,
        lr_labels: float = 0.05,
        lr_inner_lr: float = 5e-5,
        momentum: float = 0.5,
        first_iterations: int = 5000,
        later_iterations: int = 5000,
        loss_average: Literal["classes", "batch"] = "classes",
        init: Literal["gaussian", "uniform"] = "gaussian",
        inner_loop: Literal["func", "higher"] = "func",
        schedule: Literal["dynamic", "continuous", "intermittent"] = "dynamic",
        interval: int = 10,
    ) -> None:
        self.settings = Settings(
            threshold=threshold,
            inner_steps=inner_steps,
            lr_images=lr_images,
            lr_labels=lr_labels,
            lr_inner_lr=lr_inner_lr,
            momentum=momentum,
            loss_average=loss_average,
            inner_loop=inner_loop,
            stop_early=schedule == "dynamic",
        )
        counts = {"num_images": num_images, "interval": interval}
        counts |= {"first_iterations": first_iterations, "later_iterations": later_iterations}
        check_positive(counts | {"inner_lr": inner_lr})
        check_word("init", init, ("gaussian", "uniform"))
        check_word("schedule", schedule, ("dynamic", "continuous", "intermittent"))
        self.num_images, self.inner_lr, self.init = num_images, inner_lr, init
        self.first_iterations, self.later_iterations = first_iterations, later_iterations
        self.schedule, self.interval = schedule, interval
        self._memory: History[Memory] = History()

    def score(self, round: Round) -> Scores:
        """Score by reconstruction error."""
        jobs = self._jobs(round)
        results: list[Result] = (round.server or Server()).map(reconstruct, jobs)
        errors = np.array([result.error for result in results])
        iterations = np.array([result.iterations for result in results])
        memory = {
            client: Memory(result.knowledge, round.index if job.iterations else self._memory[client].refined)
            for client, job, result in zip(round.client_ids, jobs, results, strict=True)
            if result.knowledge is not None
        }
        return Scores(
            errors,
            errors > self.settings.threshold,
            f"reconstruction error above {self.settings.threshold:g}",
            info={"aoi": float(iterations.mean()), "iterations_max": float(iterations.max())},
            memory=memory,
        )

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Keep the knowledge that the round gave."""
        self._memory.remember(scores.memory or {}, seen=round.client_ids)

    def state_dict(self) -> State:
        """Knowledge by client id."""
        return {
            "knowledge": [
                [client, {**memory.knowledge._asdict(), "refined": memory.refined}]
                for client, memory in self._memory.items()
            ]
        }

    def load_state_dict(self, state: State) -> None:
        """Replace everybody's knowledge."""
        self._memory = History(
            (client, Memory(Knowledge(kept["images"], kept["labels"], kept["inner_lr"]), kept["refined"]))
            for client, kept in state["knowledge"]
        )

    def _jobs(self, round: Round) -> list[Job]:
        server, start = round.server, round.global_params
        if server is None or server.model is None or start is None:
            raise NeedError("fedredefense needs model and global_params")
        if server.input_shape is None or server.num_classes is None:
            raise NeedError(
                "fedredefense needs the shape of the images and the number of labels: give the round a "
                "Server(model=…, input_shape=…, num_classes=…)"
            )
        network = virtual_network(server.model)
        jobs = []
        for client, update in zip(round.client_ids, round.updates.matrix, strict=True):
            memory = self._memory.get(client)
            knowledge = memory.knowledge if memory else self._noise(server, client)
            jobs.append(
                Job(network, start, update.clone(), knowledge, self._cap(memory, round.index), self.settings)
            )
        return jobs

    def _cap(self, memory: Memory | None, index: int) -> int:
        """M for a client in this round."""
        if memory is None:
            return self.first_iterations
        if self.schedule == "intermittent" and index - memory.refined < self.interval:
            return 0
        return self.later_iterations

    def _noise(self, server: Server, client: ClientId) -> Knowledge:
        """Where a client's knowledge starts; the same whoever else takes part, and in whatever order."""
        draw = server.generator("fedredefense", client)
        shape = (self.num_images, *(server.input_shape or ()))
        sample = torch.rand if self.init == "uniform" else torch.randn
        labels = torch.zeros(self.num_images, server.num_classes or 0)
        return Knowledge(sample(shape, generator=draw), labels, torch.tensor(float(self.inner_lr)))
