"""Results in Python: the numbers of the store as frames, tables, figures, files; progress in a notebook."""

import doctest
import gc
import json
import re
import sys
import types

import pandas as pd
import pytest

import fedguard
from fedguard.core.errors import ParameterError, ResultsError
from fedguard.evaluation.api.progress import Notebook, followers_for, in_notebook
from fedguard.evaluation.results.export import export
from fedguard.evaluation.running.live import Terminal

SETTINGS = {
    "clients": 8,
    "malicious": 2,
    "rounds": 2,
    "attacks": {"none": "none", "<b>1 & 2": "byzantine"},
    "defenses": {"dnc": "dnc", "none": "none"},
    "seeds": [0, 1],
    "training.lr": [0.1, 0.2],
    "workers": 1,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fedguard.evaluate(None, out=tmp_path_factory.mktemp("results") / "out", **SETTINGS)


def test_frames(results):
    frame, rounds, clients = results.frame, results.rounds, results.clients
    assert len(frame) == 2 * 2 * 2 * 2
    assert len(rounds) == 2 * len(frame)
    assert len(clients) == 8 * len(rounds)
    assert list(frame["training.lr"].unique()) == [0.1, 0.2]
    last = rounds[rounds["round"] == 1].set_index("run")["tacc"]
    assert frame.set_index("run")["tacc"].equals(last)
    assert set(clients.columns) >= {"attack", "defense", "seed", "malicious", "score", "reason"}
    assert repr(results) == f"<Results: 16 runs, in {results.folder}>"
    assert results.path.name == "results.sqlite"
    assert results.failures == []


def test_a_table_has_the_means_over_seeds(results):
    table = results.table(rows=["attack", "training.lr"], columns="defense", values=["tacc"])
    frame = results.frame
    means = frame.groupby(["attack", "training.lr", "defense"])["tacc"].mean()
    for _, row in table.frame.iterrows():
        assert row["dnc tacc"] == pytest.approx(means[row["attack"], row["training.lr"], "dnc"])
    assert "TACC %; mean ± 95 % confidence interval over 2 seeds" in str(table)
    assert repr(table) == str(table)
    assert len(str(table).splitlines()) == 2 + 4 + 1


def test_a_notebook_shows_a_table_and_text_stays_text(results):
    html = results.table(where={"training.lr": 0.1})._repr_html_()
    assert "&lt;b&gt;1 &amp; 2" in html
    assert not re.search(r"<b>1 & 2", html)
    (cells,) = re.findall(r"<tr>(<td[^>]*>&lt;b&gt;.*?)</tr>", html)
    assert cells.count("<td") == 3
    assert html.count("<b>") == html.count("</b>")


def test_tables_as_text_and_files(results, tmp_path):
    table = results.table(where={"training.lr": 0.1})
    assert table.to_latex(tmp_path / "t.tex") == (tmp_path / "t.tex").read_text()
    assert table.to_latex().startswith("\\begin{table}[t]")
    assert "\\&lt;" not in table.to_latex()
    assert table.to_markdown().startswith("| attack")
    assert "dacc" in table.to_csv() or "dnc" in table.to_csv()
    with pytest.raises(fedguard.errors.ConfigError, match="cannot write"):
        table.to_csv(tmp_path / "none" / "t.csv")


def test_a_table_of_all_metrics(results):
    table = results.table(columns="", values="all")
    assert "AUROC" in str(table)
    assert "confidence interval" in table.caption
    joined = results.table(values=["tacc", "dacc"], joined=True)
    assert "/" in str(joined)
    with pytest.raises(ParameterError, match="did you mean 'tacc'"):
        results.table(values="tac")
    with pytest.raises(ParameterError, match="there is no setting"):
        results.table(rows="attac")
    with pytest.raises(ParameterError, match="no run is left"):
        results.table(where={"attack": "lie"})


def test_export_is_the_command_lines(results, tmp_path):
    from fedguard.evaluation.results.store import Store

    for format in ("csv", "markdown", "latex", "json"):
        assert results.export(format).encode() == export(Store(results.folder), format)
    path = results.export(tmp_path / "all.json")
    assert json.loads(path.read_text())[0]["attack"] == "none"
    assert (
        results.export(str(tmp_path / "t.md"), columns="defense", values="dacc").read_text().count("dnc") == 1
    )
    with pytest.raises(ParameterError, match=r"cannot export to 'x\.doc'"):
        results.export("x.doc")


def test_a_report_is_written(results, tmp_path):
    assert "dnc" in results.report(tmp_path / "r.html", where={"training.lr": 0.1}).read_text()
    assert results.report() == results.folder / "report.html"


@pytest.mark.parametrize("kind", ["heatmap", "accuracy", "roc", "scores"])
def test_figures(results, kind):
    pytest.importorskip("matplotlib")
    figure = results.plot(kind, where={"training.lr": 0.1})
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ParameterError, match="no kind 'heat'"):
        results.plot("heat")


