"""Untrusted text on an operator's terminal: clients choose their ids, which must not control the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def terminal(stderr: bool = False, piped_width: int | None = None) -> Console:
    """A console that prints text as it is: no markup from brackets, no automatic colors.

    Args:
        stderr: print to stderr, without wrapping lines.
        piped_width: columns if the output is a file or a pipe; the environment's width if absent.
    """
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=stderr, markup=False, highlight=False, emoji=False)
    if piped_width and not console.is_terminal:
        console.width = piped_width
    return console


def plain(value: object, width: int | None = None) -> str:
    """The text with unprintable characters escaped, cut at ``width``."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def number(value: float | None) -> str:
    """A short score; an en dash if there is none."""
    if value is None or value != value:
        return "–"
    return "∞" if value == float("inf") else f"{value:.4g}"
