"""Local training of dense networks with explicit gradients, many clients at a time.

A step of a small network is dominated by overhead, not arithmetic. Here the clients' matrices are stacked, so
one batched product serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..contracts.data import LabeledData, Share
from .parameters import learned

if TYPE_CHECKING:
    from ..contracts.local_training import LocalTraining

#: (outputs, inputs) of every layer.
Shapes = Sequence[tuple[int, int]]

#: Each client's matrices start at a multiple of this many floats, as vector instructions may round
#: differently at other addresses.
ALIGNMENT = 16
#: Most input floats in the batches of clients trained together, so that they stay in the cache.
GROUP_FLOATS = 2**18


def dense_shapes(model: nn.Module, inputs: Tensor) -> Shapes | None:
    """Return the layers of a plain network (flatten, linear, (ReLU, linear)*); None for any other model.

    Returns None for a model with hooks too, as hooks must see every pass, and for one with frozen parameters.
    """
    if type(model).forward is not nn.Sequential.forward:
        return None
    parts = list(model.children())
    if parts and type(parts[0]) is nn.Flatten and (parts[0].start_dim, parts[0].end_dim) == (1, -1):
        parts = parts[1:]
    elif inputs.ndim != 2:
        return None
    layers = [part for part in parts[::2] if type(part) is nn.Linear and part.bias is not None]
    between = [part for part in parts[1::2] if type(part) is nn.ReLU]
    alternating = len(parts) == len(layers) + len(between) and len(layers) == len(between) + 1
    if not alternating or len({id(layer) for layer in layers}) < len(layers):
        return None
    if any(map(hooked, model.modules())):
        return None
    if len(learned(model)) < 2 * len(layers):
        return None
    plain = inputs.dtype == layers[0].weight.dtype == torch.float32
    return [(layer.out_features, layer.in_features) for layer in layers] if plain else None


def hooked(module: nn.Module) -> bool:
    """Whether code of somebody else runs with the module's passes."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return any(map(bool, (*hooks, module._backward_hooks, module._backward_pre_hooks)))


