"""The adaptive attack on DnC: as far as its spectral filter accepts the crafted updates."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fedguard.contracts.attack import Knowledge, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.geometry.eigen import top_eigenvector

from ._agr import ROUNDING, TailoredStep, Value, copies_among
from ._gamma import Line, Perturbation


class AdaptiveDnC(TailoredStep):
    """u' = g − γ·p for all malicious clients with the largest γ for which DnC's good set contains them all.

    u_i are the honest updates that the attacker knows and g their mean. The attacker runs DnC itself: in
    each of ``niters`` rounds on ``coordinates`` random coordinates, s_i = ⟨u_i − μ, v⟩² with v the top right
    singular vector of the centered updates, and the ⌈c·m⌉ largest s are removed. u' is kept if every time
    at least that many honest updates have a larger s. The attacker knows DnC and its parameters, but not the
    server's random numbers, so it draws its own coordinates. The search for γ, and the copies assumed with
    partial knowledge, are those of agr_tailored. If no γ is accepted, u' = g.

    The paper applies its general framework (§IV-A) here. That DnC keeps *all* malicious updates is the
    paper's objective for the other rules that select clients (§IV-B).

    Args:
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate, "sign" sign(g).
        knowledge: "full": all benign updates; "partial": those of the attacker's own clients.
        niters: the server's number of iterations, as the attacker assumes it.
        coordinates: the server's b, as assumed; at most d.
        filter_fraction: the server's c, as assumed.
        reach: the search for γ goes from γ_0/reach to γ_0·reach, see agr_tailored.
        tolerance: τ, relative to γ.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §VII (adaptive attack), §IV-A and Algorithm 2.
    """

    card = Card(
        "adaptive_dnc",
        "as far from the honest mean as DnC's spectral filter allows",
        "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021",
    )

    def __init__(
        self,
        perturbation: Perturbation = "std",
        knowledge: Knowledge = "full",
        niters: int = 5,
        coordinates: int = 10_000,
        filter_fraction: float = 1.0,
        reach: float = 1000.0,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(perturbation, knowledge, reach, tolerance)
        if niters < 1 or coordinates < 1:
            raise ParameterError(
                f"adaptive_dnc: niters is {niters} and coordinates {coordinates}; both are at least 1"
            )
        if not (math.isfinite(filter_fraction) and filter_fraction >= 0):
            raise ParameterError(
                f"adaptive_dnc: filter_fraction is {filter_fraction}; use a number >= 0, say 1"
            )
        self.niters = niters
        self.coordinates = coordinates
        self.filter_fraction = filter_fraction

    def value(self, line: Line, view: UpdateView) -> Value:
        """γ if every iteration keeps the copies, otherwise 0."""
        copies = copies_among(view, full="benign_updates" in self.knowledge)
        removed = math.ceil(self.filter_fraction * copies - 1e-9)  # as DnC itself rounds
        grams = [gram_of(line, chosen) for chosen in self._samples(line, view)]

        def value(gamma: float) -> float:
            return gamma if all(kept(gram, copies, gamma, removed) for gram in grams) else 0.0

        return value

    def _samples(self, line: Line, view: UpdateView) -> Iterator[Tensor]:
        d = line.updates.d
        if self.coordinates >= d:
            yield torch.arange(d)
            return
        for _ in range(self.niters):
            yield torch.randperm(d, generator=view.generator)[: self.coordinates]


def gram_of(line: Line, chosen: Tensor) -> Tensor:
    """(k + 1, k + 1) inner products of u_1 − g, …, u_k − g and p on the chosen coordinates."""
    chosen = chosen.to(line.p.device)
    rows = line.updates.matrix[:, chosen].double() - line.mean[chosen]
    rows = torch.cat([rows, line.p[None, chosen]])
    return rows @ rows.T


def kept(gram: Tensor, copies: int, gamma: float, removed: int) -> bool:
    """Whether an iteration of DnC keeps the copies: at least ``removed`` honest updates project farther."""
    k = len(gram) - 1
    index = torch.tensor([*range(k), *[k] * copies], device=gram.device)
    scale = torch.tensor([1.0] * k + [-gamma] * copies, dtype=gram.dtype, device=gram.device)
    whole = gram[index][:, index] * scale * scale[:, None]
    whole = whole - whole.mean(0)
    whole = whole - whole.mean(1, keepdim=True)
    projections = top_eigenvector(whole).abs()
    return int((projections[:k] > projections[k:].max() * (1 + ROUNDING)).sum()) >= removed
