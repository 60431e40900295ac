"""The frame of the speed comparisons."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", FOLDER / "bench.py")
    module = sys.modules["bench"] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench"]


def test_ratio_scale_and_target(bench):
    def slow():
        time.sleep(0.02)

    row = bench.compare("a", "b", 3, slow, slow, lambda *_: "equal", repeats=3, scale=10)
    assert 3 < row.ratio < 40
    assert row.met
    assert row.repeats == 3
    assert row.agreement == "equal"
    assert bench.Row("a", "b", 2.0, ratio=1.9).met is False
    assert bench.skipped("a", "b", 2.0).met is None


def test_a_topic_replaces_its_own_section_only(bench, tmp_path):
    spec = importlib.util.spec_from_file_location("speed", FOLDER / "speed.py")
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    page = tmp_path / "speed.md"
    for topic, text in (("sizes", "| old |"), ("kernels", "| k |\n\nfooter"), ("sizes", "| new |")):
        speed.save(page, topic, text)
    assert page.read_text() == f"{speed.HEAD}\n## kernels\n\n| k |\n\nfooter\n\n## sizes\n\n| new |\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_call(bench):
    result, extra = bench.extra_memory(lambda: np.ones(32 * 2**20 // 8))
    assert 30 < extra < 60
    assert len(result) == 32 * 2**20 // 8


def test_threads_are_put_back(bench):
    before = torch.get_num_threads()
    with bench.limited(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_the_fastest_side_comes_first_and_one_that_raises_is_out(bench):
    sides = {"bad": lambda: 1 / 0, "slow": lambda: time.sleep(0.05), "fast": int}
    assert list(bench.by_speed(sides)) == ["fast", "slow"]


def test_the_table(bench):
    rows = [bench.Row("x", "y", 4.0, 3.0, 1.0, 3.0, note="why"), bench.skipped("z", "w", 2.0)]
    text = bench.table(rows)
    assert "| x | y | 4× | 3× (missed) | 1 / 3 |" in text
    assert "- x, y: why" in text
    assert "- z, w: skipped: not installed" in text


def test_results_that_differ_say_where(bench):
    assert bench.largest_difference([1.0, 2.0], [1.0, 2.0]) == "differ by 0e+00 of the largest"
    assert bench.largest_difference([1.0, 2.2], [1.0, 2.0]) == "differ by 1e-01 of the largest (in 1 of 2)"
    assert bench.same([1, 2], [1, 2]) == "equal"
    assert bench.same([1, 2], [1, 3]) == "DIFFERENT"


@pytest.mark.parametrize("topic", sorted(path.stem for path in FOLDER.glob("speed_*.py")))
def test_every_topic_has_rows(topic):
    assert "def rows(quick: bool" in (FOLDER / f"{topic}.py").read_text()
