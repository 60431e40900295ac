"""Mimic: all malicious clients copy one benign client, which overweights it."""

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
    """The (d,) float32 direction z, the copied position among ``clients``, and the rounds learned from."""

    direction: Tensor
    target: int
    clients: int
    rounds: int


class Mimic(Attack):
    """u' = u_i* for every malicious client, i* = argmax_i |⟨z, u_i⟩| over the benign clients.

    z is the direction in which benign updates vary most, argmax zᵀ (Σ_t Σ_i (u_i − μ)(u_i − μ)ᵀ) z over
    the first ``warmup`` rounds of the attack, μ the benign mean of the round. In the first round z is the
    top right singular vector of the round's centered updates. Later rounds update it by Oja's rule,
    z ← t/(t+1)·z + 1/(t+1)·S z/‖S z‖ with S the scatter of round t = 1, 2, …, and normalize it. The sign of z
    is arbitrary, hence |⟨z, u_i⟩| (the released code uses ⟨z, u_i⟩). The attack copies from the first round
    on and chooses i* anew with each new z. A copy is not conspicuous by itself. The attack targets
    label-skewed data, where robust rules then lose the other clients' classes.

    Attackers see benign updates without ids. With partial participation, a position does not always mean the
    same client, so use target "each_round" there. The paper's setting has full participation.

    Args:
        warmup: the number of rounds in which z is learned; 1 in the released code.
        target: the copied client after the warm-up. "fixed": the client i* of its last round, identified by
            its position, as in the paper (i* is chosen anew whenever the number of benign clients changes);
            "each_round": i* of this round's updates, with the learned z.

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
        """Store the direction and the copied client."""
        self._choice = self._next(view)

    def state_dict(self) -> State:
        """The direction, the copied client, and the number of rounds learned from."""
        return {} if self._choice is None else self._choice._asdict()

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._choice = Choice(**state) if state else None

    def _next(self, view: UpdateView) -> Choice:
        updates = Updates(torch.nan_to_num(view.reference(), 0.0, 0.0, 0.0))  # ignore diverged clients
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
    """(d,) the top right singular vector of the centered updates; 0 if all are equal."""
    return combined(updates, top_eigenvector(updates.centered_gram))


def turned(direction: Tensor, updates: Updates, rounds: int) -> Tensor:
    """One step of Oja's rule after this many rounds."""
    seen = combined(updates, along(updates, updates.mean, direction))
    new = (rounds * direction + seen) / (rounds + 1)
    return new / new.norm() if new.norm() > 0 else new
