"""A client's local training: minibatch SGD, or whatever else its settings say."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..contracts.attack import Adjust
from ..contracts.data import LabeledData, Share
from ..contracts.local_training import LocalTraining
from ..core.devices import on_device
from ..core.errors import ParameterError
from ..core.threads import go_on
from .augmentation import augmentation
from .dense import Shapes, dense_shapes, train_dense
from .early_stop import EarlyStop, split
from .held import hold
from .layout import bears_channels_last, store_channels_last
from .losses import loss_function
from .optimizers import Steps
from .parameters import device_of, flat, flat_statistics
from .randomness import drawn_from


class Trained(NamedTuple):
    """The result of local training.

    Attributes:
        update: (d,) w − w_start.
        statistics: (s,) the model's floating-point buffers afterwards; (0,) without any.
        steps: how many steps early stopping left of it; None if as many as the settings say.
    """

    update: Tensor
    statistics: Tensor
    steps: int | None = None


def train_client(
    model: nn.Module,
    start: Tensor,
    data: LabeledData | Share,
    settings: LocalTraining,
    generator: torch.Generator,
    adjust: Adjust | None = None,
) -> Tensor:
    """v ← μ v + ∇ℓ(w) + λ w,  w ← w − η v  over minibatches, ℓ the mean cross-entropy; returns w − w_start.

    This is what the default settings do; for all others see :class:`LocalTraining`. The same arguments give
    the same bits if torch uses the same number of threads (one, in a pool). Only learned parameters are
    trained (see :func:`.parameters.learned`). What the model draws from torch's global generator, as Dropout
    does, is drawn from one that ``generator`` seeds.

    Args:
        model: scratch: its parameters are overwritten, and it stays in train mode. Training starts with its
            buffers (BatchNorm statistics), which are restored afterwards.
        start: (d,) the global model w_start; not modified.
        data: the client's samples, at least one.
        settings: epochs or steps, batch size, η, μ, λ, and more.
        generator: shuffles the samples, and seeds the augmentation and what the model draws.
        adjust: changes the gradients of every step, for attacks; None leaves them unchanged.

    Returns:
        (d,) float32 the update.

    Raises:
        ParameterError: the client has no samples, or a name in the settings is unknown.
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
    Other models, and training with anything but plain SGD on the cross-entropy, run one client at a time.
    """
    return [client.update for client in trained(model, start, clients, settings, generators)]


def side_by_side(model: nn.Module, inputs: Tensor, settings: LocalTraining) -> Shapes | None:
    """Return the model's layers if its clients can be trained together, else None."""
    return dense_shapes(model, inputs) if settings.plain else None


def trained(
    model: nn.Module,
    start: Tensor,
    clients: Sequence[LabeledData | Share],
    settings: LocalTraining,
    generators: Sequence[torch.Generator],
    adjust: Adjust | None = None,
    corrections: Sequence[Tensor] | None = None,
    into: Sequence[Tensor] | None = None,
) -> list[Trained]:
    """Like :func:`train_clients`, with the model's statistics after each client's training.

    Args:
        corrections: per client, (d,) what SCAFFOLD adds to every gradient.
        into: per client, (d,) memory for its update on the model's device; new memory if absent.
    """
    device = device_of(model, start)
    start = start.to(device)
    places = [torch.empty_like(start) for _ in clients] if into is None else into
    shares = [_share(client, device) for client in clients]
    if any(len(share.rows) == 0 for share in shares):
        raise ParameterError("training: the client has no samples; every client needs at least one")
    alone = not shares or adjust is not None or corrections is not None
    shapes = None if alone else side_by_side(model, shares[0].data.inputs, settings)
    if shapes is None:
        added: Sequence[Tensor | None] = corrections or [None] * len(shares)
        each = zip(shares, generators, added, places, strict=True)
        return [_alone(model, start, *own, adjust=adjust, settings=settings) for own in each]
    each_draw = zip(shares, generators, strict=True)
    batches = [_batches(share.rows, settings, draw, device) for share, draw in each_draw]
    model.train()
    dense = train_dense(shapes, start, shares, batches, settings)  # such models have no buffers
    pairs = zip(dense, places, strict=True)
    return [Trained(torch.sub(own, start, out=place), flat_statistics(model)) for own, place in pairs]


def _share(client: LabeledData | Share, device: torch.device) -> Share:
    """A client's data on a device; its rows stay in memory, where they are shuffled."""
    data, rows = client if isinstance(client, Share) else (client, torch.arange(len(client.labels)))
    return Share(LabeledData(data.inputs.to(device), data.labels.to(device)), rows)


