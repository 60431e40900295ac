"""Calibration: a threshold learned from the scores of rounds that are assumed to be clean."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from ..core.errors import ParameterError
from ..core.state import State
from ..core.ties import above, tolerance


def conformal_threshold(clean: NDArray[np.float64], rate: float) -> float:
    """The ⌈(k + 1)(1 − rate)⌉-th smallest of k clean scores: another clean score exceeds it with P ≤ rate.

    The bound holds for exchangeable clean scores of any distribution. The threshold is +Inf if k is too small
    for it (k + 1 < 1/rate).

    Args:
        clean: (k,) scores; +Inf allowed.
        rate: the target false-positive rate, in (0, 1).

    Source: Vovk et al., Algorithmic Learning in a Random World, 2005 (split conformal prediction).
    """
    rank = math.ceil((len(clean) + 1) * (1 - rate) - 1e-9)  # 0.9 · 10 is 9.000000000000002
    return float(np.sort(clean)[rank - 1]) if rank <= len(clean) else math.inf


class Calibration:
    """s_i > the conformal threshold of all scores in the first ``rounds`` rounds, which are assumed clean.

    During these rounds no client is a suspect. Each detector has its own threshold.

    Args:
        rate: the target false-positive rate per client and round, in (0, 1).
        rounds: how many rounds to learn from. They must be clean, for example with vetted clients only.

    Raises:
        ParameterError: ``rate`` is not in (0, 1).
    """

    def __init__(self, rate: float = 0.01, rounds: PositiveInt = 10) -> None:
        if not 0 < rate < 1:
            raise ParameterError(f"rule calibrated: rate is {rate}; use a share in (0, 1), say 0.01")
        self.rate = rate
        self.rounds = rounds
        self._clean: dict[str, list[list[float]]] = {}

    def __call__(self, values: NDArray[np.float64], detector: str) -> tuple[NDArray[np.bool_], str]:
        """(n,) the suspects, and the reason for suspecting them."""
        rounds = self._clean.get(detector, [])
        if len(rounds) < self.rounds:
            return np.zeros(len(values), dtype=bool), "still learning"
        limit = conformal_threshold(np.array([score for part in rounds for score in part]), self.rate)
        return above(
            values, limit, tolerance(len(values))
        ), f"score above {limit:.4g}, which 1 clean score in {1 / self.rate:.4g} exceeds"

    def commit(self, values: NDArray[np.float64], detector: str) -> None:
        """Learn from one more round; does nothing once ``rounds`` rounds have been learned."""
        rounds = self._clean.setdefault(detector, [])
        if len(rounds) < self.rounds:
            rounds.append(values.tolist())

    def state_dict(self) -> State:
        """The clean scores by detector, as text, since JSON has no infinity."""
        return {name: [[str(s) for s in part] for part in rounds] for name, rounds in self._clean.items()}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._clean = {n: [[float(s) for s in part] for part in rounds] for n, rounds in state.items()}
