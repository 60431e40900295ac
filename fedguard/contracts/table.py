"""An outcome as text: one line per client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The maximum number of clients shown. If there are more, suspects and banned clients come first.
MOST = 20
#: The maximum number of characters of a client id and of a reason.
ID, REASON = 24, 72


class Judged(Protocol):
    """The part of an outcome that the table shows."""

    @property
    def client_ids(self) -> tuple[Any, ...]:
        """The n clients."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,)."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """(n,)."""

    @property
    def suspects(self) -> NDArray[np.bool_]:
        """(n,)."""

    @property
    def banned(self) -> NDArray[np.bool_]:
        """(n,)."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """N phrases."""

    @property
    def note(self) -> str:
        """A remark on the round."""


def table_of(outcome: Judged) -> str:
    """A table of the decisions. Ids and reasons are shortened, and control characters are replaced."""
    n = len(outcome.client_ids)
    order = list(range(n))
    if n > MOST:
        order.sort(key=lambda i: not (outcome.suspects[i] or outcome.banned[i]))
    rows = [("client", "score", "weight", "verdict", "reason")]
    rows += [_row(outcome, i) for i in order[:MOST]]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [
        f"{_count(n, 'client')}, {_count(outcome.suspects.sum(), 'suspect')}, {outcome.banned.sum()} banned"
    ]
    if outcome.note:
        lines[0] += f"; {plain(outcome.note, REASON)}"
    lines += [_line(row, widths) for row in rows]
    if n > MOST:
        lines.append(f"… and {n - MOST} more")
    return "\n".join(lines)


def _verdict(outcome: Judged, i: int) -> str:
    if outcome.banned[i]:
        return "banned"
    return "suspect" if outcome.suspects[i] else "accepted"


def _row(outcome: Judged, i: int) -> tuple[str, str, str, str, str]:
    return (
        plain(str(outcome.client_ids[i]), ID),
        f"{outcome.scores[i]:.4g}",
        f"{outcome.weights[i]:.3g}",
        _verdict(outcome, i),
        plain(outcome.reasons[i], REASON),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    client, score, weight, verdict, reason = row
    left = f"{client:<{widths[0]}}  {score:>{widths[1]}}  {weight:>{widths[2]}}"
    return f"{left}  {verdict:<{widths[3]}}  {reason}".rstrip()


def plain(text: str, most: int) -> str:
    """Printable text of at most ``most`` characters."""
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