def train_dense(
    shapes: Shapes,
    start: Tensor,
    clients: Sequence[Share],
    batches: Sequence[Iterator[Tensor]],
    settings: LocalTraining,
) -> list[Tensor]:
    """Train each client from ``start`` by SGD on the mean cross-entropy (see ``training.train_client``).

    A client's result does not depend on the other clients, to the bit.

    Args:
        shapes: the network, see :func:`dense_shapes`.
        start: (d,) the common start.
        clients: the clients' samples.
        batches: per client, the sample rows of each batch.
        settings: learning rate, momentum and weight decay; the batch size bounds every batch.
    """
    steps = [settings.steps_for(len(share.rows)) for share in clients]
    rows = [min(settings.batch_size, len(share.rows)) for share in clients]
    order = sorted(range(len(clients)), key=lambda i: (rows[i], -steps[i]))
    done: dict[int, Tensor] = {}
    while order:
        height = rows[order[0]]
        most = max(1, GROUP_FLOATS // (height * shapes[0][1]))
        group = [i for i in order[:most] if rows[i] == height]
        order = order[len(group) :]
        networks = _Networks(shapes, start, len(group), height, settings)
        data = [clients[i].data for i in group]
        for step in range(steps[group[0]]):
            active = sum(steps[i] > step for i in group)
            networks.load(data[:active], [next(batches[i]) for i in group[:active]])
            networks.step(active)
        done.update(zip(group, networks.flat(), strict=True))
    return [done[i] for i in range(len(clients))]


class _Networks:
    """``count`` copies of one network, each with a batch of up to ``rows`` samples.

    Every sum runs over all ``rows``; rows without a sample have factor 0 and add exactly 0.
    """

    def __init__(self, shapes: Shapes, start: Tensor, count: int, rows: int, settings: LocalTraining) -> None:
        self.settings = settings
        self.labels = torch.zeros(count, rows, 1, dtype=torch.int64, device=start.device)
        self.factor = start.new_zeros(count, rows, 1)  # −η / samples in the batch
        self.counts = [0] * count  # samples in the batch
        self.minus_one = start.new_full((), -1.0).expand(count, rows, 1)
        self.ones = _matrices(count, 1, rows, start).fill_(1)
        self.inputs = [_matrices(count, rows, width, start) for _, width in shapes]
        self.moves = [_matrices(count, rows, outputs, start) for outputs, _ in shapes]
        sizes = [size for outputs, width in shapes for size in (outputs * width, outputs)]
        parts = torch.split(start, sizes)
        self.weights = [
            _matrices(count, *shape, start).copy_(part.view(shape))
            for shape, part in zip(shapes, parts[::2], strict=True)
        ]
        self.biases = [_matrices(count, 1, len(part), start).copy_(part) for part in parts[1::2]]
        self.velocity = {
            id(p): torch.zeros_like(p) for p in chain(self.weights, self.biases) if settings.momentum
        }

    def load(self, data: Sequence[LabeledData], batches: Sequence[Tensor]) -> None:
        """Load the next batches of the first clients: at once if they are rows of the same data."""
        rows, counts = self.factor.shape[1], [batch.shape[0] for batch in batches]
        for place, count in enumerate(counts):
            if count != self.counts[place]:
                self.counts[place] = count
                self.factor[place].fill_(-self.settings.lr / count)
                self.factor[place, count:] = 0
        first, inputs = data[0], self.inputs[0][: len(batches)]
        if all(own.inputs is first.inputs and own.labels is first.labels for own in data):
            self._load_rows(first, batches, counts)
        else:
            for place, (own, batch, count) in enumerate(zip(data, batches, counts, strict=True)):
                torch.index_select(own.inputs.flatten(1), 0, batch, out=inputs[place, :count])
                torch.index_select(own.labels, 0, batch, out=self.labels[place, :count, 0])
        for place, count in enumerate(counts):
            if count < rows:
                inputs[place, count:] = 0

    def _load_rows(self, data: LabeledData, batches: Sequence[Tensor], counts: list[int]) -> None:
        """Load rows of the same data; any row will do where a batch has none."""
        inputs, rows = self.inputs[0][: len(batches)], self.factor.shape[1]
        pairs = zip(batches, counts, strict=True)
        taken = torch.cat(
            [batch if n == rows else torch.cat([batch, batch.new_zeros(rows - n)]) for batch, n in pairs]
        )
        source = data.inputs.flatten(1)
        if inputs.is_contiguous():
            torch.index_select(source, 0, taken, out=inputs.view(len(taken), -1))
        else:
            inputs.copy_(source[taken].view(inputs.shape))
        torch.index_select(data.labels, 0, taken, out=self.labels[: len(batches)].view(-1))

    def step(self, active: int) -> None:
        """Do one SGD step of the first ``active`` networks. ``moves`` are −η times the gradients."""
        inputs, weights, biases, moves = (
            [part[:active] for part in parts]
            for parts in (self.inputs, self.weights, self.biases, self.moves)
        )
        last, labels = len(weights) - 1, self.labels[:active]
        for k, weight in enumerate(weights):
            out = inputs[k + 1] if k < last else moves[k]
            torch.baddbmm(biases[k], inputs[k], weight.transpose(1, 2), out=out)
            if k < last:
                torch.relu_(out)
        surprise = torch.softmax(moves[last], 2)
        surprise.scatter_add_(2, labels, self.minus_one[:active])
        torch.mul(surprise, self.factor[:active], out=moves[last])
        for k in range(last, -1, -1):
            if k:
                torch.bmm(moves[k], weights[k], out=moves[k - 1]).mul_(inputs[k] > 0)
            self._move(self.weights[k], active, moves[k].transpose(1, 2), inputs[k])
            self._move(self.biases[k], active, self.ones[:active], moves[k])

    def _move(self, parameters: Tensor, active: int, left: Tensor, right: Tensor) -> None:
        """v ← μ v − η (g + λ w),  w ← w + v, where −η g = left · right."""
        now, decay = parameters[:active], self.settings.lr * self.settings.weight_decay
        if self.velocity:
            velocity = self.velocity[id(parameters)][:active].mul_(self.settings.momentum)
            if decay:
                velocity.sub_(now * decay)
            now.add_(velocity.baddbmm_(left, right))
        else:
            if decay:
                now.sub_(now * decay)
            now.baddbmm_(left, right)

    def flat(self) -> list[Tensor]:
        """Return the (d,) parameters of every network."""
        parts = [part.flatten(1) for pair in zip(self.weights, self.biases, strict=True) for part in pair]
        return list(torch.cat(parts, 1))


def _matrices(count: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """(count, rows, columns) zeros; every matrix is contiguous and starts at an aligned address."""
    size = -(-rows * columns // ALIGNMENT) * ALIGNMENT
    return like.new_zeros(count * size).as_strided((count, rows, columns), (size, columns, 1))
