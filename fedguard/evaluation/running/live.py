"""A suite on the terminal: progress while it runs, tables at the end."""

from __future__ import annotations

import math
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ...simulation.settings import Cell
from ..results.frame import metrics_frame
from ..results.marks import marked
from ..results.names import names_of
from ..results.store import CellResult, Store
from ..results.tables import FOOTNOTE, SHOWN, attack_tables
from ..suites.suite import Suite
from ..terminal import terminal
from .follow import Follower


class Terminal(Follower):
    """Progress with the time left, the current run and the mean DACC so far; the tables at the end.

    Args:
        workers: the number of processes to show.
        columns: the metrics in the tables.
        recording: whether federations are recorded; finished ones are not.
        tables: whether to show the tables at the end.
    """

    def __init__(
        self, workers: int, columns: tuple[str, ...] = SHOWN, recording: bool = False, tables: bool = True
    ) -> None:
        self.workers, self.columns, self.recording, self.tables = workers, columns, recording, tables
        self.console = terminal()
        self.dacc: list[float] = []
        self.ran = 0
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[dacc]}"),
            console=self.console,
            transient=True,
        )

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Show what will run."""
        if not self.console.is_terminal:
            self.console.width = 110 if len(suite.seeds) == 1 else 150  # intervals take room
        self.console.print(_headline(suite, self.workers))
        self.task = self.progress.add_task("starting", total=rounds, dacc="")
        self.progress.start()

    def round_done(self, cell: Cell, index: int) -> None:
        """Move on."""
        self.progress.update(self.task, advance=1, description=f"{cell.attack_label} × {cell.defense_label}")

    def run_done(self, result: CellResult) -> None:
        """Update the running mean."""
        self.ran += 1
        dacc = result.metrics.get("dacc", math.nan)
        if not math.isnan(dacc):
            self.dacc.append(dacc)
            mean = 100 * sum(self.dacc) / len(self.dacc)
            self.progress.update(self.task, dacc=f"DACC {mean:.1f} % of {len(self.dacc)} runs")

    def ended(self, store: Store, seconds: float) -> None:
        """Show the tables."""
        self.progress.stop()
        if self.tables:
            own, width = names_of(store.folder), self.console.width
            frame = metrics_frame(store)
            found = marked(store, frame, self.columns)
            for heading, table in attack_tables(frame, self.columns, own, width, found):
                if heading:
                    self.console.print(heading, style="bold")
                self.console.print(table)
            self.console.print(FOOTNOTE, style="dim")
        if self.recording and len(store.finished()) > self.ran:
            self.console.print("runs that were already there have not been recorded", style="yellow")
        there = len(store.finished()) - self.ran
        done = f", {there} were already there" if there else ""
        self.console.print(f"{self.ran} runs in {seconds:.0f} s{done}, results in {store.folder}")

    def close(self) -> None:
        """Restore the terminal."""
        self.progress.stop()


def show_failures(store: Store) -> int:
    """Print the failed runs and their number to stderr."""
    failed = store.failures()
    for attack, defense, seed, error in failed:
        last = error.strip().splitlines()[-1]
        terminal(stderr=True).print(f"failed: {attack} × {defense}, seed {seed}: {last}", style="red")
    return len(failed)


def _headline(suite: Suite, workers: int) -> str:
    seeds = f"{len(suite.seeds)} seed{'s' if len(suite.seeds) > 1 else ''}"
    if suite.recording is not None:
        watching = f"{len(suite.cells())} defenses watch the {suite.rounds} rounds"
        return f"{suite.name}: {watching} of {suite.recording}\n"
    return (
        f"{suite.name}: {len(suite.attacks)} attacks × {len(suite.defenses)} defenses × {seeds} = "
        f"{len(suite.cells())} runs of {suite.rounds} rounds on {workers} "
        f"process{'es' if workers > 1 else ''}\n"
        f"{suite.data.name} ({suite.partition.name}), {suite.model.name}; {suite.clients} clients, "
        f"{suite.malicious} malicious, defenses are told {suite.assumed}\n"
    )
