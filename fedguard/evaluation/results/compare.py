"""What changed between two results folders, and whether it exceeds the noise between seeds."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ...core.errors import ConfigError, ResultsError
from ..suites.source import read
from ..terminal import plain
from .data import named, stored_data
from .frame import BY, run_frame
from .marks import LEVEL
from .paired import SIGNS_NOTE, holm, p_text, paired_test
from .store import Store
from .tables import Column, columns_named, show

if TYPE_CHECKING:
    import pandas as pd


class Change(NamedTuple):
    """One metric of one combination, in both folders.

    Attributes:
        where: the combination: point of the grid, mode, attack, defense.
        column: the metric.
        before: its mean over the common seeds in the first folder.
        after: its mean in the second folder.
        seeds: how many seeds have the metric in both folders.
        p: of a paired test over these seeds, NaN for fewer than two.
        significant: at 5 %, after Holm's correction over all changes.
        test: "t" or "signs", see :func:`.paired.paired_test`; empty if there was none.
    """

    where: tuple[str, ...]
    column: Column
    before: float
    after: float
    seeds: int
    p: float
    significant: bool = False
    test: str = ""

    @property
    def equal(self) -> bool:
        """Whether it is the same in every seed, of several."""
        return self.test == "signs" and self.p < 1

    def words(self) -> tuple[str, ...]:
        """A row of a table."""
        p = p_text(self.p, self.equal) + (" *" if self.significant else "")
        delta = (self.after - self.before) * self.column.scale
        before, after = show(self.before, self.column), show(self.after, self.column)
        change = "undefined" if math.isnan(delta) else f"{delta:+.{self.column.digits}f}"
        where = [part for part in self.where[:2] if part and part != "closed"]
        told = ("; ".join(where), *self.where[2:], self.column.title)
        return (*told, before, after, change, str(self.seeds), p)


class Comparison(NamedTuple):
    """The differences between two results folders.

    Attributes:
        settings: key paths at which the suites differ, with both values.
        code: both versions of the code if they differ, else empty.
        only: combinations (with seeds) that only the first and only the second folder has.
        compared: how many metrics of how many combinations were compared.
        changes: the metrics that differ, largest first within each combination's order.
    """

    settings: list[tuple[str, str, str]]
    code: tuple[str, str] | None
    only: tuple[list[str], list[str]]
    compared: int
    changes: list[Change]

    def text(self, everything: bool = True) -> str:
        """What ``fedguard compare`` prints; ``everything`` includes changes that may be noise."""
        console = Console(file=io.StringIO(), width=120, markup=False, highlight=False, emoji=False)
        for part in show_comparison(self, everything):
            console.print(part)
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return self.text()


def compare(before: Store, after: Store, names: Sequence[str]) -> Comparison:
    """All differences between two results folders in the given metrics.

    Runs are paired by point of the grid, mode, attack, defense and seed. A difference is significant if
    :func:`.paired.paired_test` over seeds gives p < 5 % after Holm's correction over all tests. A single seed
    is not tested.

    Raises:
        ResultsError: a folder holds no run, or the folders have no run in common.
    """
    left, right = _runs(before), _runs(after)
    columns = [
        column for column in columns_named(names) if column.name in left
    ]  # no counts pooled over seeds
    common = left.index.intersection(right.index)
    if common.empty:
        raise ResultsError(f"{before.folder} and {after.folder} have no attack, defense and seed in common")
    only = ([_name(key) for key in left.index.difference(common, sort=False)],
            [_name(key) for key in right.index.difference(common, sort=False)])  # fmt: skip
    tested = _corrected(list(_tested(left.loc[common], right.loc[common], columns)))
    changed = [c for c in tested if not _equal(c.before, c.after)]
    return Comparison(list(_settings(before, after)), _code(before, after), only, len(tested), changed)


def _runs(store: Store) -> pd.DataFrame:
    return run_frame(store).set_index([*BY, "seed"])


def _tested(left: pd.DataFrame, right: pd.DataFrame, columns: Sequence[Column]) -> Iterator[Change]:
    for where, mine in left.groupby(list(BY), sort=False):
        theirs, words = right.loc[mine.index], tuple(str(word) for word in where)
        for column in columns:
            a, b = mine[column.name], theirs[column.name]
            both = a.notna() & b.notna()
            if both.any():
                test = paired_test(b[both] - a[both])
                means = a[both].mean(), b[both].mean()
                yield Change(words, column, *means, int(both.sum()), test.p, test=test.kind)
            elif a.notna().any() or b.notna().any():
                yield Change(words, column, a.mean(), b.mean(), 0, math.nan)


def _corrected(tested: list[Change]) -> list[Change]:
    """Mark significant changes by Holm's procedure over all tests."""
    adjusted = holm([change.p for change in tested])
    return [c._replace(significant=p <= LEVEL) for c, p in zip(tested, adjusted, strict=True)]


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _name(key: tuple[Any, ...]) -> str:
    *words, seed = key
    return " × ".join(str(word) for word in words if word and word != "closed") + f", seed {seed}"


def _code(before: Store, after: Store) -> tuple[str, str] | None:
    versions = before.code, after.code
    return None if versions[0] == versions[1] else versions


def _settings(before: Store, after: Store) -> Iterator[tuple[str, str, str]]:
    left, right = (dict(_flat(_suite(store), ())) for store in (before, after))
    for path in dict.fromkeys([*left, *right]):
        if left.get(path) != right.get(path):
            yield path, str(left.get(path, "absent")), str(right.get(path, "absent"))
    old, new = stored_data(before), stored_data(after)
    for key in old.keys() & new.keys():
        if old[key] != new[key]:
            yield f"fingerprint of {named(key)}", old[key][:12], new[key][:12]


def _suite(store: Store) -> Any:
    try:
        return read(str(store.folder / "suite.yaml")).data
    except ConfigError as error:
        raise ResultsError(f"cannot read the suite: {error}") from None


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield ".".join(path), value


def show_comparison(comparison: Comparison, everything: bool) -> Iterator[Any]:
    """The comparison for rich: settings, combinations in one folder only, and a table of the changes.

    Args:
        comparison: of two folders.
        everything: also show changes that may be noise (p ≥ 5 %); with single seeds they are always shown,
            and so are those that are the same in every seed.
    """
    for path, before, after in comparison.settings:
        yield plain(f"setting {path}: {before} → {after}")
    if comparison.code:
        yield plain(f"code: {comparison.code[0]} → {comparison.code[1]}")
    for name, runs in zip(("first", "second"), comparison.only, strict=True):
        if runs:
            rest = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
            yield plain(f"only in the {name}: {'; '.join(runs[:5])}{rest}")
    testable = any(change.seeds > 1 for change in comparison.changes)
    shown = [c for c in comparison.changes if everything or c.p < LEVEL or c.equal or not testable]
    if shown:
        table = Table("where", "attack", "defense", "metric", "before", "after", "change", "seeds", "p")
        for change in shown:
            table.add_row(*change.words(), style="bold" if change.significant else None)
        yield table
    significant = sum(change.significant for change in comparison.changes)
    if any(change.equal for change in shown):
        yield SIGNS_NOTE
    yield (
        f"{comparison.compared} metrics compared, {len(comparison.changes)} differ, {significant} of them "
        "significantly * (paired t test over seeds, 5 % in all by Holm's correction)"
        + ("" if everything or not testable else "; --all shows the others too")
    )
