"""Text from clients on an operator's terminal: ids are their own words, and must not drive it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def terminal(stderr: bool = False, piped_width: int | None = None) -> Console:
    """Where text is printed as it is: brackets are no markup, and only what asks for it has a color.

    Args:
        stderr: print there; lines are not wrapped then.
        piped_width: columns where it is a file or a pipe; as wide as the environment says if absent.
    """
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=stderr, markup=False, highlight=False, emoji=False)
    if piped_width and not console.is_terminal:
        console.width = piped_width
    return console


def plain(value: object, width: int | None = None) -> str:
    """Printable characters only, the others escaped; cut at ``width``."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def number(value: float | None) -> str:
    """A score in few characters; an en dash for none."""
    if value is None or value != value:
        return "–"
    return "∞" if value == float("inf") else f"{value:.4g}"
