"""Searches: on a function whose optimum is known, and on tiny federations; interrupted, and again."""

import json
import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import fedguard
from fedguard.core.errors import ParameterError, ResultsError
from fedguard.core.extras import extra_module
from fedguard.evaluation.results.folders import from_elsewhere
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import COLUMNS
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.tuning.explore import Proposals, explore
from fedguard.evaluation.tuning.objective import Goal, Score
from fedguard.evaluation.tuning.outcome import Check
from fedguard.evaluation.tuning.report import trial_line, verdict
from fedguard.evaluation.tuning.search import unused
from fedguard.evaluation.tuning.space import Choice, Range

SUITE = """\
clients: 4
malicious: 1
rounds: 2
model: logistic_regression
training: {steps: 2, batch_size: 16, lr: 0.1}
attacks: [none, {name: ipm, label: flipped}, {name: scaling_backdoor, label: backdoor}]
defenses:
  bound: {detector: {name: norm_bound, factor: 2.0}}
  median: {aggregator: median}
search: {attacks.flipped.epsilon: "0.1:5.0"}
"""


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def parabola(number, points):
    """A damage of (x − 1.5)², of which the defense lets in all up to x = 2.5 and nothing above."""
    return [Score((p["x"] - 1.5) ** 2, 1.0 if p["x"] <= 2.5 else 0.0) for p in points.values()]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.parametrize(
    ("kind", "metric", "optimum"),
    [("defenses", "fnr", 1.5), ("attacks", "tacc", 1.5), ("attacks", "asr", 2.5)],
)
def test_the_search_finds_a_known_optimum(optuna, kind, metric, optimum, sampler):
    """A defense and TACC want the parabola's bottom. ASR wants its arms; the long one is forbidden."""
    goal = Goal(kind, "x", ("y",), COLUMNS[metric], 0.1)
    trials = 60 if sampler == "tpe" else 24
    found = explore([Range("x", 1.0, 6.0)], goal, parabola, Proposals(trials, 4, sampler))
    best = found[goal.best([one.score for one in found])]
    assert best.point["x"] == pytest.approx(optimum, abs=0.1)
    late = [one.point["x"] for one in found[trials // 2 :]]
    near = sum(abs(x - optimum) < 0.8 for x in late)
    assert sampler == "gp" or near > len(late) / 2, "most later trials lie near it, of a range of 5"


def test_a_search_without_an_allowed_point_says_so(optuna):
    goal = Goal("attacks", "x", ("y",), COLUMNS["asr"], 0.1)
    found = explore([Range("x", 3.0, 4.0)], goal, parabola, Proposals(8, 4, seed=0))
    assert goal.best([one.score for one in found]) is None
    assert "beyond the tolerance" in trial_line(goal, found[0])


def test_equal_points_run_once(optuna):
    asked = []

    def judge(number, points):
        asked.extend(points.values())
        return [Score(float(p["c"] == "b")) for p in points.values()]

    goal = Goal("defenses", "x", ("y",), COLUMNS["tacc"])
    found = explore([Choice("c", ("a", "b", {"k": 1}))], goal, judge, Proposals(12, 3, seed=0))
    assert len(found) == 12
    assert len(asked) == len({str(p) for p in asked}) <= 3
    for one in found:
        assert one.repeats is None or (one.repeats < one.number and found[one.repeats].point == one.point)
    assert found[goal.best([one.score for one in found])].point == {"c": "b"}


def test_failed_points_are_passed_over(optuna):
    def judge(number, points):
        return [
            Score(math.nan, error="refused") if p["x"] > 2 else Score((p["x"] - 1.5) ** 2)
            for p in points.values()
        ]

    goal = Goal("defenses", "x", ("y",), COLUMNS["fnr"])
    found = explore([Range("x", 0.0, 4.0)], goal, judge, Proposals(24, 4, seed=1))
    assert any(one.score.error for one in found)
    assert found[goal.best([one.score for one in found])].point["x"] == pytest.approx(1.5, abs=0.3)


def test_the_points_depend_on_seed_and_results_only(optuna, tmp_path):
    goal = Goal("defenses", "x", ("y",), COLUMNS["fnr"])
    axes = [Range("x", 0.0, 4.0), Choice("c", ("a", "b"))]
    one = explore(axes, goal, parabola, Proposals(16, 4, seed=7), journal=tmp_path / "a")
    assert explore(axes, goal, parabola, Proposals(16, 4, seed=7)) == one
    assert explore(axes, goal, parabola, Proposals(16, 4, seed=8)) != one
    by_process = Proposals(8, 4, "gp")
    assert explore(axes, goal, parabola, by_process) == explore(axes, goal, parabola, by_process)


def plain(tuned):
    return [(t.number, t.point, t.score) for t in tuned.trials], tuned.checks, tuned.best


def rows(folder):
    """Every run of every results folder, without seconds."""
    found = {}
    for path in sorted(Path(folder).glob("*/results.sqlite")):
        with closing(sqlite3.connect(path)) as db:
            found[path.parent.name] = db.execute("SELECT * FROM runs ORDER BY run").fetchall()
    return found


def test_an_attack_on_a_tiny_federation(optuna, suite, tmp_path):
    tuned = fedguard.tune(
        suite, attack="flipped", against=["bound"], tolerance=0, trials=4, out=tmp_path / "out"
    )
    assert len(tuned.trials) == 4
    assert tuned.goal.metric.name == "tacc"
    assert (tuned.seeds, tuned.test_seeds) == ((0,), (1,))
    for one in tuned.trials:
        assert tuned.goal.allowed(one.score) == (one.score.accepted == 1)
    allowed = [one for one in tuned.trials if one.score.accepted == 1]
    assert tuned.best.score.value == min(one.score.value for one in allowed)
    assert [check.name for check in tuned.checks] == ["as written", "grid", "search"]
    assert tuned.grid_size == 4
    assert {name: runs for name, (runs, _) in tuned.runs.items()} == {"search": 4, "grid": 4, "test": 3}

    again, _ = load_suite(tuned.found)
    assert again.attacks["flipped"].params["epsilon"] == tuned.point["attacks.flipped.epsilon"]
    assert again.seeds == [1]
    assert list(again.defenses) == ["bound", "median"], "what was not tuned stays"
    header = tuned.found.read_text(encoding="utf-8").splitlines()[:7]
    assert all(line.startswith("# ") for line in header)
    assert "tuning seeds: 0; test seeds, those of this suite: 1" in "\n".join(header)
    assert verdict(tuned) in "\n".join(header)

    # The runs of a trial are those that `evaluate` makes of the same suite.
    best = tuned.best.number
    store = Store(tuned.folder / f"batch-{best // 4:03d}").table("runs")
    key = store[store["attack"] == f"trial-{best:03d}"]["key"].item()
    alone = again.model_copy(update={"seeds": [0]}).cells()
    assert key in {cell.key for cell in alone}


def test_a_defense_is_tuned_for_its_worst_attack(optuna, suite, tmp_path):
    tuned = fedguard.tune(
        suite,
        ["seeds=[0,1]"],
        defense="bound",
        search={"defenses.bound.detector.factor": "1.0:4.0", "defenses.bound.policy": ["exclude", "observe"]},
        metric="dacc",
        trials=4,
        test_seeds=[5],
        out=tmp_path / "out",
    )
    runs = Store(tmp_path / "out" / "batch-000").table("runs")
    by_hand = runs.groupby(["defense", "attack"])["dacc"].mean().groupby("defense").min()
    for one in tuned.trials:
        origin = one.number if one.repeats is None else one.repeats
        assert one.score.value == pytest.approx(by_hand[f"trial-{origin:03d}"])
    assert tuned.best.score.value == by_hand.max()
    written = yaml.safe_load(tuned.found.read_text(encoding="utf-8"))["defenses"]["bound"]
    assert written["policy"] == tuned.point["defenses.bound.policy"]


def test_shadow_mode_shares_federations(optuna, suite, tmp_path):
    tuned = fedguard.tune(
        suite,
        ["mode=shadow"],
        defense="bound",
        against=["flipped"],
        search=["defenses.bound.detector.factor=1.0:4.0"],
        trials=4,
        out=tmp_path / "out",
    )
    assert tuned.goal.metric.name == "dacc"
    timings = Store(tmp_path / "out" / "batch-000").table("timings")
    longest = timings[timings["part"] == "total"]["seconds"].max()
    assert tuned.runs["search"][1] == pytest.approx(longest), "four watchers of one federation: its time once"


def test_a_backdoor_is_tuned_for_its_success(optuna, suite, tmp_path):
    tuned = fedguard.tune(
        suite,
        attack="backdoor",
        against=["median"],
        search={"attacks.backdoor.scale": "1.0:4.0"},
        trials=2,
        out=tmp_path / "out",
    )
    assert tuned.goal.metric.name == "asr"
    assert not tuned.goal.minimize


def test_an_interrupted_search_resumes_to_the_same(optuna, suite, tmp_path):
    settings = {"attack": "flipped", "against": ["bound"], "tolerance": 1.0, "trials": 6, "batch": 2}
    whole = fedguard.tune(suite, out=tmp_path / "whole", **settings)

    def stop(tried):
        if tried.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fedguard.tune(suite, out=tmp_path / "cut", on_trial=stop, **settings)
    assert not (tmp_path / "cut" / "found.yaml").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("*/results.sqlite")}
    assert len(before) == 2
    resumed = fedguard.tune(suite, out=tmp_path / "cut", **settings)
    assert plain(resumed) == plain(whole)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    study = optuna.load_study(
        study_name="fedguard",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "cut" / "study.journal"))
        ),
    )
    assert [t.value for t in study.trials] == [t.score.value for t in whole.trials]
    assert plain(fedguard.tune(suite, out=tmp_path / "cut", **settings)) == plain(whole), (
        "a finished one, too"
    )
    with pytest.raises(ResultsError, match="already holds another search"):
        fedguard.tune(suite, out=tmp_path / "cut", **{**settings, "trials": 7})
    assert from_elsewhere(str(tmp_path / "cut" / "found.yaml")), "it may come from someone else"


