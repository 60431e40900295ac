"""The estimate of a suite's cost: what it times, adds and multiplies, with runs that take known time."""

from dataclasses import replace
from typing import ClassVar

import pytest

from fedguard.evaluation.running import estimate as module
from fedguard.evaluation.running import sampling
from fedguard.evaluation.running.costs import Costs, Kind, Part, Timed
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.running.sampling import picked
from fedguard.evaluation.running.stored_times import stored_times
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.records import RoundRecord

FEW = ["clients=6", "malicious=2", "rounds=10", "seeds=[0,1]"]
ONE = [*FEW, "only=[{attack: lie, defense: dnc}]"]
FOUR = [*FEW, "attacks=[lie,min_max]", "defenses=[krum,dnc]"]


class Slow:
    """Setup takes 8 s, the first round 4 s, the second 2 s; a quarter of a round is the detector's."""

    built: ClassVar[list[tuple[str, str]]] = []
    clock = 0.0

    def __init__(self, cell):
        self.built.append((cell.attack_label, cell.defense_label))
        Slow.clock += 8

    def step(self, index):
        seconds = (4, 2)[index]
        Slow.clock += seconds
        timings = {"training": 0.5 * seconds, "krum": 0.25 * seconds}
        return RoundRecord(index, [], 0.0, 0.0, 0.0, "", {}, timings, True)


@pytest.fixture
def slow(monkeypatch):
    Slow.built, Slow.clock = [], 0.0
    monkeypatch.setattr(sampling, "Federation", Slow)
    monkeypatch.setattr(sampling.time, "process_time", lambda: Slow.clock)
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: Slow.clock)


def test_a_run_costs_its_first_round_and_nine_times_its_second(slow):
    """By hand: setup 8 s, first round 4 s, second 2 s; 2 runs of 10 rounds: 2 · (12 + 9 · 2) s = 1 min."""
    suite, _ = load_suite("quickstart", ONE)
    assert module.duration(suite, workers=1).splitlines() == [
        "about 60 seconds on 1 process",
        "from two rounds of each kind of run, timed in 14 seconds; bans and later rounds may change it",
    ]
    assert Slow.built == [("lie", "dnc")], "a first run of 2 seconds or more is not repeated"
    assert module.size(suite).startswith("2 runs (2 tasks, 1 point of the grid), 20 rounds\n")


def test_every_attack_and_every_defense_is_timed_and_no_seed_twice():
    suite, _ = load_suite("quickstart", FEW)
    names = [(cell.attack_label, cell.defense_label, cell.seed) for cell in picked(suite.cells())]
    attacks, defenses, seeds = (set(column) for column in zip(*names, strict=True))
    assert len(names) == 7, "6 attacks and 7 defenses"
    assert (attacks, defenses, seeds) == (set(suite.attacks), set(suite.defenses), {0})


def test_of_every_other_point_the_slowest_run_is_timed(slow, monkeypatch):
    """lie × krum and min_max × dnc at the first point, then the one that took longer, at each other point."""
    monkeypatch.setattr(sampling, "SECONDS", 1000)
    took = sampling._first_rounds

    def first_rounds(cell):
        one = took(cell)
        return replace(one, judging=one.judging * (9 if cell.defense_label == "dnc" else 1))

    monkeypatch.setattr(sampling, "_first_rounds", first_rounds)
    suite, _ = load_suite("quickstart", [*FOUR, "grid={partition.beta: [0.1, 1.0, 10.0]}"])
    module.duration(suite, workers=1)
    assert [attack_and_defense[1] for attack_and_defense in Slow.built] == ["krum", "dnc", "dnc", "dnc"]


def test_timing_stops_at_its_limit_and_says_so(slow):
    """The first kind takes 14 s, more than 5 s and than 10 % of 4 · 30 s: the other is left out."""
    suite, _ = load_suite("quickstart", [*FOUR, "seeds=[0]"])
    text = module.duration(suite, workers=1)
    assert Slow.built == [("lie", "krum")]
    assert "from two rounds of 1 of the 4 kinds of run, timed in 14 seconds; 1 more were left out" in text
    assert text.startswith("about 2 minutes on 1 process")


def test_costs_add_up_and_scale_with_the_federation():
    """By hand: attack b works 3 s a round, defense y judges 5 s; in a federation of twice the work and
    four times the judging that is 6 + 20 s a round."""
    suite, _ = load_suite("quickstart", [*FOUR, "grid={partition.beta: [0.1, 1.0]}", "seeds=[0]"])
    ax, ay, bx, by, *there = suite.cells()
    timed = [
        Timed(Kind.of(ax), Part(1, 1), Part(2, 2)),
        Timed(Kind.of(by), Part(3, 3), Part(5, 5)),
        Timed(Kind.of(there[0]), Part(2, 2), Part(8, 8)),
    ]
    costs = Costs(timed)
    assert costs.of(by) == (30, 50), "timed itself"
    assert costs.of(ay) == (10, 50)
    assert costs.of(bx) == (30, 20)
    assert costs.of(there[3]) == (60, 200)
    assert Costs(timed[:1]).of(there[3]) == (10, 20), "what was not timed counts as the mean"


def test_runs_that_watch_one_federation_share_its_work(slow):
    """By hand: work 3 + 3 s, judging 1 s a round each: closed 2 · 70 s; watching 30 + 2 · 10 s and so on."""
    suite, _ = load_suite("quickstart", [*FOUR, "mode=both", "seeds=[0]", "attacks=[lie]"])
    kinds = {cell.key: Kind.of(cell) for cell in suite.cells()}
    costs = Costs([Timed(kind, Part(3, 3), Part(1, 1)) for kind in kinds.values()])
    each = [module._end(suite, suite.cells()[i:j], costs, 1, 0.0, kinds) for i, j in ((0, 2), (2, 4))]
    assert each == [80, 50]
    spread, _ = load_suite("quickstart", [*FOUR, "parallel=clients", "seeds=[0]", "attacks=[lie]"])
    assert module._end(spread, spread.cells(), costs, 3, 0.0, kinds) == 40


def test_a_dry_run_uses_the_times_of_stored_runs(tmp_path):
    overrides = [*FOUR, "rounds=3", "seeds=[0]"]
    suite, _ = load_suite("quickstart", overrides)
    assert module.duration_as_stored(suite, 1, tmp_path) == ""
    store = run_suite(suite, tmp_path, workers=1)
    totals = store.table("timings").query("part == 'total'")["seconds"]
    found = [one.work.of(3) + one.judging.of(3) for one in stored_times(tmp_path)]
    assert found == pytest.approx(list(totals))
    text = module.duration_as_stored(suite, 1, tmp_path)
    assert (
        text == f"they take about {module._amount(totals.sum())} on 1 process, as the runs in {tmp_path} did"
    )
    store.forget([3])
    text = module.duration_as_stored(suite, 1, tmp_path)
    assert text.startswith("3 of them are finished; the others take about 1 second on 1 process")
    more, _ = load_suite("quickstart", [*overrides, "defenses=[krum,dnc,lfr]"])
    text = module.duration_as_stored(more, 1, tmp_path)
    assert text.startswith("4 of them take about")
    assert text.endswith("(nothing is known of the other 2)")
    other, _ = load_suite("quickstart", [*overrides, "clients=7"])
    assert module.duration_as_stored(other, 1, tmp_path) == "", "another federation"


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
        "1 second", "48 seconds", "10 minutes", "2.5 hours",
    ]  # fmt: skip
