"""The figures of the leaderboard, from hand-made rows and from a small run; its page in a browser."""

import importlib
import json
import math
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from fedguard.core.errors import ConfigError
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
RESULTS = FOLDER / "results" / "leaderboard"
NAN = math.nan


@pytest.fixture(scope="module")
def load():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name.startswith("leaderboard")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def table(load):
    return load("leaderboard_rows")


def row(attack, seed, detector, dacc, fnr, auroc, harm, counts, fpr=0.0):
    """One run of 20 client-rounds; ``counts``: false positives, missed idle, missed active."""
    rates = {"dacc": dacc, "dacc_active": dacc, "fpr": fpr, "fnr": fnr, "fnr_active": fnr}
    scores = {"auroc": auroc, "auroc_active": auroc, "tpr_at_1": auroc}
    missed = dict(zip(("false_positives", "missed_idle", "missed_active"), counts, strict=True))
    keys = {"data": "d", "attack": attack, "beta": 0.5, "malicious": 5, "seed": seed, "detector": detector}
    more = {"status": "done", "harm": harm, "tacc": 0.9, "asr": NAN, "n": 20}
    return {**keys, **rates, **scores, **more, **missed}


#: Two detectors, four attacks, two seeds; DACC is 1 − (counts)/20.
ROWS = pd.DataFrame(
    [
        row("none", 0, "a", 1.0, NAN, NAN, NAN, (0, 0, 0)),
        row("none", 1, "a", 0.9, NAN, NAN, NAN, (2, 0, 0), fpr=0.1),
        row("none", 0, "b", 1.0, NAN, NAN, NAN, (0, 0, 0)),
        row("none", 1, "b", 1.0, NAN, NAN, NAN, (0, 0, 0)),
        row("strong", 0, "a", 0.7, 0.8, 0.5, 1.0, (1, 1, 4)),
        row("strong", 0, "b", 1.0, 0.0, 0.99, 1.0, (0, 0, 0)),
        row("ranked", 0, "a", 0.9, 0.4, 0.6, 0.5, (0, 0, 2)),
        row("ranked", 0, "b", 0.85, 0.6, 0.92, 0.5, (0, 0, 3)),
        row("unseen", 1, "a", 0.8, 0.8, 0.7, 0.5, (0, 0, 4)),
        row("unseen", 1, "b", 0.75, 1.0, 0.8, 0.5, (0, 0, 5)),
        row("weak", 1, "a", 0.75, 1.0, 0.99, 0.05, (0, 0, 5)),
        row("weak", 1, "b", 0.75, 1.0, 0.99, 0.05, (0, 0, 5)),
    ]
)


def test_where_it_is_lost_by_hand(table):
    found = table.losses(ROWS)
    shares = 80.0  # client-rounds under attack: 4 runs of 20
    assert found.loc["a"].to_dict() == pytest.approx(
        {
            "lost": 17 / shares,
            "identical to honest": 1 / shares,
            "harmless": 5 / shares,
            "seen by a detector": 4 / shares,
            "ranked .90–.98": 2 / shares,
            "seen by nobody": 4 / shares,
            "false positives": 1 / shares,
        }
    )
    assert found.loc["b", ["seen by a detector", "harmless"]].tolist() == [0.0, 5 / shares]
    attacked = ROWS[ROWS["attack"] != "none"]
    lost = 1 - attacked.groupby("detector")["dacc"].mean()
    assert found["lost"].to_dict() == pytest.approx(lost.to_dict()), "nothing is lost elsewhere"


def test_the_order_and_intervals_by_hand(table):
    found = table.standing(ROWS)
    assert found.index.tolist() == ["b", "a"]
    # of a: seed 0 has (0.7 + 0.9)/2, seed 1 (0.8 + 0.75)/2; t of one degree of freedom is 12.706
    assert found.loc["a", "dacc"] == pytest.approx((0.8 + 0.775) / 2)
    assert found.loc["a", "dacc_ci"] == pytest.approx(12.7062 * (0.8 - 0.775) / 2, rel=1e-4)
    weighted = [(1.0 * 0.8 + 0.5 * 0.4) / 1.5, (0.5 * 0.8 + 0.05 * 1.0) / 0.55]
    assert found.loc["a", "fnr_harm"] == pytest.approx(sum(weighted) / 2)
    assert found.loc["a", "clean"] == pytest.approx(0.05)
    assert found.loc["b", "clean"] == 0.0
    assert found.loc["a", "worst"] == 0.5