def _alone(
    model: nn.Module,
    start: Tensor,
    share: Share,
    generator: torch.Generator,
    correction: Tensor | None,
    out: Tensor,
    settings: LocalTraining,
    adjust: Adjust | None,
) -> Trained:
    """Train one client, and restore the buffers so that it does not affect the next one."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        with drawn_from(generator, share.data.inputs.device):  # Dropout draws from the global generator
            steps = _by_autograd(model, start, share, settings, generator, adjust, correction, out)
        return Trained(out, flat_statistics(model) if buffers else torch.zeros(0), steps)
    finally:
        with torch.no_grad():
            for buffer, old in zip(model.buffers() if buffers else (), before, strict=True):
                buffer.copy_(old)


def _by_autograd(
    model: nn.Module,
    start: Tensor,
    share: Share,
    settings: LocalTraining,
    generator: torch.Generator,
    adjust: Adjust | None,
    correction: Tensor | None,
    out: Tensor,
) -> int | None:
    """Train any model by autograd; the generator is also for FL-WBC. The update goes to ``out``.

    Returns:
        How many steps early stopping left; None if as many as the settings say.
    """
    kept = list(hold(model, start).values())
    model.train()
    parameters = [p for p in kept if p.requires_grad] or kept  # those that are learned
    for parameter in parameters:  # a model may be frozen for evaluation as a whole
        parameter.requires_grad_()
    images = share.data.inputs.ndim == 4
    fast = bears_channels_last(model, share.data.inputs)
    if fast:
        store_channels_last(model)
    share, held = split(share, settings) if settings.patience else (share, None)
    data, loss_of = share.data, loss_function(settings.loss)
    augment = augmentation(settings.augment, generator)
    per_epoch = -(-len(share.rows) // settings.batch_size)
    step = _stepper(parameters, settings, per_epoch)
    early = EarlyStop(model, held, settings, loss_of, per_epoch) if held is not None else None
    origin = [p.detach().clone() for p in parameters] if settings.proximal else []
    added = _like(parameters, correction) if correction is not None else []
    blood_cells = _WhiteBloodCells(settings, generator) if settings.wbc else None
    inputs = data.inputs.permute(0, 2, 3, 1) if images and fast else data.inputs
    # The last step writes where the update is wanted, not into the model and from there.
    last = settings.steps_for(len(share.rows)) if settings.own_sgd and len(kept) == len(parameters) else 0
    for number, batch in enumerate(_batches(share.rows, settings, generator, data.inputs.device), 1):
        taken = inputs.index_select(0, batch)
        taken = taken.permute(0, 3, 1, 2) if images and fast else taken.contiguous()
        if augment is not None:
            taken = augment(taken)
        loss = loss_of(model(taken), data.labels.index_select(0, batch))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        if adjust is not None:
            gradients = adjust(gradients)
        if origin:
            with torch.no_grad():
                pull = zip(gradients, parameters, origin, strict=True)
                gradients = tuple(g + settings.proximal * (p - o) for g, p, o in pull)
        if settings.clip:
            gradients = clipped(gradients, settings.clip)
        if added:
            gradients = tuple(g + more for g, more in zip(gradients, added, strict=True))
        if blood_cells is not None:
            blood_cells.perturb(parameters, gradients)
        if number == last and early is None:
            step(gradients, _like(parameters, out))
            _from(start, parameters if number == 1 else [], out)
            return None
        step(gradients)
        if early is not None and early.after_step():
            break
    steps = None if early is None else early.finish()
    torch.sub(flat(kept), start, out=out)
    return steps


def visited(rows: Tensor, settings: LocalTraining, generator: torch.Generator) -> Tensor:
    """The samples that :func:`train_client` computes an update from, each once, in its first pass's order.

    Args:
        rows: (n,) the client's samples.
        settings: how it trains; early stopping is not foreseen.
        generator: as it was before training; it advances.
    """
    if settings.patience:
        rows = split(Share(LabeledData(rows, rows), rows), settings)[0].rows
    return torch.cat(list(_batches(rows, settings, generator, rows.device, passes=1)))


def clipped(gradients: Sequence[Tensor], most: float) -> tuple[Tensor, ...]:
    """g · min(1, most / (‖g‖ + 10⁻⁶)), ‖·‖ over all of them: as ``torch.nn.utils.clip_grad_norm_``."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = torch.clamp(most / (norm + 1e-6), max=1.0)
    return tuple(g * factor for g in gradients)


def _like(parameters: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
    """A (d,) vector as tensors of the parameters' shapes."""
    parts = torch.split(vector, [p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


@torch.no_grad()
def _from(start: Tensor, held: Sequence[Tensor], out: Tensor) -> None:
    """out ← out − start; parameters that still hold the start are in the cache."""
    if not held:
        out.sub_(start)
    for part, parameter in zip(_like(held, out) if held else (), held, strict=True):
        part.sub_(parameter)


def _stepper(parameters: list[nn.Parameter], settings: LocalTraining, per_epoch: int) -> Callable[..., None]:
    """What moves the parameters along a step's gradients."""
    if not settings.own_sgd:
        return Steps(parameters, settings, per_epoch)
    velocity = [torch.zeros_like(p) for p in parameters] if settings.momentum else []
    return functools.partial(_step, parameters, velocity, settings)


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
    velocity: list[Tensor],
    settings: LocalTraining,
    gradients: tuple[Tensor, ...],
    out: Sequence[Tensor] = (),
) -> None:
    """Do one SGD step. Not with torch.optim, whose import takes every worker a second.

    Args:
        out: where the new parameters go; without it, in place of the old ones.
    """
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if settings.weight_decay:
            gradient = gradient.add(parameter, alpha=settings.weight_decay)
        if settings.momentum:
            gradient = velocity[i].mul_(settings.momentum).add_(gradient)
        if not out:
            parameter.add_(gradient, alpha=-settings.lr)
        elif parameter.is_contiguous() and gradient.is_contiguous():
            torch.add(parameter, gradient, alpha=-settings.lr, out=out[i])
        else:  # in the parameter's memory order, since another one may be rounded in another way
            same = parameter.stride() == gradient.stride()
            out[i].copy_((parameter.add if same else parameter.add_)(gradient, alpha=-settings.lr))


def _batches(
    rows: Tensor,
    settings: LocalTraining,
    generator: torch.Generator,
    device: torch.device,
    passes: int | None = None,
) -> Iterator[Tensor]:
    """Yield batches of the samples' rows; every epoch is shuffled anew, in memory, and sent to the device.

    With ``passes``, stop after so many epochs.
    """
    left = settings.steps_for(len(rows))
    if passes is not None:
        left = min(left, passes * -(-len(rows) // settings.batch_size))
    while left > 0:
        order = on_device(rows[torch.randperm(len(rows), generator=generator)], device)
        for batch in torch.split(order, settings.batch_size)[:left]:
            go_on()
            yield batch
            left -= 1
