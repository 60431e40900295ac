"""What 3DFed trains: the backdoor near the global model, and decoys away from honest models."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData
from fedguard.contracts.local_view import LocalView
from fedguard.training.parameters import flat_parameters, learned

from ._descent import descend, shuffled

#: How far a decoy's weight moves from the honest one, and the factor on the distance in its loss.
DISTANCE, PULL = 10.0, 10.0


def distance(parameters: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """‖w − w'‖₂ over all tensors together."""
    apart = [(p - o).flatten() for p, o in zip(parameters, others, strict=True)]
    length: Tensor = torch.linalg.vector_norm(torch.cat(apart))
    return length


def backdoored(view: LocalView, stamped: LabeledData, epochs: int, constraint: float) -> Tensor:
    """(d,) the update of the model trained on (1 − c)/2 (ℓ(clean) + ℓ(stamped)) + c ‖w − w_g‖₂.

    Args:
        view: one malicious client.
        stamped: all its samples with the trigger, and the target label.
        epochs: passes over the data.
        constraint: c.
    """
    model = copy.deepcopy(view.model).train()
    own = list(learned(model).values())
    start = [p.detach().clone() for p in own]
    clean = view.data

    def loss(rows: Tensor) -> Tensor:
        parts = [F.cross_entropy(model(inputs[rows]), labels[rows]) for inputs, labels in (clean, stamped)]
        return (1 - constraint) / 2 * (parts[0] + parts[1]) + constraint * distance(own, start)

    passes = itertools.chain.from_iterable(batches(view) for _ in range(epochs))
    settings = view.training
    descend(own, passes, loss, settings.lr, settings.momentum, settings.weight_decay)
    return flat_parameters(model) - flat_parameters(view.model)


def decoy(view: LocalView, weight: Tensor, place: tuple[int, int], honest: float) -> Tensor:
    """(d,) the update of a model whose weight in one place leaves the honest one: ½ ℓ(clean) − 5 |w − h|.

    The second term ends where |w − h| exceeds 10. It trains for as many steps as an honest client.

    Args:
        view: one malicious client.
        weight: of the output layer of ``view.model``.
        place: row and column of the one that moves.
        honest: h, the same one in the model of an honest client.
    """
    name = next(name for name, part in learned(view.model).items() if part is weight)
    model = copy.deepcopy(view.model).train()
    moved = learned(model)[name]
    inputs, labels = view.data

    def loss(rows: Tensor) -> Tensor:
        gap = (moved[place] - honest).abs()
        pushed = torch.where(gap > DISTANCE, torch.zeros_like(gap), -PULL * gap)
        return (F.cross_entropy(model(inputs[rows]), labels[rows]) + pushed) / 2

    settings = view.training
    endless = itertools.chain.from_iterable(batches(view) for _ in itertools.count())
    steps = itertools.islice(endless, settings.steps_for(len(labels)))
    descend(learned(model).values(), steps, loss, settings.lr, settings.momentum, settings.weight_decay)
    return flat_parameters(model) - flat_parameters(view.model)


def batches(view: LocalView) -> Iterator[Tensor]:
    """One pass over the data, without batches of one sample unless there is one only: BatchNorm needs two."""
    labels = view.data.labels
    for batch in shuffled(len(labels), view.training.batch_size, view.generator):
        if len(batch) > 1 or len(labels) == 1 or view.training.batch_size == 1:
            yield batch.to(labels.device)
