"""The same numbers are marked on the terminal, in a report, in Markdown and in LaTeX; oracle: by hand."""

import re
import sqlite3
from contextlib import closing
from xml.etree import ElementTree as ET

import pytest

from fedguard.evaluation.results.export import export
from fedguard.evaluation.results.frame import metrics_frame
from fedguard.evaluation.results.layout import Layout
from fedguard.evaluation.results.marks import marked
from fedguard.evaluation.results.report.page import render
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import SHOWN, attack_tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """
clients: 6
malicious: 1
rounds: 1
seeds: [0, 1, 2]
attacks: [label_flip]
defenses: {winner: {detector: krum}, twin: {detector: krum}, other: {detector: krum}, last: {detector: krum}}
"""
#: By seed. AUROC: everybody is below chance. FNR: one wins clearly, and the next two are equal. FPR: two are
#: equally good. ASR: on average one wins, but not in every seed. TACC: the first two are clear, and the third
#: beats the last by the same in every seed.
VALUES = {
    "winner": {
        "auroc": (0.016, 0.02, 0.01),
        "fnr": (0.1, 0.11, 0.1),
        "fpr": (0.1, 0.1, 0.1),
        "asr": (0.9, 0.0, 0.0),
        "tacc": (0.9, 0.91, 0.9),
    },
    "twin": {
        "auroc": (0.01, 0.01, 0.01),
        "fnr": (0.4, 0.4, 0.4),
        "fpr": (0.1, 0.1, 0.1),
        "asr": (0.4, 0.4, 0.4),
        "tacc": (0.8, 0.8, 0.8),
    },
    "other": {
        "auroc": (0.01, 0.01, 0.01),
        "fnr": (0.4, 0.4, 0.4),
        "fpr": (0.3, 0.3, 0.3),
        "asr": (0.8, 0.8, 0.8),
        "tacc": (0.7, 0.7, 0.71),
    },
    "last": {
        "auroc": (0.0, 0.0, 0.0),
        "fnr": (0.9, 0.9, 0.9),
        "fpr": (0.9, 0.9, 0.9),
        "asr": (0.9, 0.9, 0.9),
        "tacc": (0.1, 0.1, 0.1),
    },
}
BEST = {("winner", "FNR"), ("winner", "TACC")}
SECOND = {("twin", "TACC")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    (folder / "s.yaml").write_text(SUITE)
    done = run_suite(load_suite(folder / "s.yaml")[0], folder / "out", workers=1)
    with closing(sqlite3.connect(done.path)) as db, db:
        db.execute("UPDATE runs SET aar = NULL, dacc = NULL")
        db.execute("UPDATE timings SET seconds = 1")
        for defense, values in VALUES.items():
            for metric, by_seed in values.items():
                for seed, value in enumerate(by_seed):
                    where = (value, defense, seed)
                    db.execute(f"UPDATE runs SET {metric} = ? WHERE defense = ? AND seed = ?", where)  # noqa: S608
    return Store(done.folder)


def cells(lines, header, pattern):
    """(defense, metric) of the cells that match a pattern."""
    found = set()
    for line in lines:
        for title, text in zip(header, line, strict=True):
            if re.search(pattern, text):
                found.add((line[[h.lower() for h in header].index("defense")], title.split(" ")[0]))
    return found


def test_on_the_terminal(store):
    frame = metrics_frame(store)
    ((_, table),) = attack_tables(frame, found=marked(store, frame, SHOWN))
    header = [str(column.header) for column in table.columns]
    lines = list(zip(*(column.cells for column in table.columns), strict=True))
    assert cells([[str(cell) for cell in line] for line in lines], header, r"\*$") == BEST


def test_in_markdown(store):
    lines = [line.strip("| ").split("|") for line in export(store, "markdown").decode().splitlines()]
    header, _, *body = [[cell.strip() for cell in line] for line in lines]
    assert cells(body, header, r"^\*\*.*\*\*$") == BEST


@pytest.mark.parametrize(("sign", "expected"), [("textbf", BEST), ("underline", SECOND)])
def test_in_latex(store, sign, expected):
    lines = export(store, "latex", Layout()).decode().replace("\\\\", "").splitlines()
    rows = [line.split("&") for line in lines if "&" in line]
    header, *body = [[cell.strip() for cell in row] for row in rows]
    assert cells(body, header, rf"\\{sign}") == expected


@pytest.mark.parametrize(("kind", "expected"), [("best", BEST), ("second", SECOND)])
def test_in_the_report(store, kind, expected):
    text = re.search(r"<table\b.*?</table>", render(store), re.DOTALL)[0].replace("&nbsp;", " ")
    first, *rest = ET.fromstring(text).iter("tr")  # noqa: S314 - our own
    titles = ["".join(cell.itertext()).split(" ")[0] for cell in first][1:]
    rows = [(row.find("th").text, row.findall("td")) for row in rest if row.findall("td")]
    assert len(rows) == len(VALUES)
    assert {
        (defense, title)
        for defense, numbers in rows
        for title, cell in zip(titles, numbers, strict=True)
        if cell.get("class") == kind
    } == expected
