"""One defense of a suite against each of the others: paired over seeds and attacks."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.errors import ParameterError
from ...core.params import nearest
from .frame import BY, run_frame
from .names import display_all, names_of
from .paired import SIGNS_NOTE, Paired, holm, p_text, paired
from .ranks import Ranking, ranking, ranking_lines
from .store import Store
from .tables import Column, columns_named, least_width, show

if TYPE_CHECKING:
    import pandas as pd

#: What the rows over all attacks are called.
ALL = "all attacks"
_KEYS = ["point", "mode", "attack", "seed"]


class Duel(NamedTuple):
    """One metric of two defenses, under one attack or over all.

    Attributes:
        point: the point of the grid, as text.
        mode: closed, shadow or recorded.
        attack: its label; :data:`ALL` for the means over all attacks, seed by seed.
        other: the other defense.
        column: the metric.
        mine: the mean of mine over the pairs.
        theirs: the mean of the other.
        paired: the statistics of mine − theirs over seeds.
        wins: pairs of attack and seed in which mine is better at the digits shown.
        ties: in which both are the same.
        losses: in which the other is better.
        adjusted: p after Holm's correction over all rows of its kind (over all attacks, or by attack).
    """

    point: str
    mode: str
    attack: str
    other: str
    column: Column
    mine: float
    theirs: float
    paired: Paired
    wins: int
    ties: int
    losses: int
    adjusted: float = math.nan

    @property
    def significant(self) -> bool:
        """At 5 %, after Holm's correction."""
        return self.adjusted < 0.05

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if the difference is significant, else empty."""
        if not self.significant:
            return ""
        return "better" if (self.paired.mean > 0) == (self.column.best == "max") else "worse"


class Versus(NamedTuple):
    """One defense against each of the others of its suite.

    Attributes:
        mine: its label.
        duels: over all attacks, by other defense and metric.
        by_attack: likewise for every attack.
        rankings: average ranks of all defenses, one per metric, point and mode that can be ranked.
        pairs: one row per pair: point, mode, attack, seed, other, metric, mine, theirs, difference.
        called: the labels of attacks and defenses → their names in print, which :meth:`text` shows.
    """

    mine: str
    duels: list[Duel]
    by_attack: list[Duel]
    rankings: list[Ranking]
    pairs: pd.DataFrame
    called: Mapping[str, str]

    @property
    def frame(self) -> pd.DataFrame:
        """All rows with every number at full precision; rates are fractions."""
        import pandas as pd

        return pd.DataFrame([_row(duel) for duel in [*self.duels, *self.by_attack]])

    def text(self, everything: bool = True) -> str:
        """What ``fedguard compare --mine`` prints; ``everything`` includes the rows by attack."""
        console = Console(file=io.StringIO(), width=120, markup=False, highlight=False, emoji=False)
        for part in show_versus(self, everything):
            console.print(part)
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return self.text()


def versus(store: Store, mine: str, names: Sequence[str], where: Mapping[str, Any] | None = None) -> Versus:
    """Compare one defense of a suite with each other one, in metrics that have a better and a worse.

    A pair is a run of mine and one of the other with the same point, mode, attack and seed: they had the same
    clients, data and first model. Attacks are no sample of anything, seeds are. The statistics over all
    attacks are therefore of n seeds: of each, the mean difference over its attacks.

    Args:
        store: of a results folder.
        mine: the label of a defense.
        names: metrics.
        where: keeps only runs with these values: setting → value or list of values.

    Raises:
        ParameterError: there is no such defense, setting or metric, no other defense, or no pair.
        ResultsError: the folder holds no finished run.
    """
    runs = chosen_runs(store, where)
    labels = list(dict.fromkeys(runs["defense"]))
    if mine not in labels:
        raise ParameterError(
            f"{store.folder} has no defense {mine!r}{nearest(mine, labels)} (it has {', '.join(labels)})"
        )
    columns = [c for c in columns_named(names) if c.best and c.name in runs]
    pairs = _pairs(runs, mine, columns)
    if pairs.empty:
        raise ParameterError(
            f"{store.folder} has no run of {mine} and another defense with a metric in common"
        )
    overall = list(_duels(pairs, columns, over_attacks=True))
    each = list(_duels(pairs, columns, over_attacks=False))
    own = names_of(store.folder)
    called = display_all(dict.fromkeys(runs["attack"]), own) | display_all(labels, own)
    return Versus(mine, _adjusted(overall), _adjusted(each), list(_rankings(runs, columns)), pairs, called)


def chosen_runs(store: Store, where: Mapping[str, Any] | None) -> pd.DataFrame:
    """One row per finished run of the chosen ones.

    Raises:
        ParameterError: there is no such setting, or nothing is left.
    """
    wanted = {k: v if isinstance(v, list | tuple) else [v] for k, v in (where or {}).items()}
    runs = run_frame(store, list(dict.fromkeys([*BY, *wanted])))
    for path, values in wanted.items():
        runs = runs[runs[path].astype(str).isin([str(value) for value in values])]
    if runs.empty:
        raise ParameterError(f"{store.folder}: no run is left to compare; see `fedguard export -f csv`")
    return runs


def _pairs(runs: pd.DataFrame, mine: str, columns: Sequence[Column]) -> pd.DataFrame:
    import pandas as pd

    names = [column.name for column in columns]
    own = runs[runs["defense"] == mine][[*_KEYS, *names]]
    parts = []
    for other in dict.fromkeys(runs["defense"]):
        if other == mine:
            continue
        theirs = runs[runs["defense"] == other][[*_KEYS, *names]]
        both = own.merge(theirs, on=_KEYS, suffixes=("", " theirs"))
        for name in names:
            part = both[_KEYS].assign(
                other=other, metric=name, mine=both[name], theirs=both[f"{name} theirs"]
            )
            parts.append(part.dropna(subset=["mine", "theirs"]))
    if not parts:
        return pd.DataFrame()
    found: pd.DataFrame = pd.concat(parts, ignore_index=True)
    found["difference"] = found["mine"] - found["theirs"]
    return found


def _duels(pairs: pd.DataFrame, columns: Sequence[Column], over_attacks: bool) -> Iterator[Duel]:
    known = {column.name: column for column in columns}
    keys = ["point", "mode", *([] if over_attacks else ["attack"]), "other", "metric"]
    for where, part in pairs.groupby(keys, sort=False, dropna=False):
        point, mode, *attack, other, metric = (str(word) for word in where)
        column = known[metric]
        by_seed = _complete(part).groupby("seed")[["mine", "theirs", "difference"]].mean()
        if by_seed.empty:
            continue
        wins, ties, losses = _score(part, column)
        yield Duel(
            point,
            mode,
            attack[0] if attack else ALL,
            other,
            column,
            float(by_seed["mine"].mean()),
            float(by_seed["theirs"].mean()),
            paired(by_seed["difference"].tolist()),
            wins,
            ties,
            losses,
        )


def _complete(part: pd.DataFrame) -> pd.DataFrame:
    """Only seeds with all attacks: a seed's mean over fewer attacks would be of something else."""
    counts = part.groupby("seed")["attack"].transform("nunique")
    return part[counts == part["attack"].nunique()]


