"""Which detector sees which attack, and whom it accuses wrongly."""

from __future__ import annotations

import math
from typing import Any

from ....core.errors import ParameterError
from ..report.pictures import short
from ..report.results import Section
from .style import Sheet


def draw(sheet: Sheet, section: Section) -> Any:
    """A dot per attack and detector: the larger, the better its scores rank attackers above honest clients.

    The area of a dot is 2 |AUROC − 0.5|; it is blue above 0.5, and an orange ring below, where honest clients
    look worse than attackers. Below: the share of honest clients that are accused, mean over all runs.

    Raises:
        ParameterError: no detector has an AUROC.
    """
    known = section.frame[section.frame["auroc"].notna()]
    if known.empty:
        raise ParameterError("auroc is undefined in all of these runs: no detector, or no attack")
    attacks = [a for a in section.attacks if a in set(known["attack"])]
    defenses = [d for d in section.defenses if d in set(known["defense"])]
    figure = sheet.figure(1.4 + 0.24 * len(attacks))
    axis = figure.subplots()
    room = (sheet.width - 1.5) * 72 / len(defenses)
    size = 0.9 * min(15.0, room)
    numbers = min(6.5, room / 3.4)
    for _, row in known.iterrows():
        place = defenses.index(row["defense"]), attacks.index(row["attack"])
        _dot(sheet, axis, place, float(row["auroc"]), size, numbers)
    accused = section.frame.groupby("defense")["fpr"].mean() * 100
    for i, name in enumerate(defenses):
        value = float(accused.get(name, math.nan))
        text = "–" if math.isnan(value) else f"{value:.0f} %"
        color = sheet.colors.malicious if value > 10 else sheet.colors.ink
        axis.text(i, len(attacks), text, ha="center", va="center", fontsize=numbers + 0.5, color=color)
    axis.axhline(len(attacks) - 0.5, color=sheet.colors.ink, linewidth=0.6)
    axis.set(xlim=(-0.6, len(defenses) - 0.4), ylim=(len(attacks) + 0.5, -0.6))
    axis.set_yticks(range(len(attacks) + 1), [*(short(name) for name in attacks), "honest clients accused"])
    axis.set_xticks(range(len(defenses)), [short(name) for name in defenses], rotation=45, ha="left")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(
        "dot: AUROC above 0.5, the larger the better\nring: below 0.5, honest clients look worse", fontsize=7
    )
    return figure


def _dot(sheet: Sheet, axis: Any, place: tuple[int, int], auroc: float, size: float, numbers: float) -> None:
    strength = 2 * abs(auroc - 0.5)
    sees = auroc >= 0.5
    color = sheet.colors.benign if sees else sheet.colors.malicious
    face = color if sees else "none"
    axis.plot(*place, "o", color=color, markerfacecolor=face, markersize=max(1.0, size * math.sqrt(strength)))
    if not sees or strength < 0.55:
        text = f"{auroc:.2f}"
        axis.annotate(
            text, place, xytext=(0, -0.62 * size * math.sqrt(strength) - 4), textcoords="offset points",
            ha="center", va="center", fontsize=numbers,
        )  # fmt: skip
