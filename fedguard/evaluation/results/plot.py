"""``fedguard plot`` and ``results.plot``: which figure, of which runs, to which file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.files import is_file
from ...core.params import nearest
from ...recording.index import INDEX
from ...recording.recording import Recording
from ..suites.holdings import Holdings, federations, holdings
from ..suites.load import load_suite
from . import plot_holdings
from .figures import (
    client_map,
    confusion,
    curves,
    heatmap,
    pareto,
    printed,
    ranks,
    roc,
    scores,
    skew_share,
    timelines,
    who_sees_what,
)
from .figures.picture import Picture
from .figures.saved import check_format, save
from .figures.style import Sheet
from .names import display_all, names_of
from .ranks import ranking
from .report.results import HEATS, HeatMap, Section, heat_maps, sections
from .report.results import curves as curves_of
from .report.scores import distribution, roc_panel, verdicts
from .report.timeline import timeline
from .store import Store
from .tables import columns_named
from .versus import chosen_runs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot(
    folder: Path,
    kind: str,
    out: Path | None = None,
    metric: str = "dacc",
    where: Mapping[str, Any] | None = None,
    sheet: Sheet | None = None,
) -> Path:
    """Draw one figure of a results folder, or of a recording.

    Args:
        folder: what ``fedguard evaluate`` wrote; a recording for a client map.
        kind: one of :data:`KINDS`, see :func:`draw`.
        out: the file, .svg, .pdf or .png; KIND.svg in the folder, or beside a recording, if absent.
        metric: the metric of the heat map, or the one that is ranked.
        where: keeps only runs with these values: setting → value or list of values. The rest must be at one
            point of the grid and in one mode, see :func:`draw`. For a client map, ``round`` chooses rounds.
        sheet: size and colors; two columns on white if absent.

    Returns:
        The file.

    Raises:
        ParameterError: an unknown kind, metric or format; no run or too many are left to draw; or matplotlib
            is not installed.
        ResultsError: the folder holds no finished run.
        ConfigError: the file cannot be written.
    """
    _check(kind, metric)
    recorded = is_file(folder / INDEX)
    beside = folder.with_name(f"{folder.name}-{kind}.svg")  # a recording holds its own files only
    out = out or (beside if recorded else folder / f"{kind}.svg")
    check_format(out)
    sheet = sheet or Sheet()
    if recorded:
        figure = draw_recording(Recording(folder), kind, where, sheet)
    else:
        figure = draw(Store(folder), kind, metric, where, sheet)
    save(figure, out, sheet)
    return out


def draw(
    store: Store,
    kind: str = "heatmap",
    metric: str = "dacc",
    where: Mapping[str, Any] | None = None,
    sheet: Sheet | None = None,
) -> Figure:
    """One figure of results; notebooks show it.

    Kinds: "heatmap" (a metric by attack and defense), "accuracy" and "success" (of the attack, by round, a
    panel per attack), "roc" (a panel per attack), "scores", "timeline" and "confusion" (a panel per attack
    and defense), "pareto" (FPR against FNR), "cost" (accuracy against seconds), "who_sees_what", and
    "critical_difference" (average ranks of the defenses by a metric, with Nemenyi's test) and "skew_share"
    (AUROC by partition and share of malicious clients), of several points of the grid together; and
    "partition" (who has what at the first seed: it reads the data).
    See :func:`plot` for the arguments.

    Raises:
        ParameterError: an unknown kind or metric; no run or too many are left to draw; or matplotlib is not
            installed.
        ResultsError: the store holds no finished run.
    """
    _check(kind, metric)
    extra_module("matplotlib", "plot", "a figure")
    sheet = sheet or Sheet()
    if kind == "client_map":
        raise ParameterError("a client map needs updates: give a recording (`fedguard evaluate --record`)")
    if kind == "partition":
        dealt: Figure = plot_holdings.draw(_holdings(store, where), True, sheet)
        return dealt
    with sheet.style():
        figure: Figure = printed.draw(sheet, _picture(store, kind, metric, where))
        return figure


def _holdings(store: Store, where: Mapping[str, Any] | None) -> Holdings:
    """Who has what at the chosen point of the grid, at the suite's first seed or the chosen one."""
    plan, source = load_suite(store.folder / "suite.yaml")
    wanted = {k: [str(v) for v in (v if isinstance(v, list) else [v])] for k, v in (where or {}).items()}
    seed = wanted.pop("seed", [""])[0]
    cells = federations(plan, source, int(seed) if seed.isdecimal() else None)
    wanted = {path: found for path, found in wanted.items() if path not in ("attack", "defense", "mode")}
    unknown = sorted(set(wanted) - set(cells[0].point))
    if unknown:
        raise ParameterError(f"the grid of {store.folder} has no {unknown[0]}, so that nothing depends on it")
    left = [c for c in cells if all(str(c.point[path]) in found for path, found in wanted.items())]
    if len(left) != 1:
        points = "; ".join(", ".join(f"{k} = {v}" for k, v in cell.point.items()) for cell in cells[:6])
        raise ParameterError(f"one figure shows one partition; choose with --where (there are {points})")
    return holdings(left[0], source)


def _picture(store: Store, kind: str, metric: str, where: Mapping[str, Any] | None) -> Picture:
    if kind == "critical_difference":
        found = ranking(chosen_runs(store, where), *columns_named([metric]))
        called = display_all(found.names, names_of(store.folder))
        return ranks.critical_difference(found, list(called.values()))
    if kind == "skew_share":
        return skew_share.skew_share(chosen_runs(store, where), names_of(store.folder))
    part = _only(sections(store, where))
    return heatmap.heatmap(_heat_map(part, metric)) if kind == "heatmap" else pictured(store, part, kind)


def draw_recording(
    recording: Recording, kind: str, where: Mapping[str, Any] | None = None, sheet: Sheet | None = None
) -> Figure:
    """The figure of a recording: a client map.

    Raises:
        ParameterError: another kind, no such round, or matplotlib is not installed.
        ResultsError: the recording is damaged.
    """
    extra_module("matplotlib", "plot", "a figure")
    if kind != "client_map":
        raise ParameterError(f"{recording.folder} is a recording: draw it with --kind client_map")
    given = dict(where or {})
    rounds = given.pop("round", [])
    rounds = rounds if isinstance(rounds, list) else [rounds]
    if given or any(type(number) is not int for number in rounds):
        raise ParameterError("of a recording, --where chooses rounds only: --where round=[1,5]")
    sheet = sheet or Sheet()
    with sheet.style():
        figure: Figure = printed.draw(sheet, client_map.client_map(client_map.maps(recording, rounds)))
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


def _each(store: Store, part: Section) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for attack in part.attacks:
        for defense, table in verdicts(store, part, attack):
            yield attack, defense, table


def pictured(store: Store, part: Section, kind: str) -> Picture:
    """What a figure shows of a section."""
    if kind in CURVES:
        metric, what = CURVES[kind]
        return curves.curves(curves_of(store, part, metric), what, part.seeds)
    if kind == "roc":
        return roc.roc([roc_panel(part, a, verdicts(store, part, a)) for a in part.attacks], part.seeds)
    if kind == "scores":
        settings = {(run["attack"], run["defense"]): run["settings"] for _, run in part.runs.iterrows()}
        spreads = [(a, d, distribution(table, settings[a, d])) for a, d, table in _each(store, part)]
        return scores.scores([(a, d, spread) for a, d, spread in spreads if spread is not None])
    if kind == "confusion":
        shares = [(a, d, confusion.shares(table)) for a, d, table in _each(store, part)]
        return confusion.confusion(shares, part.seeds)
    if kind == "timeline":
        found = [(a, d, timeline(table)) for a, d, table in _each(store, part)]
        return timelines.timelines([(a, d, one) for a, d, one in found if one is not None])
    if kind == "pareto":
        return pareto.trade_off_of_rates(part)
    if kind == "cost":
        return pareto.trade_off_of_costs(store, part)
    return who_sees_what.who_sees_what(part)


#: The metrics that are drawn by round, and their names.
CURVES = {"accuracy": ("tacc", "test accuracy"), "success": ("asr", "attack success")}
PICTURED = (*CURVES, "roc", "scores", "pareto", "cost", "timeline", "confusion", "who_sees_what")
KINDS = ("heatmap", *PICTURED, "skew_share", "client_map", "critical_difference", "partition")