def _score(part: pd.DataFrame, column: Column) -> tuple[int, int, int]:
    wins = ties = losses = 0
    for mine, theirs in zip(part["mine"], part["theirs"], strict=True):
        if show(mine, column) == show(theirs, column):
            ties += 1
        elif (mine > theirs) == (column.best == "max"):
            wins += 1
        else:
            losses += 1
    return wins, ties, losses


def _adjusted(duels: list[Duel]) -> list[Duel]:
    values = holm([duel.paired.p for duel in duels])
    return [duel._replace(adjusted=p) for duel, p in zip(duels, values, strict=True)]


def _rankings(runs: pd.DataFrame, columns: Sequence[Column]) -> Iterator[Ranking]:
    for column in columns:
        try:
            yield ranking(runs, column)
        except ParameterError:  # undefined here, for example without detectors
            continue


def _row(duel: Duel) -> dict[str, Any]:
    fields = {**duel._asdict(), **duel.paired._asdict(), "metric": duel.column.name, "verdict": duel.verdict}
    order = (
        *("point", "mode", "attack", "other", "metric", "mine", "theirs", "mean", "low", "high", "boot_low"),
        *("boot_high", "effect", "test", "p", "adjusted", "wins", "ties", "losses", "n", "needed", "verdict"),
    )
    names = {"mean": "difference", "adjusted": "p_holm", "n": "seeds", "needed": "seeds_needed"}
    return {names.get(key, key): fields[key] for key in order}


