"""The results folder: the resolved suite and a SQLite store that any tool can read.

    suite.yaml        the suite as it ran, every default filled in
    checkpoints/      states of unfinished runs
    results.sqlite    meta      the code that wrote it, and fingerprints of its data
                      runs     one row per run: settings, detection metrics, accuracy, attack success
                      clients  one row per client and round: score, suspect, weight, banned, reason
                      rounds   one row per round: accuracy, loss, attack success, a note
                      timings  seconds per run and part, and the peak of memory of its part total;
                               the only table that differs between two runs of the same suite

Rates are fractions in [0, 1]; undefined values are NULL.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import FedGuardError, ResultsError
from ...core.files import is_file, not_written, refuse_link, why, write_file
from ...core.sqlite_file import connect
from ...simulation.records import RoundRecord
from ...simulation.settings import Cell
from ..suites.load import load_suite
from ..suites.suite import Suite, spelled_out
from .code import code_version, functional_code, other_code
from .names import write_names
from .store_checks import LONGEST, is_empty, other_suite, wrong_column, wrong_file, wrong_text
from .store_migration import migrate
from .store_tables import SCHEMA_VERSION, tables

#: The names that a results folder holds; links with these names are refused.
OURS = (
    *("suite.yaml", "names.yaml", "results.sqlite", "results.sqlite-journal", "lock", "checkpoints"),
    *("tensorboard", "mlflow.db", "mlartifacts", "wandb", "slurm"),
)


def refuse_links(folder: Path) -> None:
    """Refuse a results folder in which a link has the name of one of its files.

    Raises:
        OSError: names the link.
    """
    for name in OURS:
        refuse_link(folder / name)


@dataclass(frozen=True)
class CellResult:
    """The results of a finished cell.

    Attributes:
        cell: its settings.
        metrics: the numbers of the table ``runs`` (:func:`fedguard.evaluation.results.summary.summarize`).
        rounds: the record of every round; empty if it failed.
        seconds: wall time by part: training, the detectors, the policy, the aggregator, total.
        error: why it failed, or an empty string.
        peak_memory: the most resident bytes of its process while it ran; NaN if unknown.
    """

    cell: Cell
    metrics: dict[str, Any] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""
    peak_memory: float = math.nan


class Store:
    """The SQLite store of a results folder. One of an older version of the tables is rewritten on opening.

    If it cannot be, since the folder is read-only or in use, a rewritten copy of it is read; ``path`` is the
    copy's.

    Args:
        folder: the results folder.

    Raises:
        ResultsError: it holds no store, or one of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "results.sqlite"
        if not is_file(self.path):
            raise ResultsError(
                f"{folder} holds no results.sqlite; give a folder that `fedguard evaluate` wrote"
            )
        if self.path.is_symlink():
            raise ResultsError(f"{self.path} is a link; results folders hold their own files")
        with self._connect() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            problem = wrong_file(self.path, db)
        if problem:
            raise ResultsError(f"{self.path} {problem}")
        if version < SCHEMA_VERSION:
            self._migrate()

    def _migrate(self) -> None:
        try:
            self._beside = migrate(self.path, LONGEST)
        except (OSError, sqlite3.Error, OverflowError, UnicodeError) as error:
            problem = "is of an older version of FedGuard and could not be rewritten"
            raise ResultsError(f"{self.path} {problem}: {why(error)}") from None
        if self._beside is not None:
            self.path = Path(self._beside.name) / self.path.name

    @classmethod
    def create(cls, folder: Path, suite: Suite, force: bool = False) -> Store:
        """Start a results folder, or continue one with results of the same suite and code.

        Args:
            folder: the folder.
            suite: the suite.
            force: continue although the code has changed since; ``code`` then names both versions.

        Raises:
            ResultsError: it holds other results, or cannot be written.
        """
        path = folder / "results.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(folder)
            if is_empty(path):
                path.unlink(missing_ok=True)
                write_file(folder / "suite.yaml", spelled_out(suite))
                with closing(connect(path, "rwc", LONGEST)) as db:
                    db.executescript(tables(SCHEMA_VERSION))
        except (OSError, sqlite3.Error) as error:
            raise ResultsError(not_written(folder, error, "choose another folder (--out)")) from None
        store = cls(folder)
        if store.path != path:
            raise ResultsError(
                f"cannot write results to {folder}: it is of an older version of FedGuard, and is read-only "
                "or another process is writing to it; wait for it, or use --out (out= in Python)"
            )
        if store.fact("code") is None:
            store._sign(code_version())
        other_suite = store.other_suite(suite)
        other_code = "" if other_suite or force else store.other_code()
        if other_suite or other_code:
            advice = "give another folder with --out (out= in Python)"
            if other_code:
                advice += ", or continue all the same with --force (force=True)"
            raise ResultsError(f"{folder} already holds results {other_suite or other_code}; {advice}")
        if force and store.other_code():
            store._sign(f"{store.code}, then {code_version()}")
        write_names(folder, suite.names)
        return store

    def _sign(self, code: str) -> None:
        self.note("code", code)
        self.note("sources", functional_code())

    def note(self, name: str, value: str) -> None:
        """Write a fact about the whole folder into ``meta``."""
        with self._connect() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str | None:
        """What :meth:`note` wrote."""
        with self._connect() as db:
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def other_suite(self, suite: Suite) -> str:
        """How these results differ from results of a suite; empty if they do not."""
        try:
            text = (self.folder / "suite.yaml").read_text(encoding="utf-8")
        except OSError:
            text = ""
        fresh = spelled_out(suite)
        if text != fresh:
            text = _with_defaults(self.folder / "suite.yaml") or text
        return "" if text == fresh else other_suite(text, fresh)

    def other_code(self) -> str:
        """How these results differ from results of this code; empty if they do not."""
        return other_code(self.code.rpartition(", then ")[2], self.fact("sources") or "")

    def finished(self) -> dict[int, str]:
        """The stored runs with their status: "done" or "failed"."""
        with self._checked("runs") as db:
            return dict(db.execute("SELECT run, status FROM runs").fetchall())

    def failures(self) -> list[tuple[str, str, int, str]]:
        """Attack, defense, seed and error of the runs that failed."""
        with self._checked("runs") as db:
            return db.execute(
                "SELECT attack, defense, seed, error FROM runs WHERE status = 'failed' ORDER BY run"
            ).fetchall()

    def forget(self, runs: Iterable[int]) -> None:
        """Remove runs, so that they can run again."""
        with self._connect() as db:
            for run in runs:
                for table in ("clients", "rounds", "timings", "runs"):
                    db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 - our own names

    @property
    def code(self) -> str:
        """The version of the code that wrote it, see :func:`.code.code_version`."""
        return self.fact("code") or "unknown"

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A transaction; statements that take too long for the size of the file are aborted."""
        try:
            with closing(connect(self.path, "rw", LONGEST)) as db:
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")  # closing without a commit rolls everything back
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise ResultsError(f"{self.path}: {why(error)}") from None

    @contextmanager
    def _checked(self, table: str) -> Iterator[sqlite3.Connection]:
        """A transaction on a table whose values have been checked."""
        with self._connect() as db:
            column = wrong_column(db, table)
            if column:
                raise ResultsError(
                    f"{self.path} is not a results file of `fedguard evaluate`: the column {column} of "
                    f"{table} holds a value that does not belong there; use another copy of it"
                )
            yield db

    def add(self, results: Mapping[int, CellResult]) -> None:
        """Write runs by their numbers: all of them or none."""
        with self._connect() as db:
            for run, result in results.items():
                _insert(db, "runs", [_run_row(run, result)])
                _insert(db, "clients", _client_rows(run, result.rounds))
                _insert(db, "rounds", _round_rows(run, result.rounds))
                _insert(db, "timings", _timing_rows(run, result))

    def table(self, name: str) -> Any:
        """One table as a pandas DataFrame, ordered by the table's key."""
        return self._read(name, "")

    def rows(self, name: str, runs: Iterable[int]) -> Any:
        """The rows of some runs in one table, as a pandas DataFrame ordered by the table's key."""
        return self._read(name, f" WHERE run IN ({', '.join(str(int(run)) for run in runs)})")

    def _read(self, name: str, where: str) -> Any:
        import pandas as pd

        if name not in ("runs", "clients", "rounds", "timings"):
            raise ResultsError(f"no table {name!r}; there are runs, clients, rounds and timings")
        with self._checked(name) as db:
            try:
                frame = pd.read_sql_query(f"SELECT * FROM {name}{where} ORDER BY 1, 2, 3", db)  # noqa: S608 - checked
            except pd.errors.DatabaseError as error:  # a damaged file
                raise ResultsError(f"{self.path}: {error.__cause__ or error}") from None
        if name == "runs":
            for run, point, settings in frame[["run", "point", "settings"]].itertuples(index=False):
                problem = wrong_text(str(point), str(settings))
                if problem:
                    raise ResultsError(f"{self.path}: run {run}: {problem}; use another copy of it")
        return frame


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in row.values()]
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", values)  # noqa: S608 - our own names


