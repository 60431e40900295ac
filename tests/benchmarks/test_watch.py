"""The watch over ratios: what is flagged, what the history holds."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("watch", FOLDER / "watch.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "watch", module)
    spec.loader.exec_module(module)
    return module


def points(watch, *ratios, work="median", where="a processor"):
    return [watch.Point("2026-01-01", "abc", where, work, "torch.median", ratio) for ratio in ratios]


def test_a_loss_of_a_fifth_from_the_median_of_the_last_five_is_flagged(watch):
    history = points(watch, 100.0, 8.0, 9.0, 10.0, 11.0, 12.0)  # the sixth to last does not count
    assert watch.usual(history[0], history) == 10.0
    assert watch.lost(points(watch, 7.9), history) == points(watch, 7.9)
    assert watch.lost(points(watch, 8.1), history) == []
    assert watch.lost(points(watch, 1.0, where="another processor"), history) == []
    assert watch.lost(points(watch, 1.0, work="mean"), history) == []


@pytest.mark.parametrize(("second", "status"), [(9.5, 0), (6.0, 1)])
def test_a_low_row_is_measured_again(watch, tmp_path, monkeypatch, capsys, second, status):
    file = tmp_path / "history.csv"
    watch.append(file, points(watch, 10.0))
    found = [points(watch, 7.0), points(watch, second)]
    monkeypatch.setattr(watch, "measure", lambda topic: found.pop(0))
    assert watch.main(["aggregation", "--history", str(file), "--save"]) == status
    assert [p.ratio for p in watch.read(file)] == [10.0, max(7.0, second)]
    assert ("LOST A FIFTH" in capsys.readouterr().out) == bool(status)


def test_the_committed_history_can_be_read(watch):
    history = watch.read(watch.HISTORY)
    assert history
    assert all(point.ratio > 0 for point in history)
