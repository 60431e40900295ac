"""The space of a search, its plain grid, and what a goal makes of runs. By hand."""

import math

import pandas as pd
import pytest

from fedguard.core.errors import ParameterError
from fedguard.evaluation.results.tables import COLUMNS
from fedguard.evaluation.tuning.objective import METRICS, Goal, Score, accepted, metric_named
from fedguard.evaluation.tuning.space import Choice, Range, axis_of, grid_of, space_of


def test_what_users_write():
    assert axis_of("a.b", "0.1:3.0") == Range("a.b", 0.1, 3.0)
    assert axis_of("a.b", "1:3") == Range("a.b", 1, 3, whole=True)
    assert axis_of("a.b", "1:3.") == Range("a.b", 1, 3), "an end with a point: any number"
    assert axis_of("a.b", "log:1e-3:1") == Range("a.b", 0.001, 1, log=True)
    assert axis_of("a.b", "-2:-1") == Range("a.b", -2, -1, whole=True)
    assert axis_of("a.b", ["x", None, {"k": 1}]) == Choice("a.b", ("x", None, {"k": 1}))
    assert space_of(["a.b=[krum, 3]", "a.c=log:1:8"]) == [
        Choice("a.b", ("krum", 3)),
        Range("a.c", 1, 8, log=True, whole=True),
    ]
    assert space_of({"a.b": "0:1.5"}) == [Range("a.b", 0, 1.5)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3:1", "not a range"),
        ("1:1", "not a range"),
        ("log:0:1", "begins above 0"),
        ("0.1-3", r"cannot read '0.1-3'; write LOW:HIGH, log:LOW:HIGH or \[one, two\]"),
        ("nan:1", "cannot read"),
        (7, "cannot read 7"),
        (["one"], "at least two values"),
        ([1, 1], "each once"),
    ],
)
def test_mistakes_in_an_axis(value, message):
    with pytest.raises(ParameterError, match=message):
        axis_of("attacks.lie.z", value)


def test_mistakes_in_a_space():
    with pytest.raises(ParameterError, match="nothing to search"):
        space_of([])
    with pytest.raises(ParameterError, match="write PATH=LOW:HIGH"):
        space_of(["attacks.lie.z"])


def test_levels_by_hand():
    assert Range("p", 0, 3).levels(4) == [0, 1, 2, 3]
    assert Range("p", 0, 3).levels(1) == [1.5]
    assert Range("p", 0.01, 100, log=True).levels(3) == [0.01, 1, 100]
    assert Range("p", 1, 4, whole=True).levels(3) == [1, 2, 4], "2.5 rounds to even"
    assert Range("p", 0, 1).levels(4) == [0, 0.3333, 0.6667, 1], "four digits"
    assert Range("p", 0.12345, 0.12346).levels(2) == [0.12345, 0.12346], "but never beyond the ends"


def test_the_grid_has_no_more_points_than_the_search_had_runs():
    one, two = Range("a", 0, 1), Choice("b", ("x", "y"))
    assert grid_of([one], 3) == [{"a": 0}, {"a": 0.5}, {"a": 1}]
    assert grid_of([one, two], 7) == [{"a": a, "b": b} for a in (0, 0.5, 1) for b in ("x", "y")]
    assert grid_of([one, two], 1) == [{"a": 0.5, "b": "x"}]
    assert grid_of([two], 100) == [{"b": "x"}, {"b": "y"}]
    assert len(grid_of([one, Range("c", 0, 1), Range("d", 1, 2, whole=True)], 20)) == 18  # 3 × 3 × 2


def clients():
    """Run 0: attacker 1 of clients 0 and 1 attacks in rounds 0 and 1, is banned in round 2, sleeps in 3."""
    rows = [
        # run, round, malicious, attacking, participated, weight, banned
        (0, 0, 0, 0, 1, 0.0, 0),
        (0, 0, 1, 1, 1, 1.0, 0),
        (0, 1, 1, 1, 1, 0.0, 1),
        (0, 2, 1, 0, 0, 0.0, 1),
        (0, 3, 1, 0, 1, 1.0, 0),
        (1, 0, 1, 0, 1, 1.0, 0),
    ]
    columns = ["run", "round", "malicious", "attacking", "participated", "weight", "banned"]
    return pd.DataFrame(rows, columns=columns)


