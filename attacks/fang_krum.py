"""Fang et al.'s attack on Krum, which also affects Bulyan and other rules based on Krum."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from fedguard.aggregators.krum import krum_scores
from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, lowest, tolerance
from fedguard.geometry.updates import Updates

from ._checks import require_positive
from ._statistics import by_all, mean_and_std

MAX = torch.finfo(torch.float32).max


class FangKrum(Attack):
    """w'_1 = w_Re − λs with the largest λ found for which Krum selects w'_1; the others support it.

    w_Re = w_{t−1} is the received global model, so the update sent is −λs. s_j = 1 if coordinate j of the
    global model would grow without the attack, otherwise −1 (also if it would not change, as in the paper's
    estimate). λ starts from the bound of Theorem 1 and is halved until Krum selects w'_1 of c copies, or λ
    is below the threshold:

        λ ≤ √(min_i Σ_{l ∈ nearest n−c−2} ‖w_l − w_i‖² / ((n − 2c − 1) d)) + max_i ‖w_i − w_Re‖ / √d,

    i and l benign. Then each of the other c − 1 is drawn uniformly from the ball of radius ε about w'_1.

    - full: s from Krum's choice among all before-attack updates.
    - partial: s from the mean of the attacker's own c updates, which stand in for the benign ones. w'_1 only
      has to be selected among them and one crafted model. While no λ works, another crafted copy is added,
      up to c − 1 copies, with which Krum must select it.

    Points that the paper leaves open: Krum's f is the number of crafted models (c with full knowledge). A
    tie does not count as selected, since the order of clients would decide it. If n − 2c − 1 < 1 there is no
    bound (the copies need no benign neighbor), and 1 replaces it. If Krum is undefined (n − f − 2 < 1, or
    c < 3 with partial knowledge) or the round has no benign client, the attackers send their honest updates.
    The paper uses the same attack on Bulyan.

    Args:
        knowledge: "full" or "partial".
        goal: "directed" against s; "deviation" (Appendix B) along −1 in every coordinate. The appendix
            describes it for full knowledge; it needs no estimate, so it works with partial knowledge, too.
        epsilon: ε, the radius of the supporters, in units of the parameters.
        threshold: the smallest λ that is a solution.
        num_malicious: f of the server's Krum as the attacker assumes it with full knowledge; None takes
            the true c, as the paper does.
        otherwise: what to send if no λ works: "honest" updates, as in the authors' code; or "smallest",
            w_Re − λs with the first λ below the threshold, which Krum does not select.
        direction: the source of s with full knowledge: the choice of the "rule" under attack, as in Equation
            1, or the "mean" of all before-attack updates, which is the stronger attack on Bulyan.

    Raises:
        ParameterError: a parameter out of range.

    Source: Fang et al., USENIX Security 2020, §3.2 and Theorem 1; Appendices A (Bulyan) and B.
    """

    card = Card(
        "fang_krum",
        "the farthest model against the direction of training that Krum selects",
        "Fang et al., Local Model Poisoning Attacks, USENIX Security 2020",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(
        self,
        knowledge: Knowledge = "full",
        goal: Literal["directed", "deviation"] = "directed",
        epsilon: float = 0.01,
        threshold: float = 1e-5,
        num_malicious: int | None = None,
        otherwise: Literal["honest", "smallest"] = "honest",
        direction: Literal["rule", "mean"] = "rule",
    ) -> None:
        self.knowledge = limit_knowledge(knowledge)
        if goal not in ("directed", "deviation"):
            raise ParameterError(f"fang_krum: goal is {goal!r}; use 'directed' or 'deviation'")
        if not 0 <= epsilon < math.inf:
            raise ParameterError(f"fang_krum: epsilon is {epsilon}; use a finite radius, 0 or more")
        require_positive("fang_krum", "threshold", threshold)
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"fang_krum: num_malicious is {num_malicious}; it cannot be negative")
        if otherwise not in ("honest", "smallest"):
            raise ParameterError(f"fang_krum: otherwise is {otherwise!r}; use 'honest' or 'smallest'")
        if direction not in ("rule", "mean"):
            raise ParameterError(f"fang_krum: direction is {direction!r}; use 'rule' or 'mean'")
        self.aim = goal
        self.epsilon = epsilon
        self.threshold = threshold
        self.num_malicious = num_malicious
        self.otherwise = otherwise
        self.direction = direction

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse numbers of clients for which Krum is undefined."""
        f = self._assumed(m)
        if m > 0 and self.knowledge and n - f < 3:
            raise ParameterError(
                f"fang_krum: Krum sums over n - f - 2 neighbors, which is {n - f - 2} for n = {n} and "
                f"f = {f}; use more clients or fewer malicious ones"
            )
        if m > 0 and not self.knowledge and m < 3:
            raise ParameterError(
                f"fang_krum: with partial knowledge the attacker runs Krum on its own clients; {m} are too "
                "few, use at least 3"
            )

    def craft(self, view: UpdateView) -> Tensor:
        """Search λ and send w'_1 − w_Re and its supporters."""
        solved = self._full(view) if self.knowledge else self._partial(view)
        if solved is None:
            return view.own_updates.clone()
        s, step = solved
        return self._with_supporters(-step * s, view)

    def _full(self, view: UpdateView) -> tuple[Tensor, float] | None:
        updates, c = Updates(view.before_attack()), view.num_malicious
        f, own = self._assumed(c), updates.n - len(view.benign_updates)
        if updates.n == own or updates.n - f < 3:
            return None
        if self.direction == "mean":
            s = self._direction(mean_and_std(updates.matrix)[0])
        else:
            chosen = lowest(
                krum_scores(updates.sq_distances, f).cpu().numpy(), tolerance(updates.n, updates.d)
            )
            s = self._direction(updates.matrix[chosen].double())
        search = Search(updates.take(range(own, updates.n)), s, self.threshold)
        step, works = search.largest(c, f)
        return (s, step) if works or self.otherwise == "smallest" else None

    def _partial(self, view: UpdateView) -> tuple[Tensor, float] | None:
        own = view.reference_updates()
        if own.n < 3:
            return None
        s = self._direction(mean_and_std(own.matrix)[0])
        search = Search(own, s, self.threshold)
        step = 0.0
        for crafted in range(1, own.n):
            step, works = search.largest(crafted, crafted)
            if works:
                return s, step
        return (s, step) if self.otherwise == "smallest" else None

    def _assumed(self, c: int) -> int:
        return c if self.num_malicious is None else self.num_malicious

    def _direction(self, change: Tensor) -> Tensor:
        """(d,) s, float64."""
        ones = torch.ones_like(change)
        return ones if self.aim == "deviation" else torch.where(change > 0, ones, -ones)

    def _with_supporters(self, crafted: Tensor, view: UpdateView) -> Tensor:
        sent = by_all(crafted, view)
        d = len(crafted)
        for row in sent[1:]:
            way = torch.randn(d, generator=view.generator, dtype=torch.float64)
            share = float(torch.rand((), generator=view.generator, dtype=torch.float64)) ** (1 / d)
            row.copy_(crafted + (self.epsilon * share / way.norm() * way).to(crafted.device))
        return sent


