"""Ledgers: the SQLite file of a durable ledger, opened by a guard and by an operator."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...contracts.registry import make_detector, make_policy
from ...contracts.round import Round
from ...guard import Guard
from ...ledger.file import APPLICATION_ID, SCHEMA_VERSION
from ...ledger.sqlite import SQLiteLedger
from . import databases
from .case import Mutant, Rng, Step
from .files import Victim, damage, no_formulas, unplain
from .values import pick

IDS = ["a", "b", 3, "d", "e", "=1+1"]
TABLES = ("clients", "verdicts", "actions")
#: Seconds to wait for a lock; none is held.
TIMEOUT = 0.2


class Ledgers:
    """Mutants of a ledger with strikes, bans and an unban."""

    @cached_property
    def original(self) -> tuple[bytes, bytes]:
        """Return the file, and its write-ahead log as a crash leaves it."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.db"
            ledger = SQLiteLedger(path)
            keep_open = sqlite3.connect(path)  # keeps the log
            keep_open.execute("SELECT * FROM sqlite_master")
            guard = Guard(make_detector("norm_bound"), make_policy("ban", strikes=2), ledger=ledger)
            for index in range(6):
                guard.process(_round(index))
                if index == 3:
                    keep_open.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    ledger.unban("e", "somebody", "a mistake")
            both = path.read_bytes(), path.with_name("ledger.db-wal").read_bytes()
            keep_open.close()
            return both

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Change it."""
        victim, home = Victim(folder), folder / "home"
        home.mkdir()
        path, words = home / "ledger.db", list[str]()
        data, log = self.original
        path.write_bytes(data)
        if rng.random() < 0.7:
            path.with_name("ledger.db-wal").write_bytes(log)
        kind = rng.random()
        if kind < 0.85:
            for _ in range(int(rng.integers(1, 4))):
                with contextlib.suppress(sqlite3.Error, OverflowError, ValueError):
                    words.append(pick(rng, databases.CHANGES)(rng, path))
        if kind > 0.8:
            words.append(_on_disk(rng, path, victim.path))
        numbers = [("application_id", APPLICATION_ID), ("user_version", SCHEMA_VERSION)]
        whole = path.is_file() and databases.is_whole(path, TABLES, numbers)
        return Mutant(_steps(rng, path, home), words, whole, victim.unharmed)


def _on_disk(rng: Rng, path: Path, victim: Path) -> str:
    how = int(rng.integers(4))
    if how == 0:
        return unplain(rng, path, victim)
    if how == 1:
        return databases.beside(rng, path)
    if how == 2:
        path.write_bytes(path.read_bytes()[: int(rng.integers(len(path.read_bytes())))])
        return "cut off"
    return damage(rng, path)


def _round(index: int) -> Round:
    rng = np.random.default_rng(index)
    updates = rng.normal(size=(len(IDS), 8))
    updates[index % 3 :: 3] *= 1 if index % 2 else 50
    if index < 4:
        updates[4] = 1000
    return Round(updates, IDS, index=index)


def _steps(rng: Rng, path: Path, home: Path) -> list[Step]:
    from ...cli import ledger as console

    out = home / "out"
    if rng.random() < 0.2:
        out.symlink_to(home.parent / "victim")

    def show_all() -> None:
        console.show(path, None, bool(rng.random() < 0.3), 50)

    def stories() -> None:
        for client in SQLiteLedger(path, timeout=TIMEOUT, read_only=True).clients()[:8]:
            console.show(path, str(client), False, 50)

    def export() -> None:
        form = pick(rng, ("csv", "json"))
        console.export(path, pick(rng, ("clients", "verdicts", "actions")), form, out)
        text = out.read_text(encoding="utf-8")
        no_formulas(text) if form == "csv" else json.loads(text)

    def by_hand() -> None:
        console.ban(path, "d", "why", "me", None)
        console.unban(path, "d", "why", "me")

    def two_guards() -> None:
        one, two = _guard(path), _guard(path)
        for index in range(7, 9):
            one.process(_round(index))
            two.process(_round(index))

    more: list[Step] = [
        ("ledger show", show_all),
        ("ledger show CLIENT", stories),
        ("ledger export", export),
        ("ledger ban", by_hand),
        ("two guards", two_guards),
    ]
    chosen = [more[i] for i in sorted(rng.choice(len(more), size=3, replace=False))]
    return [*chosen, ("guard.process", lambda: _process(path))]


def _guard(path: Path) -> Guard:
    ledger = SQLiteLedger(path, timeout=TIMEOUT)
    return Guard(make_detector("norm_bound"), make_policy("ban", strikes=2), ledger=ledger)


def _process(path: Path) -> None:
    guard = _guard(path)
    for index in range(6, 8):
        guard.process(_round(index))
