"""``fedguard plot``: one figure with matplotlib, from the same data as the report."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError, ParameterError
from ...core.extras import extra_module
from ...core.files import why, write_atomically
from ...core.params import nearest
from .plot_ranks import rank_figure, size_of
from .report.pictures import short
from .report.results import HEATS, NAMED, HeatMap, Panel, Section, curves, heat_maps, ranks, sections
from .report.scores import Distribution, distribution, roc_panel, verdicts
from .store import Store
from .tables import columns_named
from .versus import chosen_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("heatmap", "accuracy", "roc", "scores", "critical_difference")
FORMATS = (".png", ".svg", ".pdf")
#: The most panels of a figure.
MAX_PANELS = 48
#: The report's colors, distinguishable with any kind of color vision.
COLORS = ("#0072b2", "#d55e00", "#00845f", "#a6458a", "#a87400", "#2f8fce", "#22262b", "#7a5230")
STYLES = ("-", "-", "-", "-", "--", "--", ":", ":")
WORSE_TO_BETTER = ("#8f3d00", "#ec9648", "#fce3cb", "#f1f0ee", "#d5e7f3", "#67a9d5", "#0b4a82")
GREY = "#c3c7cb"


def plot(
    folder: Path, kind: str, out: Path, metric: str = "dacc", where: Mapping[str, Any] | None = None
) -> Path:
    """Draw one figure of a results folder.

    Args:
        folder: what ``fedguard evaluate`` wrote.
        kind: "heatmap" (a metric by attack and defense), "accuracy" (by round, a panel per attack), "roc" (a
            panel per attack), "scores" (a panel per attack and defense), or "critical_difference" (average
            ranks of the defenses by a metric, with Nemenyi's test; all points of the grid together).
        out: the file, .png, .svg or .pdf.
        metric: the metric of the heat map, or the one that is ranked.
        where: keeps only runs with these values: setting → value or list of values. The rest must be at one
            point of the grid and in one mode.

    Returns:
        The file.

    Raises:
        ParameterError: an unknown kind, metric or format; no run or too many are left to draw; or matplotlib
            is not installed.
        ResultsError: the folder holds no finished run.
        ConfigError: the file cannot be written.
    """
    _check(kind, metric)
    if out.suffix.lower() not in FORMATS:
        raise ParameterError(f"cannot write {out.name}: use a name that ends in {', '.join(FORMATS)}")
    figure = draw(Store(folder), kind, metric, where)
    try:
        write_atomically(out, lambda fresh: figure.savefig(fresh, dpi=150, format=out.suffix[1:].lower()))
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {why(error)}") from None
    return out


def draw(
    store: Store, kind: str = "heatmap", metric: str = "dacc", where: Mapping[str, Any] | None = None
) -> Figure:
    """One figure of results; notebooks show it. See :func:`plot` for the arguments.

    Raises:
        ParameterError: an unknown kind or metric; no run or too many are left to draw; or matplotlib is not
            installed.
        ResultsError: the store holds no finished run.
    """
    _check(kind, metric)
    extra_module("matplotlib", "plot", "a figure")
    if kind == "critical_difference":
        runs = chosen_runs(store, where)
        ranked: Figure = rank_figure(store, runs, metric, _figure(*size_of(runs["defense"].nunique())))
        return ranked
    part = _only(sections(store, where))
    figure: Figure = _heat(_heat_map(part, metric)) if kind == "heatmap" else _panels(store, part, kind)
    return figure


def _check(kind: str, metric: str) -> None:
    if kind not in KINDS:
        raise ParameterError(f"no kind {kind!r}{nearest(kind, KINDS)} (known: {', '.join(KINDS)})")
    if kind == "critical_difference":
        columns_named([metric])
    elif metric not in HEATS:
        raise ParameterError(f"no heat map of {metric!r}{nearest(metric, HEATS)} (known: {', '.join(HEATS)})")


def _only(parts: Sequence[Section]) -> Section:
    if len(parts) > 1:
        names = "; ".join(f"{part.mode}{f' at {part.point}' if part.point else ''}" for part in parts[:6])
        raise ParameterError(
            f"one figure shows one point of the grid in one mode; choose with --where (there are {names})"
        )
    return parts[0]


def _heat_map(part: Section, metric: str) -> HeatMap:
    found = heat_maps(part, [metric])
    if not found:
        raise ParameterError(f"{metric} is undefined in all of these runs; choose another --metric")
    return found[0]


def _figure(width: float, height: float) -> Any:
    return _shown()(figsize=(width, height), layout="constrained")


@functools.cache
def _shown() -> Any:
    """matplotlib's figure, which notebooks show even if pyplot is not in use."""
    from matplotlib.figure import Figure

    class Picture(Figure):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=100)
            return stream.getvalue()

    return Picture


def _heat(chart: HeatMap) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = len(chart.attacks), len(chart.defenses)
    figure = _figure(2.6 + 0.52 * columns, 1.7 + 0.34 * rows)
    axis = figure.subplots()
    colors = WORSE_TO_BETTER if chart.column.best == "max" else WORSE_TO_BETTER[::-1]
    top = chart.column.scale
    values = [[cell.value * top for cell in line] for line in chart.cells]
    shades = LinearSegmentedColormap.from_list("worse to better", colors)
    image = axis.imshow(values, cmap=shades, vmin=0, vmax=top, aspect="auto")
    for i, line in enumerate(chart.cells):
        for j, cell in enumerate(line):
            dark = cell.shade is not None and cell.shade in (0, 1, 9, 10)
            axis.text(
                j,
                i,
                cell.text,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
                parse_math=False,
            )
    _name(axis.set_xticks, chart.defenses, rotation=45, ha="right", rotation_mode="anchor")
    _name(axis.set_yticks, chart.attacks)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("defense")
    axis.set_ylabel("attack")
    axis.set_title(f"{chart.name} ({chart.better})", fontsize=11)
    figure.colorbar(image, label=chart.column.title, pad=0.02)
    return figure


