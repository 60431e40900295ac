"""The contents of a report: sections, heat maps, curves over rounds, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ....core.errors import ParameterError
from ..figures.style import NO_DEFENSE, looks
from ..frame import BY, metrics_frame, run_frame
from ..marks import marks
from ..names import display_all, names_of
from ..store import Store
from ..tables import COLUMNS, SHOWN, Column, Marks, columns_named, defined, show, shown

if TYPE_CHECKING:
    import pandas as pd

#: Metrics that get a heat map if they are defined.
HEATS = ("dacc", "fpr", "fnr", "auroc", "tacc", "asr")
#: Steps of the color scale; 0 is the worst.
SHADES = 10
#: How many defenses have their own color in line charts; the others are gray.
NAMED = 8
#: The most points of a line.
LINE_POINTS = 80
#: The parts of a run's seconds.
PARTS = ("training", "detectors", "policy", "aggregator")


Corner = TypeVar("Corner")


@dataclass(frozen=True)
class Section:
    """One point of the grid in one mode.

    Attributes:
        point: the point of the grid, as text; empty without a grid.
        mode: "closed" or "shadow".
        frame: a row per attack and defense, under their names in print, see
            :func:`fedguard.evaluation.results.frame.read_results`.
        runs: a row per run.
        modes: how many modes all sections have.
        labels: the name in print of every defense → its label in the suite.
        marks: which numbers of the frame are marked, by its index.
    """

    point: str
    mode: str
    frame: pd.DataFrame
    runs: pd.DataFrame
    modes: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    marks: Marks = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its heading."""
        return self.place or "Results"

    @property
    def place(self) -> str:
        """The point of the grid and, if needed, the mode."""
        mode = {"shadow": "shadow mode"}.get(self.mode, "closed loop" if self.modes > 1 else "")
        return "; ".join(part for part in (self.point, mode) if part)

    @property
    def attacks(self) -> list[str]:
        """The labels of its attacks, in the suite's order."""
        return list(dict.fromkeys(self.frame["attack"]))

    @property
    def defenses(self) -> list[str]:
        """The labels of its defenses, in the suite's order."""
        return list(dict.fromkeys(self.frame["defense"]))

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return int(self.runs["seed"].nunique())

    def row(self, attack: str, defense: str) -> Any:
        """The frame's row of an attack and a defense; None if there is none."""
        found = self.frame[(self.frame["attack"] == attack) & (self.frame["defense"] == defense)]
        return None if found.empty else found.iloc[0]


def sections(store: Store, where: Mapping[str, Any] | None = None) -> list[Section]:
    """The runs of a store by point of the grid and mode.

    Args:
        store: of a results folder.
        where: keeps only runs with these values: attack, defense, mode, seed or the key path of a setting →
            value or list of values.

    Raises:
        ResultsError: the store holds no run.
        ParameterError: there is no such setting, or nothing is left.
    """
    wanted = {k: v if isinstance(v, list) else [v] for k, v in (where or {}).items()}
    keys = list(dict.fromkeys([*BY, *wanted]))
    frame, runs = metrics_frame(store, keys), run_frame(store, keys)
    for path, values in wanted.items():
        texts = [str(value) for value in values]
        frame, runs = (table[table[path].astype(str).isin(texts)] for table in (frame, runs))
    if frame.empty:
        raise ParameterError(f"{store.folder}: no run is left to show; see `fedguard export -f csv`")
    if frame.duplicated(list(BY)).any():
        raise ParameterError("several seeds are averaged; choose one of them, or leave `seed` out")
    modes = int(frame["mode"].nunique())
    names = names_of(store.folder)
    known = {key: display_all(frame[key].unique(), names) for key in ("attack", "defense")}
    labels = {name: label for label, name in known["defense"].items()}
    frame, runs = (table.assign(**{k: table[k].map(v) for k, v in known.items()}) for table in (frame, runs))
    found = marks(frame, runs, defined(frame, columns_named(SHOWN)))
    groups = frame.groupby(["point", "mode"], sort=False)
    return [
        Section(
            str(point),
            str(mode),
            part,
            runs[(runs["point"] == point) & (runs["mode"] == mode)],
            modes,
            labels,
            found,
        )
        for (point, mode), part in groups
    ]


@dataclass(frozen=True)
class HeatCell:
    """One attack and one defense.

    Attributes:
        value: a fraction, NaN if undefined.
        text: the value as shown; empty if undefined.
        label: the text with the names, and what the mean is over.
        shade: 0 (worst) to :data:`SHADES` (best), None if undefined.
    """

    value: float
    text: str
    label: str
    shade: int | None


@dataclass(frozen=True)
class HeatMap:
    """A metric by attack (rows) and defense (columns), without empty rows and columns."""

    column: Column
    attacks: list[str]
    defenses: list[str]
    cells: list[list[HeatCell]]

    @property
    def better(self) -> str:
        """Whether higher or lower is better."""
        return "higher is better" if self.column.best == "max" else "lower is better"

    @property
    def unit(self) -> str:
        """The unit of its numbers."""
        return "%" if self.column.scale == 100 else "area, 0 to 1; 0.5 is guessing"

    @property
    def name(self) -> str:
        """The metric without its unit."""
        return self.column.title.removesuffix(" %")


