"""Mimic: all malicious clients copy one benign client, and so overemphasize it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.core.state import State
from fedguard.core.ties import lowest, tolerance
from fedguard.geometry.eigen import top_eigenvector
from fedguard.geometry.updates import Updates

from ._statistics import along


class Choice(NamedTuple):
    """What the attack has learned: (d,) float32 direction z, the position copied, of how many, and when."""

    direction: Tensor
    target: int
    clients: int
    rounds: int


class Mimic(Attack):
    """u' = u_i* for every malicious client, i* = argmax_i |⟨z, u_i⟩| over the benign clients.

    z is the direction in which benign updates vary most, argmax zᵀ (Σ_t Σ_i (u_i − μ)(u_i − μ)ᵀ) z over
    the first ``warmup`` rounds of the attack, μ the benign mean of the round. In the first of them z is the
    top right singular vector of the round's centered updates; later ones turn it by Oja's rule,
    z ← t/(t+1)·z + 1/(t+1)·S z/‖S z‖ with S the scatter of round t = 1, 2, …, normalized. The sign of z is
    arbitrary, hence |⟨z, u_i⟩| (the released code takes ⟨z, u_i⟩ as it comes). The attack copies from the
    first round on, choosing i* anew with each new z. Nothing in a copy is conspicuous in itself: it is the
    attack for label-skewed data, where robust rules then lose the other clients' classes.

    Attackers see benign updates without ids. If not all clients take part in every round, a position does
    not mean the same client: use target "each_round" there. The paper's setting has all of them.

    Args:
        warmup: rounds in which z is learned; 1 in the released code.
        target: what is copied after the warm-up. "fixed": the client i* of its last round, found by its
            position, as in the paper (i* is chosen anew whenever the number of benign clients has
            changed); "each_round": i* for this round's updates, with the z that was learned.

    Source: Karimireddy et al., ICLR 2022 (mimic attack), and its released code for the steps of Oja's rule.
    """

    card = Card(
        "mimic",
        "all malicious clients copy one benign client",
        "Karimireddy et al., Byzantine-robust learning via bucketing, ICLR 2022",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(self, warmup: int = 1, target: Literal["fixed", "each_round"] = "fixed") -> None:
        if warmup < 1:
            raise ParameterError(f"mimic: warmup is {warmup}; at least one round is needed")
        if target not in ("fixed", "each_round"):
            raise ParameterError(f"mimic: target is {target!r}; use 'fixed' or 'each_round'")
        self.warmup = warmup
        self.target = target
        self._choice: Choice | None = None

    def craft(self, view: UpdateView) -> Tensor:
        """Copies of one benign update."""
        return view.reference()[self._next(view).target].repeat(view.num_malicious, 1)

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Keep the direction and the client that is copied."""
        self._choice = self._next(view)

    def state_dict(self) -> State:
        """The direction, the client that is copied, and how many rounds it learned from."""
        return {} if self._choice is None else self._choice._asdict()

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""
        self._choice = Choice(**state) if state else None

    def _next(self, view: UpdateView) -> Choice:
        updates = Updates(torch.nan_to_num(view.reference(), 0.0, 0.0, 0.0))  # diverged clients teach nothing
        known = self._choice
        if known is None:
            direction, rounds = leading_direction(updates), 1
        elif known.rounds < self.warmup:
            direction, rounds = turned(known.direction.double(), updates, known.rounds), known.rounds + 1
        elif self.target == "fixed" and known.clients == updates.n:
            return known
        else:
            direction, rounds = known.direction.double(), known.rounds
        products = along(updates, updates.mean, direction) + updates.mean @ direction
        target = lowest(-products.abs().cpu().numpy(), tolerance(updates.n, updates.d))
        return Choice(direction.float(), target, updates.n, rounds)


def combined(updates: Updates, shares: Tensor) -> Tensor:
    """(d,) Σ_i share_i (u_i − μ), scaled to length 1 unless it is 0."""
    centered = shares - shares.mean()
    total = torch.cat([centered @ block for block in updates.blocks()])
    return total / total.norm() if total.norm() > 0 else total


def leading_direction(updates: Updates) -> Tensor:
    """(d,) the top right singular vector of the centered updates; 0 if they are all the same."""
    return combined(updates, top_eigenvector(updates.centered_gram))


def turned(direction: Tensor, updates: Updates, rounds: int) -> Tensor:
    """One step of Oja's rule after so many rounds."""
    seen = combined(updates, along(updates, updates.mean, direction))
    new = (rounds * direction + seen) / (rounds + 1)
    return new / new.norm() if new.norm() > 0 else new
