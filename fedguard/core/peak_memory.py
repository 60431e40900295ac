"""The peak of a process's resident memory since a moment: Linux keeps one, and can set it back."""

from __future__ import annotations

import math
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most resident bytes of this process since the object was made, interpreter and libraries included.

    There is one peak per process: making an object sets it back for every other one, too. Memory of a GPU
    and of other processes is not counted. Linux counts pages in batches, so that it may be off by a MiB.

    Attributes:
        before: the peak before an interruption, in bytes: 0 if there was none, NaN if it is unknown.

    Example:
        >>> peak = PeakMemory()
        >>> peak.bytes != peak.bytes or peak.bytes > 2**20  # NaN where it cannot be measured
        True
    """

    def __init__(self) -> None:
        self.before = 0.0
        self._reset = reset_peak()

    @property
    def bytes(self) -> float:
        """The peak in bytes; NaN where it cannot be set back, as elsewhere than on Linux."""
        now = peak_resident() if self._reset else math.nan
        return math.nan if math.isnan(now) or math.isnan(self.before) else max(now, self.before)


def reset_peak() -> bool:
    """Set the peak of this process back to what is resident now; whether that was possible."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_resident() -> float:
    """The most resident bytes of this process since :func:`reset_peak`; NaN if the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return math.nan
    kib = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024.0 * int(kib[0]) if kib else math.nan
