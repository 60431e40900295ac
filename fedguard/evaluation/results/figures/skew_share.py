"""How well scores rank attackers, by how unequal the clients' data are and how many clients attack."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ....core.errors import ParameterError
from ...terminal import plain
from ..names import display_all
from ..report.results import SHADES
from ..tables import UNDEFINED
from .axes import across, down
from .heatmap import CELL
from .picture import Boxes, Picture, Plot, over

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


def skew_share(runs: pd.DataFrame, own: Mapping[str, str] | None = None) -> Picture:
    """A heat map per defense: partitions down, shares of malicious clients across.

    Blue is above 0.5; orange is below, where honest clients look worse than attackers.

    Args:
        runs: one row per run.
        own: the suite's own names.

    Raises:
        ParameterError: no run has an AUROC, the runs also differ in something that is not shown, or there are
            too many partitions or shares.
    """
    _check_rest(runs)
    found = by_skew_and_share(runs)
    called = display_all(list(found), own)
    rows = max(len(table) for table in found.values())
    if max(rows, *(table.shape[1] for table in found.values())) > MOST:
        raise ParameterError(
            f"a figure has at most {MOST} partitions and shares; choose with --where malicious=…"
        )
    note = f"mean over attacks; {over(int(runs['seed'].nunique()))}"
    plots = [_plot(called[defense], table) for defense, table in found.items()]
    return Picture("AUROC", plots, "", note, shades=("0", "1"), row=0.55 + 0.2 * rows)


def _plot(name: str, table: pd.DataFrame) -> Plot:
    x = across("malicious clients (%)", [f"{share:.3g}" for share in table.columns])
    y = down("partition", [str(partition) for partition in table.index])
    values = [(i, j, value) for i, row in enumerate(table.to_numpy(float)) for j, value in enumerate(row)]
    cells = [_cell(float(j), float(i), value) for i, j, value in values]
    size = (CELL[0] * table.shape[1], CELL[1] * len(table))
    return Plot(name, x, y, cells, f"AUROC of {name} by partition and share of malicious clients", size)


def _cell(x: float, y: float, auroc: float) -> Boxes:
    box = (x - 0.48, y - 0.46, x + 0.48, y + 0.46)
    if math.isnan(auroc):
        return Boxes([box], "", text=UNDEFINED)
    shade = round(SHADES * auroc)
    return Boxes([box], f"c{shade}", text=f"{auroc:.2f}", ink=f"t{shade}")
