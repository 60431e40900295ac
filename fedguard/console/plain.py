"""Text from clients on an operator's terminal: ids are their own words, and must not drive it."""

from __future__ import annotations


def plain(value: object, width: int | None = None) -> str:
    """Printable characters only, the others escaped; cut at ``width``."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def number(value: float | None) -> str:
    """A score in few characters; an en dash for none."""
    if value is None or value != value:
        return "–"
    return "∞" if value == float("inf") else f"{value:.4g}"