@pytest.mark.slow  # three pools start
def test_the_same_on_two_processes(optuna, suite, tmp_path):
    settings = {"attack": "flipped", "against": ["bound"], "tolerance": 1.0, "trials": 2, "batch": 2}
    one = fedguard.tune(suite, out=tmp_path / "one", **settings)
    two = fedguard.tune(suite, out=tmp_path / "two", workers=2, **settings)
    assert plain(one) == plain(two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either an attack or a defense"),
        ({"attack": "flipped", "defense": "bound"}, "give either an attack or a defense"),
        ({"attack": "fliped"}, "has no attack 'fliped', did you mean 'flipped'"),
        ({"attack": "flipped", "against": ["bond"]}, "has no defense 'bond', did you mean 'bound'"),
        ({"attack": "flipped", "search": {}, "overrides": ["search={}"]}, "nothing to search"),
        (
            {"attack": "flipped", "search": {"attacks.flipped.epsilon": "-1:2.0"}},
            r"epsilon = -1(\.0)?: .*ipm: epsilon",
        ),
        (
            {"attack": "flipped", "search": {"attacks.flipped.epsilo": "1:2"}},
            "epsilo = 1: .*did you mean 'epsilon'",
        ),
        (
            {"attack": "flipped", "search": {"defenses.bound.detector.factor": "1:2"}},
            r"sets attacks\.flipped\.",
        ),
        (
            {"defense": "bound", "search": {"defenses.bound.detectr.factor": "1:2"}},
            "there is no defenses.bound",
        ),
        ({"attack": "flipped", "metric": "detector_seconds"}, "cannot tune for 'detector_seconds'"),
        ({"attack": "flipped", "overrides": ["mode=shadow"]}, "runs in mode 'closed'"),
        ({"attack": "flipped", "overrides": ["malicious=[1,2]"]}, "leave out `grid`"),
        ({"attack": "flipped", "test_seeds": [0]}, "seed 0 is a tuning seed"),
        ({"attack": "flipped", "trials": 0}, "at least 1"),
        ({"attack": "flipped", "sampler": "grid"}, "unknown sampler 'grid'; use tpe or gp"),
        ({"attack": "flipped", "tolerance": 1.5}, "tolerance is 1.5"),
    ],
)
def test_mistakes_are_found_before_anything_runs(optuna, suite, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        fedguard.tune(suite, **options, out=tmp_path / "out")
    assert not list(tmp_path.glob("out/*/results.sqlite"))


def test_test_seeds_are_unused_ones():
    assert unused([0, 3]) == [4, 5]
    assert unused([0], [7, 9]) == [7, 9]
    with pytest.raises(ParameterError, match="given twice"):
        unused([0], [7, 7])


def test_without_optuna_the_extra_is_named(suite, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[tune\]"'):
        fedguard.tune(suite, attack="flipped")
    with pytest.raises(ParameterError, match=r"fedguard\[tune\]"):
        extra_module("optuna", "tune", "fedguard tune")


def test_from_the_command_line(optuna, suite, tmp_path):
    command = [sys.executable, "-m", "fedguard", "tune", str(suite), "--attack", "flipped", "--trials", "4"]
    command += ["--against", "bound", "--tolerance", "1", "--workers", "1", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "trial 3: attacks.flipped.epsilon = " in done.stdout
    assert "as written" in done.stdout
    assert "grid of 4" in done.stdout
    assert f"wrote {tmp_path / 'out' / 'found.yaml'}" in done.stdout
    assert json.loads((tmp_path / "out" / "tuning.json").read_text())["trials"] == 4


@pytest.mark.parametrize(
    ("written", "grid", "search", "said"),
    [
        (0.5, 0.6, 0.7, "the search wins"),
        (0.7, 0.6, 0.7, "the search wins; the parameters as written do no worse"),
        (0.8, 0.7, 0.7, "a tie; the parameters as written do no worse"),
        (0.5, 0.8, 0.7, "the plain grid wins"),
        (math.nan, 0.6, 0.7, "the search wins"),
    ],
)
def test_who_wins_on_the_test_seeds(written, grid, search, said):
    """A defense: the higher accuracy is the better one."""
    goal = Goal("defenses", "mine", ("none",), COLUMNS["tacc"])
    scores = {"as written": written, "grid": grid, "search": search}
    checks = [Check(name, {}, None, Score(value)) for name, value in scores.items()]
    told = verdict(SimpleNamespace(goal=goal, checks=checks, grid_size=3))
    assert told.endswith(f": {said}")