def test_accepted_counts_attacking_updates_and_bans():
    share = accepted(clients())
    assert share.to_dict() == {0: 1 / 3}, "of three chances one was let in; nobody attacked in run 1"


class Results:
    """As much of a store as a goal reads."""

    def __init__(self, rows):
        self.rows = rows

    def table(self, name):
        if name == "clients":
            columns = ["run", "round", "malicious", "attacking", "participated", "weight", "banned"]
            rows = [
                (i, k, 1, 1, 1, float(k < row[-1]), 0) for i, row in enumerate(self.rows) for k in range(4)
            ]
            return pd.DataFrame(rows, columns=columns)
        columns = ["attack", "defense", "status", "error", "tacc", "asr"]
        return pd.DataFrame([row[:-1] for row in self.rows], columns=columns).assign(
            run=range(len(self.rows))
        )


RESULTS = Results(
    [
        # attack, defense, status, error, tacc, asr, attacking updates let in of four
        ("weak", "median", "done", "", 0.9, math.nan, 4),
        ("weak", "median", "done", "", 0.7, math.nan, 4),
        ("weak", "krum", "done", "", 0.6, math.nan, 2),
        ("weak", "krum", "done", "", 0.6, math.nan, 4),
        ("strong", "median", "done", "", 0.5, math.nan, 4),
        ("strong", "krum", "failed", "Traceback\nValueError: no", math.nan, math.nan, 0),
    ]
)


def test_an_attack_is_worth_what_it_does_to_the_defense_that_bears_it_best():
    goal = Goal("attacks", "weak", ("median", "krum"), COLUMNS["tacc"], 0.25)
    weak, strong = goal.scores(RESULTS, ["weak", "strong"])
    assert (weak.value, weak.opponent) == (pytest.approx(0.8), "median"), "mean over seeds, best defense"
    assert weak.accepted == 0.75, "krum let in six of eight"
    assert goal.allowed(weak)
    assert not Goal("attacks", "weak", ("median", "krum"), COLUMNS["tacc"], 0.2).allowed(weak)
    assert strong.error == "ValueError: no"
    assert not goal.allowed(strong)


def test_a_defense_is_worth_its_worst_attack():
    goal = Goal("defenses", "median", ("weak", "strong"), COLUMNS["tacc"])
    median, krum = goal.scores(RESULTS, ["median", "krum"])
    assert (median.value, median.opponent) == (0.5, "strong")
    assert goal.allowed(median), "a defense has no tolerance to keep"
    assert krum.error


def test_an_undefined_metric_is_refused():
    goal = Goal("defenses", "median", ("weak",), COLUMNS["asr"])
    with pytest.raises(ParameterError, match="asr is undefined in every run of median against weak"):
        goal.scores(RESULTS, ["median"])


@pytest.mark.parametrize(
    ("kind", "metric", "minimize"),
    [
        ("attacks", "tacc", True),
        ("attacks", "asr", False),
        ("defenses", "tacc", False),
        ("defenses", "fnr", True),
    ],
)
def test_which_way_is_better(kind, metric, minimize):
    goal = Goal(kind, "x", ("y",), COLUMNS[metric])
    assert goal.minimize == minimize
    scores = [Score(0.3), Score(0.1), Score(0.5), Score(math.nan, error="no")]
    assert goal.best(scores) == (1 if minimize else 2)
    assert goal.best([Score(math.nan, error="no")]) is None


def test_metrics_by_name():
    assert {"tacc", "asr", "dacc", "auroc"} <= set(METRICS)
    assert not {"detector_seconds", "peak_memory"} & {*METRICS}, "a resumed search must come to the same"
    with pytest.raises(ParameterError, match="did you mean 'dacc'"):
        metric_named("dac", "closed")
    with pytest.raises(ParameterError, match="in shadow mode tacc is the undefended model's"):
        metric_named("tacc", "shadow")
