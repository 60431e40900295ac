"""Whole federations in the speed comparison: FedGuard beside the same rounds written in plain PyTorch."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def end_to_end():
    """The script, whose neighbors it imports by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("speed_end_to_end")
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name in ("bench", "speed_end_to_end", "end_to_end_flower", "end_to_end_sides"):
            del sys.modules[name]


@pytest.mark.parametrize("defense", ["mean", "NNM, trimmed mean"])
@pytest.mark.parametrize("number", [0, 1])
def test_both_sides_run_the_same_federation(end_to_end, number, defense):
    case = end_to_end.QUICK[number]
    cell = end_to_end.cell_of(case, defense)
    setup, attacked = end_to_end.setup_for(cell), cell.malicious > 0
    combine = end_to_end.plain_nnm_trimmed(cell.malicious) if attacked else end_to_end.plain_mean
    theirs = end_to_end.PlainLoop(setup, 2, attacked, combine)
    with end_to_end.federated(cell, 2, threads=1) as ours:
        found, expected = ours(), theirs()
    with end_to_end.federated(cell, 2, threads=2) as ours:
        assert torch.equal(ours(), found)
    assert (found - setup.initial).abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("number", "other"), [(0, "one batched product"), (1, "a loop, channels last")])
def test_every_form_of_the_limit_computes_the_gradients(end_to_end, number, other):
    setup = end_to_end.setup_for(end_to_end.cell_of(end_to_end.QUICK[number], "mean"))
    ways = end_to_end.limits(setup, 1)
    for found, expected in zip(ways[other](), ways["a plain loop"](), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_loop_per_thread_computes_the_same(end_to_end):
    setup = end_to_end.setup_for(end_to_end.cell_of(end_to_end.QUICK[1], "mean"))
    ways = end_to_end.limits(setup, 1, threads=2)
    for name in ("a plain loop", "a loop, channels last"):
        *_, last = ways[name]()
        parts = ways[f"{name}, one per thread"]()
        assert len(parts) == 2
        assert any(torch.equal(part[-1], last) for part in parts)


def test_the_page(end_to_end):
    rows = [
        end_to_end.Row("CNN", "limit: vmap", 0.75, 0.5, 0.2, 0.1, threads=1),
        end_to_end.skipped("CNN", "byzfl", 4.0),
    ]
    text = end_to_end.page(rows, " --quick")
    assert "| CNN | 1 | 200 | *limit: vmap* | 100 | **0.50** | 0.75 |  |" in text
    assert "| CNN | | | byzfl | | skipped: not installed | 4 | |" in text
