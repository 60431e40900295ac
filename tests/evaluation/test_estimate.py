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
    assert text == "about 60 seconds on 1 process"
    assert module.size(suite).startswith("2 runs (2 tasks, 1 point of the grid), 20 rounds\n")
    assert built == [2, 2], "the first is not counted: it imports"


def test_tasks_go_to_the_process_that_is_free_first():
    """By hand: 5 | 3 then 3 (to 6) then 4 (5 to 9); each process starts for 2 seconds."""
    assert module._last_end([5.0, 3.0, 3.0, 4.0], 2, 2.0) == 11.0
    assert module._last_end([5.0], 8, 2.0) == 7.0


def test_a_busy_machine_is_told():
    """By hand: a quarter of one of two processors means 7 others; two workers share with them: 9 for 2."""
    assert module._slower(0.25, 2, 2) == 4.5
    assert module._slower(0.99, 2, 2) == 1.0


def test_amounts_have_a_unit_that_fits():
    assert [module._amount(s) for s in (0.2, 48.4, 600, 9000)] == [
        "1 seconds", "48 seconds", "10 minutes", "2.5 hours",
    ]  # fmt: skip
