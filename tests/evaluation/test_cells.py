"""Cells of CSV and Markdown: no formula, no markup, no broken row."""

import contextlib
import csv
import importlib.util
import io
import shutil
import sqlite3
import sys

import pandas as pd
import pytest
import yaml

import fedguard
from fedguard.cli.entry import main
from fedguard.evaluation.cells import csv_cell, csv_text, markdown_cell
from fedguard.evaluation.results.export import export
from fedguard.evaluation.results.layout import Layout
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.ledger.sqlite import SQLiteLedger

FORMULA = "=cmd|' /C calc'!A0"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_begins_like_a_formula_gets_an_apostrophe(first):
    assert csv_cell(f"{first}x") == f"'{first}x"
    assert csv_cell(f"x{first}") == f"x{first}"


@pytest.mark.parametrize("number", ["-1.5", "+2", "-1e-3", "-inf", -1.5, -2, None, True])
def test_numbers_stay_numbers(number):
    assert csv_cell(number) == number


def test_no_cell_drives_the_terminal_that_shows_a_csv_file():
    assert csv_cell("\x1b[2Jx\u202e\x00\ud800") == r"\x1b[2Jx\u202e\x00\ud800"
    assert csv_cell("=\x1b") == r"'=\x1b"


def test_headings_and_mixed_columns():
    frame = pd.DataFrame({"=a": [-1.5, -2.5], "b": ["@x", -1], "c": ["-1", "plain"]}, dtype=object)
    frame["=a"] = frame["=a"].astype(float)
    read = list(csv.reader(io.StringIO(csv_text(frame))))
    assert read == [["'=a", "b", "c"], ["-1.5", "'@x", "-1"], ["-2.5", "-1", "plain"]]


def test_markdown_is_text():
    assert markdown_cell("a|b") == r"a\|b"
    assert markdown_cell("`x` **y** [z](u)") == r"\`x\` \*\*y\*\* \[z\](u)"
    assert markdown_cell("<b>&") == "&lt;b&gt;&amp;"
    assert "\n" not in markdown_cell("a\nb")
    assert markdown_cell("\\|") == r"\\\|"


SUITE = f"""\
data: digits
clients: 6
malicious: 1
rounds: 1
attacks: {{"a|b": {{name: byzantine}}, "{FORMULA}": {{name: byzantine}}}}
defenses: {{"<i>": {{detector: krum}}}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    (folder / "s.yaml").write_text(SUITE, encoding="utf-8")
    return run_suite(load_suite(folder / "s.yaml")[0], folder / "out", workers=1)


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(rows=("defense",), columns=("attack",))], ids=["long", "wide"]
)
def test_every_row_of_an_exported_table_has_as_many_cells(store, layout):
    text = export(store, "markdown", layout).decode()
    bars = {line.replace(r"\|", "").count("|") for line in text.splitlines()}
    assert len(bars) == 1
    assert r"a\|b" in text
    assert "&lt;i&gt;" in text
    assert "<i>" not in text


def test_no_cell_of_an_exported_csv_is_a_formula(store):
    for layout in (Layout(), Layout(rows=("defense",), columns=("attack",))):
        cells = [c for row in csv.reader(io.StringIO(export(store, "csv", layout).decode())) for c in row]
        assert any(FORMULA in cell for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_no_command_writes_through_a_link(store, tmp_path, monkeypatch, capsys):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = str(store.folder)
    calls = [["export", folder, "-o"], ["report", folder, "-o"], ["plot", folder, "-k", "accuracy", "-o"]]
    for call in calls:
        link = tmp_path / f"{call[0]}.png"
        link.symlink_to(precious)
        if call[0] == "plot" and importlib.util.find_spec("matplotlib") is None:
            continue
        monkeypatch.setattr(sys, "argv", ["fedguard", *call, str(link)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert "is a link" in capsys.readouterr().err
        assert precious.read_text() == "precious"


def test_an_exported_ledger_holds_no_formula(tmp_path, monkeypatch, capsys):
    ledger = SQLiteLedger(tmp_path / "l.db")
    ledger.judge(FORMULA, 0, -2.0, True)
    monkeypatch.setattr(sys, "argv", ["fedguard", "ledger", "export", str(tmp_path / "l.db")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["client"] == f"'{FORMULA}"
    assert float(row["last_score"]) == -2.0


def test_labels_and_names_of_somebody_elses_folder_are_text_everywhere(store, tmp_path):
    """Suites refuse such labels; a database and names.yaml may hold anything."""
    theirs, hostile = tmp_path / "theirs", "\x1b[2J\u202e<script>\\input{x}^^5c$\x02\x07\n\nx"
    shutil.copytree(store.folder, theirs)
    with contextlib.closing(sqlite3.connect(theirs / "results.sqlite")) as database:
        database.execute("UPDATE runs SET attack = ? WHERE attack = 'a|b'", (hostile,))
        database.commit()
    (theirs / "names.yaml").write_text(yaml.safe_dump({"<i>": hostile, "attack": hostile, hostile: hostile}))
    table = fedguard.load(theirs).table()
    latex = table.to_latex()
    for text in (str(table), table._repr_html_(), latex, table.to_markdown(), table.to_csv()):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in table._repr_html_() + table.to_markdown()
    assert r"\input{" not in latex
    assert r"\textasciicircum{}\textasciicircum{}5c\$" in latex
    assert "\n\n" not in latex
