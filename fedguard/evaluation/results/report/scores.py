"""Scores of benign and malicious clients: distributions, decision thresholds, ROC curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..figures.axes import Scale, scale_for
from ..store import Store
from .results import Line, Panel, Section, looks_of

if TYPE_CHECKING:
    import pandas as pd

BINS = 28
#: At how many FPRs a mean ROC curve is sampled if its curves have more corners than that.
ROC_PLACES = 201
Curve = list[tuple[float, float]]


def verdicts(store: Store, section: Section, attack: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The table ``clients`` of one attack's runs, by defense, without defenses that have no detector."""
    runs = section.runs[(section.runs["attack"] == attack) & (section.runs["basis"].fillna("") != "")]
    table = store.rows("clients", runs["run"]).merge(runs[["run", "defense", "seed"]], on="run")
    yield from table.groupby("defense", sort=False)


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of clients that took part and have a score."""
    return table[(table["participated"] == 1) & table["score"].notna()]


# ---------------------------------------------------------------- distribution


@dataclass(frozen=True)
class Cut:
    """The score that separated suspects from other clients.

    Attributes:
        middle: the threshold, or the median over rounds of the midpoint between the highest accepted and the
            lowest suspect score; NaN if there is none.
        low: the lowest of these over the rounds.
        high: the highest.
        note: a description of it.
    """

    middle: float
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class Distribution:
    """Scores of all rounds and seeds of an attack and a defense.

    Attributes:
        scale: the scale of the score axis.
        edges: the edges of the bins.
        benign: the percentage of benign clients' scores in each bin.
        malicious: the percentage of malicious clients' scores in each bin.
        counts: how many scores there are, benign and malicious.
        infinite: how many of them are infinite and not drawn, benign and malicious.
        cut: the decision threshold.
    """

    scale: Scale
    edges: list[float]
    benign: list[float]
    malicious: list[float]
    counts: tuple[int, int]
    infinite: tuple[int, int]
    cut: Cut


def distribution(table: pd.DataFrame, settings: str) -> Distribution | None:
    """The distribution of the scores under one attack and defense; None without a finite score.

    Args:
        table: their rows of ``clients``.
        settings: of their runs, as JSON.
    """
    rows = scored(table)
    values, bad = rows["score"].to_numpy(float), rows["malicious"].to_numpy(bool)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    scale = scale_for(values[finite])
    places = scale.forward(values[finite])
    low, high = float(places.min()), float(places.max())
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    edges = np.linspace(low, high, BINS + 1)
    shares = []
    for kind in (False, True):
        mine = places[bad[finite] == kind]
        shares.append((np.histogram(mine, edges)[0] * 100 / max(1, len(mine))).tolist())
    return Distribution(
        scale=scale,
        edges=scale.backward(edges).tolist(),
        benign=shares[0],
        malicious=shares[1],
        counts=(int((~bad).sum()), int(bad.sum())),
        infinite=(int((~bad & ~finite).sum()), int((bad & ~finite).sum())),
        cut=cut_of(rows, settings),
    )


def cut_of(rows: pd.DataFrame, settings: str) -> Cut:
    """The decision threshold: the rule's own if it has one, otherwise between scores, by round."""
    rule = ((json.loads(settings)["defense"].get("policy") or {}).get("rule")) or "native"
    if isinstance(rule, dict) and rule.get("name") == "threshold":
        value = float(rule["value"])
        return Cut(value, value, value, "threshold of the rule")
    cuts, crossed, total = [], 0, 0
    for _, part in rows.groupby(["run", "round"]):
        total += 1
        values, flagged = part["score"].to_numpy(float), part["suspect"].to_numpy(bool)
        if flagged.all() or not flagged.any():
            continue
        passed, caught = values[~flagged].max(), values[flagged].min()
        if passed > caught:
            crossed += 1
        elif math.isfinite(passed):
            cuts.append((passed + caught) / 2 if math.isfinite(caught) else passed)
    return _summed_up(cuts, crossed, total)