def show_versus(found: Versus, everything: bool, width: int = 0) -> Iterator[Any]:
    """The comparison for rich: a table over all attacks, one by attack, the ranks, and how to read them.

    Args:
        found: the comparison.
        everything: also show the table by attack.
        width: of the terminal in characters; 0 for any.
    """
    mine = found.called[found.mine]
    for duels in (found.duels, found.by_attack) if everything else (found.duels,):
        table = _table(mine, duels, found.called)
        if not width or least_width(table) <= width:
            yield table
            continue
        for column in dict.fromkeys(duel.column for duel in duels):
            yield _table(mine, [duel for duel in duels if duel.column == column], found.called, column.title)
    yield from ranking_lines(found.rankings, found.called)
    shown = [*found.duels, *(found.by_attack if everything else ())]
    if any(duel.paired.equal for duel in shown):
        yield SIGNS_NOTE
    yield (
        f"difference: {mine} minus the other, [95 % interval] (Student's t over seeds, of means over "
        "attacks); g: Hedges's g of the pairs; p: paired t test after Holm's correction; W/T/L: pairs of "
        "attack and seed; needed: seeds for a power of 80 % if this effect is the truth"
        + ("" if everything else "; --all shows every attack")
    )


def _table(mine: str, duels: Sequence[Duel], called: Mapping[str, str], metric: str = "") -> Table:
    """A table of all metrics; or a narrow one of one: no lines, and the interval below the difference."""
    several = any(duel.attack != ALL for duel in duels)
    style: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "pad_edge": False}
    table = Table(title=metric, **style) if metric else Table()
    left = ("against", "attack", "metric")
    heads = [*left, mine, "other", "difference", "g", "p", "W/T/L", "seeds", "needed", ""]
    dropped = {"attack"} if not several else {"g", "needed"} if metric else set()
    dropped |= {"metric", "seeds"} if metric else set()
    for head in heads:
        if head not in dropped:
            table.add_column(head, justify="left" if head in (*left, "") else "right", overflow="fold")
    for duel in duels:
        place = "; ".join(part for part in (duel.point, duel.mode) if part and part != "closed")
        name = called[duel.other]
        label, attack = f"{name} ({place})" if place else name, called.get(duel.attack, duel.attack)
        words = [label, attack, duel.column.title, *_numbers(duel), duel.verdict]
        cells = [text for head, text in zip(heads, words, strict=True) if head not in dropped]
        cells = [text.replace(" [", "\n[") for text in cells] if metric else cells
        table.add_row(*cells, style="bold" if duel.significant else None)
    return table


def _numbers(duel: Duel) -> list[str]:
    column, d = duel.column, duel.paired
    most = column.bounds[1] - column.bounds[0]  # no difference is larger
    ends = (max(d.low, -most), min(d.high, most)) if not math.isnan(d.low) else (d.low, d.high)
    signed = [f"{v * column.scale:+.{column.digits}f}" for v in (d.mean, *ends)]
    interval = "" if math.isnan(d.low) else f" [{signed[1]}, {signed[2]}]"
    needed = "–" if d.needed is None else str(d.needed)
    return [
        show(duel.mine, column),
        show(duel.theirs, column),
        signed[0] + interval,
        "–" if math.isnan(d.effect) else f"{d.effect:+.2f}",
        p_text(duel.adjusted, d.equal),
        f"{duel.wins}/{duel.ties}/{duel.losses}",
        str(d.n),
        needed,
    ]
