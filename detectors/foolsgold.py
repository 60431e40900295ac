"""FoolsGold: detects sybils, which push in the same direction round after round."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError, RoundError
from fedguard.core.history import History
from fedguard.core.restored import vectors
from fedguard.core.state import State
from fedguard.core.ties import above, tolerance
from fedguard.geometry.tables import ROWS
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import fitting

from ._sketch import Sketch, check_sketch

#: The rounding error of a cosine: clients closer than this count as identical.
SAME = 1e-12
LARGEST = torch.finfo(torch.float32).max


def foolsgold_weights(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """FoolsGold's weights in [0, 1] from the (n, n) cosines of the clients' histories.

    If all clients are alike within ``SAME``, all are sybils and every weight is 0. A single client has weight
    1.
    """
    blocks = [slice(start, start + ROWS) for start in range(0, len(cosines), ROWS)]
    v = np.concatenate([_others(cosines, rows).max(axis=1) for rows in blocks])
    largest = []
    for rows in blocks:
        c, own = _others(cosines, rows), v[rows, None]
        largest.append((c * np.divide(own, v, out=np.ones_like(c), where=v > own)).max(axis=1))
    w = np.clip(1 - np.concatenate(largest), 0, 1)
    if w.max() <= SAME:
        return np.zeros_like(w)
    w /= w.max()
    w[w == 1] = 0.99
    with np.errstate(divide="ignore"):
        logit: NDArray[np.float64] = np.log(w / (1 - w)) + 0.5
    return np.clip(logit, 0, 1)


def _others(cosines: NDArray[np.float64], rows: slice) -> NDArray[np.float64]:
    """(rows, n) some rows, 0 on the diagonal: a few at a time, since the table may be large."""
    c = cosines[rows].copy()
    np.fill_diagonal(c[:, rows.start :], 0)
    return c


class FoolsGold(Detector):
    """s_i = 1 − w_i; w_i falls with the largest cosine between the histories of client i and another.

    H_i = Σ_t u_i^t, this round included; c_ij = cos(H_i, H_j), c_ii = 0; v_i = max_j c_ij. Pardoning:
    where v_j > v_i, c_ij ← c_ij · v_i / v_j. w_i = 1 − max_j c_ij, divided by the largest w, 1 → 0.99,
    then ln(w / (1 − w)) + 0.5 clipped to [0, 1].

    The original method only weights clients, which the policy ``reweight`` does on this detector. Suspecting
    clients with w_i < 0.5 is FedGuard's choice. A client with a zero history is similar to none and keeps its
    weight. Absent clients keep their history.

    Args:
        memory: compare histories; False compares the updates of this round only.
        features: "all" compares whole updates; "last_layer" only the parameters of the model's last layer,
            the paper's indicative features, and needs the model.
        sketch: k; keep and compare random sketches of k numbers (4 k bytes per client), not histories of d.
            A cosine c of two sketches has a standard error of about (1 − c²) / √k if the histories are spread
            over many parameters, so that the largest of n unrelated ones reaches √(2 ln n / k): 0.07 for
            10,000 clients and k = 4096. Equal updates have equal sketches. None keeps histories.

    Raises:
        ParameterError: a parameter out of range.

    Source: Fung et al., RAID 2020, Algorithm 1 (arXiv 1808.04866).
    """

    card = Card(
        "foolsgold",
        "similarity of the clients' accumulated updates",
        "Fung et al., FoolsGold, RAID 2020",
    )
    plant = "sybils"  # it looks for clients that are alike, whatever their length
    gives_weights = True

    def __init__(
        self,
        memory: bool = True,
        features: Literal["all", "last_layer"] = "all",
        sketch: int | None = None,
    ) -> None:
        check_sketch("foolsgold", sketch)
        if features not in ("all", "last_layer"):
            raise ParameterError(f"foolsgold: features is {features!r}; use 'all' or 'last_layer'")
        self.memory = memory
        self.features = features
        self.sketch = sketch
        self.needs = frozenset({"model"} if features == "last_layer" else ())
        self._history: History[Tensor] = History()

    def score(self, round: Round) -> Scores:
        """Score by similarity of histories."""
        sums = self._sums(round)
        cosines = sums.cosines.cpu().numpy()
        weights = foolsgold_weights(cosines)
        memory = dict(zip(round.client_ids, sums.matrix, strict=True)) if self.memory else None
        return Scores(
            values=1 - weights,
            suspects=above(0.5, weights, tolerance(round.n, sums.d), scale=1.0),
            reason="its updates are too similar to another client's",
            weights=weights,
            memory=memory,
        )

    def _sums(self, round: Round) -> Updates:
        """The histories, including this round."""
        updates = round.updates
        if self.features == "last_layer" and round.server and round.server.model:
            updates = updates.between(last_layer(round.server.model, updates.d))
        if self.sketch is not None and self.sketch < updates.d:
            updates = Updates(Sketch(self.sketch, updates.d, round)(updates))
        if all(self._history.of_size(client, updates.d) is None for client in round.client_ids):
            return updates
        matrix = updates.matrix.clone()
        for row, client in zip(matrix, round.client_ids, strict=True):
            history = self._history.of_size(client, updates.d)
            if history is not None:
                row += history.to(row.device)
        # Otherwise one client could make its history infinite and thereby all cosines NaN.
        return Updates(matrix.clamp_(-LARGEST, LARGEST))

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the histories of all clients, whatever was decided."""
        if scores.memory is not None:
            # Clone each row, since a view would keep the whole matrix of its round in memory.
            self._history.remember({client: history.clone() for client, history in scores.memory.items()})

    def state_dict(self) -> State:
        """History by client id."""
        return {"history": [[client, history] for client, history in self._history.items()]}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._history = History(vectors(state["history"]))


def last_layer(model: nn.Module, d: int) -> slice:
    """The slice of the model's last layer in a flat vector of d parameters.

    Raises:
        RoundError: the model does not have d parameters.
    """
    try:
        named = list(fitting(model, d).items())
    except RoundError:
        raise RoundError(f"the updates have {d} parameters, but the model has a different number") from None
    layer = named[-1][0].rpartition(".")[0]
    size = sum(p.numel() for name, p in named if name.rpartition(".")[0] == layer)
    return slice(d - size, d)
