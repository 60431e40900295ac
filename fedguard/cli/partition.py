"""``fedguard partition``: who has what, as a table and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import DataRoot, set_data_root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..evaluation.suites.holdings import Holdings

#: A client's share of the most samples that any client has of one class, from none to all.
BLOCKS = "·▁▂▃▄▅▆▇█"


def partition(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, e.g. partition.beta=0.1 clients=50.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Draw it: a .png, .svg or .pdf (extra: plot).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed; the suite's first one by default.")] = None,
    show_malicious: Annotated[
        bool, typer.Option("--show-malicious", help="Mark the malicious clients.")
    ] = False,
    columns: Annotated[
        int, typer.Option(help="Width of the figure: 1 or 2 columns of a paper (3.5 or 7.16 inches).")
    ] = 2,
    dark: Annotated[bool, typer.Option("--dark", help="Light lines on a dark ground.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that a results folder's suite names.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Show who has what: every client's samples by class. Nothing is trained."""
    from ..core.named_code import find_here
    from ..evaluation.results.folders import from_elsewhere
    from ..evaluation.suites.holdings import federations, holdings
    from ..evaluation.suites.load import load_suite

    set_data_root(data_root)
    plan, source = load_suite(suite, overrides, allow_code or not from_elsewhere(suite))
    find_here(source.data)
    cells = federations(plan, source, seed)
    found = holdings(cells[0], source)
    show(found, show_malicious)
    if len(cells) > 1:
        one, other = cells[0].point, cells[1].point
        choice = ", ".join(f"{path}: {value}" for path, value in other.items() if value != one[path])
        typer.echo(
            f"The grid deals the samples in {len(cells)} ways; this is the first. Another one: "
            f"'only=[{{{choice}}}]'"
        )
    if out is not None:
        from ..evaluation.results.figures.style import Sheet
        from ..evaluation.results.plot_holdings import plot_holdings

        typer.echo(f"wrote {plot_holdings(found, out, show_malicious, Sheet(columns, dark))}")


def show(found: Holdings, show_malicious: bool) -> None:
    """Print the table, and the federation in one line."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from ..evaluation.terminal import terminal

    console = terminal(piped_width=120)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    named = ["name"] if found.clients else []
    skewed = ["skew"] if found.skew is not None else []
    for title in ("client", *named, "samples", *skewed):
        table.add_column(title, justify="left" if title == "name" else "right", no_wrap=True)
    room = console.width - 24 - max((len(name) + 2 for name in found.clients), default=0)
    titles, cells = _classes(found, room)
    for title in titles:
        table.add_column(title, justify="right" if len(titles) > 1 else "left", no_wrap=True)
    if found.notes:
        table.add_column("inputs")
    for i, size in enumerate(found.sizes.tolist()):
        row = [f"{'! ' if show_malicious and i in found.malicious else ''}{i}"]
        row += [*found.clients[i : i + 1], f"{size:,}"]
        row += [f"{found.skew[i]:.2f}"] if found.skew is not None else []
        row += [*cells[i], *([found.notes[i]] if found.notes else [])]
        table.add_row(*row, style="red" if show_malicious and i in found.malicious else None)
    console.print(Text(found.title))
    console.print(table)
    console.print(found.summary + ("; ! is malicious" if show_malicious and found.malicious else ""))


def _classes(found: Holdings, room: int) -> tuple[list[str], list[list[str]]]:
    """The headings and cells of the classes: a number for each if there is room, else a bar per class."""
    counts = found.counts
    if counts is None:
        return [], [[] for _ in found.sizes]
    numbers = [str(label) for label in range(counts.shape[1])]
    labels = list(found.classes) or numbers
    for titles in (labels, numbers):
        widths = (max(len(title), len(f"{counts.max()}")) + 2 for title in titles)
        if sum(widths) <= room - (24 if found.notes else 0):
            return titles, [[str(count) if count else "·" for count in line] for line in counts.tolist()]
    merged = _merged(counts, max(10, room - (24 if found.notes else 0)))
    top = max(int(merged.max()), 1)
    bars = [["".join(BLOCKS[-(-8 * count // top)] for count in line)] for line in merged.tolist()]
    each = "" if len(merged[0]) == len(labels) else f", {-(-len(labels) // len(merged[0]))} classes a block"
    return [f"class {labels[0]} … {labels[-1]} (█ = {top:,}{each})"], bars


def _merged(counts: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Counts of neighboring classes together, so that they fit."""
    import numpy as np

    together = -(-counts.shape[1] // room)
    starts = np.arange(0, counts.shape[1], together)
    found: NDArray[np.int64] = np.add.reduceat(counts, starts, axis=1)
    return found
