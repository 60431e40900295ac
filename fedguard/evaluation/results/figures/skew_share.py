"""How well scores rank attackers, by how unequal the clients' data are and how many clients attack."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ....core.errors import ParameterError
from ...terminal import plain
from ..names import display_all
from ..tables import UNDEFINED
from .grid import grid, labels, over, title
from .style import Sheet

if TYPE_CHECKING:
    import pandas as pd

#: The settings of a grid that rows and columns show.
SHOWN = ("partition", "clients", "malicious", "assumed_malicious")
#: The most partitions or shares, and the most characters of a partition.
MOST, MAX_NAME = 48, 40


def by_skew_and_share(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per defense the mean AUROC over attacks and seeds: a row per partition, a column per share in percent.

    Partitions are in the suite's order, those that differ in a number by it.

    Args:
        runs: of :func:`fedguard.evaluation.results.frame.run_frame`.

    Raises:
        ParameterError: no run has an AUROC.
    """
    share = 100 * runs["malicious"] / runs["clients"]
    known = runs.assign(share=share)[runs["auroc"].notna() & share.notna()]
    if known.empty:
        raise ParameterError("auroc is undefined in all of these runs: no detector, or no attack")
    keys = [_key(json.loads(text)["partition"]) for text in known["settings"]]
    order = dict.fromkeys(sorted(keys, key=_numbers))
    known = known.assign(partition=keys)
    found = {}
    for defense in dict.fromkeys(known["defense"]):
        one = known[known["defense"] == defense]
        table = one.pivot_table("auroc", "partition", "share", aggfunc="mean")
        found[str(defense)] = table.reindex([name for name in order if name in table.index])
    return found


def _check_rest(runs: pd.DataFrame) -> None:
    """Refuse to average over modes, or over settings that are neither rows nor columns."""
    rests = set()
    for mode, text in zip(runs["mode"], runs["settings"], strict=True):
        point = json.loads(text).get("point", {})
        varied = [f"{k} = {v}" for k, v in point.items() if k.partition(".")[0] not in SHOWN]
        rests.add(", ".join([str(mode), *varied]))
    if len(rests) > 1:
        names = "; ".join(plain(rest, 80) for rest in sorted(rests)[:6])
        raise ParameterError(
            "one figure shows one mode, and one value of every setting but the partition and the numbers of "
            f"clients; choose with --where (there are {names})"
        )


def _key(spec: Mapping[str, Any]) -> str:
    """A partition in words."""
    params = ", ".join(f"{k} = {_symbol(v)}" for k, v in spec.items() if k != "name" and v is not None)
    return plain(f"{spec['name']}, {params}" if params else spec["name"], MAX_NAME)


def _symbol(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(key: str) -> tuple[str, list[float]]:
    """Sorts words by name, then by the numbers in them."""
    name, _, rest = key.partition(", ")
    numbers = []
    for part in rest.split(", "):
        text = part.rpartition("= ")[2]
        try:
            numbers.append(float(text))
        except ValueError:
            continue
    return name, numbers


def draw(sheet: Sheet, runs: pd.DataFrame, own: Mapping[str, str] | None = None) -> Any:
    """A heat map per defense: partitions down, shares of malicious clients across.

    Blue is above 0.5; orange is below, where honest clients look worse than attackers.

    Args:
        sheet: what it is drawn on.
        runs: one row per run.
        own: the suite's own names.

    Raises:
        ParameterError: no run has an AUROC, the runs also differ in something that is not shown, or there are
            too many defenses, partitions or shares.
    """
    from matplotlib.colors import LinearSegmentedColormap

    _check_rest(runs)
    found = by_skew_and_share(runs)
    called = display_all(list(found), own)
    rows = max(len(table) for table in found.values())
    if max(rows, *(table.shape[1] for table in found.values())) > MOST:
        raise ParameterError(
            f"a figure has at most {MOST} partitions and shares; choose with --where malicious=…"
        )
    figure, axes = grid(sheet, len(found), "no AUROC to draw", 0.55 + 0.2 * rows)
    shades = LinearSegmentedColormap.from_list("worse to better", sheet.colors.steps)
    top = list(next(iter(found.values())).index)
    for axis, (defense, table) in zip(axes, found.items(), strict=True):
        image = axis.imshow(table.to_numpy(float), cmap=shades, vmin=0, vmax=1, aspect="auto")
        _numbers_in(sheet, axis, table)
        title(axis, called[defense], 12 + 6 * sheet.columns)
        axis.set_xticks(range(table.shape[1]), [f"{share:.3g}" for share in table.columns])
        named = axis.get_subplotspec().is_first_col() or list(table.index) != top
        axis.set_yticks(range(len(table)), list(table.index) if named else [""] * len(table))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    labels(figure, "malicious clients (%)", "partition")
    seeds = int(runs["seed"].nunique())
    bar = figure.colorbar(image, ax=axes, label=f"AUROC, mean over attacks; {over(seeds)}", pad=0.02)
    bar.outline.set_visible(False)
    return figure


def _numbers_in(sheet: Sheet, axis: Any, table: pd.DataFrame) -> None:
    for i, line in enumerate(table.to_numpy(float)):
        for j, value in enumerate(line):
            strong = value < 0.15 or value > 0.85
            color = ("#10151a" if sheet.dark else "white") if strong else sheet.colors.ink
            text = UNDEFINED if math.isnan(value) else f"{value:.2f}"
            axis.text(j, i, text, ha="center", va="center", fontsize=6.5, color=color)
