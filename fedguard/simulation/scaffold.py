"""SCAFFOLD: control variates that correct the clients' drift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.state import State


class ControlVariates:
    """c of the server and c_i of each of N clients, all 0 at first.

    A client steps along g − c_i + c. With its update Δy_i after K steps of size η, option II of the paper is

        c_i⁺ = c_i − c − Δy_i / (K η),    c ← c + (1/N) Σ_i (c_i⁺ − c_i).

    c_i⁺ − c_i follows from Δy_i and what the server knows, so clients send nothing else, and the guard that
    judges Δy_i judges both: the sum is over the clients that it accepted (weight above 0), and only their
    c_i change. So c remains the mean of the c_i, and an attacker that is excluded has no influence on
    either. What an accepted attacker sends counts here as well.

    It holds (number of clients that took part + 1) × d numbers.

    Args:
        size: d.
        clients: N.

    Source: Karimireddy et al., SCAFFOLD, ICML 2020, Algorithm 1, equation 4.
    """

    def __init__(self, size: int, clients: int) -> None:
        self._count = clients
        self._server = torch.zeros(size)
        self._clients: dict[int, Tensor] = {}

    def correction(self, client: int) -> Tensor:
        """(d,) c − c_i, what the client adds to its gradients."""
        own = self._clients.get(client)
        return self._server.clone() if own is None else self._server - own

    def corrections(self, clients: Sequence[int]) -> NDArray[np.float32]:
        """(clients, d) their corrections, one row each."""
        stacked: NDArray[np.float32] = torch.stack([self.correction(client) for client in clients]).numpy()
        return stacked

    def learn(
        self,
        clients: Sequence[int],
        updates: Tensor,
        steps: Sequence[float] | NDArray[np.float64],
        lr: float,
        accepted: NDArray[np.bool_],
    ) -> None:
        """Take the (n, d) updates of a round.

        Args:
            clients: (n,) who sent them.
            updates: as they were sent.
            steps: (n,) K.
            lr: η.
            accepted: (n,) whom the guard accepted.
        """
        total = torch.zeros_like(self._server)
        for i in np.flatnonzero(accepted).tolist():
            change = -self._server - updates[i] / (float(steps[i]) * lr)
            own = self._clients.get(clients[i])
            self._clients[clients[i]] = change if own is None else own + change
            total += change
        self._server = self._server + total / self._count

    def state_dict(self) -> State:
        """All control variates."""
        return {"server": self._server, "clients": [[k, v] for k, v in self._clients.items()]}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._server, self._clients = state["server"], dict(state["clients"])
