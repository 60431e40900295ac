"""What a search asks for: an attack within a defense's tolerance, or a defense that bears its worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...core.errors import ParameterError
from ...core.params import nearest
from ..results.frame import MEANS
from ..results.store import Store
from ..results.tables import COLUMNS, Column

if TYPE_CHECKING:
    import pandas as pd

#: Measures of time differ between two runs; the others need runs that a search does not have.
_NOT = ("detector_share", "detector_seconds", "peak_memory", "accuracy_lost", "harm")
#: The metrics that a search can ask for: those of single runs with a better and a worse.
METRICS = tuple(name for name, c in COLUMNS.items() if c.best and name in MEANS and name not in _NOT)
#: Metrics of the defended model, which there is none of in shadow mode.
DEFENDED = ("tacc", "tacc_best", "asr")


@dataclass(frozen=True)
class Score:
    """What one point of the space came to.

    Attributes:
        value: the metric against the opponent that decides, mean over seeds; NaN if the point failed.
        accepted: the smallest share of attacking updates that a defense let in, see :func:`accepted`.
        opponent: the opponent that decides.
        error: why the point failed, or an empty string.
    """

    value: float
    accepted: float = 1.0
    opponent: str = ""
    error: str = ""


@dataclass(frozen=True)
class Goal:
    """What is searched.

    An attack x is worth max over defenses d of M(x, d) for a metric M where more is better for the defender
    (TACC), and min over d of M(x, d) where less is (ASR): what it does to the defense that bears it best. The
    search makes the attacker's gain largest among attacks with accepted(x, d) ≥ 1 − ε for every d.

    A defense x is worth min over attacks a of M(a, x), or max where less is better: its worst attack. The
    search makes that worst case best. M is a mean over seeds.

    Attributes:
        kind: what is tuned: "attacks" or "defenses".
        label: its label in the suite.
        against: the labels of its opponents.
        metric: M.
        tolerance: ε; for attacks only.
    """

    kind: Literal["attacks", "defenses"]
    label: str
    against: tuple[str, ...]
    metric: Column
    tolerance: float = 0.1

    @property
    def minimize(self) -> bool:
        """Whether a smaller value is nearer to the goal."""
        return (self.metric.best == "min") == (self.kind == "defenses")

    @property
    def opponents(self) -> str:
        """The key of a suite that holds the opponents."""
        return "defenses" if self.kind == "attacks" else "attacks"

    def violation(self, score: Score) -> float:
        """1 − ε − accepted: how far the defense's tolerance is exceeded; at most 0 if it is not."""
        return 1.0 - self.tolerance - score.accepted if self.kind == "attacks" else 0.0

    def allowed(self, score: Score) -> bool:
        """Whether a point ran and its attack is within the tolerance."""
        return not score.error and self.violation(score) <= 1e-9

    def better(self, one: Score, other: Score) -> bool:
        """Whether one score is nearer to the goal than another."""
        return one.value < other.value if self.minimize else one.value > other.value

    def best(self, scores: Sequence[Score]) -> int | None:
        """The position of the first best score that is allowed; None if none is."""
        found: int | None = None
        for position, score in enumerate(scores):
            if self.allowed(score) and (found is None or self.better(score, scores[found])):
                found = position
        return found

    def scores(self, store: Store, labels: Sequence[str]) -> list[Score]:
        """The scores of the points with these labels, from a results folder with all their runs.

        Raises:
            ParameterError: the metric is undefined in all of them.
        """
        runs = store.table("runs")
        runs["accepted"] = runs["run"].map(accepted(store.table("clients"))).fillna(1.0)
        own, theirs = ("attack", "defense") if self.kind == "attacks" else ("defense", "attack")
        found = [self._score(runs[runs[own] == label], theirs) for label in labels]
        if all(math.isnan(s.value) and not s.error for s in found):
            raise ParameterError(
                f"{self.metric.name} is undefined in every run of {self.label} against "
                f"{', '.join(self.against)}; choose another --metric"
            )
        return found

    def _score(self, runs: pd.DataFrame, theirs: str) -> Score:
        failed = runs[runs["status"] == "failed"]
        if len(failed):
            return Score(math.nan, error=str(failed["error"].iloc[0]).strip().splitlines()[-1])
        groups = runs.groupby(theirs, sort=False)
        values = groups[self.metric.name].apply(lambda column: column.astype(float).mean()).dropna()
        if values.empty:
            return Score(math.nan)
        # The tuned side faces the opponent that is hardest for it.
        decides: Any = values.idxmax() if self.minimize else values.idxmin()
        return Score(float(values[decides]), float(groups["accepted"].mean().min()), str(decides))


def accepted(clients: pd.DataFrame) -> pd.Series[float]:
    """Per run, the share of attacking updates that the defense let in.

    #{(c, t): c attacked in round t, weight > 0} / #{(c, t): c attacked in round t, or was kept out by a ban}

    c runs over the malicious clients.
    Undefined if nobody attacked. A policy that only lowers weights lets an update in unless its weight is 0.
    """
    malicious = clients["malicious"] == 1
    kept_out = (clients["participated"] == 0) & (clients["banned"] == 1)
    tried = clients[malicious & ((clients["attacking"] == 1) | kept_out)]
    let_in = (tried["weight"].fillna(0) > 0).astype(float)
    share: pd.Series[float] = let_in.groupby(tried["run"]).mean()
    return share


def metric_named(name: str, mode: str) -> Column:
    """A metric of a search.

    Raises:
        ParameterError: there is none of this name, or not in this mode.
    """
    if name not in METRICS:
        raise ParameterError(
            f"cannot tune for {name!r}{nearest(name, METRICS)} (known: {', '.join(METRICS)})"
        )
    if mode == "shadow" and name in DEFENDED:
        raise ParameterError(f"in shadow mode {name} is the undefended model's; use dacc, or mode=closed")
    return COLUMNS[name]
