"""FedREDefense: rejects updates that training on a few images cannot reproduce."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import NeedError
from fedguard.core.history import History
from fedguard.core.ids import ClientId
from fedguard.core.restored import count, pairs, tensor
from fedguard.core.state import State

from ._fedredefense_presets import preset as preset_named
from ._labels import logits_of_bias
from ._reconstruction import Job, reconstruct, together
from ._search import Knowledge, Result, Task
from ._search_settings import check_positive, check_word
from ._unroll import virtual_network


class Memory(NamedTuple):
    """What is stored of a client: its knowledge, and the round in which it was last optimized."""

    knowledge: Knowledge
    refined: int


#: The round is split into at least this many jobs, unless clients are cheaper together; the clients of a job
#: share one copy of the model.
PIECES = 16


class FedREDefense(Detector):
    """e = ‖ŵ_N − w_0 − g‖² / ‖g‖², the error of the best reconstruction of g from a few learned images.

    ŵ_{k+1} = ŵ_k − α ∇f(K, ŵ_k) for N steps from the global model w_0 on the client's knowledge K:
    images, label logits (targets are their softmax) and inner rate α. An outer optimizer minimizes e over all
    three. It checks before each step whether e < γ, and stops if so; e is always the error of the knowledge
    that is stored. Knowledge is stored by client id and refined in later rounds. A client with e > γ is a
    suspect. Use the policy ``ban``, since the paper expels suspects for good.

    ``preset="paper"`` follows the paper, with its settings for Fashion-MNIST; "paper_cifar10" and
    "paper_cinic" have the settings of Table 7 for these data sets. ``"released"`` follows the authors' code
    for Fashion-MNIST: momentum 0.5, 3000 iterations, and the same Gaussian images for all clients.
    ``"fast"`` is FedGuard's own: a single inner step (N = 1), labels that start from the last layer's bias
    update, an inner rate matched to the update, and Adam. It reconstructs honest updates in a few iterations.
    The number of iterations is part of the method: with many more, some crafted updates become
    reconstructable, too (IPM, Min-Max with the unit vector). The budget was chosen on clean rounds of MNIST,
    see docs/explanation/fedredefense-fast.md. An explicit parameter overrides any preset.

    Updates that come from training can be reconstructed, even if they are scaled or sign-flipped afterwards
    or trained on changed data (label flips, backdoors, model replacement): given enough iterations, these
    pass under either preset. The paper says so of data poisoning.

    An error that is not finite is +Inf, as is the error of a zero update. Such a client keeps the knowledge
    of its last successful round; without any, it starts anew in the next round. The virtual network has no
    running statistics and no dropout. ``info`` has "aoi", the paper's mean number of outer iterations over
    the clients, and "iterations_max".

    Args:
        preset: the source of all parameters that are None; listed below as paper / released / fast.
        threshold: γ; 0.6.
        num_images: K; 10.
        inner_steps: N; 5 / 5 / 1.
        inner_lr: the initial α; 0.1 / 0.1 / 0.5, so that N α is the same; 0.05 for CIFAR-10 and CINIC.
        optimizer: of the outer loop, "sgd" with momentum or "adam" (β = 0.9, 0.999); sgd / sgd / adam.
        lr_images: outer learning rate of the images; 0.1.
        lr_labels: outer learning rate of the label logits; 0.05 / 0.05 / 0.1.
        lr_inner_lr: outer learning rate of α, if it is learned; 5e-5.
        momentum: of sgd; the paper names none; 0 / 0.5 / 0.
        first_iterations: M, the budget, in a client's first round; 5000 / 3000 / 10; CIFAR-10 500, CINIC
            2000.
        later_iterations: M in later rounds; 5000 / 3000 / 10; CIFAR-10 1500, CINIC 4000.
        loss_average: "classes" averages the inner loss over batch and classes, as the released code does;
            "batch" is plain cross-entropy, which is C times as large, so divide ``inner_lr`` by C.
        init: the initial images: "uniform" on [0, 1) (the paper says uniform, but not where), "gaussian",
            N(0, 1), or "shared", the same N(0, 1) for all clients; uniform / shared / gaussian.
        first_labels: the initial label logits: "zeros", or "bias", the update of the last layer's bias over
            its standard deviation for all K images. The bias rises for labels that are more frequent in a
            client's data than in the model's predictions. Zeros without such a bias; zeros / zeros / bias.
        inner_rate: "learnt" lets the outer optimizer learn α. "matched" scales α in every iteration so that
            the reconstruction, taken as linear in α, comes nearest to the update; for N = 1 it is linear and
            e includes the scaling, otherwise the next iteration uses it. learnt / learnt / matched.
        inner_loop: "closed" differentiates plain stacks of layers in closed form and other networks by
            ``torch.func``; "func" always uses ``torch.func``, "higher" the package higher. The results agree.
        schedule: "dynamic" stops early; "continuous" always runs all M iterations; "intermittent" does so
            every ``interval`` rounds and only measures the error in between.
        interval: T_I, the rounds between two refinements of a client under "intermittent".
        give_up_after: under "dynamic", stop if e would not get below γ within M iterations at its mean pace
            over this many last iterations. Nothing is lost as long as the decrease slows down, as it usually
            does. 0 never gives up.
        spectral_bound: skip the search where no K images can succeed. N steps on K images change a fully
            connected layer by a matrix of rank at most K N; the rest of the update is a lower bound on e. If
            the bound is above γ, it is the score.

    Source: Xie et al., ICML 2024, Algorithms 1 and 2, §4, Table 7, Appendix B.3; the preset "fast" is
    FedGuard's.
    """

    card = Card(
        "fedredefense",
        "error of reconstructing the update from distilled knowledge",
        "Xie et al., FedREDefense, ICML 2024",
    )
    tasks = frozenset({"classification"})
    makes_inputs = True
    exempt = MappingProxyType({"equal updates": "each client's knowledge starts from different noise"})
    check_plant_with = MappingProxyType({"lr_images": 3.0, "first_iterations": 60})
    needs = frozenset({"model", "global_params"})
    check_with = MappingProxyType(
        {
            "num_images": 4,
            "inner_steps": 2,
            "inner_lr": 1.0,
            "lr_images": 1.0,
            "first_iterations": 2,
            "later_iterations": 1,
        }
    )

    def __init__(
        self,
        preset: Literal["paper", "paper_cifar10", "paper_cinic", "released", "fast"] = "paper",
        threshold: float | None = None,
        num_images: int | None = None,
        inner_steps: int | None = None,
        inner_lr: float | None = None,
        optimizer: Literal["sgd", "adam"] | None = None,
        lr_images: float | None = None,
        lr_labels: float | None = None,
        lr_inner_lr: float | None = None,
        momentum: float | None = None,
        first_iterations: int | None = None,
        later_iterations: int | None = None,
        loss_average: Literal["classes", "batch"] = "classes",
        init: Literal["gaussian", "uniform", "shared"] | None = None,
        first_labels: Literal["zeros", "bias"] | None = None,
        inner_rate: Literal["learnt", "matched"] | None = None,
        inner_loop: Literal["closed", "func", "higher"] = "closed",
        schedule: Literal["dynamic", "continuous", "intermittent"] = "dynamic",
        interval: int = 10,
        give_up_after: int = 0,
        spectral_bound: bool = False,
    ) -> None:
        self.settings = preset_named(preset).given(
            threshold=threshold,
            num_images=num_images,
            inner_steps=inner_steps,
            inner_lr=inner_lr,
            optimizer=optimizer,
            lr_images=lr_images,
            lr_labels=lr_labels,
            lr_inner_lr=lr_inner_lr,
            momentum=momentum,
            first_iterations=first_iterations,
            later_iterations=later_iterations,
            init=init,
            first_labels=first_labels,
            inner_rate=inner_rate,
            loss_average=loss_average,
            inner_loop=inner_loop,
            stop_early=schedule == "dynamic",
            give_up_after=give_up_after,
            spectral_bound=spectral_bound,
        )
        check_positive({"interval": interval})
        check_word("schedule", schedule, ("dynamic", "continuous", "intermittent"))
        self.schedule, self.interval = schedule, interval
        self._memory: History[Memory] = History()

    def score(self, round: Round) -> Scores:
        """Score by reconstruction error."""
        jobs = self._jobs(round)
        pieces: list[list[Result]] = (round.server or Server()).map(reconstruct, jobs)
        tasks = [task for job in jobs for task in job.tasks]
        results = [result for piece in pieces for result in piece]
        errors = np.array([result.error for result in results])
        iterations = np.array([result.iterations for result in results])
        memory = {
            client: Memory(result.knowledge, round.index if task.iterations else self._memory[client].refined)
            for client, task, result in zip(round.client_ids, tasks, results, strict=True)
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
        """Store the knowledge from this round."""
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
        """Restore a snapshot of ``state_dict``."""
        self._memory = History(
            (client, Memory(Knowledge(*(tensor(kept[k]) for k in Knowledge._fields)), count(kept["refined"])))
            for client, kept in pairs(state["knowledge"])
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
        tasks = []
        for i, client in enumerate(round.client_ids):
            update = round.updates.row(i)
            memory = self._memory.get(client)
            knowledge = memory.knowledge if memory else self._first(server, client, update)
            tasks.append(Task(update, knowledge, self._cap(memory, round.index)))
        size = max(len(tasks) // PIECES, together(network, len(start), self.settings))
        return [Job(network, start, tasks[i : i + size], self.settings) for i in range(0, len(tasks), size)]

    def _cap(self, memory: Memory | None, index: int) -> int:
        """M for a client in this round."""
        if memory is None:
            return self.settings.first_iterations
        if self.schedule == "intermittent" and index - memory.refined < self.interval:
            return 0
        return self.settings.later_iterations

    def _first(self, server: Server, client: ClientId, update: Tensor) -> Knowledge:
        """A client's initial knowledge; it does not depend on the other clients or their order."""
        draw = server.generator("fedredefense", *(() if self.settings.init == "shared" else (client,)))
        shape = (self.settings.num_images, *(server.input_shape or ()))
        sample = torch.rand if self.settings.init == "uniform" else torch.randn
        labels = torch.zeros(self.settings.num_images, server.num_classes or 0)
        if self.settings.first_labels == "bias" and server.model is not None:
            labels += logits_of_bias(server.model, update, server.num_classes or 0)
        return Knowledge(sample(shape, generator=draw), labels, torch.tensor(float(self.settings.inner_lr)))
