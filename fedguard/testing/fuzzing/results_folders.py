"""Results folders: the store and the suite beside it, to be read, exported, compared and drawn."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from . import databases
from .case import CODE, Mutant, Rng, Step
from .files import Victim, damage, no_formulas, unplain
from .values import TEXTS, any_value, at, changed, pick, ways

SUITE = """
data: digits
model: logistic_regression
clients: 5
malicious: 1
rounds: 2
seeds: [0, 1]
mode: both
training: {steps: 1, batch_size: 8, lr: 0.1}
attacks: [none, {name: byzantine, mode: random}]
defenses: {nothing: none, krum: {detector: krum, policy: ban}, median: {aggregator: median}}
"""
TABLES = ("meta", "runs", "clients", "rounds", "timings")
#: JSON columns of the table of runs.
JSON = ("point", "settings")


class ResultsFolders:
    """Mutants of the results of a small suite."""

    @cached_property
    def original(self) -> Path:
        """Return the folder, which exists as long as this process."""
        self._home = TemporaryDirectory(ignore_cleanup_errors=True)
        from ...evaluation.results.report.page import write_report
        from ...evaluation.running.runner import run_suite
        from ...evaluation.suites.load import load_suite

        folder = Path(self._home.name)
        (folder / "s.yaml").write_text(SUITE, encoding="utf-8")
        run_suite(load_suite(folder / "s.yaml")[0], folder / "out", 1)
        write_report(
            folder / "out", folder / "report.html"
        )  # the first takes seconds, which no case has to spare
        return folder / "out"

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Change it."""
        from ...evaluation.results.store_tables import SCHEMA_VERSION

        victim, home, words, version = Victim(folder), folder / "home", list[str](), SCHEMA_VERSION
        shutil.copytree(self.original, home)
        path = home / "results.sqlite"
        if rng.random() < 0.2:
            version = int(rng.integers(1, SCHEMA_VERSION))
            words.append(_aged(path, version))
        kind = rng.random()
        if kind < 0.85:
            for _ in range(int(rng.integers(1, 4))):
                change = _json if rng.random() < 0.3 else pick(rng, databases.CHANGES)
                with contextlib.suppress(sqlite3.Error, OverflowError, ValueError):
                    words.append(change(rng, path))
        if kind > 0.7:
            words.append(pick(rng, (_suite, _suite, _on_disk))(rng, home, victim.path))
        numbers, there = [("user_version", version)], TABLES if version > 2 else TABLES[1:]
        whole = path.is_file() and not path.is_symlink() and databases.is_whole(path, there, numbers)
        return Mutant(_steps(rng, home, self.original, victim.path), words, whole, victim.unharmed)


def _aged(path: Path, version: int) -> str:
    """Rewrite the file as an older version would have written it."""
    from ...evaluation.results.store_tables import tables

    new = path.rename(path.with_suffix(".aged"))
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript(tables(version))
        db.execute("ATTACH ? AS new", (str(new),))
        for (table,) in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")  # noqa: S608 - our own
    new.unlink()
    return f"tables of version {version}"


def _json(rng: Rng, path: Path) -> str:
    """Change a value inside the JSON of a run, or of all runs."""
    with databases.Writable(path) as db:
        column = pick(rng, JSON)
        rows = db.execute(f"SELECT run, {column} FROM runs ORDER BY run").fetchall()  # noqa: S608 - our own
        if not rows:  # an earlier change deleted them
            return "no run is left"
        rows = rows if rng.random() < 0.5 else [pick(rng, rows)]
        tree, words = changed(rng, json.loads(rows[0][1]) or {"x": 1})
        text = json.dumps(tree)
        for run, _ in rows:
            db.execute(f"UPDATE runs SET {column} = ? WHERE run = ?", (text, run))  # noqa: S608 - our own
    return f"{column}: {words}"


def _suite(rng: Rng, home: Path, victim: Path) -> str:
    """Change the folder's suite."""
    path = home / "suite.yaml"
    tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if rng.random() < 0.4:
        way = pick(rng, [way for way in ways(tree) if isinstance(at(tree, way), str) and len(way) > 1])
        at(tree, way[:-1])[way[-1]] = CODE
        words = f"{'.'.join(map(str, way))} names code"
    else:
        tree, words = changed(rng, tree)
    path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    return f"suite: {words}"


def _on_disk(rng: Rng, home: Path, victim: Path) -> str:
    path = home / pick(rng, ("results.sqlite", "results.sqlite", "suite.yaml", "names.yaml", "lock"))
    how = int(rng.integers(5))
    if how == 4:
        return _names(rng, home / "names.yaml")
    if how == 0:
        return unplain(rng, path, victim)
    if how == 1:
        return databases.beside(rng, home / "results.sqlite")
    if how == 2 and path.exists():
        return damage(rng, path)
    target = home / pick(rng, ("report.html", "out.csv", "out.png"))
    target.symlink_to(victim)
    return f"{target.name} is a link"


def _names(rng: Rng, path: Path) -> str:
    """Names in print that somebody else chose."""
    known = ("none", "byzantine", "krum", "nothing", "attack", "defense", "digits", "dacc")
    names: Any = {pick(rng, known): pick(rng, TEXTS) for _ in range(4)}
    if rng.random() < 0.3:
        names = any_value(rng)
    with contextlib.suppress(yaml.YAMLError, UnicodeError, RecursionError):
        path.write_text(yaml.safe_dump(names), encoding="utf-8")
    return f"names.yaml holds {names!r}"[:80]


def _steps(rng: Rng, home: Path, original: Path, victim: Path) -> list[Step]:
    from ...cli import common
    from ...evaluation.results.compare import compare, show_comparison
    from ...evaluation.results.export import FORMATS, export
    from ...evaluation.results.frame import read_results
    from ...evaluation.results.layout import PRESETS, Layout
    from ...evaluation.results.plot import KINDS, plot
    from ...evaluation.results.report.page import write_report
    from ...evaluation.results.store import Store
    from ...evaluation.results.tables import SHOWN

    layout = pick(rng, (Layout(), *PRESETS.values(), Layout(rows=("attack",), columns=("defense",))))
    form = pick(rng, FORMATS[:4])

    def exported() -> None:
        out = home / "out.csv"
        common.write(export(Store(home), form, layout), out)
        if form == "csv":
            no_formulas(out.read_text(encoding="utf-8"))

    def compared() -> None:
        pair = (Store(home), Store(original)) if rng.random() < 0.5 else (Store(original), Store(home))
        for part in show_comparison(compare(*pair, [n for n in SHOWN if n != "detector_share"]), True):
            common.print_table(part)

    more: list[Step] = [
        ("read_results", lambda: read_results(home)),
        (f"export {form}", exported),
        ("compare", compared),
        ("plot", lambda: plot(home, pick(rng, KINDS), home / "out.png")),
        ("evaluate", lambda: _evaluated(home)),
    ]
    chosen = [more[i] for i in sorted(rng.choice(len(more), size=2, replace=False))]
    return [*chosen, ("report", lambda: write_report(home))] if rng.random() < 0.5 else chosen


def _evaluated(home: Path) -> None:
    """Do what ``fedguard evaluate`` does before it runs the missing runs."""
    from ...evaluation.results.store import Store
    from ...evaluation.suites.check import check_suite
    from ...evaluation.suites.load import load_suite

    plan, source = load_suite(home / "suite.yaml", ["rounds=2"], allow_code=False)
    if len(plan.cells()) <= 50:  # each is set up
        check_suite(plan, source)
    Store.create(home, plan).failures()
