"""Rules: turn scores into suspects, in place of the detector's own decision rule.

Each rule is a small function ``(values) -> (suspects, reason)``; :class:`Rule` builds one from its name and
parameters. ``native`` keeps the detector's own decision and is the default everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..core.errors import ParameterError
from ..core.params import check_params, nearest
from ..core.seeds import generator
from ..core.state import State
from ..core.ties import above, levels, tolerance
from ..geometry.clusters import gap_statistic
from ..geometry.clusters import two_means as _two_means
from .calibration import Calibration
from .scores import Scores

#: (n,) the suspects, and the reason for suspecting them.
Verdict: TypeAlias = tuple[NDArray[np.bool_], str]

#: Number of reference sets of the gap statistic.
REFERENCES = 10

#: A rule's name, or a mapping of ``name`` and parameters.
RuleSpec: TypeAlias = str | Mapping[str, Any]


def threshold(values: NDArray[np.float64], value: FiniteFloat) -> Verdict:
    """s_i > value."""
    return above(values, value, tolerance(len(values))), f"score above {value:g}"


def _order(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions by ascending score; equal scores keep their order."""
    return np.argsort(levels(values, tolerance(len(values))), kind="stable")


def top(values: NDArray[np.float64], count: NonNegativeInt) -> Verdict:
    """The ``count`` highest scores; of equal scores, later clients first."""
    suspects = np.zeros(len(values), dtype=bool)
    if count > 0:
        suspects[_order(values)[-count:]] = True
    return suspects, f"among the {count} highest scores"


def keep(values: NDArray[np.float64], count: NonNegativeInt) -> Verdict:
    """All but the ``count`` lowest scores; of equal scores, earlier clients are kept first."""
    suspects = np.ones(len(values), dtype=bool)
    suspects[_order(values)[:count]] = False
    return suspects, f"not among the {count} lowest scores"


def mad(values: NDArray[np.float64], k: NonNegativeFloat = 3.5) -> Verdict:
    """0.6745 · (s_i − median) / MAD > k: the modified z-score of Iglewicz & Hoaglin (1993).

    If MAD = 0 (more than half of the scores are equal), every score above the median is a suspect. If the
    median is +Inf, no client is.
    """
    center, slack = np.median(values), tolerance(len(values))
    size = np.median(np.abs(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.median(np.abs(values - center))
        spread = spread if above(spread, 0.0, slack, size) else 0.0  # equal up to rounding
        z = np.where(above(values, center, slack, size), 0.6745 * (values - center) / spread, 0.0)
    return above(z, k, slack), f"score more than {k:g} robust deviations above the median"


def three_sigma(values: NDArray[np.float64], k: NonNegativeFloat = 3.0) -> Verdict:
    """s_i > μ + k σ with the population standard deviation σ; +Inf is a suspect, and excluded from μ and σ.

    None of n scores can exceed μ + σ √(n − 1), so that k = 3 needs n ≥ 11.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return values == np.inf, "an infinite score"
    scale = np.abs(finite).max()
    scaled = finite / scale if scale > 0 else finite  # squares of huge scores overflow
    limit = scaled.mean() + k * scaled.std()
    higher = above(values / (scale if scale > 0 else 1.0), limit, tolerance(len(values)), scale=1.0)
    return higher, f"score more than {k:g} standard deviations above the mean"


def two_means(values: NDArray[np.float64], max_clusters: PositiveInt = 9) -> Verdict:
    """The higher cluster of 2-means if the gap statistic finds more than one cluster; otherwise no client.

    +Inf is a cluster by itself. The reference sets come from a fixed seed. Source: Tibshirani et al. 2001.
    """
    if np.isposinf(values).any():
        return np.isposinf(values), "an infinite score"
    finite = np.sort(np.maximum(values, np.finfo(np.float64).min / 4))
    clusters = gap_statistic(finite, max_clusters, REFERENCES, generator(0, "rule two_means"))
    higher = _two_means(values) if clusters > 1 else np.zeros(len(values), dtype=bool)
    return higher, "in the higher of two clusters of scores"


RULES: dict[str, Callable[..., Verdict]] = {
    "threshold": threshold,
    "top": top,
    "keep": keep,
    "mad": mad,
    "three_sigma": three_sigma,
    "two_means": two_means,
}


class Rule:
    """Scores → suspects, by a rule given by name.

    Args:
        spec: ``"native"``, ``"calibrated"``, a name in ``RULES``, or ``{"name": …, parameter: …}``.

    Raises:
        ParameterError: the rule or one of its parameters is unknown or missing.

    Example:
        >>> import numpy as np
        >>> from fedguard import Scores
        >>> from fedguard.contracts.rules import Rule
        >>> suspects, reason = Rule({"name": "top", "count": 1})(Scores(np.array([0.1, 0.7, 0.2])))
        >>> suspects.tolist(), reason
        ([False, True, False], 'among the 1 highest scores')
    """

    def __init__(self, spec: RuleSpec = "native") -> None:
        if not isinstance(spec, str | Mapping):
            raise ParameterError(f"a rule is a name or a mapping with name and parameters, not {spec!r}")
        params = {"name": spec} if isinstance(spec, str) else dict(spec)
        self.name = str(params.pop("name", ""))
        self._apply: Callable[[NDArray[np.float64]], Verdict] | None = None
        self._memory: Calibration | None = None
        if self.name == "native":
            check_params(_native, params, "rule native")
            return
        if self.name == "calibrated":
            self._memory = Calibration(**check_params(Calibration, params, "rule calibrated"))
            return
        if self.name not in RULES:
            known = ["native", "calibrated", *RULES]
            raise ParameterError(
                f"unknown rule {self.name!r}{nearest(self.name, known)} (known: {', '.join(known)})"
            )
        function = RULES[self.name]
        self._apply = functools.partial(
            function, **check_params(function, params, f"rule {self.name}", frozenset({"values"}))
        )

    def __call__(self, scores: Scores, detector: str = "") -> Verdict:
        """(n,) the suspects, and the reason for suspecting them.

        Args:
            scores: a detector's scores.
            detector: its name, for rules that learn from its earlier scores.

        Raises:
            ParameterError: the rule is "native", and the detector has no decision rule.
        """
        if self._memory is not None:
            return self._memory(scores.values, detector)
        if self._apply is not None:
            return self._apply(scores.values)
        if scores.suspects is None:
            raise ParameterError("the detector has no decision rule of its own; give the policy a `rule`")
        return scores.suspects, scores.reason or "flagged by the detector's own rule"

    def commit(self, scores: Mapping[str, Scores]) -> None:
        """Learn from the scores of an accepted round (detector name → scores), if the rule learns."""
        if self._memory is not None:
            for detector, part in scores.items():
                self._memory.commit(part.values, detector)

    def state_dict(self) -> State:
        """A snapshot of what the rule has learned."""
        return {} if self._memory is None else self._memory.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        if self._memory is not None:
            self._memory.load_state_dict(state)


def _native() -> None:
    """What the detector itself says, by the rule of its own paper: the default, without parameters."""


#: Every rule by name, with what describes it and takes its parameters.
DESCRIBED: dict[str, Callable[..., Any]] = {"native": _native, "calibrated": Calibration, **RULES}