def _run_row(run: int, result: CellResult) -> dict[str, Any]:
    cell = result.cell
    return {
        "run": run,
        "key": cell.key,
        "point": json.dumps(cell.point),
        "mode": cell.mode,
        "attack": cell.attack_label,
        "defense": cell.defense_label,
        "seed": cell.seed,
        "status": "failed" if result.error else "done",
        "error": result.error,
        "clients": cell.clients,
        "malicious": cell.malicious,
        "assumed_malicious": cell.assumed,
        "settings": cell.model_dump_json(),
        **result.metrics,
    }


def _client_rows(run: int, rounds: list[RoundRecord]) -> Iterator[dict[str, Any]]:
    for record in rounds:
        for client in record.clients:
            yield {"run": run, "round": record.index, **client._asdict()}


def _round_rows(run: int, rounds: list[RoundRecord]) -> Iterator[dict[str, Any]]:
    for r in rounds:
        info = json.dumps(r.info, sort_keys=True)
        yield {
            "run": run,
            "round": r.index,
            "tacc": r.tacc,
            "loss": r.loss,
            "asr": r.asr,
            "note": r.note,
            "info": info,
        }


def _timing_rows(run: int, result: CellResult) -> Iterator[dict[str, Any]]:
    for part, seconds in result.seconds.items():
        peak = result.peak_memory if part == "total" else None
        yield {"run": run, "part": part, "seconds": seconds, "peak_memory": peak}


def _with_defaults(path: Path) -> str:
    """A stored suite with the defaults of settings that came later; empty if it cannot be read."""
    try:
        return spelled_out(load_suite(path, allow_code=False)[0])
    except FedGuardError:
        return ""
