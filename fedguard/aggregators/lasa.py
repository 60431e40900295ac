"""LASA: sparsify updates, then average every layer over the clients whose layer looks usual."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import NeedError, ParameterError
from ..core.ties import above, tolerance
from ..training.parameters import fitting


def usual(values: NDArray[np.float64], radius: float, slack: float) -> NDArray[np.bool_]:
    """(n,) |x − median| < radius · standard deviation by more than rounding; all if all are equal."""
    spread, size = values.std(), float(np.abs(values).max())
    if not above(spread, 0.0, slack, size):
        return np.ones(len(values), dtype=bool)
    return above(radius * spread, np.abs(values - np.median(values)), slack, size)


class LASA(Aggregator):
    """Per layer, the mean over clients with |‖x_i‖ − median| < λ_n std and |s_i − median| < λ_s std.

    Updates are shortened to the median norm. Of each, only the largest 1 − ``sparsity`` of all weights remain
    (tensors of two or more dimensions; biases and the like stay as they are), which gives x_i. Every tensor
    of the model is a layer. s_i = ½ (1 + (1 − sparsity) Σ sign x_i / Σ |sign x_i|) is the share of positive
    entries. A layer in which nobody is usual is averaged over everybody. Weights only decide who takes part.

    A check in which all clients are equal passes everybody; in the authors' code it passes nobody, so that
    the layer is averaged over everybody.

    Args:
        sparsity: the share of weights that are set to 0, in [0, 1).
        norm_radius: λ_n; above 0; 1 in the authors' code.
        sign_radius: λ_s; above 0; 1 in the authors' code.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xu et al., LASA, WACV 2025, by the authors' code (lasa.py, mask_help.py, main.py).
    """

    card = Card(
        "lasa",
        "sparsify, then average every layer over the usual clients",
        "Xu et al., LASA, WACV 2025",
    )
    needs = frozenset({"model"})
    exempt = MappingProxyType({"equal updates come out as they are": "it sets small entries to 0"})

    def __init__(self, sparsity: float = 0.3, norm_radius: float = 1.0, sign_radius: float = 1.0) -> None:
        if not 0 <= sparsity < 1:
            raise ParameterError(f"lasa: sparsity is {sparsity}; use a share in [0, 1)")
        for name, value in (("norm_radius", norm_radius), ("sign_radius", sign_radius)):
            if not 0 < value < float("inf"):
                raise ParameterError(f"lasa: {name} is {value}; use a finite number above 0")
        self.sparsity = sparsity
        self.norm_radius = norm_radius
        self.sign_radius = sign_radius

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Clip, sparsify, check every layer, average."""
        if round.server is None or round.server.model is None:
            raise NeedError("lasa needs model: give the round a Server(model=…)")
        tensors = list(fitting(round.server.model, round.updates.d).values())
        norms = round.updates.norms.to(round.updates.device)
        middle = torch.quantile(norms, 0.5, interpolation="lower")
        factors = (middle / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1)
        matrix = round.updates.matrix.double() * factors.double()[:, None]
        slack = tolerance(round.n, round.updates.d)
        matrix = self._sparse(matrix, torch.cat([torch.full((p.numel(),), p.ndim >= 2) for p in tensors]))
        return torch.cat(
            [self._layer(part, slack) for part in torch.split(matrix, [p.numel() for p in tensors], 1)]
        ).float()

    def _sparse(self, matrix: Tensor, prunable: Tensor) -> Tensor:
        """The rows without their smallest prunable entries."""
        where = prunable.to(matrix.device).nonzero().flatten()
        kept = int(len(where) * (1 - self.sparsity))
        if self.sparsity == 0 or kept == 0:
            return matrix
        sizes = matrix[:, where].abs()
        least = sizes.topk(kept, dim=1).values[:, -1:]
        result = matrix.clone()
        result[:, where] = torch.where(sizes > least, matrix[:, where], 0.0)  # as there: the least goes, too
        return result

    def _layer(self, part: Tensor, slack: float) -> Tensor:
        """(size,) the mean of one layer over the clients that pass both checks."""
        signs = part.sign()
        share = signs.sum(1) / signs.abs().sum(1).clamp(min=1)
        positive = 0.5 * (1 + (1 - self.sparsity) * share)
        checks = ((part.norm(dim=1), self.norm_radius), (positive, self.sign_radius))
        passed = np.all([usual(values.cpu().numpy(), radius, slack) for values, radius in checks], axis=0)
        return part[torch.from_numpy(passed).to(part.device)].mean(0) if passed.any() else part.mean(0)
