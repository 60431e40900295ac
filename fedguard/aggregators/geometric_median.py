"""Geometric median by smoothed Weiszfeld iterations."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..core.threads import single_thread
from ..geometry.blocks import Block, joined, row_squares, wide
from ..geometry.tables import NEAR_DUPLICATE
from ..geometry.updates import Updates
from .mean import weighted_mean

#: From this many clients on, reading the updates anew for every step is faster than their Gram matrix.
MANY = 512
#: The Gram matrix takes about as long as n / GRAM_ROWS readings.
GRAM_ROWS = 150


class GeometricMedian(Aggregator):
    """argmin_v Σ_i a_i ‖u_i − v‖, by v ← Σ b_i u_i / Σ b_i with b_i = a_i / max(ν, ‖u_i − v‖).

    Every iterate is a weighted mean of the updates, so the iteration runs on the n coefficients and the Gram
    matrix: ‖u_i − v‖² = (eᵢ − c)ᵀ G (eᵢ − c), and the d-dimensional sum is computed once. If needed, G is
    centered at the client with the smallest sum of distances: with G centered at the mean, one huge update
    would cancel all digits of the other distances. The work for G grows with n²: from 512 clients on, each
    step reads the updates once instead, and G is computed only if many steps remain.

    Args:
        iterations: maximum number of steps. RFA needs 3 in practice; this rule iterates to convergence, which
            takes many steps if nearly half of the updates are huge (a step shrinks v only by m / (n − m)).
        smoothing: ν, keeps the division finite if v coincides with an update.
        tolerance: stop when v moves by less than this share of its median distance to the clients, or, with
            512 clients or more, when the next step would, since it shrinks as the last one did.

    Source: Pillutla et al., RFA, IEEE TSP 2022, Algorithm 2 (here a_i is the policy's weight; starts at the
    weighted mean).
    """

    card = Card("geometric_median", "the point closest to all updates", "Pillutla et al., RFA, IEEE TSP 2022")

    def __init__(self, iterations: int = 1000, smoothing: float = 1e-6, tolerance: float = 1e-9) -> None:
        if iterations < 1 or not 0 < smoothing < math.inf or not tolerance >= 0:
            raise ParameterError(
                f"geometric_median needs iterations >= 1, a finite smoothing > 0 and tolerance >= 0, "
                f"got {iterations}, {smoothing} and {tolerance}"
            )
        self.iterations = iterations
        self.smoothing = smoothing
        self.tolerance = tolerance

    def importance(self, round: Round, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) a_i, up to a common factor."""
        return weights

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the geometric median."""
        share = self.importance(round, weights)
        base = torch.from_numpy(share / share.max()).to(round.updates.device)
        if round.n < MANY:
            return self._by_gram(round, base, base / base.sum(), self.iterations)
        return self._by_reading(round, base)

    def _by_reading(self, round: Round, base: Tensor) -> Tensor:
        """Read the updates once per step; if many steps remain, the Gram matrix takes over."""
        current, point, last = base / base.sum(), None, math.inf
        for step in range(self.iterations):
            point, moved, distances = _read(round.updates, current, point)
            enough = self.tolerance * float(distances.median())
            rate = min(1.0, moved / last) if 0 < last < math.inf else 1.0
            if moved * rate <= enough:
                return point.float()
            new = base / distances.clamp(min=self.smoothing)
            current, last = new / new.sum(), moved
            left = self.iterations - step - 1
            if step > 1 and _steps(moved, rate, enough, left) > round.n / GRAM_ROWS:
                return self._by_gram(round, base, current, left)
        return weighted_mean(round, current.cpu().numpy())

    def _by_gram(self, round: Round, base: Tensor, current: Tensor, steps: int) -> Tensor:
        """Iterate from a point Σ c_i u_i on its coefficients c alone."""
        table = round.updates.sq_distances
        with single_thread():  # MKL's square roots start threads, and wait for them, even for ten numbers
            center = int((table.sqrt() @ base).argmin())
        gram = _gram_about(round.updates, center)
        with single_thread():
            for _ in range(steps):
                new, moved, distance = self._step(gram, base, current)
                current = new
                if moved <= self.tolerance * distance:
                    break
        return weighted_mean(round, current.cpu().numpy())

    def _step(self, gram: Tensor, base: Tensor, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next coefficients, how far the point moves, and its median distance to the clients before."""
        pull = gram @ current
        distances = (gram.diagonal() - 2 * pull + current @ pull).clamp(min=0).sqrt()
        new = base / distances.clamp(min=self.smoothing)
        new = new / new.sum()
        step = new - current
        return new, (step @ gram @ step).clamp(min=0).sqrt(), distances.median()


def _read(updates: Updates, coefficients: Tensor, before: Tensor | None) -> tuple[Tensor, float, Tensor]:
    """One pass over the updates: v = Σ c_i u_i in float64, ‖v − before‖, and (n,) ‖u_i − v‖.

    A column block's part of v needs no other column, so that the distances follow while the block is still
    in the cache. They are sums of squared differences: no huge or near update cancels any digits.
    """

    def work(block: Block, *old: Block) -> tuple[Block, float, Block]:
        rows = wide(block)
        point = (coefficients.numpy() if isinstance(block, np.ndarray) else coefficients) @ rows
        rows -= point
        return point, float(((point - old[0]) ** 2).sum()) if old else math.inf, row_squares(rows)

    parts = updates.map_blocks(work) if before is None else updates.map_blocks(work, before)
    points, moved, squares = zip(*parts, strict=True)
    distances = torch.as_tensor(sum(squares[1:], start=squares[0])).sqrt()
    return joined(points), math.sqrt(sum(moved)), distances


def _steps(moved: float, rate: float, enough: float, at_most: int) -> float:
    """How many steps remain until one moves v by less than ``enough``, each ``rate`` times the one before."""
    if rate >= 1 or enough <= 0:
        return at_most
    return min(at_most, math.log(enough / moved) / math.log(rate)) if rate > 0 else 1


def _gram_about(updates: Updates, client: int) -> Tensor:
    """(n, n) Gram matrix centered at a client; at the mean, as cached, if no update is far out or near."""
    others = updates.sq_distances[client].clone()
    others[client] = math.inf
    if others.min() >= NEAR_DUPLICATE * updates.centered_gram.diagonal().max():
        return updates.centered_gram
    return updates.gram_about(client)