def _name(place: Any, names: Sequence[str], **style: Any) -> None:
    place(range(len(names)), [short(name) for name in names], fontsize=8, parse_math=False, **style)


def _panels(store: Store, part: Section, kind: str) -> Any:
    if kind == "scores":
        return _scores(store, part)
    if kind == "accuracy":
        panels = curves(store, part, "tacc")
    else:
        panels = [roc_panel(part, attack, verdicts(store, part, attack)) for attack in part.attacks]
    panels = [panel for panel in panels if panel.lines]
    figure, axes = _grid(len(panels), f"no {kind} to draw")
    for axis, panel in zip(axes, panels, strict=True):
        _lines(axis, panel, kind)
    _labels(figure, *(("round", "test accuracy (%)") if kind == "accuracy" else _RATES))
    handles = {
        line.get_label(): line for axis in axes for line in axis.get_lines() if line.get_label()[0] != "_"
    }
    _legend(figure, handles, part)
    return figure


_RATES = ("false positive rate", "true positive rate")


def _grid(count: int, nothing: str, wide: int = 0) -> tuple[Any, list[Any]]:
    if count == 0:
        raise ParameterError(f"{nothing}: see `fedguard export`")
    if count > MAX_PANELS:
        raise ParameterError(f"{count} panels are too many for a figure; choose with --where attack=…")
    columns = wide if 0 < wide <= 5 else min(4, math.ceil(math.sqrt(count)))
    rows = -(-count // columns)
    figure = _figure(max(4.2, 2.7 * columns), 1.0 + 2.2 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def _labels(figure: Any, x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)


def _lines(axis: Any, panel: Panel, kind: str) -> None:
    for line in panel.lines:
        x, y = zip(*line.points, strict=True)
        named = line.rank >= 0
        color = COLORS[line.rank] if named else GREY
        style = STYLES[line.rank] if named else "-"
        label = short(line.name) if named else "_"
        axis.plot(x, y, style, color=color, linewidth=1.5 if named else 0.8, label=label, zorder=2 + named)
        if line.mark and named:
            axis.plot(
                *line.mark, "o", color=color, markerfacecolor="white", markersize=5, zorder=4, label="_"
            )
    axis.set_title(short(panel.title, 32), fontsize=9, parse_math=False)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    if kind == "roc":
        axis.plot([0, 1], [0, 1], ":", color="gray", linewidth=0.8, label="_")
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    else:
        axis.set_ylim(0, 100)
        axis.xaxis.get_major_locator().set_params(integer=True)


def _legend(figure: Any, handles: dict[str, Any], part: Section) -> None:
    gray = sum(rank < 0 for rank in ranks(part).values())
    note = f"; in gray: {gray} further" if gray else ""
    texts = list(handles)
    legend = figure.legend(
        handles.values(), texts, loc="outside upper center", ncol=min(NAMED // 2, len(texts)), fontsize=8,
        title=f"defense ({'mean over ' + str(part.seeds) + ' seeds' if part.seeds > 1 else '1 seed'}{note})",
        title_fontsize=8,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _scores(store: Store, part: Section) -> Any:
    found: list[tuple[str, Distribution]] = []
    for attack in part.attacks:
        for defense, table in verdicts(store, part, attack):
            runs = part.runs[(part.runs["attack"] == attack) & (part.runs["defense"] == defense)]
            spread = distribution(table, runs.iloc[0]["settings"])
            if spread is not None:
                found.append((f"{short(attack)} × {short(defense)}", spread))
    each, rest = divmod(len(found), len({title.rpartition(" × ")[0] for title, _ in found}) or 1)
    figure, axes = _grid(len(found), "no finite score to draw", 0 if rest else each)
    for axis, (title, spread) in zip(axes, found, strict=True):
        _mirrored(axis, spread)
        axis.set_title(title, fontsize=9, parse_math=False)
    _labels(figure, "score (higher is more suspicious)", "% of the scores of its kind")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncol=3, fontsize=8)
    return figure


def _mirrored(axis: Any, spread: Distribution) -> None:
    """Draw benign clients upwards, malicious ones downwards."""
    axis.stairs(spread.benign, spread.edges, fill=True, color=COLORS[0], alpha=0.85, label="benign ↑")
    down = [-share for share in spread.malicious]
    axis.stairs(down, spread.edges, fill=True, color=COLORS[1], alpha=0.85, label="malicious ↓")
    if spread.scale.kind == "log":
        axis.set_xscale("log")
    elif spread.scale.kind == "symlog":
        axis.set_xscale("symlog", linthresh=spread.scale.unit)
    cut = spread.cut
    axis.axvspan(cut.low, cut.high, color="gray", alpha=0.2, linewidth=0)
    axis.axvline(cut.middle, color="black", linestyle="--", linewidth=1.2, label="threshold (median, range)")
    axis.axhline(0, color="gray", linewidth=0.8)
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axis.tick_params(labelsize=7)
