"""What the papers' tables are made of, against the same from the store by hand."""

import math
import sqlite3
import statistics
from pathlib import Path

import pytest

from fedguard.evaluation.running.follow import run_followed
from fedguard.evaluation.suites.load import load_suite

HOME = Path(__file__).parents[2] / "benchmarks" / "papers"
SUITE = """
clients: 9
malicious: [2, 3]
rounds: 3
training: {steps: 3, lr: 0.5}
seeds: [0, 1]
attacks: [none, {label: zero, name: byzantine, mode: zero}, {label: flip, name: byzantine, mode: flip}]
defenses: {mean: {}, krum: {detector: krum}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papers")
    (folder / "small.yaml").write_text(SUITE, encoding="utf-8")
    suite, _ = load_suite(folder / "small.yaml")
    return run_followed(suite, folder / "results", 1, [])


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(HOME))
    import measure

    return measure


def rows(store, query, *values):
    db = sqlite3.connect(store.path)
    found = db.execute(query, values).fetchall()
    db.close()
    return found


def best(store, attack, defense, malicious):
    """Seed → the best accuracy of all rounds."""
    query = (
        "SELECT seed, rounds.tacc FROM runs JOIN rounds USING (run) "
        "WHERE attack = ? AND defense = ? AND point = ?"
    )
    result = {}
    for seed, tacc in rows(store, query, attack, defense, f'{{"malicious": {malicious}}}'):
        result[seed] = max(tacc, result.get(seed, 0))
    return result


@pytest.mark.parametrize("attack", ["zero", "flip"])
@pytest.mark.parametrize("malicious", [2, 3])
def test_the_best_model_and_the_reduction(store, measure, attack, malicious):
    for defense in ("mean", "krum"):
        found = measure.Measured(store)
        point = f"malicious = {malicious}"
        clean, attacked = best(store, "none", defense, malicious), best(store, attack, defense, malicious)
        error = found.value("best error", attack, defense, point)
        assert error.mean == pytest.approx(1 - (attacked[0] + attacked[1]) / 2)
        assert error.seeds == 2
        lost = [100 * (clean[seed] - attacked[seed]) for seed in (0, 1)]
        reduction = found.value("reduction", attack, defense, point)
        assert reduction.mean == pytest.approx(sum(lost) / 2)
        assert reduction.interval == pytest.approx(12.7062 * abs(lost[0] - lost[1]) / 2, rel=1e-4)


def test_scores_of_honest_and_malicious_clients(store, measure):
    query = (
        "SELECT runs.seed, c.malicious, c.score FROM clients c JOIN runs USING (run) "
        "WHERE runs.attack = 'zero' AND runs.defense = 'krum' AND runs.malicious = 2"
    )
    for truth, who in enumerate(("benign", "malicious")):
        scores = [[x for s, m, x in rows(store, query) if (s, m) == (seed, truth)] for seed in (0, 1)]
        assert len(scores[0]) == 3 * (2 if truth else 7)
        value = measure.Measured(store).value(f"{who} score", "zero", "krum", "malicious = 2").mean
        assert value == pytest.approx(statistics.mean(map(statistics.mean, scores)))
        spread = measure.Measured(store).value(f"{who} score, std", "zero", "krum", "malicious = 2").mean
        assert spread == pytest.approx(statistics.mean(map(statistics.pstdev, scores)))


def test_curves_over_the_grid_and_over_rounds(store, measure):
    found = measure.Measured(store)
    curve = found.curve("malicious", "TACC", "flip", "mean")
    assert list(curve) == [2, 3]
    assert curve[3] == found.value("TACC", "flip", "mean", "malicious = 3")
    rounds = found.curve("round", "error", "flip", "mean")
    taccs = rows(
        store,
        "SELECT AVG(r.tacc) FROM rounds r JOIN runs USING (run) WHERE attack = 'flip' AND defense = 'mean' "
        "GROUP BY round ORDER BY round",
    )
    assert [v.mean for v in rounds.values()] == pytest.approx([1 - tacc for (tacc,) in taccs])
    assert list(rounds) == [1, 2, 3]


def test_what_was_not_run_and_what_does_not_depend_on_x(store, measure):
    found = measure.Measured(store)
    nothing = found.value("TACC", "flip", "median", "malicious = 2")
    assert math.isnan(nothing.mean)
    assert nothing.seeds == 0
    assert measure.Entry("t", "r", "c", "TACC", 90.0, *nothing).text() == "90.00 / –"
    assert measure.Entry("t", "r", "c", "TACC", 90.0, 85.5, math.nan, 1).text() == "90.00 / 85.50 (-4.50)"
    assert measure.Entry("t", "r", "c", "error", math.nan, 0.25, 0.01, 3).text() == "– / 0.25 ± 0.01"
    panels = {"p": {"a": ["none", "mean"], "b": ["flip", "mean"]}}
    figure = {"x": "malicious", "metric": "TACC", "panels": panels, "constant": ["a"]}
    curves = found.curves(figure, "p")
    assert list(curves["a"]) == [2, 3]
    assert curves["a"][2] == curves["a"][3] == found.value("TACC", "none", "mean", "malicious = 2")


def test_the_largest_over_several_attacks(store, measure):
    found = measure.Measured(store)
    found.frame = found.frame.loc[["malicious = 3"]].rename({"malicious = 3": ""}, level="point")
    each = [found.value("reduction", attack, "mean").mean for attack in ("zero", "flip")]
    assert each[0] != each[1]
    assert found.worst("reduction", ["zero", "flip", "absent"], "mean").mean == max(each)
    assert found.worst("reduction", ["flip", "zero"], "mean").mean == max(each)
    table = {
        "columns": ["one", "both"],
        "metric": "reduction",
        "defense": "mean",
        "rows": {"r": {"attack": ["flip", ["flip", "zero"]], "published": [None, 3]}},
    }
    cells = list(measure.table_cells(table))
    assert [cell[2] for cell in cells] == ["flip", ["flip", "zero"]]
    assert [cell[5] for cell in cells] == [None, 3]


def test_parts_in_folders_of_their_own_are_shown_together(store, measure, tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE, encoding="utf-8")
    parts = []
    for defense in ("mean", "krum"):
        suite, _ = load_suite(tmp_path / "small.yaml", [f"only=[{{defense: {defense}}}]"])
        parts.append(run_followed(suite, tmp_path / defense, 1, []))
    whole, both = measure.Measured(store), measure.Measured(*parts)
    for attack in ("none", "zero", "flip"):
        for defense in ("mean", "krum"):
            want = whole.value("TACC", attack, defense, "malicious = 2")
            assert want.seeds == 2
            assert both.value("TACC", attack, defense, "malicious = 2") == want
            assert both.curve("round", "TACC", attack, defense) == whole.curve(
                "round", "TACC", attack, defense
            )
    assert both.points == whole.points
    with pytest.raises(ValueError, match="in common"):
        measure.Measured(store, parts[0])
