"""Progress of an evaluation: a bar in a notebook, the terminal's display, or nothing."""

from __future__ import annotations

import sys
import time
from html import escape
from pathlib import Path
from typing import Any, Literal

from ...core.errors import ParameterError
from ...simulation.settings import Cell
from ..results.store import CellResult, Store
from ..running.follow import Follower
from ..running.live import Terminal
from ..suites.suite import Suite

#: Seconds between two updates of a notebook's output.
PAUSE = 0.2


def followers_for(progress: bool | Literal["auto"], workers: int, recording: bool) -> list[Follower]:
    """Who shows the progress.

    Args:
        progress: "auto" shows it in notebooks and on terminals; True also elsewhere, False nowhere.
        workers: the number of processes, for the headline.
        recording: whether federations are recorded.

    Raises:
        ParameterError: any other value.
    """
    if progress not in (True, False, "auto"):
        raise ParameterError(f"progress is {progress!r}; use True, False or 'auto'")
    if progress is False or (progress == "auto" and not (in_notebook() or sys.stdout.isatty())):
        return []
    return [Notebook()] if in_notebook() else [Terminal(workers, recording=recording, tables=False)]


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Notebook(Follower):
    """A bar in the output of a notebook's cell, with the rounds, the current run and the time left.

    Plain HTML that is updated in place: it needs no widgets and stays readable in a saved notebook.
    """

    def __init__(self) -> None:
        self.done = self.total = self.runs = self.ran = self.failed = 0
        self.label = ""
        self._start = self._last = 0.0
        self._handle: Any = None

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Show an empty bar."""
        self.runs, self.total = runs, rounds
        self._start = self._last = time.monotonic()
        tools = sys.modules["IPython.display"]
        self._handle = tools.display(tools.HTML(self._bar()), display_id=True)

    def round_done(self, cell: Cell, index: int) -> None:
        """Move on."""
        self.done += 1
        self.label = f"{cell.attack_label} × {cell.defense_label}"
        if time.monotonic() - self._last >= PAUSE:
            self._last = time.monotonic()
            self._show(self._bar())

    def run_done(self, result: CellResult) -> None:
        """Count the run."""
        self.ran += 1
        self.failed += bool(result.error)

    def ended(self, store: Store, seconds: float) -> None:
        """Replace the bar by a line."""
        there = len(store.finished()) - self.ran
        done = f", {there} were already there" if there else ""
        failed = f", {self.failed} failed" if self.failed else ""
        self._show(f"{self.ran} runs in {seconds:.0f} s{failed}{done}")
        self._handle = None

    def close(self) -> None:
        """Say that it was interrupted, unless it ended."""
        self._show(f"interrupted after {self.ran} of {self.runs} runs")

    def _show(self, html: str) -> None:
        if self._handle is not None:
            self._handle.update(sys.modules["IPython.display"].HTML(html))

    def _bar(self) -> str:
        left = ""
        if self.done:
            seconds = (time.monotonic() - self._start) * (self.total - self.done) / self.done
            left = f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}"></progress>'
        return f"{bar} {self.done} of {self.total} rounds{left} {escape(self.label)}"
