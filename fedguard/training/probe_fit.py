"""Training of a linear probe on labeled features, with the settings of Safe-FedLLM's code."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..core.errors import ParameterError
from ..core.seeds import generator
from ..core.threads import single_thread

LR, DECAY, BATCH, EPOCHS, PATIENCE = 0.01, 2.0, 256, 100, 15
#: The share of the samples to validate on, the least improvement of the loss there, the largest gradient.
HELD_OUT, IMPROVED, CLIP = 0.1, 1e-4, 0.5
#: With fewer samples of a kind, a probe would be trained and validated on next to nothing.
LEAST = 4


class Fit(NamedTuple):
    """A trained probe.

    Attributes:
        weight: (k,) float64.
        bias: the constant.
        epochs: how many were run.
        loss: the smallest validation loss, that of this weight.
    """

    weight: Tensor
    bias: float
    epochs: int
    loss: float


def fit_probe(features: Tensor, labels: Tensor, seed: int = 0) -> Fit:
    """Logistic regression: min_{w,b} of the mean of p · y · log(1 + e^−z) + (1 − y) · log(1 + e^z).

    z = ⟨w, x⟩ + b; p is negatives / positives among the samples to train on. AdamW (0.01, decoupled weight
    decay 2.0), batches of 256, gradients clipped to norm 0.5. A tenth of the samples, drawn at random, is for
    validation: training ends after 15 epochs without an improvement of the loss there by 1e-4, at the latest
    after 100; the best epoch's probe is returned.

    Args:
        features: (m, k).
        labels: (m,) bool, True for malicious.
        seed: of the split, the order of the samples and the first weights; the same seed gives the same bits.

    Raises:
        ParameterError: there are fewer than 4 samples of a kind.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
        >>> fit = fit_probe(x, torch.tensor([True, False]).repeat(20))
        >>> bool(fit.weight[0] > fit.weight[1])
        True
    """
    for kind, count in (("malicious", int(labels.sum())), ("honest", int((~labels).sum()))):
        if count < LEAST:
            raise ParameterError(
                f"lora_probe: the recordings hold {count} updates of {kind} clients; {LEAST} are the least"
            )
    draw = generator(seed, "lora_probe")
    with single_thread(), torch.enable_grad():
        return _fitted(features.float(), labels.float(), draw)


def _fitted(features: Tensor, labels: Tensor, draw: torch.Generator) -> Fit:
    """Train on nine tenths; both labels are among them, however they are drawn."""
    order = torch.randperm(len(labels), generator=draw)
    held_out = max(1, round(HELD_OUT * len(labels)))
    while not 0 < labels[order[held_out:]].sum() < len(labels) - held_out:
        order = torch.randperm(len(labels), generator=draw)
    (x, y), (x_held, y_held) = ((features[i], labels[i]) for i in (order[held_out:], order[:held_out]))
    bound = features.shape[1] ** -0.5  # as torch's linear layers start
    first = (torch.rand(features.shape[1] + 1, generator=draw) * 2 - 1) * bound
    weight, bias = (part.clone().requires_grad_() for part in (first[:-1], first[-1:]))
    optimizer = torch.optim.AdamW([weight, bias], lr=LR, weight_decay=DECAY)
    pos_weight = (len(y) - y.sum()) / y.sum()

    def loss_of(samples: Tensor, wanted: Tensor) -> Tensor:
        logits = samples @ weight + bias
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=pos_weight)

    best, since, epoch = Fit(weight.detach().double(), float(bias.detach()), 0, float("inf")), 0, 0
    while epoch < EPOCHS and since < PATIENCE:
        epoch += 1
        for batch in torch.split(torch.randperm(len(y), generator=draw), BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(x[batch], y[batch]))
            torch.nn.utils.clip_grad_norm_([weight, bias], CLIP)
            optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(x_held, y_held))
        since += 1
        if loss < best.loss - IMPROVED:
            best, since = Fit(weight.detach().double(), float(bias.detach()), epoch, loss), 0
    return best._replace(epochs=epoch)
