"""FLDetector: clients whose updates are inconsistent with their earlier ones."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.history import History
from fedguard.core.restored import count, numbers, pairs, vector, vectors
from fedguard.core.state import State
from fedguard.geometry.clusters import gap_statistic, two_means
from fedguard.geometry.updates import Updates

from ._sketch import Sketch, check_sketch

#: Reference sets of the gap statistic, and the most clusters considered.
REFERENCES, MOST = 10, 9
#: Singular values below this share of the largest are dropped from the curvature matrix.
CONDITION = 1e-12


def hessian_product(steps: Tensor, changes: Tensor, vector: Tensor) -> Tensor:
    """(d,) Ĥ v with Ĥ from the compact representation of L-BFGS: Ĥ s = y for the last pair.

    Ĥ = σ I − [σ S, Y] [[σ SᵀS, L], [Lᵀ, −D]]⁻¹ [σ Sᵀ; Yᵀ], σ = ⟨y, s⟩ / ⟨s, s⟩ of the last pair, L the part
    of SᵀY below its diagonal and D its diagonal.

    Args:
        steps: (k, d) s, oldest first.
        changes: (k, d) y.
        vector: (d,) v.

    Source: Byrd et al., Mathematical Programming 1994, Theorem 2.3.
    """
    s, y, v = (part.double() for part in (steps, changes, vector))
    inner, cross = s @ s.T, s @ y.T
    if inner[-1, -1] == 0:
        return torch.zeros_like(v)
    sigma = cross[-1, -1] / inner[-1, -1]
    lower, diagonal = cross.tril(-1), cross.diagonal().diag()
    middle = torch.cat([torch.cat([sigma * inner, lower], 1), torch.cat([lower.T, -diagonal], 1)])
    right = torch.cat([sigma * (s @ v), y @ v])
    if not middle.isfinite().all():  # the global model has diverged
        return torch.zeros_like(v)
    inverse = torch.linalg.pinv(middle, rtol=CONDITION)
    weights = inverse @ right
    k = len(s)
    product: Tensor = sigma * v - sigma * (weights[:k] @ s) - weights[k:] @ y
    return product


class FLDetector(Detector):
    """Mean over a window of ‖û_i^t − u_i^t‖ / Σ_j ‖û_j^t − u_j^t‖, û_i^t = u_i^{t−1} + Ĥ (w_t − w_{t−1}).

    Ĥ maps a change of the global model to the change of updates, by L-BFGS on the window's pairs
    (w_k − w_{k−1}, g_k − g_{k−1}) with g_k = w_{k+1} − w_k, the change applied in round k. The
    paper uses gradients; an update is a negative multiple of one, which g accounts for. If the gap statistic
    finds more than one cluster of scores, the clients in the higher cluster of 2-means are suspects.

    Made for full participation: a prediction needs the client's own update of the previous round. Clients
    that were absent then are not judged in this round. A client without any score gets the median of the
    others and is not a suspect. There are no suspects before round ``start`` or before the first pair.

    Args:
        window: rounds of history for Ĥ and the mean; 10.
        start: the first round with suspects; 50 in the paper.
        restart: True asks for the initial model after a detection, as both papers do, because the global
            model of the first ``start`` rounds is poisoned. A simulation follows; a guard of a running
            federation can only say so (``Outcome.restart`` and ``note``). The detector then starts anew, with
            ``start`` more rounds without suspects. Use the policy "ban", or the same clients are detected
            again. Xie et al. keep the total number of rounds.
        sketch: k; keep random sketches of k numbers (4 k bytes per client) of the last updates, and compare
            those of predictions and updates: ‖û − u‖ has a relative standard error of about 1 / √(2 k), 1.1 %
            for k = 4096. None keeps the updates.

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhang et al., FLDetector, KDD 2022, §4, Algorithms 1 and 2; restart: also Xie et al.,
    FedREDefense, ICML 2024, App. A.3.
    """

    card = Card(
        "fldetector",
        "how badly the update follows from the one before",
        "Zhang et al., FLDetector, KDD 2022",
    )
    warm_up = 2
    check_plant_with = MappingProxyType({"start": 0})
    needs = frozenset({"global_params"})

    def __init__(
        self, window: int = 10, start: int = 50, restart: bool = False, sketch: int | None = None
    ) -> None:
        check_sketch("fldetector", sketch)
        if window < 1:
            raise ParameterError(f"fldetector: window is {window}; use at least 1 round")
        if start < 0:
            raise ParameterError(f"fldetector: start is {start}; use a round number of at least 0")
        self.window = window
        self.start = start
        self.restart = restart
        self.sketch = sketch
        self._since = 0  # the round of the last restart
        self._models: list[Tensor] = []
        self._last: History[Tensor] = History()
        self._distances: History[list[float]] = History()

    def score(self, round: Round) -> Scores:
        """Predict, compare, cluster."""
        if round.global_params is None:
            raise NeedError("fldetector needs global_params: give the round its global_params")
        model = round.global_params.cpu()
        same = bool(self._models) and self._models[-1].shape == model.shape  # otherwise history starts anew
        models = [*self._models, model] if same else [model]
        now, rows = self._normalized(round, models)
        history = [
            [*self._distances.get(client, []), *([] if np.isnan(value) else [value])][-self.window :]
            for client, value in zip(round.client_ids, now, strict=True)
        ]
        judged = np.array([len(values) > 0 for values in history])
        means = np.array([np.mean(values) if values else np.nan for values in history])
        values = np.where(judged, means, np.median(means[judged]) if judged.any() else 0.0).round(12)
        suspects = np.zeros(round.n, dtype=bool)
        clusters = 1
        if round.index - self._since >= self.start and judged.sum() > 1 and not np.isnan(now).all():
            draw = (round.server or Server()).generator("fldetector", round.index)
            some = values[judged]
            clusters = gap_statistic(np.sort(some), min(MOST, len(some)), REFERENCES, draw)
            if clusters > 1:
                suspects[judged] = two_means(some)
        return Scores(
            values,
            suspects,
            "its updates are inconsistent with its earlier ones",
            info={"clusters": float(clusters)},
            memory=(models[-self.window - 2 :], now, rows),
            restart=self.restart and bool(suspects.any()),
        )

    def _normalized(self, round: Round, models: list[Tensor]) -> tuple[NDArray[np.float64], Tensor]:
        """(n,) distances to the predictions as shares of their sum, NaN without a prediction; (n, d or k)."""
        short = self.sketch is not None and self.sketch < round.updates.d
        sketch = Sketch(self.sketch, round.updates.d, round) if self.sketch is not None and short else None
        rows = round.updates.matrix.cpu() if sketch is None else sketch(round.updates)
        result = np.full(round.n, np.nan)
        if len(models) < 3:
            return result, rows
        path = torch.stack(models)[-self.window - 2 :].double()
        moves = path.diff(dim=0)  # moves[k] = w_{k+1} − w_k = g_k, and the step to w_{k+1}
        change = hessian_product(moves[:-1], moves.diff(dim=0), moves[-1])
        if sketch is not None:
            change = sketch(Updates(change[None]))[0].double()
        for i, (row, client) in enumerate(zip(rows, round.client_ids, strict=True)):
            last = self._last.of_size(client, len(row))
            if last is not None:
                result[i] = float((last.double() + change - row.double()).norm())
        total = np.nansum(result)
        if not np.isfinite(total):
            total, result = float((~np.isnan(result)).sum()), np.where(np.isnan(result), np.nan, 1.0)
        return result / total if total > 0 else np.where(np.isnan(result), np.nan, 0.0), rows

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the model, this round's updates, and the distances; forget all of them if it restarts."""
        if decision is not None and decision.restarts(scores):
            self._models, self._last, self._distances = [], History(), History()
            self._since = round.index + 1
            return
        models, now, rows = scores.memory
        self._models = [model.clone() for model in models]
        self._last = History((c, row.clone()) for c, row in zip(round.client_ids, rows, strict=True))
        longer = {
            client: [*self._distances.get(client, []), float(value)][-self.window :]
            for client, value in zip(round.client_ids, now, strict=True)
            if not np.isnan(value)
        }
        self._distances.remember(longer, seen=round.client_ids)

    def state_dict(self) -> State:
        """Models, last updates and distances."""
        return {
            "models": list(self._models),
            "last": [[client, row] for client, row in self._last.items()],
            "distances": [[client, list(values)] for client, values in self._distances.items()],
            "since": self._since,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        models, last = [vector(model) for model in state["models"]], vectors(state["last"])
        distances = [(client, numbers(values)) for client, values in pairs(state["distances"])]
        since = count(state.get("since", 0))  # states of earlier versions lack it
        self._models, self._last, self._distances = models, History(last), History(distances)
        self._since = since
