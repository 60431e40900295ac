"""The answer of a section in sentences: who wins on what, who harms honest clients, what nobody sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..marks import LEVEL
from ..paired import paired_test
from ..tables import COLUMNS, Column, show
from .results import Section

if TYPE_CHECKING:
    import pandas as pd

#: From this AUROC on, a detector sees an attack; below the second, none does.
SEES, BLIND = 0.9, 0.6
#: A mean false positive rate that is worth a warning.
HARMFUL = 0.1
#: The most names in a sentence.
MOST = 8
#: What a defense can win on, and in which words.
_WINS = {
    "dacc": "labels the most clients correctly under attack",
    "tacc": "keeps the highest test accuracy under attack",
    "asr": "lets attacks succeed least",
}


def answers(section: Section) -> list[str]:
    """Sentences about a section, each on its own; empty if nothing can be said."""
    return [*_winners(section), *_harm(section), *_unseen(section)]


def _winners(section: Section) -> Iterator[str]:
    runs = section.runs[section.runs["attacked"]]
    for name, words in _WINS.items():
        if name == "tacc" and section.mode != "closed":
            continue  # nobody is excluded, so all have the same accuracy
        column = COLUMNS[name]
        table = _by_seed(runs, name)
        if table.shape[1] > 1:
            yield _winner(table, column, words)


def _by_seed(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Means over attacks, seeds in rows and defenses in columns; attacks where each defense has a value."""
    known = runs.dropna(subset=[name])
    most = known["defense"].nunique()
    full = known.groupby("attack")["defense"].nunique()
    known = known[known["attack"].isin(full[full == most].index)]
    return known.pivot_table(index="seed", columns="defense", values=name, sort=False)


def _winner(table: pd.DataFrame, column: Column, words: str) -> str:
    means = table.mean().sort_values(ascending=column.best == "min", kind="stable")
    first, second = means.index[0], means.index[1]
    top = show(means.iloc[0], column)
    ties = [str(name) for name, value in means.items() if show(value, column) == top]
    if len(ties) > 1:
        return f"{_list(ties)} are equal: each {words} ({_amount(means.iloc[0], column)})."
    sentence = f"{first} {words}: {_amount(means.iloc[0], column)} on average, then {second} with "
    return f"{sentence}{_amount(means.iloc[1], column)}{_sure(table[first] - table[second])}."


def _sure(differences: Any) -> str:
    known = differences.dropna()
    p, kind = paired_test(known)
    if not kind:
        return "; one seed, so chance is not ruled out"
    test = "paired t test" if kind == "t" else "the same difference in each; test of signs"
    told = "tell them apart" if p <= LEVEL else "do not tell them apart"
    return f"; {len(known)} seeds {told} ({test}, p = {p:.2g})"


def _harm(section: Section) -> Iterator[str]:
    rates = section.frame.groupby("defense", sort=False)["fpr"].mean().dropna()
    if rates.empty:
        return
    column = COLUMNS["fpr"]
    worst = str(rates.idxmax())
    if rates.max() < HARMFUL:
        yield f"Few honest clients are accused: at most {_amount(rates.max(), column)} ({worst})."
        return
    others = int((rates >= HARMFUL).sum()) - 1
    also = f" {others} more accuse at least {100 * HARMFUL:.0f} %." if others else ""
    yield (
        f"{worst} harms honest clients most: it accuses {_amount(rates.max(), column)} of them on average, "
        f"attacks or not.{also}"
    )


def _unseen(section: Section) -> Iterator[str]:
    known = section.frame.dropna(subset=["auroc"])
    if known.empty:
        return
    best = known.loc[known.groupby("attack", sort=False)["auroc"].idxmax()].set_index("attack")
    blind = best[best["auroc"] < BLIND]
    partly = best[(best["auroc"] >= BLIND) & (best["auroc"] < SEES)]
    if not blind.empty:
        yield f"No detector sees {_list([_best(row) for row in blind.iterrows()])}."
    if not partly.empty:
        yield f"Seen only in part: {_list([_best(row) for row in partly.iterrows()])}."
    if blind.empty and partly.empty:
        yield f"At least one detector sees each attack (AUROC of {SEES} or more)."


def _best(row: tuple[Any, Any]) -> str:
    attack, values = row
    return f"{attack} (best AUROC {values['auroc']:.2f}, {values['defense']})"


def _amount(value: float, column: Column) -> str:
    return f"{show(value, column)}{' %' if column.title.endswith(' %') else ''}"


def _list(words: list[str]) -> str:
    if len(words) > MOST + 1:
        return f"{', '.join(words[:MOST])} and {len(words) - MOST} more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
