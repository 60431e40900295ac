"""CollaPois: all malicious clients pull the global model toward one model with a backdoor."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError
from fedguard.core.state import State
from fedguard.training.parameters import flat_parameters

from ._backdoor import SquareBackdoor
from ._checks import require_positive
from ._descent import descend, device_of, shuffled


class CollaPois(SquareBackdoor):
    """u_i = ψ_i (X − θ), ψ_i ~ U[a, b] for every malicious client and round, θ the global model.

    X is one model with a backdoor. In the first attacked round the colluders train it from that round's
    global model on all their samples and on replicas of them with the trigger and the target label; it stays
    the same in all later rounds. Since all updates point at X while honest ones scatter, few colluders are
    enough where data are skewed. They train nothing afterwards.

    The paper's triggers are warped images and fixed texts; this one is a white square in the bottom-right
    corner. ``epochs``, ``lr``, ``low`` and ``high`` are FedGuard's: the description that was read has no
    values.

    Args:
        target: the label that the trigger should cause.
        low: a, in (0, 1].
        high: b, in [a, 1].
        fraction: the share of the samples that get a replica with the trigger.
        patch: side of the square in pixels.
        epochs: passes over the data when X is trained.
        lr: the learning rate then, with momentum 0.9.

    Raises:
        ParameterError: a parameter out of range.

    Source: Lai et al., A Client-level Assessment of Collaborative Backdoor Poisoning, arXiv 2504.12875, 2025:
    the abstract and a summary with the formula of the updates; the paper itself was not read.
    """

    card = Card(
        "collapois",
        "all colluders pull the global model toward one model with a backdoor",
        "Lai et al., A Client-level Assessment of Collaborative Backdoor Poisoning, arXiv 2504.12875, 2025",
    )
    check_with = MappingProxyType({"epochs": 2})

    def __init__(
        self,
        target: int = 0,
        low: float = 0.9,
        high: float = 1.0,
        fraction: float = 1.0,
        patch: int = 3,
        epochs: int = 20,
        lr: float = 0.05,
    ) -> None:
        super().__init__(target, None, fraction, patch)
        if not 0 < low <= high <= 1:
            raise ParameterError(f"collapois: low is {low}, high is {high}; use 0 < low <= high <= 1")
        if epochs < 1:
            raise ParameterError(f"collapois: epochs is {epochs}; use at least 1")
        require_positive("collapois", "lr", lr)
        self.low = low
        self.high = high
        self.epochs = epochs
        self.lr = lr
        #: (d,) the parameters of X; None before the first attacked round.
        self.backdoored: Tensor | None = None

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """Unchanged: what the clients send does not depend on what they would train."""
        return samples

    def prepare(self, view: LocalView) -> None:
        """Train X in the first attacked round."""
        if self.backdoored is not None:
            return
        model, device = view.model.train(), device_of(view.model)
        draw = view.generator
        count = len(view.colluders.labels)
        data = super().poison_data(view.colluders, DataView(0, 1, view.num_classes, draw))
        inputs, labels = view.normalize(data.pixels).to(device), data.labels.to(device)

        def loss(rows: Tensor) -> Tensor:
            return F.cross_entropy(model(inputs[rows]), labels[rows])

        batches = (
            batch.to(device)
            for _ in range(self.epochs)
            for batch in shuffled(len(labels), view.training.batch_size, draw)
            if len(batch) > 1 or count == 1  # BatchNorm needs two samples
        )
        descend(model.parameters(), batches, loss, self.lr, 0.9, 0.0)
        self.backdoored = flat_parameters(model).cpu()

    def craft(self, view: UpdateView) -> Tensor:
        """ψ_i (X − θ); the own updates if X has not been trained."""
        if self.backdoored is None:
            return view.own_updates.clone()
        psi = torch.rand(view.num_malicious, generator=view.generator)
        psi = (self.low + (self.high - self.low) * psi).to(view.global_params)
        return psi[:, None] * (self.backdoored.to(view.global_params) - view.global_params)

    def state_dict(self) -> State:
        """X."""
        return {} if self.backdoored is None else {"backdoored": self.backdoored}

    def load_state_dict(self, state: State) -> None:
        """Restore X."""
        self.backdoored = state.get("backdoored")