class Search:
    """The largest λ for which Krum selects −λs, given with copies, among honest updates.

    A distance ‖u_i + λs‖² = ‖u_i‖² + 2λ⟨u_i, s⟩ + λ²d is a quadratic in λ, so the search does not touch the
    updates again.

    Args:
        honest: the k honest updates u_i.
        s: (d,) the direction, ±1.
        threshold: the smallest λ that is a solution.
    """

    def __init__(self, honest: Updates, s: Tensor, threshold: float) -> None:
        self.sq_distances = honest.sq_distances
        self.sq_norms = honest.norms.square()
        self.d = honest.d
        self.threshold = threshold
        self.along = torch.zeros_like(self.sq_norms)
        start = 0
        for block in honest.blocks():
            stop = start + block.shape[1]
            self.along += block @ s[start:stop]
            start = stop

    def largest(self, crafted: int, f: int) -> tuple[float, bool]:
        """λ, and whether Krum with this f selects one of the crafted models."""
        step = self.bound(crafted, f)
        while step >= self.threshold:
            if self.selects(step, crafted, f):
                return step, True
            step /= 2
        return step, False

    def bound(self, crafted: int, f: int) -> float:
        """Theorem 1 with n − f − 2 neighbors, of which crafted − 1 are copies."""
        k = len(self.sq_distances)
        neighbors = k + crafted - f - 2
        others = self.sq_distances.clone().fill_diagonal_(torch.inf).sort(dim=1).values
        spread = others[:, : min(neighbors, k - 1)].sum(1).min() / max(1, neighbors - crafted + 1)
        return min(MAX, float((spread.sqrt() + self.sq_norms.max().sqrt()) / math.sqrt(self.d)))

    def selects(self, step: float, crafted: int, f: int) -> bool:
        """Whether Krum prefers the crafted models to every honest one."""
        n = crafted + len(self.sq_norms)
        far = (self.sq_norms + 2 * step * self.along + step * step * self.d).clamp(min=0)
        distances = self.sq_distances.new_zeros(n, n)
        distances[:crafted, crafted:] = far
        distances[crafted:, :crafted] = far[:, None]
        distances[crafted:, crafted:] = self.sq_distances
        scores = krum_scores(distances, f)
        return bool(above(scores[crafted:].min().cpu(), scores[0].cpu(), tolerance(n, self.d)))
