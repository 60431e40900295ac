"""The base of attacks tailored to one rule: the search for γ, and what a rule does with m copies of g − γ·p.

The rule gets the k honest updates that the attacker knows, followed by the copies. Where it breaks ties by
position, it breaks them against the attacker.
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

#: γ → its value to the attacker, ≥ 0; 0 if the rule would not accept the crafted updates.
Value: TypeAlias = Callable[[float], float]

#: A safety margin for rounding to float32: crafted updates count as farther by this share.
ROUNDING = 1e-6


def best_step(value: Value, unit: float, reach: float, tolerance: float, density: int = 1) -> float:
    """argmax over γ ≥ 0 of value(γ): bracket by doubling, then bisect, and return the last success.

    Doubling goes from unit/reach to unit·reach. The bisection between the best of these and the next keeps
    every γ of higher value than all before. Returns 0 if no γ has a higher value than 0.

    Args:
        value: the function to maximize.
        unit: the natural size of γ.
        reach: the range of the search; values that still grow at unit·reach have no maximum.
        tolerance: relative; of γ to end the bisection, and of the value while γ doubles.
        density: the number of steps in which γ doubles; above 1 if only a narrow band of γ has any value.
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
    """The number of copies of the crafted update that the attacker assumes beside the k updates it knows.

    m if it knows the benign updates. Otherwise its own m updates stand in for the n − m benign ones, and
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
    """γ if a rule that selects by distances selects as many copies as possible, otherwise 0."""
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
    """(n,) bool, the clients that AFA keeps with equal trust and sample counts.

    s_i is the cosine of u_i with the mean of the remaining clients. If the mean of s is below its median,
    clients below median − ξ·σ are removed, otherwise those above median + ξ·σ. ξ grows each time, until none
    is removed.

    Args:
        gram: (n, n) ⟨u_i, u_j⟩.
        xi: the initial ξ; 2 in the paper.
        growth: the increment of ξ per iteration; 0.5 in the paper.

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
        mix = np.eye(k + copies, k + 2)  # each update as a combination of the u_i, g and p
        mix[k:] = 0.0
        mix[k:, k] = 1.0
        mix[k:, k + 1] = -gamma
        return bool(afa_keeps(mix @ products @ mix.T)[k:].all())

    return lambda gamma: gamma if keeps(gamma) and keeps(gamma * (1 + ROUNDING)) else 0.0


class TailoredStep(FarthestStep):
    """g − γ·p with the γ of highest value to the attacker; subclasses define the value.

    Args:
        perturbation: p, see FarthestStep.
        knowledge: "full" or "partial".
        reach: the range of the search, see ``best_step``.
        tolerance: its precision, see ``best_step``.
    """

    #: The number of steps in which γ doubles.
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
        """Search for γ; 0 if honest updates have no (finite) spread or p = 0."""
        spread = line.updates.sq_distances.max()
        if not 0 < spread < math.inf or line.length == 0:
            return 0.0
        unit = float((spread / line.length).sqrt())
        return best_step(self.value(line, view), unit, self.reach, self.tolerance, self.density)

    @abstractmethod
    def value(self, line: Line, view: UpdateView) -> Value:
        """The value of γ in this round."""