def test_comparison(results, tmp_path):
    other = fedguard.evaluate(None, **{**SETTINGS, "rounds": 3}, out=tmp_path / "other")
    comparison = results.compare(other, values="tacc")
    assert ("rounds", "2", "3") in comparison.settings
    assert "setting rounds: 2 → 3" in str(comparison)
    assert str(results.compare(tmp_path / "other", values=["tacc"])) == str(comparison)
    with pytest.raises(ResultsError, match=r"holds no results\.sqlite"):
        results.compare(tmp_path)


def test_temporary_results_live_as_long_as_the_object(tmp_path):
    results = fedguard.evaluate(None, clients=4, rounds=1, workers=1)
    folder = results.folder
    assert "temporary" in repr(results)
    kept = results.save(tmp_path / "kept")
    assert results.frame.equals(kept.frame)
    pd.testing.assert_frame_equal(fedguard.load(tmp_path / "kept").clients, results.clients)
    with pytest.raises(ResultsError, match="is not empty"):
        results.save(tmp_path / "kept")
    del results
    gc.collect()
    assert not folder.exists()


def test_a_saved_folder_can_be_resumed(tmp_path):
    settings = {"clients": 4, "rounds": 1, "workers": 1}
    fedguard.evaluate(None, **settings).save(tmp_path / "kept")
    again = fedguard.evaluate(None, **settings, out=tmp_path / "kept")
    assert len(again.frame) == 1


@pytest.mark.parametrize("name", ["evaluate", "load"])
def test_the_examples_of_the_docstrings_run(name):
    function = getattr(fedguard, name)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (example,) = finder.find(function, name, globs={})
    assert len(example.examples) >= 3
    assert runner.run(example).failed == 0


def test_no_results(tmp_path):
    with pytest.raises(ResultsError, match=r"holds no results\.sqlite"):
        fedguard.load(tmp_path)


# --- progress


class Display:
    """What a notebook's output shows."""

    def __init__(self):
        self.shown = []

    def display(self, html, display_id):
        assert display_id is True
        self.update(html)
        return self

    def update(self, html):
        self.shown.append(html)


@pytest.fixture
def kernel(monkeypatch):
    screen = Display()
    shell = types.SimpleNamespace(kernel=object())
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell
    tools = types.ModuleType("IPython.display")
    tools.display, tools.HTML = screen.display, str
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", tools)
    return screen


def test_progress_in_a_notebook(kernel, monkeypatch):
    monkeypatch.setattr("fedguard.evaluation.api.progress.PAUSE", 0)
    assert in_notebook()
    fedguard.evaluate(None, clients=4, rounds=2, seeds=[0, 1], attacks={"<i>": "none"}, workers=1)
    assert kernel.shown[0].startswith('<progress value="0" max="4">')
    assert any('value="3"' in text and "&lt;i&gt; × none" in text for text in kernel.shown)
    assert re.fullmatch(r"2 runs in \d+ s", kernel.shown[-1])


def test_an_interrupted_notebook_says_so(kernel, monkeypatch):
    monkeypatch.setattr(Notebook, "round_done", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fedguard.evaluate(None, clients=4, rounds=2, workers=1)
    assert kernel.shown[-1] == "interrupted after 0 of 1 runs"


def test_progress_elsewhere(monkeypatch, capsys):
    assert not in_notebook()
    assert followers_for("auto", 1, False) == [], "not on a terminal"
    (terminal,) = followers_for(True, 1, False)
    assert isinstance(terminal, Terminal)
    fedguard.evaluate(None, clients=4, rounds=1, workers=1)
    assert capsys.readouterr().out == ""
    fedguard.evaluate(None, clients=4, rounds=1, workers=1, progress=True)
    said = capsys.readouterr().out
    assert "1 runs in" in said
    assert "DACC" not in said, "the tables are the caller's"
