"""FedREDefense's outer loop: distill knowledge that reproduces clients' updates, several clients at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ._descent_steps import Steps
from ._search_settings import Settings
from ._unroll import Unrolled


class Knowledge(NamedTuple):
    """A client's distilled local knowledge: K images, their label logits, and the inner learning rate."""

    images: Tensor
    labels: Tensor
    inner_lr: Tensor


class Task(NamedTuple):
    """One client's reconstruction.

    Attributes:
        update: (d,) what the client sent.
        knowledge: where to start.
        iterations: M, the most outer iterations; 0 only measures the error.
    """

    update: Tensor
    knowledge: Knowledge
    iterations: int


class Result(NamedTuple):
    """What a reconstruction found.

    Attributes:
        error: e; +Inf if it is undefined.
        iterations: passes through the outer loop, including the one that finds the error small enough.
        knowledge: what was distilled; None if e is undefined, or is the spectral bound.
    """

    error: float
    iterations: int
    knowledge: Knowledge | None


class Search:
    """Algorithm 2 for some clients: minimize e = ‖ŵ_N − w_0 − g‖² / ‖g‖² of each.

    All numbers of a client lie in one row of each tensor, and no operation mixes rows. So a client's result
    does not depend on the others, who only share the cost of calling the operations. Who is done leaves.

    Args:
        tasks: one per client; no update is zero.
        start: (d,) the global model.
        unrolled: the inner loop and its gradients.
        settings: the same for all clients.
    """

    def __init__(self, tasks: list[Task], start: Tensor, unrolled: Unrolled, settings: Settings) -> None:
        self.start, self.unrolled, self.settings = start, unrolled, settings
        self.caps = [task.iterations for task in tasks]
        self.updates = torch.stack([task.update.to(start.device) for task in tasks])
        self.squares = self.updates.double().square().sum(1).to(self.updates.dtype)
        self.leaves = [
            torch.stack([part.to(start.device) for part in parts])
            for parts in zip(*(task.knowledge for task in tasks), strict=True)
        ]
        self.matched, self.linear = settings.inner_rate == "matched", settings.inner_steps == 1
        trained = self.leaves[:2] if self.matched else self.leaves
        rates = (settings.lr_images, settings.lr_labels, settings.lr_inner_lr)[: len(trained)]
        self.steps = Steps(settings.optimizer, trained, rates, settings.momentum)
        self.errors: list[list[float]] = [[] for _ in tasks]
        self.rows = list(range(len(tasks)))  # whose numbers are in the rows
        self.results: list[Result | None] = [None] * len(tasks)

    @torch.no_grad()
    def run(self) -> list[Result]:
        """Search until everybody is done."""
        step = 0
        while self.rows:
            self._iterate(step)
            step += 1
        return [result for result in self.results if result is not None]

    def _iterate(self, step: int) -> None:
        """Measure the errors, take a step, and let go who is done."""
        images, labels, inner_lr = self.leaves
        targets = labels.softmax(-1)
        found = self.unrolled.ends(images, targets, inner_lr) - self.start
        scale = self._nearest(found) if self.matched else torch.ones_like(inner_lr)
        rest = (scale[:, None] * found if self.matched else found) - self.updates
        # With one inner step the result is linear in α, so this is the error of the knowledge with α scaled.
        now = self._errors(rest if self.linear or not self.matched else found - self.updates)
        done = [self._done(i, error, step) for i, error in zip(self.rows, now.tolist(), strict=True)]
        kept = list(self.leaves)
        if self.linear:
            kept[2] = kept[2] * scale
        kept = [part.clone() for part in kept] if any(done) else kept
        if not all(done):
            self._descend(rest, scale, targets)
            if self.matched:
                inner_lr.mul_(scale)
        for row, (i, over) in enumerate(zip(self.rows, done, strict=True)):
            if over:
                self._finish(i, step, Knowledge(*(part[row].cpu() for part in kept)))
        if any(done):
            self._leave([row for row, over in enumerate(done) if not over])

    def _errors(self, rest: Tensor) -> Tensor:
        return rest.square().sum(1) / self.squares

    def _done(self, i: int, error: float, step: int) -> bool:
        """Note a client's error; whether its search ends here."""
        self.errors[i].append(error)
        if not math.isfinite(error) or step == self.caps[i]:
            return True
        return _decided(self.errors[i], self.caps[i], self.settings)

    def _descend(self, rest: Tensor, scale: Tensor, targets: Tensor) -> None:
        """One step of the outer optimizer. A client's error does not depend on the other rows."""
        along = self.squares.reciprocal()[:, None] * (2 * rest)  # the gradient of e with respect to the rest
        along = along * scale[:, None] if self.matched else along
        to_images, to_targets, to_rate = self.unrolled.pull(along)
        to_labels = torch.ops.aten._softmax_backward_data(to_targets, targets, -1, targets.dtype)
        self.steps.step([to_images, to_labels, to_rate][: len(self.steps.leaves)])

    def _finish(self, i: int, step: int, kept: Knowledge) -> None:
        error, count = self.errors[i][-1], min(step + 1, self.caps[i])
        known = math.isfinite(error)
        self.results[i] = Result(error, count, kept) if known else Result(math.inf, count, None)

    def _leave(self, stay: list[int]) -> None:
        """Keep some rows of everything."""
        self.rows = [self.rows[row] for row in stay]
        if not stay:
            return
        self.updates, self.squares = self.updates[stay], self.squares[stay]
        self.steps.keep(stay)
        if self.matched:
            self.leaves[2].data = self.leaves[2].data[stay]

    def _nearest(self, found: Tensor) -> Tensor:
        """⟨f, g⟩ / ‖f‖², the factor on α that brings a reconstruction linear in α nearest to the update.

        At least a tenth of ‖g‖ / ‖f‖, so that α stays positive where the two point apart.
        """
        f, g = found.double(), self.updates.double()
        length, goal = torch.linalg.vector_norm(f, dim=1), torch.linalg.vector_norm(g, dim=1)
        cosine = torch.linalg.vecdot(f, g) / (length * goal)
        scale = cosine.clamp(min=0.1) * goal / length
        return torch.where(length > 0, scale, 1.0).to(found.dtype)


def _decided(errors: list[float], iterations: int, settings: Settings) -> bool:
    """Whether the error is below the threshold, or would not get there in time at its latest pace."""
    if not settings.stop_early:
        return False
    now, window = errors[-1], settings.give_up_after
    if now < settings.threshold:
        return True
    if window == 0 or len(errors) <= window:
        return False
    pace = (errors[-1 - window] - now) / window
    return now - pace * (iterations - len(errors) + 1) >= settings.threshold
