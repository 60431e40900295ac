"""Chameleon: a durable backdoor by contrastive adaptation of the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.card import Card
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError

from ._backdoor import SquareBackdoor
from ._checks import require_positive
from ._descent import descend, shuffled

#: From these epochs on, counted from 1, the encoder's learning rate is a tenth of the one before.
MILESTONES = (3, 5, 7, 9)
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


class Chameleon(SquareBackdoor):
    """Malicious clients train the encoder with a contrastive loss, freeze it, and then train the classifier.

    The classifier is the model's last linear layer, the encoder everything before it; z_i is the encoder's
    output for sample i of a batch of B, of length 1. The loss of the encoder is

        1/B Σ_i −w_i / |P(i)| Σ_{p ∈ P(i)} log( exp(⟨z_i, z_p⟩/τ) / Σ_{a ≠ i} exp(⟨z_i, z_a⟩/τ) ),

    P(i) the other samples with i's label, w_i = ``weight`` for the target label and 1 otherwise. Replicas
    with the trigger carry the target label, so that they move toward its images (facilitators) and away from
    those of their own class (interferers), which makes the backdoor last. The classifier is trained with the
    cross-entropy. The trigger is a white square in the bottom-right corner, added before normalization.

    The authors replace a few images of every batch instead of adding replicas, and keep the model within a
    ball around the global one; this class does not.

    Args:
        target: the label that the trigger should cause.
        scale: factor on the update.
        fraction: |R| / |D|, in (0, 1]: the share of local samples with a stamped replica; the default is the
            authors' 7 of a batch of 64.
        patch: side of the square in pixels, all channels.
        weight: of anchors with the target label; 6.
        temperature: τ; 0.07.
        encoder_epochs: 10, at ``encoder_lr``, a tenth of it from epochs 3, 5, 7 and 9 each.
        encoder_lr: 0.005.
        classifier_epochs: 3, at ``classifier_lr``.
        classifier_lr: 0.001 in the authors' settings, which start from a trained model; None takes that of
            local training.

    Raises:
        ParameterError: a parameter out of range; in the first round, a model without linear layer or encoder.

    Source: Dai & Li, Chameleon, ICML 2023: the idea, from the abstract; loss and settings, from the authors'
    repository (ybdai7/Chameleon-durable-backdoor: losses.py, training.py, params_pixel_trigger_cifar10.yaml).
    """

    card = Card(
        "chameleon",
        "a durable backdoor: contrastive adaptation of the encoder",
        "Dai & Li, Chameleon: Adapting to Peer Images, ICML 2023",
    )
    check_with = MappingProxyType({"encoder_epochs": 2, "classifier_epochs": 1})

    def __init__(
        self,
        target: int = 0,
        scale: float = 1.0,
        fraction: float = 7 / 57,
        patch: int = 3,
        weight: float = 6.0,
        temperature: float = 0.07,
        encoder_epochs: int = 10,
        encoder_lr: float = 0.005,
        classifier_epochs: int = 3,
        classifier_lr: float | None = None,
    ) -> None:
        super().__init__(target, scale, fraction, patch)
        positive = {"weight": weight, "temperature": temperature, "encoder_lr": encoder_lr}
        if classifier_lr is not None:
            positive["classifier_lr"] = classifier_lr
        for name, value in positive.items():
            require_positive("chameleon", name, value)
        for name, count in (("encoder_epochs", encoder_epochs), ("classifier_epochs", classifier_epochs)):
            if count < 0:
                raise ParameterError(f"chameleon: {name} is {count}; it cannot be negative")
        self.weight = weight
        self.temperature = temperature
        self.encoder_epochs = encoder_epochs
        self.encoder_lr = encoder_lr
        self.classifier_epochs = classifier_epochs
        self.classifier_lr = classifier_lr

    def train(self, view: LocalView) -> None:
        """Adapt the encoder, then the classifier."""
        classifier = last_linear(view.model)
        own = set(map(id, classifier.parameters()))
        encoder = [p for p in view.model.parameters() if id(p) not in own]
        if not encoder:
            raise ParameterError(
                "chameleon: the model is one linear layer; use one with an encoder before it"
            )
        inputs, labels = view.data

        def contrast(rows: Tensor) -> Tensor:
            features = F.normalize(encoded(view.model, classifier, inputs[rows]), dim=1)
            weights = torch.where(labels[rows] == self.target, self.weight, 1.0)
            return contrastive_loss(features, labels[rows], weights, self.temperature)

        def classified(rows: Tensor) -> Tensor:
            return F.cross_entropy(view.model(inputs[rows]), labels[rows])

        view.model.train()
        for epoch in range(1, self.encoder_epochs + 1):
            lr = self.encoder_lr * 0.1 ** sum(epoch >= milestone for milestone in MILESTONES)
            descend(encoder, _batches(view), contrast, lr, MOMENTUM, WEIGHT_DECAY)
        lr = self.classifier_lr or view.training.lr
        for _ in range(self.classifier_epochs):
            descend(classifier.parameters(), _batches(view), classified, lr, MOMENTUM, WEIGHT_DECAY)


def _batches(view: LocalView) -> Iterator[Tensor]:
    """One pass over the data, without batches of one sample, which has nothing to contrast with."""
    labels = view.data.labels
    for batch in shuffled(len(labels), view.training.batch_size, view.generator):
        if len(batch) > 1:
            yield batch.to(labels.device)


def contrastive_loss(features: Tensor, labels: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """The weighted supervised contrastive loss; samples without another of their label count 0.

    Args:
        features: (B, h) z, of length 1.
        labels: (B,).
        weights: (B,) w.
        temperature: τ.
    """
    alone = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = (features @ features.T / temperature).masked_fill(alone, -torch.inf)
    log_share = logits - logits.logsumexp(1, keepdim=True)
    same = (labels[:, None] == labels) & ~alone
    per_anchor = log_share.masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp(min=1)
    return -(weights * per_anchor).mean()


def last_linear(model: nn.Module) -> nn.Linear:
    """The model's last linear layer.

    Raises:
        ParameterError: it has none.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ParameterError("chameleon: the model has no linear layer; use one that ends in a classifier")
    return layers[-1]


def encoded(model: nn.Module, classifier: nn.Linear, inputs: Tensor) -> Tensor:
    """(B, h) what the classifier gets."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(given[0])

    handle = classifier.register_forward_pre_hook(keep)
    try:
        model(inputs)
    finally:
        handle.remove()
    return seen[-1].flatten(1)
