"""Cross-round check: compares clients with their own past to decide whether an attack is likely."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.history import History
from fedguard.core.restored import vectors
from fedguard.core.state import State
from fedguard.core.ties import above, tolerance

from ._layers import Part, of_part

LARGEST = torch.finfo(torch.float32).max


class CrossRound(Detector):
    """s_i = 1 − min(cos(w_i, p_i), cos(w_i, w)); above 1 − γ is a suspect.

    w_i is the local model of client i, p_i its last local model that was not suspected, w the global model.
    The paper's first stage, for the policy ``gate``: if any client is a suspect, an attack is likely, and a
    second detector then identifies the attackers. Clients without a past score 0. Absent clients keep theirs.

    Args:
        threshold: γ, in [−1, 1]: a similarity below it is suspicious; 0.7 in the authors' own code.
        on: "models" as in the paper. "updates" compares a client's update with its last one only; honest
            updates differ far more from round to round.
        features: "all" compares and stores whole models, "last_layer" last layers only; the latter needs the
            model.

    Raises:
        ParameterError: a parameter out of range.

    Source: Han et al., Kick Bad Guys Out!, 2023, §3 (cross-round detection); FedSecurity, KDD 2024, §1.
    """

    card = Card(
        "cross_round",
        "how much a client differs from itself a round ago",
        "Han et al., Kick Bad Guys Out!, arXiv 2023",
    )
    warm_up = 1

    def __init__(
        self,
        threshold: float = 0.5,
        on: Literal["models", "updates"] = "models",
        features: Part = "all",
    ) -> None:
        if not -1 <= threshold <= 1:
            raise ParameterError(f"cross_round: threshold is {threshold}; use a cosine in [-1, 1]")
        if on not in ("models", "updates"):
            raise ParameterError(f"cross_round: on is {on!r}; use 'models' or 'updates'")
        if features not in ("all", "last_layer"):
            raise ParameterError(f"cross_round: features is {features!r}; use 'all' or 'last_layer'")
        self.threshold = threshold
        self.on = on
        self.features = features
        needs = {"global_params"} if on == "models" else set()
        self.needs = frozenset(needs | ({"model"} if features == "last_layer" else set()))
        self._past: History[Tensor] = History()

    def score(self, round: Round) -> Scores:
        """Compare each client with its past."""
        updates, start = of_part(round, self.features)
        base = None
        if self.on == "models":
            if start is None:
                raise NeedError("cross_round needs global_params: give the round its global_params")
            base = start.cpu().double()
        values = np.zeros(round.n)
        now: list[Tensor] = []
        for i, client in enumerate(round.client_ids):
            sent = updates.row(i).cpu().double()
            sent = (sent if base is None else sent + base).clamp(-LARGEST, LARGEST)
            now.append(sent.float())
            past = self._past.of_size(client, len(sent))
            if past is not None:
                similar = [_cosine(sent, other) for other in (past.double(), base) if other is not None]
                values[i] = 1 - min(similar)
        suspects = above(values, 1 - self.threshold, tolerance(1, updates.d), scale=1.0)
        sent_now = zip(round.client_ids, now, suspects, strict=True)
        return Scores(
            values,
            suspects,
            f"similarity to its past or to the global model below {self.threshold:g}",
            memory={client: model for client, model, bad in sent_now if not bad},
        )

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the models of the clients that are not suspects."""
        self._past.remember(scores.memory or {}, seen=round.client_ids)

    def state_dict(self) -> State:
        """Each client's last model that was not suspected, by client id."""
        return {"past": [[client, row] for client, row in self._past.items()]}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._past = History(vectors(state["past"]))


def _cosine(first: Tensor, second: Tensor) -> float:
    scale = float(first.norm() * second.norm())
    return max(-1.0, min(1.0, float(first @ second) / scale)) if scale > 0 else 1.0
