"""The data behind the pictures; oracles: loops, scikit-learn's ROC curves, numpy's interpolation."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from fedguard.evaluation.results.figures.axes import Axis, Scale, down, nice_ticks, scale_for
from fedguard.evaluation.results.figures.picture import Plot, short
from fedguard.evaluation.results.figures.roc import area
from fedguard.evaluation.results.figures.svg import drawing, path
from fedguard.evaluation.results.report.results import LINE_POINTS, thinned
from fedguard.evaluation.results.report.scores import cut_of, distribution, mean_curve, roc, roc_of
from fedguard.evaluation.results.report.timeline import CLIENTS, ROUNDS, timeline

NATIVE = json.dumps({"defense": {"policy": {"name": "exclude"}}})


def clients(rows):
    """A part of the table ``clients`` from (round, client, malicious, score, suspect) or mappings."""
    names = ("round", "client", "malicious", "score", "suspect")
    plain = {"run": 0, "seed": 7, "participated": 1, "banned": 0, "attacking": 0, "weight": 1.0}
    made = [
        {**plain, **(row if isinstance(row, dict) else dict(zip(names, row, strict=True)))} for row in rows
    ]
    return pd.DataFrame([{**row, "id": row.get("id", str(row["client"]))} for row in made])


# ---------------------------------------------------------------- ROC


@pytest.mark.parametrize("seed", range(5))
def test_roc_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(30) < 0.4
    scores = rng.integers(0, 12, 30).astype(float)  # many ties
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert roc(truth, scores) == pytest.approx(np.column_stack([fpr, tpr]))


def test_roc_with_infinite_and_equal_scores():
    truth = np.array([True, False, True, False])
    assert roc(truth, np.array([np.inf, np.inf, 1.0, 0.0])).tolist() == [[0, 0], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert roc(truth, np.zeros(4)).tolist() == [[0, 0], [1, 1]]
    assert roc(np.zeros(3, bool), np.zeros(3)) is None
    assert roc(np.ones(3, bool), np.zeros(3)) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_curve_is_the_vertical_mean_and_its_area_the_mean_area(seed):
    rng = np.random.default_rng(seed)
    weights, curves, areas = [], [], []
    for n in (10, 14, 25):
        truth = np.arange(n) < 4
        scores = np.round(rng.normal(size=n) + truth, 1)
        curves.append(roc(truth, scores))
        areas.append(roc_auc_score(truth, scores))
        weights.append(float(rng.integers(1, 4)))
    mean = mean_curve(curves, weights)
    assert area(mean) == pytest.approx(np.average(areas, weights=weights), abs=1e-9)
    x, y = np.array(mean).T
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= -1e-12).all()
    for place in rng.random(20):  # no corner of any curve
        expected = np.average([np.interp(place, *curve.T) for curve in curves], weights=weights)
        assert np.interp(place, x, y) == pytest.approx(expected, abs=1e-9)


def test_seeds_weigh_the_same_whatever_their_number_of_rounds():
    good, bad = [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]
    rows = []
    for run, scores in [(0, good), (1, bad), (1, bad), (1, bad)]:
        number = len(rows)
        rows += [
            {"run": run, "round": number, "client": i, "malicious": i == 2, "score": s, "suspect": 0}
            for i, s in enumerate(scores)
        ]
    assert area(roc_of(clients(rows))) == pytest.approx(0.5)


def test_clients_that_were_not_asked_or_not_scored_do_not_count():
    rows = [(0, 0, 0, 0.1, 0), (0, 1, 1, 0.9, 1), (0, 2, 0, None, 0)]
    absent = {"round": 0, "client": 3, "malicious": 0, "score": 5.0, "suspect": 0, "participated": 0}
    assert area(roc_of(clients([*rows, absent]))) == 1
    assert roc_of(clients(rows[:1])) == []


# ---------------------------------------------------------------- distribution and threshold


def test_every_finite_score_is_in_its_bin():
    rng = np.random.default_rng(0)
    rows = [(t, i, i < 3, float(rng.normal() + 3 * (i < 3)), i < 3) for t in range(6) for i in range(10)]
    rows += [(0, 10, 1, math.inf, 1), (0, 11, 0, math.inf, 1), (1, 12, 0, None, 0)]
    spread = distribution(clients(rows), NATIVE)
    for shares, kind in ((spread.benign, 0), (spread.malicious, 1)):
        mine = [r[3] for r in rows if r[2] == kind and r[3] is not None and math.isfinite(r[3])]
        for k, share in enumerate(shares):
            low, high = spread.edges[k], spread.edges[k + 1]
            last = k == len(shares) - 1
            inside = sum(low <= value < high or (last and value >= low) for value in mine)
            assert share == pytest.approx(100 * inside / len(mine), abs=1e-9)
        assert sum(shares) == pytest.approx(100)
    assert spread.counts == (43, 19)
    assert spread.infinite == (1, 1)


def test_no_scores_no_picture_and_equal_scores_a_picture():
    assert distribution(clients([(0, 0, 0, None, 0), (0, 1, 1, math.inf, 1)]), NATIVE) is None
    for value in (0.0, 1.0, 3e38, -2e-30):
        spread = distribution(clients([(0, 0, 0, value, 0), (0, 1, 1, value, 0)]), NATIVE)
        assert sum(spread.benign) == sum(spread.malicious) == 100
        assert np.isfinite(spread.edges).all()


def test_the_threshold_lies_between_who_passed_and_who_did_not():
    rows = [(0, 0, 0, 1.0, 0), (0, 1, 0, 2.0, 0), (0, 2, 1, 4.0, 1)]  # cut 3
    rows += [(1, 0, 0, 5.0, 0), (1, 1, 1, 7.0, 1)]  # cut 6
    rows += [(2, 0, 0, 9.0, 0), (2, 1, 0, 11.0, 1), (2, 2, 0, math.inf, 1)]  # cut 10
    cut = cut_of(clients(rows), NATIVE)
    assert (cut.middle, cut.low, cut.high) == (6, 3, 10)
    assert "3 of 3 rounds" in cut.note
    quiet = [(3, 0, 0, 100.0, 0), (3, 1, 0, 200.0, 0)]
    assert cut_of(clients(rows + quiet), NATIVE).high == 10, "a round without suspects shows no threshold"


def test_a_threshold_below_infinity_is_the_highest_score_that_passed():
    cut = cut_of(clients([(0, 0, 0, 1.0, 0), (0, 1, 0, 2.0, 0), (0, 2, 1, math.inf, 1)]), NATIVE)
    assert (cut.low, cut.middle, cut.high) == (2, 2, 2)


def test_a_decision_that_is_no_threshold_is_called_that():
    crossed = [(0, 0, 0, 5.0, 0), (0, 1, 1, 1.0, 1)]
    cut = cut_of(clients(crossed), NATIVE)
    assert math.isnan(cut.middle)
    assert cut.note == "in 1 of 1 rounds the decision is not a threshold on the score"
    cut = cut_of(clients([*crossed, (1, 0, 0, 1.0, 0), (1, 1, 1, 2.0, 1)]), NATIVE)
    assert cut.middle == 1.5
    assert "in 1 of 2 rounds the decision is not a threshold" in cut.note
    assert "no threshold is visible" in cut_of(clients([(0, 0, 0, 5.0, 0)]), NATIVE).note


def test_the_rules_own_threshold_is_exact():
    settings = {"defense": {"policy": {"name": "exclude", "rule": {"name": "threshold", "value": 2.5}}}}
    cut = cut_of(clients([(0, 0, 0, 1.0, 0), (0, 1, 1, 9.0, 1)]), json.dumps(settings))
    assert (cut.low, cut.middle, cut.high) == (2.5, 2.5, 2.5)
    assert (
        cut_of(clients([(0, 0, 0, 1.0, 0), (0, 1, 1, 9.0, 1)]), '{"defense": {"policy": null}}').middle == 5
    )


# ---------------------------------------------------------------- timeline


def test_what_became_of_each_client():
    table = clients(
        [
            {"round": 0, "client": 0, "malicious": 0, "score": 1, "suspect": 0},
            {"round": 1, "client": 0, "malicious": 0, "score": None, "suspect": 0, "participated": 0},
            {"round": 0, "client": 1, "malicious": 1, "score": 1, "suspect": 1, "banned": 1, "attacking": 1},
            {"round": 1, "client": 1, "malicious": 1, "score": None, "suspect": 0, "participated": 0,
             "banned": 1, "attacking": 1, "id": "1b"},
        ]
    )  # fmt: skip
    found = timeline(table)
    assert [(row.name, row.malicious, row.states, row.attacks) for row in found.rows] == [
        ("1 → 1b", True, ["flagged", "banned"], [0]),
        ("0", False, ["passed", "absent"], []),
    ]
    assert (found.seed, found.rounds, found.left_out) == (7, 2, "")
    assert timeline(table.iloc[:0]) is None


def test_one_run_is_shown_and_never_a_mixture():
    both = [
        {"run": r, "seed": r, "round": 0, "client": 0, "malicious": 0, "score": 1, "suspect": r}
        for r in (0, 1)
    ]
    found = timeline(clients(both))
    assert found.seed == 0
    assert [row.states for row in found.rows] == [["passed"]]


def test_many_clients_and_rounds_are_bounded():
    n, rounds = CLIENTS + 30, ROUNDS + 5
    rows = [(t, i, i < 35, 1.0, i in (60, 61) and t < 2 + i - 60) for t in range(rounds) for i in range(n)]
    found = timeline(clients(rows))
    assert len(found.rows) == CLIENTS
    assert sum(row.malicious for row in found.rows) == CLIENTS // 2
    benign = [row.name for row in found.rows if not row.malicious]
    assert benign[:2] == ["61", "60"], "most often flagged first"
    assert {len(row.states) for row in found.rows} == {found.rounds} == {ROUNDS}
    assert f"{CLIENTS} of {n} clients" in found.left_out
    assert f"the first {ROUNDS} of {rounds} rounds" in found.left_out
    few = timeline(clients([(0, i, i < CLIENTS, 1.0, 0) for i in range(CLIENTS + 3)]))
    assert sum(not row.malicious for row in few.rows) == 3, "places that benign clients do not need"


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 1.0, 2.0], "linear"),
        ([1.0, 10.0, 49.0], "linear"),
        ([1.0, 10.0, 51.0], "log"),
        ([-1.0, *np.linspace(0, 1, 50), 1e6], "symlog"),
        ([0.0] * 50 + [3e38], "symlog"),
        ([-5.0, -5.0], "linear"),
    ],
)
def test_scales(values, kind):
    values = np.array(values)
    scale = scale_for(values)
    assert scale.kind == kind
    assert scale.backward(scale.forward(values)) == pytest.approx(values, rel=1e-6, abs=1e-9)
    assert (np.diff(scale.forward(np.sort(values))) >= 0).all()


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(0, 1, Scale()), (17, 93.2, Scale()), (-3e-7, 4e-7, Scale()), (0.003, 2e9, Scale("log")),
     (1.2, 1.9, Scale("log")), (-50, 1e7, Scale("symlog", 0.3)), (0, 3e38, Scale()),
     (0, 3e38, Scale("symlog", 3e38)), (-9, -2, Scale("symlog", 5.0))],
)  # fmt: skip
def test_ticks_are_few_in_range_and_rising(low, high, scale):
    axis = Axis("", low, high, scale)
    values = [value for value, _ in axis.ticks()]
    assert 1 <= len(values) <= 8
    slack = 1e-9 * (high - low)
    assert all(low - slack <= v <= high + slack for v in values)
    assert values == sorted(set(values))
    assert len({text for _, text in axis.ticks()}) == len(values)
    assert axis.place(low) == pytest.approx(0)
    assert axis.place(high) == pytest.approx(1)


def test_ticks_are_round_numbers():
    assert nice_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(20, 100) == [20, 40, 60, 80, 100]
    assert [text for _, text in Axis("", 1, 10).ticks()] == ["2", "4", "6", "8", "10"]
    assert [text for _, text in Axis("", 1, 3, whole=True).ticks()] == ["1", "2", "3"], "no round 1.5"
    assert [text for _, text in Axis("", -2, 2, unsigned=True).ticks()] == ["2", "1", "0", "1", "2"]
    assert down("", ["a", "b"]).ticks() == [(0, "a"), (1, "b")]
    assert down("", ["a", "b"]).place(0) == pytest.approx(0.75)
    assert [text for _, text in Axis("", 1e-5, 1e7, Scale("log")).ticks()][-1] == "10⁷"


def test_paths_go_where_the_values_are_and_stop_where_there_are_none():
    to = replace(drawing(Plot("", Axis("", 0, 10), Axis("", 0, 1), [], "", (100, 50))), left=0, top=0)
    assert path(to, [(0, 0), (5, 1), (6, math.nan), (8, 0.5), (10, 0.25)]) == "M0 50L50 0M80 25L100 37.5"


def test_the_last_tick_at_the_end_of_an_axis_is_not_cut_off():
    to = drawing(Plot("", Axis("", 0, 0.006), Axis("", 0, 1), [], "", (100, 50)))
    assert to.plot.x.ticks()[-1] == (0.006, "0.006")
    assert to.width - to.x(0.006) >= 2.5 * 6, "half of five characters of 6 pixels"


def test_long_lines_and_names_are_shortened():
    points = [(float(i), 1.0) for i in range(1000)]
    assert thinned(points)[0] == points[0]
    assert thinned(points)[-1] == points[-1]
    assert len(thinned(points)) <= LINE_POINTS + 1
    assert thinned(points[:LINE_POINTS]) == points[:LINE_POINTS]
    assert short("x" * 22) == "x" * 22
    assert short("x" * 23) == "x" * 21 + "…"
