"""A client's local training: plain minibatch SGD."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.attack import Adjust
from ..contracts.data import LabeledData, Share
from ..contracts.local_training import LocalTraining
from ..core.devices import on_device
from ..core.errors import ParameterError
from .dense import Shapes, dense_shapes, train_dense
from .parameters import channels_last, device_of, flat_parameters, flat_statistics, load_parameters


class Trained(NamedTuple):
    """The result of local training.

    Attributes:
        update: (d,) w − w_start.
        statistics: (s,) the model's floating-point buffers afterwards; (0,) without any.
    """

    update: Tensor
    statistics: Tensor


def train_client(
    model: nn.Module,
    start: Tensor,
    data: LabeledData | Share,
    settings: LocalTraining,
    generator: torch.Generator,
    adjust: Adjust | None = None,
) -> Tensor:
    """v ← μ v + ∇ℓ(w) + λ w,  w ← w − η v  over minibatches, ℓ the mean cross-entropy; returns w − w_start.

    The same arguments give the same bits if torch uses the same number of threads (one, in a pool).

    Args:
        model: scratch: its parameters are overwritten, and it stays in train mode. Training starts with its
            buffers (BatchNorm statistics), which are restored afterwards.
        start: (d,) the global model w_start; not modified.
        data: the client's samples, at least one.
        settings: epochs or steps, batch size, η, μ, λ.
        generator: shuffles the samples.
        adjust: changes the gradients of every step, for attacks; None leaves them unchanged.

    Returns:
        (d,) float32 the update.

    Raises:
        ParameterError: the client has no samples.
    """
    return trained(model, start, [data], settings, [generator], adjust)[0].update


def train_clients(
    model: nn.Module,
    start: Tensor,
    clients: Sequence[LabeledData | Share],
    settings: LocalTraining,
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """``[train_client(model, start, data, settings, g) for …]``: bit-identical, faster for small networks.

    Trains clients of logistic regression and multilayer perceptrons together (see :mod:`~.training.dense`).
    Other models, and training with a proximal term or FL-WBC, run one client at a time.
    """
    return [client.update for client in trained(model, start, clients, settings, generators)]


def side_by_side(model: nn.Module, inputs: Tensor, settings: LocalTraining) -> Shapes | None:
    """Return the model's layers if its clients can be trained together, else None."""
    return None if settings.proximal or settings.wbc else dense_shapes(model, inputs)


def trained(
    model: nn.Module,
    start: Tensor,
    clients: Sequence[LabeledData | Share],
    settings: LocalTraining,
    generators: Sequence[torch.Generator],
    adjust: Adjust | None = None,
) -> list[Trained]:
    """Like :func:`train_clients`, with the model's statistics after each client's training."""
    device = device_of(model, start)
    start = start.to(device)
    shares = [_share(client, device) for client in clients]
    if any(len(share.rows) == 0 for share in shares):
        raise ParameterError("training: the client has no samples; every client needs at least one")
    each_draw = zip(shares, generators, strict=True)
    batches = [_batches(share.rows, settings, draw, device) for share, draw in each_draw]
    shapes = side_by_side(model, shares[0].data.inputs, settings) if shares and adjust is None else None
    if shapes is None:
        each = zip(shares, batches, generators, strict=True)
        return [_alone(model, start, s.data, b, settings, g, adjust) for s, b, g in each]
    model.train()
    dense = train_dense(shapes, start, shares, batches, settings)  # such models have no buffers
    return [Trained(parameters.sub_(start), flat_statistics(model)) for parameters in dense]


def _share(client: LabeledData | Share, device: torch.device) -> Share:
    """A client's data on a device; its rows stay in memory, where they are shuffled."""
    data, rows = client if isinstance(client, Share) else (client, torch.arange(len(client.labels)))
    return Share(LabeledData(data.inputs.to(device), data.labels.to(device)), rows)


