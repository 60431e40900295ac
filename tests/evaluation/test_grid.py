"""Grids: every combination once, filters, and mistakes by line."""

import itertools
import sys

import pytest

from fedguard.cli.entry import main
from fedguard.core.errors import ConfigError
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.source import choices

SUITE = """\
data: digits
partition: {name: dirichlet, beta: 1.0}
model: logistic_regression
clients: 8
malicious: [1, 3]
rounds: 1
training: {steps: 2, batch_size: 16, lr: [0.1, 0.2]}
seeds: [0, 1]
attacks: [byzantine, none]
defenses: {krum: {detector: krum}, no_defense: none}
"""


def suite_of(tmp_path, *overrides, text=SUITE):
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    suite, source = load_suite(path, list(overrides))
    check_suite(suite, source)
    return suite


def test_lists_in_the_settings_are_axes(tmp_path):
    cells = suite_of(tmp_path).cells()
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * 2 * 2 * 2
    assert {(c.malicious, c.training.lr) for c in cells} == {(1, 0.1), (1, 0.2), (3, 0.1), (3, 0.2)}
    assert all(c.point == {"malicious": c.malicious, "training.lr": c.training.lr} for c in cells)


def test_any_setting_by_its_path(tmp_path):
    grid = (
        "grid={model: [logistic_regression, {name: mlp, hidden: [4]}], "
        "partition.beta: [0.5, 5.0], attacks.byzantine.mode: [zero, random], "
        "defenses.krum.detector.PATH: [krum, m_krum]}"
    )
    for wrong in ("1.select", "select.deeper", "0.0.select", "x.select"):
        with pytest.raises(ConfigError, match=rf"there is no defenses\.krum\.detector\.{wrong}"):
            suite_of(tmp_path, grid.replace("PATH", wrong))
    suite = suite_of(tmp_path, grid.replace("PATH", "select"), "malicious=2")
    by_position = suite_of(tmp_path, grid.replace("PATH", "0.select"), "malicious=2")
    assert [c.defense for c in suite.cells()] == [c.defense for c in by_position.cells()]
    cells = [c for c in suite.cells() if c.attack_label == "byzantine" and c.seed == 0]
    found = {
        (
            c.model.name,
            c.partition.params["beta"],
            c.attack.params["mode"],
            c.defense.detector[0].params["select"],
        )
        for c in cells
        if c.defense_label == "krum"
    }
    assert found == set(
        itertools.product(("logistic_regression", "mlp"), (0.5, 5.0), ("zero", "random"), ("krum", "m_krum"))
    )


def test_the_same_cell_has_the_same_key_with_and_without_a_grid(tmp_path):
    with_grid = {c.key for c in suite_of(tmp_path).cells()}
    alone = {c.key for c in suite_of(tmp_path, "malicious=3", "training.lr=0.1").cells()}
    assert alone < with_grid
    assert len(alone) == 8


def test_filters(tmp_path):
    suite = suite_of(
        tmp_path,
        "only=[{attack: byzantine, malicious: 3}, {attack: none, seed: 1}]",
        "exclude=[{defense: krum, training.lr: [0.2]}]",
    )
    cells = suite.cells()
    assert len(cells) == (2 * 2 + 2 * 2) * 2 - (2 + 2)
    assert not [c for c in cells if c.defense_label == "krum" and c.training.lr == 0.2]
    assert {c.malicious for c in cells if c.attack_label == "byzantine"} == {3}


def test_defenses_are_told_what_holds_at_their_point(tmp_path):
    from fedguard.simulation.build import build_guard

    for cell in suite_of(tmp_path).cells():
        if cell.defense_label == "krum":
            assert build_guard(cell).detectors["krum"].num_malicious == cell.malicious


def test_the_stored_suite_runs_to_the_same_results(tmp_path):
    suite = suite_of(tmp_path, "seeds=[0]")
    store = run_suite(suite, tmp_path / "out", workers=1)
    again, _ = load_suite(store.folder / "suite.yaml")
    other = run_suite(again, tmp_path / "again", workers=1)
    columns = ["point", "attack", "defense", "dacc", "tacc", "malicious", "assumed_malicious"]
    assert store.table("runs")[columns].equals(other.table("runs")[columns])


