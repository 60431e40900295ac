"""``fedguard plot``: files of the right kind, the numbers of the store, plain words where nothing is."""

import shutil
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from fedguard.cli.entry import main
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.evaluation.results.figures import grid, saved
from fedguard.evaluation.results.figures.style import Sheet
from fedguard.evaluation.results.plot import KINDS, plot
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.holdings import federations, holdings
from fedguard.evaluation.suites.load import load_suite

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("results")
    changes = [
        "rounds=2", "clients=10", "malicious=3", "model=logistic_regression", "mode=both", "seeds=[0,1]",
        "attacks=[none, {name: byzantine, label: 'costs $1 or $2_x'}]",
        "defenses=[none, {detector: krum}, {detector: norm_bound, policy: ban}]",
    ]  # fmt: skip
    suite, source = load_suite("quickstart", changes)
    check_suite(suite, source)
    return run_suite(suite, base / "out", workers=1).folder


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    made, original = [], Sheet.figure
    monkeypatch.setattr(Sheet, "figure", lambda *size: made.append(original(*size)) or made[-1])
    return made


HEADS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("success", "client_map", "critical_difference")]
)
def test_kinds(folder, tmp_path, kind):
    out = plot(folder, kind, tmp_path / "f.svg", where={"mode": "closed"}, sheet=Sheet(1, dark=True))
    text = out.read_text()
    assert text.startswith("<?xml")
    assert f'width="{3.5 * 72:.0f}pt"' in text or kind == "pareto"
    assert "#14171b" in text


def test_the_partition_is_that_of_the_suite(folder, tmp_path, figures, monkeypatch, capsys):
    """The bars hold the counts of ``fedguard partition``; a point of a grid must be chosen."""
    plot(folder, "partition", tmp_path / "p.svg", where={"mode": "closed", "seed": 1})
    suite, source = load_suite(folder / "suite.yaml")
    counts = holdings(federations(suite, source, 1)[0], source).counts
    bars = figures[0].axes[0].containers
    assert [[bar.get_height() for bar in one] for one in bars[: counts.shape[1]]] == counts.T.tolist()
    with pytest.raises(ParameterError, match=r"the grid of .* has no lr"):
        plot(folder, "partition", tmp_path / "p.svg", where={"lr": 1})
    text = (folder / "suite.yaml").read_text(encoding="utf-8")
    varied = shutil.copytree(folder, tmp_path / "varied")
    (varied / "suite.yaml").write_text(text.replace("grid: {}", "grid: {partition.beta: [0.1, 1.0]}"))
    with pytest.raises(ParameterError, match=r"there are partition\.beta = 0\.1; partition\.beta = 1\.0"):
        plot(varied, "partition", tmp_path / "p.svg")
    chosen = ["--where", "partition.beta=0.1", "--out", str(tmp_path / "q.svg")]
    monkeypatch.setattr(sys, "argv", ["fedguard", "plot", str(varied), "--kind", "partition", *chosen])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0, (tmp_path / "q.svg").exists()) == (0, True), capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_with_advice(folder, monkeypatch):
    def refuse(path, _):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(saved, "write_atomically", refuse)
    with pytest.raises(ConfigError, match=r"cannot write .*heatmap\.svg: Permission denied; .*--out"):
        plot(folder, "heatmap", where={"mode": "closed"})


@pytest.mark.parametrize("ending", HEADS)
def test_files(folder, tmp_path, ending):
    out = plot(folder, "pareto", tmp_path / f"f{ending}", where={"mode": "closed"})
    assert out.read_bytes().startswith(HEADS[ending])


def test_a_file_is_vector_by_default_and_the_same_every_time(folder):
    first = plot(folder, "heatmap", where={"mode": "closed"})
    assert first == folder / "heatmap.svg"
    before = first.read_bytes()
    assert plot(folder, "heatmap", where={"mode": "closed"}).read_bytes() == before


def test_the_heat_map_holds_the_means_of_the_store(folder, tmp_path, figures):
    plot(folder, "heatmap", tmp_path / "f.png", metric="tacc", where={"mode": "closed"})
    with closing(sqlite3.connect(folder / "results.sqlite")) as db:
        rows = db.execute(
            "SELECT avg(tacc) FROM runs WHERE mode = 'closed' GROUP BY attack, defense ORDER BY min(run)"
        ).fetchall()
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert texts == [f"{100 * value:.1f}" for (value,) in rows]


def test_lines_are_named_and_go_through_the_means(folder, tmp_path, figures):
    plot(folder, "accuracy", tmp_path / "f.png", where={"mode": "closed"})
    axis = figures[0].axes[0]
    assert axis.get_title() == "none"
    assert figures[0].axes[1].get_title() == "costs $1 or $2_x"
    line = next(line for line in axis.get_lines() if line.get_label() == "Krum")
    with closing(sqlite3.connect(folder / "results.sqlite")) as db:
        rows = db.execute(
            "SELECT round + 1, 100 * avg(rounds.tacc) FROM rounds JOIN runs USING (run) "
            "WHERE mode = 'closed' AND attack = 'none' AND defense = 'krum' GROUP BY round ORDER BY 1"
        ).fetchall()
    assert line.get_xydata() == pytest.approx(np.array(rows))
    assert "mean over 2 seeds" in figures[0].legends[0].get_title().get_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "heat"}, "no kind 'heat', did you mean 'heatmap'"),
        ({"metric": "dac"}, "no heat map of 'dac', did you mean 'dacc'"),
        ({"metric": "asr"}, "asr is undefined in all of these runs"),
        ({"out": "f.jpeg"}, r"ends in \.png, \.svg, \.pdf"),
        ({"where": {}}, "choose with --where .*closed; shadow"),
        ({"kind": "skew_share", "where": {}}, "choose with --where .*closed; shadow"),
        ({"kind": "roc", "where": {"mode": "closed", "attack": "none"}}, "no roc to draw"),
        ({"kind": "scores", "where": {"mode": "closed", "defense": "none"}}, "no finite score"),
    ],
)
def test_mistakes(folder, tmp_path, change, message):
    given = {"kind": "heatmap", "out": "f.png", "where": {"mode": "closed"}, **change}
    with pytest.raises(ParameterError, match=message):
        plot(folder, given.pop("kind"), tmp_path / given.pop("out"), **given)


def test_too_many_panels(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "MAX_PANELS", 1)
    with pytest.raises(ParameterError, match="2 panels are too many"):
        plot(folder, "accuracy", tmp_path / "f.png", where={"mode": "closed"})


def test_a_file_that_cannot_be_written(folder, tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        plot(folder, "accuracy", tmp_path / "nowhere" / "f.png", where={"mode": "closed"})


def test_without_matplotlib(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ParameterError, match=r'^a figure needs an extra: pip install "fedguard\[plot\]"'):
        plot(folder, "accuracy", tmp_path / "f.png", where={"mode": "closed"})
