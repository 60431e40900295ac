"""A3FL: a trigger optimized against the global model and against one that has unlearned it."""

from __future__ import annotations

import copy
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.card import Card
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError
from fedguard.core.state import State

from ._backdoor import Backdoor
from ._checks import require_positive
from ._descent import descend, device_of, shuffled


class A3FL(Backdoor):
    """δ* = argmin_δ E[ℓ(θ; x ⊕ δ, ỹ) + λ ℓ(θ'; x ⊕ δ, ỹ)] in every round, λ = λ_0 · cos(θ, θ').

    θ is the global model, ỹ the target, x ⊕ δ the image with a square of it replaced by δ. θ' is an
    adversary that unlearns the backdoor: θ trained on E[ℓ(θ'; x ⊕ δ, y)] with the true labels y. It is
    trained anew from θ before every pass over the data but the first. A step on δ is
    δ ← clip(δ − α sign ∇, 0, 1). δ starts from gray, and every round continues from the last. The first
    malicious client of a round optimizes δ on its own samples; all then train on stamped replicas. Success
    is measured with the latest δ, also after the attack has ended.

    The authors' code takes the cosine of convolutions' gradients instead, replaces a quarter of every batch
    instead of adding replicas, and makes 200 passes; the default here is 20, as a pass takes about as
    long as ``1 + unlearn`` epochs of local training.

    Args:
        target: the label that the trigger should cause.
        fraction: |R| / |D|, in (0, 1]; 1/3 makes a quarter of the training data stamped.
        patch: side of the square in pixels; 5.
        offset: its distance from the top and from the left; 2.
        epochs: passes over the data per round.
        alpha: the step size α, in pixel values.
        balance: λ_0; 0.01 in the authors' settings.
        unlearn: epochs of θ'; 5, with SGD at ``unlearn_lr``, momentum 0.9 and weight decay 0.0005.
        unlearn_lr: its learning rate; 0.01.
        scale: factor on the update.

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhang et al., A3FL, NeurIPS 2023: the objective, from a summary of the paper; the settings and the
    order of steps, from the authors' repository (hfzhang31/A3FL, attacker.py and config.yaml).
    """

    card = Card(
        "a3fl",
        "a trigger optimized against a model that unlearns it",
        "Zhang et al., A3FL: Adversarially Adaptive Backdoor Attacks, NeurIPS 2023",
    )
    check_with = MappingProxyType({"epochs": 2, "unlearn": 1})

    def __init__(
        self,
        target: int = 2,
        fraction: float = 1 / 3,
        patch: int = 5,
        offset: int = 2,
        epochs: int = 20,
        alpha: float = 0.01,
        balance: float = 0.01,
        unlearn: int = 5,
        unlearn_lr: float = 0.01,
        scale: float = 1.0,
    ) -> None:
        super().__init__(target, scale, fraction)
        for name, value, least in (
            ("patch", patch, 1),
            ("offset", offset, 0),
            ("epochs", epochs, 1),
            ("unlearn", unlearn, 0),
        ):
            if value < least:
                raise ParameterError(f"a3fl: {name} is {value}; use at least {least}")
        for name, size in (("alpha", alpha), ("unlearn_lr", unlearn_lr)):
            require_positive("a3fl", name, size)
        if not 0 <= balance < float("inf"):
            raise ParameterError(f"a3fl: balance is {balance}; use a finite number of at least 0")
        self.patch = patch
        self.offset = offset
        self.epochs = epochs
        self.alpha = alpha
        self.balance = balance
        self.unlearn = unlearn
        self.unlearn_lr = unlearn_lr
        #: (channels, patch, patch) δ; None before the first attacked round, when it is gray.
        self.trigger: Tensor | None = None

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """The current trigger, the same for all clients."""
        gray = torch.full((pixels.shape[-3], self.patch, self.patch), 0.5)
        return self._with(pixels, gray if self.trigger is None else self.trigger)

    def extent(self) -> tuple[int, int]:
        """The far edges of the square."""
        return self.offset + self.patch, self.offset + self.patch

    def prepare(self, view: LocalView) -> None:
        """Optimize the trigger on the global model."""
        model, device = view.model.eval(), device_of(view.model)
        pixels, labels = view.samples.pixels.to(device), view.samples.labels.to(device)
        start = self.trigger
        trigger = torch.full((pixels.shape[1], self.patch, self.patch), 0.5) if start is None else start
        trigger = trigger.to(device)
        adversary, weight = None, 0.0
        for epoch in range(self.epochs):
            if epoch > 0 and self.balance > 0 and self.unlearn > 0:
                adversary = self._unlearned(view, pixels, labels, trigger)
                weight = self.balance * _similarity(adversary, model)
            for batch in shuffled(len(labels), view.training.batch_size, view.generator):
                trigger = self._step(view, pixels[batch.to(device)], trigger, adversary, weight)
        self.trigger = trigger.cpu()

    def _step(
        self, view: LocalView, pixels: Tensor, trigger: Tensor, adversary: nn.Module | None, weight: float
    ) -> Tensor:
        """One step on δ."""
        free = trigger.clone().requires_grad_()
        inputs = view.normalize(self._with(pixels, free))
        wanted = torch.full((len(pixels),), self.target, device=pixels.device)
        loss = F.cross_entropy(view.model(inputs), wanted)
        if adversary is not None:
            loss = loss + weight * F.cross_entropy(adversary(inputs), wanted)
        (gradient,) = torch.autograd.grad(loss, free)
        return (trigger - self.alpha * gradient.sign()).clamp(0, 1)

    def _unlearned(self, view: LocalView, pixels: Tensor, labels: Tensor, trigger: Tensor) -> nn.Module:
        """θ': the global model, trained on stamped images with their true labels."""
        adversary = copy.deepcopy(view.model).train()
        inputs = view.normalize(self._with(pixels, trigger))

        def loss(rows: Tensor) -> Tensor:
            return F.cross_entropy(adversary(inputs[rows]), labels[rows])

        batches = (
            batch.to(pixels.device)
            for _ in range(self.unlearn)
            for batch in shuffled(len(labels), view.training.batch_size, view.generator)
        )
        descend(adversary.parameters(), batches, loss, self.unlearn_lr, 0.9, 5e-4)
        return adversary.eval()

    def _with(self, pixels: Tensor, trigger: Tensor) -> Tensor:
        stamped, end = pixels.clone(), self.offset + self.patch
        stamped[..., self.offset : end, self.offset : end] = trigger.to(pixels)
        return stamped

    def state_dict(self) -> State:
        """The trigger."""
        return {} if self.trigger is None else {"trigger": self.trigger}

    def load_state_dict(self, state: State) -> None:
        """Restore the trigger."""
        self.trigger = state.get("trigger")


def _similarity(one: nn.Module, other: nn.Module) -> float:
    """The cosine of two models' parameters, of all layers together."""
    flat = [torch.cat([p.detach().flatten() for p in m.parameters()]).double() for m in (one, other)]
    return float(F.cosine_similarity(flat[0], flat[1], dim=0))
