"""The event stream: one line of JSON per round, for ``fedguard watch`` and anything else that reads JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ParameterError
from ..core.files import open_to_append, refuse_name, why

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..contracts.outcome import Outcome
    from ..contracts.round import Round

#: Number of parameters converted to float64 at a time.
_BLOCK = 1 << 20


class Drift:
    """Drift of the global model: ‖a_t‖ and cos(a_t, a_{t−1}) of the aggregates; keeps the last one."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._last_norm = 0.0

    def measure(self, outcome: Outcome) -> tuple[float, float]:
        """(norm, cosine) of a round's aggregate; the cosine is NaN if either direction is undefined.

        A round without an aggregate has no direction; the next round is not compared with it.
        """
        now = outcome.aggregate.detach().cpu().numpy()
        norm = math.sqrt(_dot(now, now))
        if norm == 0:
            return 0.0, math.nan
        last, scale = self._last, norm * self._last_norm
        cosine = math.nan
        if last is not None and last.shape == now.shape:
            cosine = min(1.0, max(-1.0, _dot(now, last) / scale))
        self._last, self._last_norm = now.copy(), norm
        return norm, cosine


class EventLog:
    """An observer that appends one line of JSON per round to a file.

    A line holds ``event`` ("round"), ``round``, ``time`` (UTC), ``clients`` (n), ``suspects``, ``banned`` and
    ``new_bans`` (ids), ``kept_global``, ``note``, ``drift`` (``norm`` of the aggregate, ``cosine`` to the one
    before), ``seconds`` and ``info`` by part, and ``verdicts``: for every client its ``id``, ``score``,
    ``by_detector``, ``suspect``, ``weight``, ``banned`` and ``reason``. A missing score is null; +Inf (an
    unusable update) is the string "inf". Every guard needs a file of its own.

    Args:
        path: the file; lines are appended to an existing one.
        max_bytes: a file of this size is renamed to ``path.1`` (replacing the last one), and a new file is
            started. Disk usage is at most twice this size plus two rounds.

    Raises:
        ParameterError: max_bytes is below 1, or there can be no file of that name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fedguard import EventLog, Guard, Round
        >>> path = Path(tempfile.mkdtemp()) / "events.jsonl"
        >>> guard = Guard(observers=[EventLog(path)])
        >>> outcome = guard.process(Round([[1.0, 2.0], [3.0, 4.0]], client_ids=["a", "b"]))
        >>> len(path.read_text().splitlines())
        1
    """

    def __init__(self, path: str | Path, max_bytes: int = 64 * 2**20) -> None:
        if max_bytes < 1:
            raise ParameterError(f"event log: max_bytes is {max_bytes}; use 1 or more")
        self.path = Path(path)
        try:
            refuse_name(self.path)
        except OSError as error:
            raise ParameterError(f"event log {path}: {why(error)}; use another path") from None
        self.max_bytes = max_bytes
        self._drift = Drift()

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Append the round's line."""
        norm, cosine = self._drift.measure(outcome)
        event = event_of(round.index, outcome, norm, cosine)
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        if self.path.exists() and self.path.stat().st_size >= self.max_bytes:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        with open_to_append(self.path) as file:
            if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
                line = b"\n" + line  # a line cut short by a crash stays separate
            file.write(line)


def event_of(index: int, outcome: Outcome, norm: float, cosine: float) -> dict[str, Any]:
    """Return a round as JSON values; see :class:`EventLog`."""
    ids = outcome.client_ids
    return {
        "event": "round",
        "round": index,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "clients": len(ids),
        "suspects": [ids[i] for i in np.flatnonzero(outcome.suspects)],
        "banned": [ids[i] for i in np.flatnonzero(outcome.banned)],
        "new_bans": [ids[i] for i in np.flatnonzero(new_bans(outcome))],
        "kept_global": outcome.kept_global,
        "note": outcome.note,
        "drift": {"norm": value(norm), "cosine": value(cosine)},
        "seconds": {part: value(s) for part, s in outcome.seconds.items()},
        "info": {name: _values(info) for name, info in outcome.info.items()},
        "verdicts": [
            {
                "id": client,
                "score": value(outcome.scores[i]),
                "by_detector": {name: value(scores[i]) for name, scores in outcome.by_detector.items()},
                "suspect": bool(outcome.suspects[i]),
                "weight": float(outcome.weights[i]),
                "banned": bool(outcome.banned[i]),
                "reason": outcome.reasons[i],
            }
            for i, client in enumerate(ids)
        ],
    }


def new_bans(outcome: Outcome) -> NDArray[np.bool_]:
    """(n,) the clients whose ban began in this round."""
    return outcome.banned & ~outcome.barred


def value(number: float) -> float | str | None:
    """Return a number as JSON: null for NaN, "inf" and "-inf" for infinities."""
    number = float(number)
    if math.isnan(number):
        return None
    return str(number) if math.isinf(number) else number


def _values(info: Mapping[str, float]) -> dict[str, float | str | None]:
    return {name: value(number) for name, number in info.items()}


def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    parts = range(0, len(a), _BLOCK)
    return float(
        sum(a[k : k + _BLOCK].astype(np.float64) @ b[k : k + _BLOCK].astype(np.float64) for k in parts)
    )


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))
