"""Timelines: which clients were flagged or banned in which rounds of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: The most clients and rounds of a timeline.
CLIENTS = 40
ROUNDS = 100
STATES = ("absent", "passed", "flagged", "banned")


@dataclass(frozen=True)
class Row:
    """One client.

    Attributes:
        name: its id; several ids, in order, if it came back under new ones.
        malicious: the truth.
        states: one of :data:`STATES` per round.
        attacks: the rounds (positions in ``states``) in which it attacked.
    """

    name: str
    malicious: bool
    states: list[str]
    attacks: list[int]


@dataclass(frozen=True)
class Timeline:
    """One run.

    Attributes:
        seed: of the run.
        rows: malicious clients first.
        rounds: the length of ``states``.
        left_out: a description of what is not shown; empty if everything is shown.
    """

    seed: int
    rows: list[Row]
    rounds: int
    left_out: str

    @property
    def false_flags(self) -> int:
        """How often the benign clients shown were flagged."""
        return sum(row.states.count("flagged") for row in self.rows if not row.malicious)


def timeline(table: pd.DataFrame) -> Timeline | None:
    """The timeline of the first seed in rows of the table ``clients``; None without rows.

    With too many clients, it keeps malicious ones first (at most half of the rows if benign ones need the
    rest), then the benign ones flagged or banned in most rounds.
    """
    if table.empty:
        return None
    run = table["run"].min()
    table = table[table["run"] == run]
    rounds, clients = int(table["round"].nunique()), int(table["client"].nunique())
    first = sorted(table["round"].unique())[:ROUNDS]
    rows = [_row(part) for _, part in table[table["round"].isin(first)].groupby("client")]
    chosen = _chosen(rows)
    notes = [f"{len(chosen)} of {clients} clients, those flagged most often"] if len(chosen) < clients else []
    notes += [f"the first {ROUNDS} of {rounds} rounds"] if rounds > ROUNDS else []
    return Timeline(int(table["seed"].iloc[0]), chosen, len(first), "; ".join(notes))


def _row(part: pd.DataFrame) -> Row:
    part = part.sort_values("round")
    states = [
        _state(bool(banned), bool(here), bool(suspect))
        for banned, here, suspect in zip(part["banned"], part["participated"], part["suspect"], strict=True)
    ]
    attacks = [i for i, active in enumerate(part["attacking"] & part["participated"]) if active]
    name = " → ".join(str(one) for one in part["id"].unique())
    return Row(name, bool(part["malicious"].iloc[0]), states, attacks)


def _state(banned: bool, here: bool, suspect: bool) -> str:
    if suspect and here:
        return "flagged"
    if banned:
        return "banned"
    return "passed" if here else "absent"


def _chosen(rows: list[Row]) -> list[Row]:
    def struck(row: Row) -> int:
        return -sum(state in ("flagged", "banned") for state in row.states)

    bad = [row for row in rows if row.malicious]
    good = [row for row in rows if not row.malicious]
    if len(rows) <= CLIENTS:
        return bad + good
    bad = sorted(bad, key=struck)[: max(CLIENTS // 2, CLIENTS - len(good))]
    return bad + sorted(good, key=struck)[: CLIENTS - len(bad)]
