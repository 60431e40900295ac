"""A finished suite is shown again without torch, unless anything that its checks look at has changed."""

import json
import sqlite3
import subprocess
import sys
import types
from contextlib import closing

import numpy as np
import pytest
import torch

from fedguard.cli import evaluate as command
from fedguard.cli.entry import app
from fedguard.core import entry_points
from fedguard.core.errors import ResultsError
from fedguard.evaluation.results import code, settled
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.suites.load import load_suite

SUITE = """\
data: {name: csv, path: table.csv, label: kind}
model: logistic_regression
clients: 6
malicious: 1
rounds: 1
attacks: [min_max]
defenses: {krum: {detector: {name: krum}}}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a suite that has run to its end in ``out``."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path, 0)
    (tmp_path / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    assert run() == (0, "checked")
    return tmp_path


def table(folder, seed):
    draw = np.random.default_rng(seed)
    rows = [f"{x:.3f},{y:.3f},{'a' if x > y else 'b'}" for x, y in draw.normal(size=(60, 2))]
    (folder / "table.csv").write_text("\n".join(["x,y,kind", *rows]) + "\n", encoding="utf-8")


def run(*options):
    """The command's exit status (or its error), and whether it checked the suite or showed it at once."""
    checked = []
    real = command._check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_check", lambda *args: (checked.append(1), real(*args)))
        arguments = ["evaluate", "tiny.yaml", "--out", "out", "--workers", "1", *options]
        try:
            status = app(arguments, standalone_mode=False) or 0
        except ResultsError as error:
            status = str(error)
    return status, "checked" if checked else "shown"


def test_it_shows_the_same_tables(here, capsys):
    assert run("--force")[1] == "shown"
    again = capsys.readouterr().out
    settled_fact = Store(here / "out").fact(settled.FACT)
    with closing(sqlite3.connect(here / "out" / "results.sqlite")) as db, db:
        db.execute("DELETE FROM meta WHERE name = ?", [settled.FACT])
    assert run() == (0, "checked")
    assert capsys.readouterr().out == again
    assert Store(here / "out").fact(settled.FACT) == settled_fact, "it is noted again"


def test_torch_is_not_imported(here):
    """Nor is SciPy's statistics; both take most of a second."""
    program = (
        "import sys; from fedguard.cli.entry import app\n"
        "app(['evaluate', 'tiny.yaml', '--out', 'out'], standalone_mode=False)\n"
        "sys.exit(str([m for m in ('torch', 'scipy.stats', 'sklearn') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert "0 runs in 0 s, 1 were already there" in done.stdout


def test_the_version_of_torch_is_known_without_it():
    program = "from fedguard.evaluation.results.code import torch_version as v; print(v())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == torch.__version__ == code.torch_version()


def test_changed_data_are_noticed(here):
    table(here, 1)
    status, how = run()
    assert how == "checked"
    assert "has changed since" in status


def test_data_that_change_during_a_run_leave_no_digest(here, monkeypatch):
    suite, _ = load_suite("tiny.yaml")
    before = settled.inputs_of(suite)
    table(here, 1)
    store = Store(here / "out")
    store.note(settled.FACT, "")
    settled.settle(store, suite, before)
    assert store.fact(settled.FACT) == ""


def test_a_changed_setting_is_noticed(here):
    status, how = run("training.lr=0.5")
    assert how == "checked"
    assert "of another suite (other training)" in status


def test_changed_code_is_noticed(here, monkeypatch):
    sources = code._all_sources()
    changed = {**sources, "fedguard.detectors/krum.py": sources["fedguard.detectors/krum.py"] + b"\nX = 1\n"}
    monkeypatch.setattr(code, "_all_sources", lambda: changed)
    code.code_version.cache_clear()
    code.functional_code.cache_clear()
    status, how = run()
    assert how == "checked"
    assert "krum.py has changed since" in status
    monkeypatch.undo()
    code.code_version.cache_clear()
    code.functional_code.cache_clear()


def test_another_torch_is_noticed(here, monkeypatch):
    monkeypatch.setattr(code, "torch_version", lambda: "9.9")
    code.code_version.cache_clear()
    status, how = run()
    assert how == "checked"
    assert "of another version of the code" in status
    monkeypatch.undo()
    code.code_version.cache_clear()


def test_an_edited_suite_is_noticed(here):
    path = here / "out" / "suite.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("rounds: 1", "rounds: 2"), encoding="utf-8")
    status, how = run()
    assert how == "checked"
    assert "of another suite" in status


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM runs", "UPDATE meta SET value = '{}' WHERE name = 'data'", "UPDATE runs SET run=5"],
)
def test_an_edited_store_is_checked(here, change):
    with closing(sqlite3.connect(here / "out" / "results.sqlite")) as db, db:
        db.execute(change)
    assert run()[1] == "checked"


def test_a_link_in_the_folder_is_refused(here):
    (here / "out" / "names.yaml").symlink_to(here / "elsewhere.yaml")
    status, how = run()
    assert how == "checked"
    assert "names.yaml is a link" in status


def test_failed_runs_count_as_there_until_they_are_tried_again(here):
    with closing(sqlite3.connect(here / "out" / "results.sqlite")) as db, db:
        db.execute("UPDATE runs SET status = 'failed', error = 'out of luck'")
    assert run() == (1, "shown")
    assert run("--retry-failed") == (0, "checked")
    assert run("--retry-failed") == (0, "shown")


@pytest.mark.parametrize(
    "override",
    [
        "model={name: 'own:Net'}",
        "model={name: 'torchvision:resnet18'}",
        "model={name: resnet18, weights: file.safetensors}",
        "attacks=[{name: adaptive, attack: {name: 'own:Attack'}}]",
        "grid={defenses.krum.detector.name: [krum, 'own:Detector']}",
        "data=breast_cancer",
        "data={name: csv, path: missing.csv, label: kind}",
    ],
)
def test_what_files_of_fedguard_do_not_determine_has_no_digest(here, override):
    assert settled.inputs_of(load_suite("tiny.yaml")[0]) is not None
    assert settled.inputs_of(load_suite("tiny.yaml", [override])[0]) is None


def test_with_plug_ins_there_is_no_digest(here, monkeypatch):
    assert not entry_points.plug_ins()
    point = entry_points.EntryPoint("mine", "their_package.module:Detector", "fedguard.detectors")

    package = types.SimpleNamespace(entry_points=[point])
    monkeypatch.setattr(entry_points, "distributions", lambda: [package])
    assert entry_points.plug_ins()
    assert settled.inputs_of(load_suite("tiny.yaml")[0]) is None


def test_the_digest_is_the_same_in_every_folder(here, tmp_path_factory, monkeypatch):
    first = Store(here / "out").fact(settled.FACT)
    other = tmp_path_factory.mktemp("other")
    monkeypatch.chdir(other)
    table(other, 0)
    (other / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    assert run() == (0, "checked")
    assert Store(other / "out").fact(settled.FACT) == first
    assert json.loads(Store(other / "out").fact("data"))