def test_anchors_have_a_place(tmp_path):
    text = "anchors:\n  slow: &slow {steps: 1, lr: 0.01}\n" + SUITE.replace(
        "training: {steps: 2, batch_size: 16, lr: [0.1, 0.2]}", "training: *slow"
    )
    suite = suite_of(tmp_path, text=text)
    assert suite.training.lr == 0.01
    assert len(suite.cells()) == 16


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "grid={trainning.lr: [1]}",
            r"grid\.trainning\.lr: there is no trainning\.lr, did you mean 'training'",
        ),
        ("grid={rounds: [1, x]}", r"grid\.rounds: .*integer.* got 'x'"),
        ("grid={rounds: []}", r"grid\.rounds: .*at least 1"),
        ("only=[{attak: byzantine}]", r"only\.0: cells cannot be matched by 'attak', did you mean 'attack'"),
        ("exclude=[{attack: bizantine}]", r"exclude\.0: nothing matches"),
        ("exclude=[{attack: [byzantine, none]}]", "nothing is left to run"),
        ("clients=[8, 4]", r"defenses\.krum: krum .*\(at clients = 4, malicious = 3"),
    ],
)
def test_mistakes_are_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        suite_of(tmp_path, override)


def test_tables_keep_points_and_modes_apart(tmp_path):
    from fedguard.evaluation.results.export import export
    from fedguard.evaluation.results.frame import metrics_frame
    from fedguard.evaluation.results.tables import attack_tables

    suite = suite_of(tmp_path, "mode=both", "training.lr=0.1")
    store = run_suite(suite, tmp_path / "out", workers=1)
    frame = metrics_frame(store)
    assert len(frame) == 2 * 2 * 2 + 2 * 2 * 1, "closed: two defenses, shadow: the one with a detector"
    assert set(frame["seeds"]) == {2}
    runs = store.table("runs")
    row = frame[
        (frame["point"] == "malicious = 3") & (frame["mode"] == "shadow") & (frame["attack"] == "byzantine")
    ]
    expected = runs[
        (runs["point"] == '{"malicious": 3}') & (runs["mode"] == "shadow") & (runs["attack"] == "byzantine")
    ]
    assert row["dacc"].item() == pytest.approx(expected["dacc"].mean())
    headings = [heading for heading, _ in attack_tables(frame)]
    assert len(headings) == len(set(headings)) == 8
    assert any(h.startswith("malicious = 1; shadow mode: attack: Byzantine") for h in headings)
    assert "| point " in export(store, "markdown").decode()
    assert "malicious = 3" in export(store, "csv").decode()
    assert "shadow" in export(store, "latex").decode()


def test_runs_are_chosen_by_the_path_of_a_setting(tmp_path, monkeypatch, capsys):
    """``--where partition.beta=5.0`` in every command that shows results."""
    changes = ("grid={partition.beta: [0.5, 5.0]}", "malicious=1", "training.lr=0.1", "seeds=[0]")
    run_suite(suite_of(tmp_path, *changes, "attacks=[byzantine]"), tmp_path / "out", workers=1)
    arguments = ["--where", "partition.beta=5.0", "--columns", "dacc"]
    monkeypatch.setattr(sys, "argv", ["fedguard", "export", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert out.count("partition.beta = 5.0") == 2
    assert "partition.beta = 0.5" not in out
    assert choices(["a.b=1", "c=[x, y]"]) == {"a.b": 1, "c": ["x", "y"]}
    with pytest.raises(ConfigError, match=r"write key\.path=value"):
        choices(["a.b"])


def test_runs_by_a_parameter_of_a_detector(tmp_path):
    """The grid's own path is a column, though a run only knows its own defense."""
    from fedguard.evaluation.results.frame import run_frame

    path = "defenses.krum.detector.select"
    overrides = (f"grid={{{path}: [krum, m_krum]}}", "malicious=1", "training.lr=0.1", "seeds=[0]")
    suite = suite_of(tmp_path, *overrides, "only=[{attack: byzantine, defense: krum}]")
    store = run_suite(suite, tmp_path / "out", workers=1)
    runs = run_frame(store, [path, "model"])
    assert list(runs[path]) == ["krum", "m_krum"]
    assert set(runs["model"]) == {"logistic_regression"}
    first, second = (store.rows("clients", [run])["weight"].gt(0).sum() for run in runs["run"])
    assert (first, second) == (1, 7)
