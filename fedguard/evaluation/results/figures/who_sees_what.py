"""Which detector sees which attack, and whom it accuses wrongly."""

from __future__ import annotations

import math

from ..report.results import Section
from .axes import across, down
from .picture import CELL, Dots, Mark, Picture, Plot, Stroke, Text
from .style import BENIGN, MALICIOUS

#: Width and height of a cell in the report, in pixels.
SIZE = (36, 34)
#: The last row: the share of honest clients that are accused, orange from this percentage on.
ACCUSED, MANY = "honest clients accused", 10
#: The most values that are told to those who do not see the picture.
TOLD = 60


def who_sees_what(section: Section) -> Picture:
    """A dot per attack and detector: the larger, the better its scores rank attackers above honest clients.

    The area of a dot is 2 |AUROC − 0.5|; it is blue above 0.5, and an orange ring below, where honest clients
    look worse than attackers. Below: the share of honest clients that are accused, mean over all runs.
    """
    known = section.frame[section.frame["auroc"].notna()]
    attacks = [a for a in section.attacks if a in set(known["attack"])]
    defenses = [d for d in section.defenses if d in set(known["defense"])]
    marks: list[Mark] = []
    for _, row in known.iterrows():
        place = defenses.index(row["defense"]), attacks.index(row["attack"])
        marks += _dot(*place, float(row["auroc"]), f"{row['attack']} × {row['defense']}")
    edge = len(attacks) - 0.3  # below the value of a ring in the last row
    marks.append(Stroke([(-0.5, edge), (len(defenses) - 0.5, edge)], "ink", thin=True))
    accused = section.frame.groupby("defense")["fpr"].mean() * 100
    marks += [_share(i, len(attacks), float(accused.get(name, math.nan))) for i, name in enumerate(defenses)]
    told = [f"{r['defense']} under {r['attack']} {r['auroc']:.2f}" for _, r in known.head(TOLD).iterrows()]
    rows = [*attacks, ACCUSED]
    size = (SIZE[0] * len(defenses), SIZE[1] * len(rows))
    alt = f"Who sees what: AUROC of {', '.join(told)}"
    plot = Plot("", across("defense", defenses), down("attack", rows), marks, alt, size)
    return Picture(
        "Who sees what", [plot] if attacks else [],
        "auroc is undefined in all of these runs: no detector, or no attack",
        "dot: AUROC above 0.5, the larger the better; ring: below, honest clients look worse",
        row=0.6 + 0.26 * len(rows),
    )  # fmt: skip


def _dot(x: int, y: int, auroc: float, names: str) -> list[Mark]:
    strength = 2 * abs(auroc - 0.5)
    sees = auroc >= 0.5
    size = math.sqrt(strength)
    color = BENIGN if sees else MALICIOUS
    marks: list[Mark] = [Dots([(x, y)], color, max(0.07, size), sees, label=f"{names}: AUROC {auroc:.3f}")]
    if not sees or strength < 0.55:
        marks.append(Text(x, y + 0.5 * CELL * size + 0.2, f"{auroc:.2f}"))
    return marks


def _share(x: int, y: int, percent: float) -> Text:
    text = "–" if math.isnan(percent) else f"{percent:.0f} %"
    return Text(x, y, text, "evil" if percent > MANY else "ink")
