"""Who was flagged or excluded when, a plot per attack and defense."""

from __future__ import annotations

from collections.abc import Sequence

from ..report.results import plural
from ..report.timeline import Timeline
from .axes import Axis, down
from .picture import Boxes, Dots, Key, Mark, Picture, Plot, side_by_side

#: The height of a row in the report, in pixels.
ROW = 17.0
#: What became of a client that was asked, and in which words.
STATES = {"passed": "let through", "flagged": "flagged", "banned": "banned"}


def timelines(found: Sequence[tuple[str, str, Timeline]]) -> Picture:
    """A row per client (malicious ones first, in bold), a column per round; a dot where it attacked.

    Args:
        found: attack, defense and timeline.
    """
    most = max((len(timeline.rows) for _, _, timeline in found), default=0)
    seeds = f"seed {found[0][2].seed}; malicious clients in bold; blank: not asked" if found else ""
    return Picture(
        "Flags and bans", [_plot(attack, defense, timeline) for attack, defense, timeline in found],
        "no verdict to draw", seeds,
        [
            *(Key(text, Boxes((), state)) for state, text in STATES.items()),
            Key("attacked", Dots((), "ink", 0.45)),
        ],
        row=0.55 + 0.1 * max(most, 8), across=side_by_side([attack for attack, _, _ in found]),
    )  # fmt: skip


def _plot(attack: str, defense: str, data: Timeline) -> Plot:
    x = Axis("round", 0.5, data.rounds + 0.5, whole=True)
    y = down(
        "client", [row.name for row in data.rows], [i for i, row in enumerate(data.rows) if row.malicious]
    )
    wide = data.rounds * min(26.0, max(8.0, 320 / data.rounds))
    notes = (data.left_out,) if data.left_out else ()
    alt = _alt(attack, defense, data)
    return Plot(f"{attack} × {defense}", x, y, _marks(data), alt, (wide, ROW * len(data.rows)), notes)


def _marks(data: Timeline) -> list[Mark]:
    marks: list[Mark] = []
    for state in STATES:
        places = [
            (i, j) for i, row in enumerate(data.rows) for j, one in enumerate(row.states) if one == state
        ]
        marks.append(
            Boxes([(j + 0.53, i - 0.45, j + 1.47, i + 0.45) for i, j in places], state, STATES[state])
        )
    attacks = [(i, j) for i, row in enumerate(data.rows) for j in row.attacks]
    for banned, color in ((False, "ink"), (True, "paper")):  # a dot must be seen on its state
        points = [(j + 1, i) for i, j in attacks if (data.rows[i].states[j] == "banned") is banned]
        if points:
            marks.append(Dots(points, color, 0.45, label="attacked"))
    return marks


def _alt(attack: str, defense: str, data: Timeline) -> str:
    fates = [
        f"malicious client {row.name} flagged in {row.states.count('flagged')} and banned in "
        f"{row.states.count('banned')} of {data.rounds} rounds"
        for row in data.rows
        if row.malicious
    ]
    honest = f"benign clients flagged {plural(data.false_flags, 'time')}"
    return f"Timeline of {defense} under {attack}, seed {data.seed}: {'; '.join([*fates, honest])}"
