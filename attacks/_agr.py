"""What attacks tailored to one rule share: the search for γ, and how a rule sees m copies of g − γ·p.

A rule sees k honest updates, known to the attacker, and behind them the copies: where the rule breaks a
tie by position, it breaks it against the attacker.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.attack import Knowledge, UpdateView
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, tolerance

from ._gamma import FarthestStep, Line, Perturbation

#: What γ is worth to the attacker, ≥ 0; 0 if the rule would not let the crafted updates through.
Value: TypeAlias = Callable[[float], float]

#: Crafted updates are sent in float32: to be on the safe side they are taken to be farther by this share.
ROUNDING = 1e-6


def best_step(value: Value, unit: float, reach: float, tolerance: float, density: int = 1) -> float:
    """The γ ≥ 0 of the greatest value: bracket it by doubling, then bisect, and return the last success.

    Doubling goes from unit/reach to unit·reach. Between the best of these and the next a success is a γ
    that is worth more than all before. 0 if none is worth more than γ = 0.

    Args:
        value: what to maximize.
        unit: the natural size of γ.
        reach: how far to look; values that still grow at unit·reach have no maximum.
        tolerance: relative, of γ where the bisection ends and of the value while γ doubles.
        density: in how many steps γ doubles; 1 unless only a narrow band of γ is worth anything.
    """
    good, most = 0.0, value(0.0)
    top = math.ceil(math.log2(reach))
    for power in range(-top * density, top * density + 1):
        gamma = unit * 2.0 ** (power / density)
        worth = value(gamma)
        if worth > most * (1 + tolerance):
            good, most = gamma, worth
    bad = good * 2.0 ** (1 / density) if good < unit * 2.0**top else good
    while bad - good > tolerance * good:
        middle = (good + bad) / 2
        worth = value(middle)
        if worth > most:
            good, most = middle, worth
        else:
            bad = middle
    return good


def copies_among(view: UpdateView, full: bool) -> int:
    """How many copies of the crafted update the attacker reckons with beside the k updates it knows.

    Knowing the benign updates: m. Otherwise its own m updates stand in for the n − m benign ones, and
    ⌈m²/(n − m)⌉ copies keep the proportion.
    """
    m, benign = view.num_malicious, view.num_clients - view.num_malicious
    return m if full or benign == 0 else -(-m * m // benign)


def distances(line: Line, copies: int, gamma: float) -> Tensor:
    """(k + m, k + m) squared distances of the k honest updates and the m copies of g − γ·p."""
    k = line.updates.n
    far = line.updates.centered_gram.diagonal() + 2 * gamma * line.along + gamma**2 * line.length
    far = far.clamp(min=0) * (1 + ROUNDING)
    table = far.new_zeros(k + copies, k + copies)
    table[:k, :k] = line.updates.sq_distances
    table[:k, k:] = far[:, None]
    table[k:, :k] = far
    return table


def taken(line: Line, copies: int, choose: Callable[[Tensor], list[int]]) -> Value:
    """γ if a rule that selects clients by their distances selects as many copies as it can, otherwise 0."""
    k = line.updates.n

    def value(gamma: float) -> float:
        chosen = choose(distances(line, copies, gamma))
        mine = sum(position >= k for position in chosen)
        return gamma if mine == min(copies, len(chosen)) else 0.0

    return value


def shifted(line: Line, copies: int, cut: int) -> Value:
    """‖mean without the ``cut`` largest and smallest per coordinate − g‖.

    The q-th smallest of k sorted numbers and m copies of v is v clamped between the (q − m)-th and the
    q-th of the k.
    """
    ordered = line.updates.matrix.sort(dim=0).values
    k = len(ordered)

    def value(gamma: float) -> float:
        point = line.point(gamma)
        total = torch.zeros_like(point)
        for q in range(cut, k + copies - cut):
            kept = point if q >= k else torch.minimum(point, ordered[q].double())
            total += kept if q < copies else torch.maximum(kept, ordered[q - copies].double())
        return float((total / (k + copies - 2 * cut) - line.mean).norm())

    return value


def afa_keeps(gram: NDArray[np.float64], xi: float = 2.0, growth: float = 0.5) -> NDArray[np.bool_]:
    """(n,) bool, whom AFA keeps when all clients are equally trusted and have equally many samples.

    s_i is the cosine of u_i with the mean of those who are left. If the mean of s is below its median,
    everybody below median − ξ·σ goes, otherwise everybody above median + ξ·σ; ξ grows each time, until
    nobody goes.

    Args:
        gram: (n, n) ⟨u_i, u_j⟩.
        xi: ξ at first; 2 in the paper.
        growth: what is added to ξ in each round; 0.5 in the paper.

    Source: Muñoz-González et al., arXiv 1909.05125, Algorithm 1.
    """
    kept, slack = np.ones(len(gram), dtype=bool), tolerance(len(gram), digits=12)
    while True:
        share = kept / kept.sum()
        along = gram @ share
        scale = np.sqrt(np.clip(gram.diagonal() * (share @ along), 0, None))
        cosines = np.divide(along, scale, out=np.zeros(len(gram)), where=scale > 0).round(12)  # copies tie
        left = cosines[kept]
        middle, spread = np.median(left), left.std()
        if above(middle, left.mean(), slack, scale=1.0):
            out = above(middle - xi * spread, cosines, slack, scale=1.0)
        else:
            out = above(cosines, middle + xi * spread, slack, scale=1.0)
        if not (out & kept).any():
            return kept
        kept &= ~out
        xi += growth


def passed_by_afa(line: Line, copies: int) -> Value:
    """γ if AFA keeps the copies, otherwise 0."""
    k = line.updates.n
    gram = line.mean.new_zeros(k + 2, k + 2)
    start = 0
    for block in line.updates.blocks():
        stop = start + block.shape[1]
        rows = torch.cat([block, line.mean[None, start:stop], line.p[None, start:stop]])
        gram += rows @ rows.T
        start = stop
    products = gram.cpu().numpy()

    def keeps(gamma: float) -> bool:
        mix = np.eye(k + copies, k + 2)  # every update of the round out of the u_i, g and p
        mix[k:] = 0.0
        mix[k:, k] = 1.0
        mix[k:, k + 1] = -gamma
        return bool(afa_keeps(mix @ products @ mix.T)[k:].all())

    return lambda gamma: gamma if keeps(gamma) and keeps(gamma * (1 + ROUNDING)) else 0.0


class TailoredStep(FarthestStep):
    """g − γ·p with the γ that is worth most to the attacker; subclasses say what it is worth.

    Args:
        perturbation: p, see FarthestStep.
        knowledge: "full" or "partial".
        reach: how far to look for γ, see ``best_step``.
        tolerance: how precisely, see ``best_step``.
    """

    #: In how many steps γ doubles while it is bracketed.
    density = 1

    def __init__(
        self, perturbation: Perturbation, knowledge: Knowledge, reach: float, tolerance: float
    ) -> None:
        super().__init__(perturbation, knowledge)
        if not 1 < reach < math.inf:
            raise ParameterError(f"{self.name}: reach is {reach}; use a finite number above 1")
        if not 0 < tolerance < 1:
            raise ParameterError(f"{self.name}: tolerance is {tolerance}; use a number in (0, 1)")
        self.reach = reach
        self.tolerance = tolerance

    def step(self, line: Line, view: UpdateView) -> float:
        """Search for γ; 0 where honest updates have no (finite) spread or p = 0."""
        spread = line.updates.sq_distances.max()
        if not 0 < spread < math.inf or line.length == 0:
            return 0.0
        unit = float((spread / line.length).sqrt())
        return best_step(self.value(line, view), unit, self.reach, self.tolerance, self.density)

    @abstractmethod
    def value(self, line: Line, view: UpdateView) -> Value:
        """What γ is worth in this round."""