def heat_maps(section: Section, names: Sequence[str] = HEATS) -> list[HeatMap]:
    """A heat map for every metric that has a value in the section."""
    maps = []
    for name in names:
        column = COLUMNS[name]
        known = section.frame[section.frame[name].notna()]
        if known.empty:
            continue
        attacks = [a for a in section.attacks if a in set(known["attack"])]
        defenses = [d for d in section.defenses if d in set(known["defense"])]
        rows = {(row["attack"], row["defense"]): row for _, row in section.frame.iterrows()}
        cells = [[_heat_cell(rows.get((a, d)), a, d, column) for d in defenses] for a in attacks]
        maps.append(HeatMap(column, attacks, defenses, cells))
    return maps


def _heat_cell(row: Any, attack: str, defense: str, column: Column) -> HeatCell:
    where = f"{attack} × {defense}: "
    if row is None:
        return HeatCell(math.nan, "", f"{where}not run", None)
    value = float(row[column.name])
    if math.isnan(value):
        failed = f", {int(row['failed'])} of {int(row['seeds'])} runs failed" if row["failed"] else ""
        return HeatCell(value, "×" if failed else "", f"{where}undefined{failed}", None)
    good = value if column.best == "max" else 1 - value
    label = f"{where}{column.title} {shown(row, column)}, {plural(int(row['seeds']), 'seed')}"
    return HeatCell(value, show(value, column), label, round(SHADES * min(max(good, 0.0), 1.0)))


@dataclass(frozen=True)
class Line:
    """A line in a picture.

    Attributes:
        name: the defense.
        rank: the number of its look (:mod:`fedguard.evaluation.results.figures.style`); -1 for gray.
        points: x and y.
        mark: one point to mark, if any.
        band: x, and the lowest and the highest y over seeds; empty with one seed.
    """

    name: str
    rank: int
    points: list[tuple[float, float]]
    mark: tuple[float, float] | None = None
    band: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """One of several charts that share axes and legend."""

    title: str
    lines: list[Line] = field(default_factory=list)


def looks_of(section: Section) -> dict[str, int]:
    """The look of every defense, the same in all figures; -1 (gray) beyond the first in the suite's order."""
    names = section.defenses
    known = looks([section.labels.get(name, name) for name in names[:NAMED]])
    return {name: known[section.labels.get(name, name)] if i < NAMED else -1 for i, name in enumerate(names)}


def curves(store: Store, section: Section, metric: str) -> list[Panel]:
    """A metric of the table ``rounds`` in percent by round (from 1), a panel per attack, a line per defense.

    Lines are means over seeds. In shadow mode no defense acts, so one line stands for all of them.
    """
    runs = section.runs[["run", "attack", "defense"]]
    table = store.rows("rounds", runs["run"]).merge(runs, on="run")
    table = table[table[metric].notna()]
    if section.mode == "shadow":
        table = table.assign(defense="undefended")
    rounds = table.groupby(["attack", "defense", "round"], sort=False)[metric]
    spread = rounds.agg(["mean", "min", "max"]) * 100
    lines: dict[str, list[Line]] = {}
    known = {"undefended": NO_DEFENSE} if section.mode == "shadow" else looks_of(section)
    for (attack, defense), part in spread.groupby(["attack", "defense"], sort=False):
        part = part.sort_index()
        x = [float(number) + 1 for _, _, number in part.index]
        points = thinned(list(zip(x, part["mean"].tolist(), strict=True)))
        band = list(zip(x, part["min"].tolist(), part["max"].tolist(), strict=True))
        line = Line(defense, known[defense], points, band=thinned(band) if section.seeds > 1 else [])
        lines.setdefault(attack, []).append(line)
    return [Panel(attack, lines[attack]) for attack in section.attacks if attack in lines]


def thinned(points: list[Corner]) -> list[Corner]:
    """At most :data:`LINE_POINTS` points, including the first and the last."""
    step = -(-len(points) // LINE_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


@dataclass(frozen=True)
class Cost:
    """The costs of a defense: seconds per run and part, means over attacks and seeds."""

    defense: str
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """The seconds of all parts."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """The detectors' share of them."""
        return self.seconds["detectors"] / self.total if self.total > 0 else math.nan


def costs(store: Store, section: Section) -> list[Cost]:
    """A bar for every defense of the section that has finished runs."""
    runs = section.runs[["run", "defense"]]
    table = store.rows("timings", runs["run"]).merge(runs, on="run")
    table = table[table["part"].isin(PARTS)]
    means = table.groupby(["defense", "part"])["seconds"].mean()
    known = {d for d, _ in means.index}
    return [
        Cost(d, {part: float(means.get((d, part), 0.0)) for part in PARTS})
        for d in section.defenses
        if d in known
    ]


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