def test_rows_survive_their_file(table, tmp_path):
    table.write_rows(ROWS[table.COLUMNS], tmp_path / "rows.csv")
    again = table.read_rows(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(again, ROWS[table.COLUMNS], check_dtype=False)
    assert again["attack"].tolist()[0] == "none", "a name, not a missing value"


def test_rows_of_a_run_are_what_the_store_holds(table, tmp_path):
    few = {"clients": 6, "malicious": 2, "rounds": 2, "mode": "shadow"}
    parts = {"partition": {"name": "dirichlet", "beta": 0.5}, "seeds": [0]}
    flips = {"flip": {"name": "label_flip"}, "none": {"name": "none"}}
    suite = Suite(**few, **parts, attacks=flips, defenses={"norm": {"detector": "norm_bound"}})
    run_suite(suite, tmp_path, 1)
    rows = table.rows_of(tmp_path)
    assert rows[table.KEYS].values.tolist() == [
        ["digits", "flip", 0.5, 2, 0, "norm"],
        ["digits", "none", 0.5, 2, 0, "norm"],
    ]
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as db:
        accuracy = dict(db.execute("SELECT attack, tacc FROM runs"))
        clients = db.execute("SELECT malicious, attacking, suspect FROM clients WHERE run = 0").fetchall()
    flip = rows.iloc[0]
    assert flip["harm"] == pytest.approx(min(1, max(0, (accuracy["none"] - accuracy["flip"]) / 0.1)))
    assert flip["n"] == len(clients) == 12
    assert flip["false_positives"] == sum(not bad and flagged for bad, _, flagged in clients)
    assert flip["missed_active"] == sum(bad and acts and not flagged for bad, acts, flagged in clients)
    assert math.isnan(rows.iloc[1]["harm"])
    assert table.losses(rows)["lost"].tolist() == pytest.approx([1 - flip["dacc"]])


def test_passive_attacks_are_out_and_ones_own_detector_is_in(load):
    board = load("leaderboard")
    names = board.attackers()
    assert {"label_flip", "lie", "none"} <= set(names)
    assert not {"distilled_knowledge", "dlg", "inverting_gradients", "revealing_labels"} & set(names)
    plan = board.suite("digits", False, ["krum"], [3], ["fedguard.detectors.dnc:DnC"], ["lie"])
    assert list(plan.attacks) == ["none", "lie"]
    assert {name: d.detector[0].name for name, d in plan.defenses.items()} == {
        "krum": "krum",
        "DnC": "fedguard.detectors.dnc:DnC",
    }
    assert board.checked(plan) is plan


def test_every_attack_fits_the_board_on_digits(load):
    board = load("leaderboard")
    plan = board.checked(board.suite("digits", False, ["krum"]))
    assert len(plan.attacks) > 20


def test_every_check_of_a_suite_is_run(load):
    board = load("leaderboard")
    plan = board.suite("digits", False, ["krum"], [0], None, ["lie"]).model_copy(update={"malicious": 0})
    with pytest.raises(
        ConfigError, match=r"the leaderboard: attacks\.lie: attack lie needs malicious clients"
    ):
        board.checked(plan)


def test_the_committed_board_is_made_of_the_committed_rows(load):
    board, rows = load("leaderboard_board"), load("leaderboard_rows")
    files = sorted(RESULTS.glob("*.csv"))
    assert files
    whole = pd.concat([rows.read_rows(path) for path in files], ignore_index=True)
    assert (RESULTS / "board.html").read_text(encoding="utf-8") == board.board(whole)


@pytest.fixture(scope="module")
def page(load, tmp_path_factory):
    rows = ROWS.replace({"detector": {"a": "a</script><script>throw 1</script>"}})
    path = tmp_path_factory.mktemp("board") / "board.html"
    path.write_text(load("leaderboard_board").board(rows), encoding="utf-8")
    return path


TEXTS = """JSON.stringify([...document.querySelectorAll('tbody tr')].map(
    row => [...row.children].map(cell => cell.textContent)))"""
CHANGE = """(() => {{
    const field = document.querySelector('[name={}]');
    field.value = {!r};
    field.dispatchEvent(new Event('input', {{bubbles: true}}));
}})()"""


@pytest.mark.parametrize("width", [390, 1400])
def test_it_renders_quietly_and_fits(browser, page, width):
    browser.open(page, width)
    assert browser.complaints() == []
    assert browser.requests() == [page.absolute().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_it_computes_sorts_and_filters(browser, page, table):
    browser.open(page, 1400)
    first, second = json.loads(browser.evaluate(TEXTS))
    assert first[0] == "b"
    assert second[0].startswith("a</script>"), "a name is text"
    expected = table.standing(ROWS).loc["a"]
    names = ["dacc", "dacc_active", "fpr", "fnr", "fnr_active", "fnr_harm", "clean", "auroc", "tpr_at_1"]
    for text, name in zip(second[1:], names, strict=True):
        value, width = (float(part) for part in text.split(" ± "))
        assert value == pytest.approx(100 * expected[name], abs=0.06), name
        assert width == pytest.approx(100 * expected[f"{name}_ci"], abs=0.06), name
    browser.evaluate("document.querySelector('th[data-name=dacc] button').click()")
    assert [cells[0][0] for cells in json.loads(browser.evaluate(TEXTS))] == ["a", "b"]
    browser.evaluate(CHANGE.format("attack", "strong"))
    assert [cells[1] for cells in json.loads(browser.evaluate(TEXTS))] == ["70.0", "100.0"]
    browser.evaluate(CHANGE.format("detector", "SCRIPT"))
    assert len(json.loads(browser.evaluate(TEXTS))) == 1