def _summed_up(cuts: Sequence[float], crossed: int, total: int) -> Cut:
    notes = []
    if crossed:
        notes.append(f"in {crossed} of {total} rounds the decision is not a threshold on the score")
    if not cuts:
        notes = notes or ["no round has both suspects and others, so no threshold is visible"]
        return Cut(math.nan, math.nan, math.nan, "; ".join(notes))
    notes.insert(0, f"threshold: median over the {len(cuts)} of {total} rounds that show it; band: its range")
    return Cut(float(np.median(cuts)), min(cuts), max(cuts), "; ".join(notes))


# ---------------------------------------------------------------- ROC


def roc(malicious: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(k, 2) corners of the ROC curve: FPR and TPR by falling threshold; None without both kinds of client.

    Equal scores are one threshold, so the area under the curve is :func:`fedguard.evaluation.metrics.auroc`.
    """
    positive, negative = int(malicious.sum()), int((~malicious).sum())
    if not positive or not negative:
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.append(scores[order][1:] != scores[order][:-1], True)
    hits, alarms = np.cumsum(malicious[order])[last], np.cumsum(~malicious[order])[last]
    corners = np.column_stack([alarms / negative, hits / positive])
    return np.vstack([[0.0, 0.0], corners])


def mean_curve(curves: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> Curve:
    """The mean TPR at every FPR (vertical averaging): the area under it is the mean of the areas."""
    places = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    if len(places) > ROC_PLACES:
        places = np.linspace(0.0, 1.0, ROC_PLACES)
    share = np.array(weights) / np.sum(weights)
    low, high = np.zeros(len(places)), np.zeros(len(places))
    for curve, weight in zip(curves, share, strict=True):
        below, above = _between(curve, places)
        low, high = low + weight * below, high + weight * above
    both = [point for x, a, b in zip(places, low, high, strict=True) for point in ((x, a), (x, b))]
    return _without_straight([(float(a), float(b)) for a, b in both])


def _between(
    curve: NDArray[np.float64], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest TPR of a curve at every FPR; they differ where the curve is vertical."""
    x, first = np.unique(curve[:, 0], return_index=True)
    low, high = curve[first, 1], curve[np.append(first[1:], len(curve)) - 1, 1]
    i = np.clip(np.searchsorted(x, places, "right") - 1, 0, len(x) - 1)
    j = np.minimum(i + 1, len(x) - 1)
    part = (places - x[i]) / np.where(x[j] > x[i], x[j] - x[i], 1.0)
    inner = high[i] + part * (low[j] - high[i])
    exact = x[i] == places
    return np.where(exact, low[i], inner), np.where(exact, high[i], inner)


def _without_straight(points: Curve) -> Curve:
    """The line without repeated points and without points inside straight segments."""
    kept: Curve = []
    for point in points:
        if kept and max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) < 1e-12:
            continue
        while len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _straight(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) < 1e-12


def roc_of(table: pd.DataFrame) -> Curve:
    """The mean ROC curve of a defense under an attack: over the rounds of each seed, then over seeds.

    The area under it is the AUROC of the tables. Empty if it is undefined in every round.
    """
    curves, owners = [], []
    for (run, _), part in scored(table).groupby(["run", "round"], sort=False):
        curve = roc(part["malicious"].to_numpy(bool), part["score"].to_numpy(float))
        if curve is not None:
            curves.append(curve)
            owners.append(run)
    if not curves:
        return []
    return mean_curve(curves, [1 / owners.count(run) for run in owners])


def roc_panel(section: Section, attack: str, parts: Iterable[tuple[str, Any]]) -> Panel:
    """A ROC curve per defense, each with the point at which it decided (mean FPR and TPR over rounds)."""
    lines = []
    known = looks_of(section)
    for defense, table in parts:
        curve = roc_of(table)
        row = section.row(attack, defense)
        if curve and row is not None:
            mark = (float(row["afpr"]), 1 - float(row["afnr"]))
            decided = not math.isnan(sum(mark))
            lines.append(Line(defense, known[defense], curve, mark if decided else None))
    return Panel(attack, sorted(lines, key=lambda line: section.defenses.index(line.name)))
