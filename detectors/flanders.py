"""FLANDERS: clients whose updates differ most from a forecast."""

from __future__ import annotations

from collections.abc import Callable

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
from fedguard.core.errors import ParameterError
from fedguard.core.history import History
from fedguard.core.ids import ClientId
from fedguard.core.restored import vectors
from fedguard.core.state import State
from fedguard.core.ties import tolerance

from ._ranking import by_id, ranks


def forecast(series: Tensor, iterations: int, ridge: float) -> Tensor:
    """(p, n) X̂_{T+1} = A X_T B, with A (p × p) and B (n × n) fitted to X_{t+1} ≈ A X_t B.

    The fit alternates ridge regressions for A and B, starting from B = I.

    Args:
        series: (T, p, n) float64, T ≥ 2. For n > (T − 1) p, B is kept as factors of rank (T − 1) p.
        iterations: the number of fits of both A and B.
        ridge: the penalty, relative to the mean diagonal of the normal equations.
    """
    past, future = (
        series[:-1].clone(),
        series[1:].clone(),
    )  # equal alignment gives equal bits
    p, n = series.shape[1:]
    mix: Callable[[Tensor], Tensor] = torch.clone  # times B
    a = torch.eye(p, dtype=series.dtype)
    fit = _many_clients if n > len(past) * p else _few_clients
    for _ in range(iterations):
        mixed = mix(past)
        a = _ridge((future @ mixed.mT).sum(0), (mixed @ mixed.mT).sum(0), ridge)
        mix = fit(a @ past, future, ridge)
    return mix(a @ series[-1])


def _few_clients(moved: Tensor, future: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """X → X B for the (n, n) ridge regression B of ``future`` on ``moved``, both (T − 1, p, n)."""
    b = _ridge((future.mT @ moved).sum(0), (moved.mT @ moved).sum(0), ridge).T
    return lambda x: x @ b


def _many_clients(moved: Tensor, future: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """The same B = (MᵀM + λI)⁻¹ MᵀF = Mᵀ (M Mᵀ + λI)⁻¹ F, where M has fewer rows than clients."""
    m, f = moved.flatten(0, 1), future.flatten(0, 1)
    normal = m @ m.T
    penalty = ridge * (normal.trace() / m.shape[1]).clamp(min=torch.finfo(normal.dtype).tiny)
    solution = torch.linalg.solve(normal + penalty * torch.eye(len(m), dtype=normal.dtype), f)
    return lambda x: (x @ m.T) @ solution


def _ridge(right: Tensor, normal: Tensor, ridge: float) -> Tensor:
    """Right · (normal + penalty)⁻¹."""
    penalty = ridge * normal.diagonal().mean().clamp(min=torch.finfo(normal.dtype).tiny)
    table = normal + penalty * torch.eye(len(normal), dtype=normal.dtype)
    solution: Tensor = torch.linalg.solve(table, right.T.contiguous())
    return solution.T.contiguous()


class FLANDERS(Detector):
    """s_i = ‖x_i − x̂_i‖², x̂ the matrix-autoregressive forecast of the sampled coordinates of all updates.

    X_t (coordinates × clients) is predicted as A X_{t−1} B from a window of rounds. The f clients with the
    highest scores are suspects (ties by client id). The coordinates are sampled once per federation. Only
    clients that were in every round of the window are compared with a forecast; others are not judged and get
    the median score. Until there are two past rounds, no client is judged.

    Args:
        num_malicious: f; None assumes ⌊(n − 1)/2⌋, the most that an honest majority allows.
        window: rounds of history.
        coordinates: the number of sampled coordinates; at most d.
        iterations: the number of alternating regressions.
        ridge: the penalty, relative to the data; the paper's code adds a constant instead.

    Raises:
        ParameterError: a parameter out of range.

    Source: Gabrielli et al., FLANDERS, 2023 (arXiv 2303.16668), §4.
    """

    card = Card(
        "flanders",
        "distance to a forecast of all clients' updates",
        "Gabrielli et al., FLANDERS, arXiv 2023",
    )
    warm_up = 2

    def __init__(
        self,
        num_malicious: int | None = None,
        window: int = 5,
        coordinates: int = 100,
        iterations: int = 20,
        ridge: float = 1e-3,
    ) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"flanders: num_malicious is {num_malicious}; it cannot be negative")
        if window < 2:
            raise ParameterError(f"flanders: window is {window}; at least 2 rounds are needed")
        for name, value in (("coordinates", coordinates), ("iterations", iterations)):
            if value < 1:
                raise ParameterError(f"flanders: {name} is {value}; use at least 1")
        if not 0 < ridge < float("inf"):
            raise ParameterError(f"flanders: ridge is {ridge}; use a finite number above 0")
        self.num_malicious = num_malicious
        self.window = window
        self.coordinates = coordinates
        self.iterations = iterations
        self.ridge = ridge
        self._past: list[History[Tensor]] = []

    def min_clients(self) -> int:
        """f + 1, so that at least one client is kept."""
        return (self.num_malicious or 0) + 1

    def score(self, round: Round) -> Scores:
        """Forecast and compare."""
        sample = self._sample(round)
        known = [i for i in by_id(round.client_ids) if self._followed(round.client_ids[i], sample.shape[1])]
        values, suspects = np.zeros(round.n), np.zeros(round.n, dtype=bool)
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        if len(self._past) >= 2 and known:
            values[known] = self._distances(sample, round.client_ids, known)
            rest = np.setdiff1d(np.arange(round.n), known)
            values[rest] = np.median(values[known])
            slack = tolerance(round.n, sample.shape[1], 12)
            suspects = ranks(values, round.client_ids, slack, scale=1.0) >= round.n - f
            suspects[rest] = False
        rows = {client: row.clone() for client, row in zip(round.client_ids, sample, strict=True)}
        return Scores(values, suspects, f"among the {f} worst forecasts", memory=rows)

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the sampled coordinates of the last rounds."""
        if scores.memory is not None:
            self._past = [*self._past, History(scores.memory.items())][-self.window :]

    def state_dict(self) -> State:
        """The sampled coordinates by round and client id."""
        return {"past": [[[client, row] for client, row in rows.items()] for rows in self._past]}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._past = [History(vectors(rows)) for rows in state["past"]]

    def _followed(self, client: ClientId, size: int) -> bool:
        """Whether a client took part, with a model of this size, in every round of the window."""
        return bool(self._past) and all(rows.of_size(client, size) is not None for rows in self._past)

    def _sample(self, round: Round) -> Tensor:
        d = round.updates.d
        if self.coordinates >= d:
            return round.updates.between(slice(d)).matrix.cpu()
        draw = (round.server or Server()).generator("flanders")
        chosen = torch.randperm(d, generator=draw)[: self.coordinates].sort().values
        return round.updates.columns(chosen).cpu()

    def _distances(
        self, sample: Tensor, client_ids: tuple[ClientId, ...], known: list[int]
    ) -> NDArray[np.float64]:
        past = [torch.stack([rows[client_ids[i]] for i in known], 1) for rows in self._past]
        series, now = torch.stack(past).double(), sample[known].double().T.contiguous()
        scale = series.abs().max().clamp(min=torch.finfo(torch.float64).tiny)  # huge updates stay finite
        series, now = series / scale, now / scale
        errors = (now - forecast(series, self.iterations, self.ridge)).square().sum(0)
        distances: NDArray[np.float64] = errors.numpy().round(12)
        return np.nan_to_num(distances, nan=np.inf, posinf=np.inf)
