"""Who takes part in a round: who is asked, who drops out, and whose update arrives a round late."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.seeds import numpy_generator
from ..core.state import State
from .setup import Setup


class LocalWork(NamedTuple):
    """What clients have trained, one row each.

    Attributes:
        clients: their numbers, in order.
        updates: (n, d).
        statistics: (n, s) of BatchNorm.
        steps: (n,) ‖a‖₁ of FedNova, see :meth:`fedguard.contracts.local_training.LocalTraining.way`.
    """

    clients: list[int]
    updates: Tensor
    statistics: Tensor
    steps: NDArray[np.float64]

    def of(self, clients: Collection[int]) -> LocalWork:
        """The rows of some of the clients."""
        wanted = set(clients)
        rows = [i for i, client in enumerate(self.clients) if client in wanted]
        own = [self.clients[i] for i in rows]
        return LocalWork(own, self.updates[rows], self.statistics[rows], self.steps[rows])

    def joined(self, other: LocalWork) -> LocalWork:
        """The rows of both, in the order of the clients' numbers."""
        clients = [*self.clients, *other.clients]
        order = sorted(range(len(clients)), key=clients.__getitem__)
        return LocalWork(
            [clients[i] for i in order],
            torch.cat([self.updates, other.updates])[order],
            torch.cat([self.statistics, other.statistics])[order],
            np.concatenate([self.steps, other.steps])[order],
        )


@dataclass(frozen=True)
class Call:
    """Who takes part in a round, each list in order.

    Attributes:
        training: those who train on the current global model: on time or late.
        late: those of them whose update arrives in the next round.
        arriving: those whose update of the round before arrives now.
        dropped: those who were asked and send nothing.
    """

    training: list[int]
    late: list[int]
    arriving: list[int]
    dropped: list[int]

    @property
    def sending(self) -> list[int]:
        """Those whose update the server gets in this round."""
        return sorted([*(c for c in self.training if c not in self.late), *self.arriving])

    def excuse(self, client: int) -> str:
        """Why a client that was asked sent nothing; empty if it was not asked."""
        if client in self.dropped:
            return "asked, but dropped out"
        return "late: its update arrives in the next round" if client in self.late else ""


def call(
    setup: Setup, index: int, allowed: Collection[int], members: int, waiting: Sequence[int] = ()
) -> Call:
    """Draw who takes part in a round.

    Of n clients asked, ⌊share × n + u⌋ drop out or are late, with u uniform in [0, 1): the share is right on
    average. At least one client asked sends its update in time.

    Args:
        setup: the federation.
        index: the round.
        allowed: the clients that may be asked: those not banned.
        members: how many clients there are.
        waiting: the clients whose update of the round before is on its way; they are not asked.
    """
    cell = setup.cell
    asked = setup.participants(index, set(allowed) - set(waiting), members)
    arriving = sorted(set(waiting) & set(allowed))
    if not (cell.dropout or cell.late) or not asked:
        return Call(asked, [], arriving, [])
    draw, n = numpy_generator(cell.seed, "absences", index), len(asked)
    shares = np.array([cell.dropout, cell.late]) * n + draw.random(2)
    drop = min(int(shares[0]), n - 1)
    slow = min(int(shares[1]), n - 1 - drop)
    order = [asked[i] for i in draw.permutation(n)]
    dropped, late = sorted(order[:drop]), sorted(order[drop : drop + slow])
    return Call([c for c in asked if c not in dropped], late, arriving, dropped)


class Mail:
    """The updates that are on their way from one round to the next."""

    def __init__(self) -> None:
        self._work: LocalWork | None = None

    @property
    def senders(self) -> list[int]:
        """The clients whose updates are on their way."""
        return [] if self._work is None else self._work.clients

    def exchange(self, work: LocalWork, called: Call) -> LocalWork:
        """Keep the late updates of this round, and return what arrives in it."""
        if not called.late and self._work is None:
            return work
        before, self._work = self._work, work.of(called.late) if called.late else None
        on_time = work.of(set(called.training) - set(called.late))
        return on_time if before is None else on_time.joined(before.of(called.arriving))

    def state_dict(self) -> State:
        """What is on its way; empty if nothing is."""
        if self._work is None:
            return {}
        return {**self._work._asdict(), "steps": self._work.steps.tolist()}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        work = {**state, "steps": np.array(state["steps"], dtype=float)} if state else None
        self._work = None if work is None else LocalWork(**work)
