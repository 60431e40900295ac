"""A few numbers per client that describe its update, for methods that expect small tables."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.round import Round
from fedguard.core.errors import NeedError
from fedguard.core.seeds import generator
from fedguard.core.ties import lowest, snapped, tolerance
from fedguard.geometry.updates import Updates

from .foolsgold import last_layer

Kind: TypeAlias = Literal["raw", "random_projection", "pca", "last_layer", "statistics"]
KINDS: tuple[str, ...] = get_args(Kind)

#: Differences between clients below this share of the updates' length are rounding errors.
ROUNDING = 1e-12
#: Decimals to which scaled features are rounded.
DIGITS = 12
#: Parameters per generator of random directions; fixed, so that results depend on neither memory nor n.
CHUNK = 2**15


def features(round: Round, kind: Kind, components: int) -> NDArray[np.floating[Any]]:
    """(n, k) comparable numbers per client, without columns in which all clients agree.

    Args:
        round: every update is usable.
        kind: which features, see :class:`fedguard.detectors.sklearn.Sklearn`.
        components: the number of projections or principal components.
    """
    updates = round.updates
    if kind == "last_layer":
        if round.server is None or round.server.model is None:
            raise NeedError("features 'last_layer' need model: give the round a Server(model=…)")
        updates = updates.between(last_layer(round.server.model, updates.d))
    if kind == "statistics":
        return _distinct(_standardized(statistics(updates)))
    spread = _spread(updates)
    if spread <= ROUNDING * float(updates.norms.square().sum().sqrt()):
        return np.empty((round.n, 0))
    if kind == "pca":
        return _distinct(_unit(principal_components(updates, components).cpu().numpy()))
    if kind == "random_projection":
        return _distinct(_unit(projections(round, components).cpu().numpy()))
    return entries(updates, spread / math.sqrt(updates.n * updates.d))


def _spread(updates: Updates) -> float:
    """√Σ‖u_i − ū‖²."""
    return math.sqrt(sum(float((block - block.mean(0)).square().sum()) for block in updates.blocks()))


def entries(updates: Updates, scale: float) -> NDArray[np.float32]:
    """(n, k) (u_i − ū) / scale in float32 to save memory, without parameters in which all clients agree."""
    parts = []
    for block in updates.blocks():
        varies = (block != block[0]).any(0)
        parts.append(((block - block.mean(0)) / scale)[:, varies].float())
    return torch.cat(parts, 1).cpu().numpy()


def principal_components(updates: Updates, components: int) -> Tensor:
    """(n, k) float64 coordinates V √Λ along the principal directions, from the Gram matrix G = V Λ Vᵀ.

    Signs are chosen such that the largest entry of every column of V is positive. Directions with less than
    ``ROUNDING`` of the first one's variance are left out as rounding errors.
    """
    values, vectors = torch.linalg.eigh(updates.centered_gram)
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    kept = values > ROUNDING * values[0]
    values, vectors = values[kept], vectors[:, kept]
    slack = tolerance(updates.n, updates.d, DIGITS)  # among entries of equal size, the first
    first = [lowest(-column, slack) for column in vectors.abs().T.cpu().numpy()]
    peak = vectors.gather(0, torch.tensor([first], device=vectors.device))
    coordinates: Tensor = vectors * peak.sign() * values.sqrt()
    return coordinates


def projections(round: Round, components: int) -> Tensor:
    """(n, k) ⟨u_i − ū, r_j⟩ on k standard normal directions r_j, float64; the same r_j in every round."""
    d, device = round.updates.d, round.updates.device
    result = torch.zeros((round.n, components), dtype=torch.float64, device=device)
    draw_of = round.server.generator if round.server else (lambda *keys: generator(0, *keys))
    for k, start in enumerate(range(0, d, CHUNK)):
        part = torch.as_tensor(round.updates.block(start, min(start + CHUNK, d))).double()
        draw = draw_of("sklearn projection", k)
        directions = torch.randn((part.shape[1], components), generator=draw, dtype=torch.float64)
        result += (part - part.mean(0)) @ directions.to(part.device)
    return result


def statistics(updates: Updates) -> NDArray[np.float64]:
    """(n, 9): norm, mean, standard deviation, largest absolute entry, shares of positive and of zero
    entries, cosine to the mean update, distances to the median update and to the nearest other client.

    The median is taken per coordinate. A zero update, or mean, has cosine 0.
    """
    n, d = updates.n, updates.d
    norms, mean = updates.norms, updates.sum_blocks(lambda block: block.sum(1)) / d
    largest, positive, zero, variance, to_median = (torch.zeros_like(norms) for _ in range(5))
    for block in updates.blocks():
        largest = torch.maximum(largest, block.abs().amax(1))
        positive += (block > 0).sum(1)
        zero += (block == 0).sum(1)
        variance += (block - mean[:, None]).square().sum(1) / d
        ordered = block.sort(0).values
        to_median += (block - (ordered[(n - 1) // 2] + ordered[n // 2]) / 2).square().sum(1)
    scale = norms * updates.inner_products.mean().clamp(min=0).sqrt()
    cosine = torch.where(scale > 0, updates.inner_products.mean(1) / scale, 0.0).clamp(-1, 1)
    others = updates.sq_distances.clone().fill_diagonal_(math.inf)
    nearest = others.amin(1).sqrt()
    columns = [norms, mean, variance.sqrt(), largest, positive / d, zero / d, cosine]
    return torch.stack([*columns, to_median.sqrt(), nearest], 1).cpu().numpy()


def _standardized(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale every column to mean 0 and standard deviation 1; columns that vary only by rounding become 0."""
    centered = columns - columns.mean(0)
    spread = np.sqrt(np.mean(centered**2, axis=0))
    varies = spread > ROUNDING * np.abs(columns).max(0)
    return np.where(varies, centered / np.where(varies, spread, 1.0), 0.0)


def _unit(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide all columns by one number, the root mean square of the entries: their proportions stay.

    Trees ignore differences below 1e-7, and float32 must not overflow.
    """
    scale = np.sqrt(np.mean(columns**2))
    return columns / scale if scale > 0 else columns


def _distinct(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to ``DIGITS`` decimals and keep the columns in which clients differ."""
    slack = tolerance(len(columns), columns.shape[1], DIGITS)
    rounded = np.stack([snapped(column, slack, scale=1.0) for column in columns.round(DIGITS).T], 1)
    return rounded[:, np.ptp(rounded, axis=0) > 0]
