"""The estimate of a suite's cost: what it multiplies, with a federation whose rounds take known time."""

from fedguard.evaluation.running import estimate as module
from fedguard.evaluation.suites.load import load_suite

FEW = ["clients=6", "malicious=2", "rounds=10", "seeds=[0,1]", "only=[{attack: lie, defense: dnc}]"]


def test_a_run_costs_its_first_round_and_nine_times_its_second(monkeypatch):
    """By hand: setup 8 s, first round 4 s, second 2 s; 2 runs of 10 rounds: 2 · (12 + 9 · 2) s = 1 min."""
    clock = [0.0]
    built = []

    class Slow:
        def __init__(self, cell):
            built.append(cell.rounds)
            clock[0] += 8

        def step(self, index):
            clock[0] += (4, 2)[index]

    monkeypatch.setattr(module, "Federation", Slow)
    monkeypatch.setattr(module.time, "process_time", lambda: clock[0])
    suite, _ = load_suite("quickstart", FEW)
    text = module.duration(suite, workers=1)
    assert text == "about 1.0 minutes on 1 process"
    assert module.size(suite).startswith("2 runs (2 tasks, 1 point of the grid), 20 rounds\n")
    assert built == [2, 2], "the first is not counted: it imports"
