"""Two results folders beside each other; oracles: scipy's paired t test, Holm's procedure by hand."""

import shutil
import sqlite3

import numpy as np
import pytest
from scipy.stats import ttest_rel

from fedguard.core.errors import ResultsError
from fedguard.evaluation.results.compare import Change, Comparison, _corrected, compare, show_comparison
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import COLUMNS
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """
clients: 8
rounds: 2
model: logistic_regression
malicious: 2
training: {epochs: 1, lr: 0.1}
seeds: [0, 1, 2]
attacks: [none, label_flip]
defenses: {nothing: {}, m_krum: {detector: {name: krum, select: m_krum}}}
"""


def run(folder, *overrides):
    (folder / "s.yaml").write_text(SUITE)
    suite, source = load_suite(folder / "s.yaml", list(overrides))
    check_suite(suite, source)
    return run_suite(suite, folder / "out", workers=1)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return run(tmp_path_factory.mktemp("before"))


def edited(store, folder, *statements):
    folder.mkdir()
    for name in ("results.sqlite", "suite.yaml"):
        shutil.copy(store.folder / name, folder / name)
    with sqlite3.connect(folder / "results.sqlite") as db:
        for statement in statements:
            db.execute(statement)
    return Store(folder)


def printed(comparison, everything=False):
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=160)
    for part in show_comparison(comparison, everything):
        console.print(part)
    return console.file.getvalue()


def test_a_folder_does_not_differ_from_itself(before):
    found = compare(before, before, ["dacc", "tacc", "asr"])
    assert found.changes == []
    assert found.settings == []
    assert found.code is None
    assert found.only == ([], [])
    assert found.compared == 4 + 2, "TACC of four combinations, DACC of two; nothing has an ASR"
    assert "6 metrics compared, 0 differ" in printed(found)
    assert compare(before, before, ["all"]).changes == []


def test_changes_are_paired_by_seed_and_tested(before, tmp_path):
    shift = "UPDATE runs SET tacc = tacc - 0.1 - 0.001 * seed * seed WHERE attack = 'label_flip'"
    after = edited(before, tmp_path / "after", shift)
    found = compare(before, after, ["tacc"])
    assert [(c.where[2:], c.seeds) for c in found.changes] == [
        (("label_flip", "nothing"), 3),
        (("label_flip", "m_krum"), 3),
    ]
    for change in found.changes:
        sides = [
            s.table("runs").query(f"attack == 'label_flip' and defense == '{change.where[3]}'")["tacc"]
            for s in (before, after)
        ]
        assert change.before == pytest.approx(sides[0].mean())
        assert change.after == pytest.approx(sides[1].mean())
        assert change.p == pytest.approx(ttest_rel(*sides).pvalue)
        assert change.significant
    text = printed(found)
    assert "2 differ, 2 of them significantly" in text
    assert "-10.2" in text


def test_noise_is_not_significant(before, tmp_path):
    after = edited(before, tmp_path / "after", "UPDATE runs SET tacc = tacc + (seed - 1) * 0.05 + 0.001")
    found = compare(before, after, ["tacc"])
    assert len(found.changes) == 4
    assert not any(change.significant for change in found.changes)
    assert "label_flip" not in printed(found)
    assert "label_flip" in printed(found, everything=True)


def test_a_change_by_the_same_in_every_seed_is_shown_but_not_overstated(before, tmp_path):
    shift = "UPDATE runs SET tacc = tacc + 0.125 WHERE attack = 'label_flip' AND defense = 'nothing'"
    (change,) = compare(before, edited(before, tmp_path / "after", shift), ["tacc"]).changes
    assert (change.p, change.test, change.significant) == (0.25, "signs", False), "2/2³"
    assert change.words()[-3:] == ("+12.5", "3", "0.25†")
    text = printed(compare(before, Store(tmp_path / "after"), ["tacc"]))
    assert "0.25†" in text
    assert "†: the same difference in every seed" in text


def test_holms_correction_by_hand():
    ps = [0.04, 0.001, 0.02, float("nan"), 0.013, 1.0]
    changes = [Change(("", "", "", ""), COLUMNS["dacc"], 0, 1, 3, p) for p in ps]
    # sorted: 0.001 ≤ 0.05/5, 0.013 > 0.05/4: stop there
    assert [c.significant for c in _corrected(changes)] == [p == 0.001 for p in ps]
    few = [Change(("", "", "", ""), COLUMNS["dacc"], 0, 1, 3, p) for p in (0.02, 0.03)]
    assert [c.significant for c in _corrected(few)] == [True, True]


def test_settings_code_and_missing_runs_are_named(before, tmp_path):
    (tmp_path / "other").mkdir()
    other = run(tmp_path / "other", "training.lr=0.2", "seeds=[1,2,3]", "attacks=[label_flip]")
    with sqlite3.connect(other.path) as db:
        db.execute("UPDATE meta SET value = 'older' WHERE name = 'code'")
    found = compare(before, other, ["tacc"])
    assert ("training.lr", "0.1", "0.2") in found.settings
    assert found.code[1] == "older"
    assert "label_flip × nothing, seed 0" in found.only[0]
    assert found.only[1] == ["label_flip × nothing, seed 3", "label_flip × m_krum, seed 3"]
    assert {change.seeds for change in found.changes} == {2}
    text = printed(found)
    assert "setting training.lr: 0.1 → 0.2" in text
    assert "only in the first" in text


def test_what_is_defined_in_one_folder_only_is_a_change(before, tmp_path):
    after = edited(before, tmp_path / "after", "UPDATE runs SET dacc = NULL WHERE attack = 'label_flip'")
    (change,) = compare(before, after, ["dacc"]).changes
    assert np.isnan(change.after)
    assert "undefined" in change.words()


def test_nothing_in_common_is_an_error(before, tmp_path):
    (tmp_path / "other").mkdir()
    other = run(tmp_path / "other", "seeds=[7]")
    with pytest.raises(ResultsError, match="no attack, defense and seed in common"):
        compare(before, other, ["tacc"])


def test_settings_of_a_file_do_not_control_the_terminal():
    comparison = Comparison([("name\x1b[2J", "a\x00", "b\r")], ("\x07", "c"), (["x\x1b"], []), 0, [])
    lines = [line for line in show_comparison(comparison, True) if isinstance(line, str)]
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert "setting name\\x1b[2J: a\\x00 → b\\r" in lines
