"""A suite on the terminal: progress while it runs, tables at the end."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ..simulation.settings import Cell
from .executors import Executor
from .runner import run_suite
from .store import CellResult
from .suite import Suite
from .tables import FOOTNOTE, attack_tables, metrics_frame


def show_suite(
    suite: Suite,
    folder: Path,
    workers: int,
    quiet: bool = False,
    retry_failed: bool = False,
    executor: Executor | None = None,
    record: Path | None = None,
) -> int:
    """Run a suite (or what is left of it), show it, and return how many of its cells failed."""
    console = Console(quiet=quiet, width=None if Console().is_terminal else 110)
    cells = suite.cells()
    console.print(_headline(suite, len(cells), workers), highlight=False)
    ran: list[CellResult] = []
    start = time.perf_counter()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=len(cells) * suite.rounds)

        def on_round(cell: Cell, _: int) -> None:
            progress.update(task, advance=1, description=f"{cell.attack_label} × {cell.defense_label}")

        def on_cell(result: CellResult) -> None:
            ran.append(result)

        store = run_suite(
            suite, folder, workers, on_round, on_cell, retry_failed, executor=executor, record=record
        )
    for heading, table in attack_tables(metrics_frame(store)):
        console.print(heading, style="bold", highlight=False)
        console.print(table)
    console.print(FOOTNOTE, style="dim", highlight=False)
    failed = store.failures()
    for attack, defense, seed, error in failed:
        last = error.strip().splitlines()[-1]
        Console(stderr=True).print(
            f"failed: {attack} × {defense}, seed {seed}: {last}", style="red", markup=False
        )
    if record is not None and len(ran) < len(cells):
        console.print("what was there already has not been recorded", style="yellow")
    done = "" if len(ran) == len(cells) else f", {len(cells) - len(ran)} were there already"
    console.print(
        f"{len(ran)} runs in {time.perf_counter() - start:.0f} s{done}, results in {folder}", highlight=False
    )
    return len(failed)


def _headline(suite: Suite, cells: int, workers: int) -> str:
    seeds = f"{len(suite.seeds)} seed{'s' if len(suite.seeds) > 1 else ''}"
    if suite.recording is not None:
        return f"{suite.name}: {cells} defences watch the {suite.rounds} rounds of {suite.recording}\n"
    return (
        f"{suite.name}: {len(suite.attacks)} attacks × {len(suite.defenses)} defences × {seeds} = {cells} "
        f"runs of {suite.rounds} rounds on {workers} process{'es' if workers > 1 else ''}\n"
        f"{suite.data.name} ({suite.partition.name}), {suite.model.name}; {suite.clients} clients, "
        f"{suite.malicious} malicious, defences are told {suite.assumed}\n"
    )