def _alone(
    model: nn.Module,
    start: Tensor,
    data: LabeledData,
    batches: Iterator[Tensor],
    settings: LocalTraining,
    generator: torch.Generator,
    adjust: Adjust | None,
) -> Trained:
    """Train one client, and restore the buffers so that it does not affect the next one."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        update = _by_autograd(model, start, data, batches, settings, generator, adjust)
        return Trained(update, flat_statistics(model))
    finally:
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)


def _by_autograd(
    model: nn.Module,
    start: Tensor,
    data: LabeledData,
    batches: Iterator[Tensor],
    settings: LocalTraining,
    generator: torch.Generator,
    adjust: Adjust | None,
) -> Tensor:
    """Train any model by autograd; the generator is for FL-WBC."""
    load_parameters(model, start)
    model.train()
    parameters = list(model.parameters())
    _store_channels_last(model)
    velocity = [torch.zeros_like(p) for p in parameters] if settings.momentum else []
    origin = [p.detach().clone() for p in parameters] if settings.proximal else []
    blood_cells = _WhiteBloodCells(settings, generator) if settings.wbc else None
    inputs = data.inputs.permute(0, 2, 3, 1) if data.inputs.ndim == 4 else data.inputs
    for batch in batches:
        taken = inputs.index_select(0, batch)
        taken = taken.permute(0, 3, 1, 2) if taken.ndim == 4 else taken
        loss = F.cross_entropy(model(taken), data.labels.index_select(0, batch))
        gradients = torch.autograd.grad(loss, parameters)
        if adjust is not None:
            gradients = adjust(gradients)
        if origin:
            with torch.no_grad():
                pull = zip(gradients, parameters, origin, strict=True)
                gradients = tuple(g + settings.proximal * (p - o) for g, p, o in pull)
        if blood_cells is not None:
            blood_cells.perturb(parameters, gradients)
        _step(parameters, gradients, velocity, settings)
    return flat_parameters(model).sub_(start)


def _store_channels_last(model: nn.Module) -> None:
    """Store convolution weights channels-last, which makes convolutions and pooling twice as fast."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.weight.data = channels_last(module.weight.data)


class _WhiteBloodCells:
    """FL-WBC: noise where the loss was flat between the last two gradients."""

    def __init__(self, settings: LocalTraining, generator: torch.Generator) -> None:
        self.settings = settings
        self.generator = generator
        self.before: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def perturb(self, parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> None:
        """Add η Υ where |Ĥ| ≤ |Υ|; nothing in the first step, which has no Ĥ."""
        now = [(p.detach().clone(), g) for p, g in zip(parameters, gradients, strict=True)]
        for parameter, (place, gradient), (old_place, old) in zip(parameters, now, self.before, strict=False):
            moved = place - old_place
            curvature = torch.where(moved != 0, (gradient - old) / moved, 0.0).abs()
            drawn = torch.rand(parameter.shape, generator=self.generator, dtype=parameter.dtype)
            uniform = drawn.to(parameter.device) - 0.5
            spread = self.settings.wbc / math.sqrt(2)
            noise = -spread * uniform.sign() * torch.log1p(-2 * uniform.abs()).clamp(min=-50)
            parameter.add_(torch.where(curvature <= noise.abs(), noise, 0.0), alpha=self.settings.lr)
        self.before = now


@torch.no_grad()
def _step(
    parameters: list[nn.Parameter],
    gradients: tuple[Tensor, ...],
    velocity: list[Tensor],
    settings: LocalTraining,
) -> None:
    """Do one SGD step. Not with torch.optim, whose import takes every worker a second."""
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if settings.weight_decay:
            gradient = gradient.add(parameter, alpha=settings.weight_decay)
        if settings.momentum:
            gradient = velocity[i].mul_(settings.momentum).add_(gradient)
        parameter.add_(gradient, alpha=-settings.lr)


def _batches(
    rows: Tensor, settings: LocalTraining, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Yield batches of the samples' rows; every epoch is shuffled anew, in memory, and sent to the device."""
    left = settings.steps_for(len(rows))
    while left > 0:
        order = on_device(rows[torch.randperm(len(rows), generator=generator)], device)
        for batch in torch.split(order, settings.batch_size)[:left]:
            yield batch
            left -= 1
