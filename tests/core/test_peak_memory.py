"""The peak of resident memory: it rises with what is touched, and falls when it is set back."""

import math
import sys

import numpy as np
import pytest

from fedguard.core import peak_memory
from fedguard.core.peak_memory import PeakMemory, reset_peak

SIZE = 64 * 2**20
#: Linux counts pages in batches.
BATCH = 2 * 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux sets the peak back")


@linux
def test_peak_rises_by_what_is_touched_and_falls_when_it_is_set_back():
    if not reset_peak():
        pytest.skip("this system does not let a process set its peak back")
    peak = PeakMemory()
    start = peak.bytes
    block = np.ones(SIZE, np.uint8)
    held = peak.bytes
    del block
    assert held >= start + SIZE - BATCH
    assert peak.bytes >= held - BATCH, "a peak stays although the block is gone"
    assert PeakMemory().bytes < held - 0.9 * SIZE


@linux
def test_peak_before_an_interruption_counts():
    if not reset_peak():
        pytest.skip("this system does not let a process set its peak back")
    peak = PeakMemory()
    peak.before = 2.0**50
    assert peak.bytes == 2.0**50
    peak.before = math.nan
    assert math.isnan(peak.bytes)


@pytest.mark.parametrize("file", ["_RESET", "_STATUS"])
def test_peak_is_undefined_where_the_system_has_no_such_file(file, tmp_path, monkeypatch):
    monkeypatch.setattr(peak_memory, file, tmp_path / "absent" / "file")
    assert math.isnan(PeakMemory().bytes)


def test_peak_is_undefined_if_the_status_does_not_tell(tmp_path, monkeypatch):
    (tmp_path / "status").write_text("Name:\tpython\n")
    monkeypatch.setattr(peak_memory, "_RESET", tmp_path / "reset")
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "status")
    assert math.isnan(PeakMemory().bytes)
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\n")
    assert PeakMemory().bytes == 2 * 2**20
