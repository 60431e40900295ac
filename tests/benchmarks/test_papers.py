"""The papers' suites: their quick forms run, and every number of a published table has its cell."""

import csv
import math
import runpy
import sys
from pathlib import Path

import pytest

from fedguard.evaluation.results.store import Store

HOME = Path(__file__).parents[2] / "benchmarks" / "papers"
NAMES = sorted(
    str(p.relative_to(HOME)).removesuffix(".published.yaml") for p in HOME.rglob("*.published.yaml")
)


@pytest.fixture
def scripts(monkeypatch):
    """The scripts as modules."""
    monkeypatch.syspath_prepend(str(HOME))
    import measure
    import reproduce

    return measure, reproduce


@pytest.mark.parametrize("name", NAMES)
def test_every_published_number_is_measured(name, scripts):
    measure, reproduce = scripts
    published = reproduce.read_published(name)
    suite, _ = reproduce.read_suite(name, published, [])
    assert all(isinstance(choice, str) for choice in published["choices"]), "a colon makes YAML of a sentence"
    run = {(cell.attack_label, cell.defense_label) for cell in suite.cells()}
    shown = set()
    for table in published.get("tables", []):
        for _row, _column, attack, defense, metric, _number in measure.table_cells(table):
            assert metric in measure.METRICS
            shown.update((one, defense) for one in (attack if isinstance(attack, list) else [attack]))
    for figure in published.get("figures", []):
        assert figure["metric"] in measure.METRICS
        assert figure["x"] == "round" or figure["x"] in suite.grid
        shown.update(tuple(line) for lines in figure["panels"].values() for line in lines.values())
    assert shown
    assert shown <= run
    assert run - shown <= {(a, d) for a, d in run if a == "none"}, "runs that nothing shows"


#: Need the extra ``llm``.
LANGUAGE = ("fedsecurity2024/exp8", "fedsecurity2024/exp9")


def needs_extra(name):
    if name in LANGUAGE:
        from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers imports it

        pytest.importorskip("transformers", exc_type=ImportError)
        pytest.importorskip("peft", exc_type=ImportError)


#: Tables, figures by a setting and by round; that the others' suites can run is checked without running them.
QUICK = (
    "fang2020/breast_cancer",
    "fang2020/figure3_lr",
    "fang2020/figure5c",
    "fedredefense2024/cifar10_subset_aoi",
    "fedsecurity2024/exp4_iid",
)
RUN = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]


def smaller(name, quick):
    """What makes the quick form quicker still; its results are not looked at here."""
    few = [item.replace("_iterations=20", "_iterations=4") for item in quick if "_iterations=20" in item]
    return [*few, *(["clients=15", "malicious=3"] if name == "ndss2021/mnist_iid" else []), "rounds=1"]


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_could_run(name, scripts):
    needs_extra(name)
    _, reproduce = scripts
    published = reproduce.read_published(name)
    reproduce.check_suite(*reproduce.read_suite(name, published, [*published["quick"], "rounds=1"]))


@pytest.mark.parametrize("name", RUN)
def test_the_quick_form_runs(name, scripts, tmp_path, monkeypatch, capsys):
    needs_extra(name)
    _, reproduce = scripts
    monkeypatch.chdir(tmp_path)
    script = str(HOME / "reproduce.py")
    overrides = smaller(name, reproduce.read_published(name)["quick"])
    arguments = [name, "--quick", "--workers", "1", "--out", str(tmp_path / "out"), *overrides]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == 0, capsys.readouterr().err
    stem = Path(name).name
    with (tmp_path / "out" / f"{stem}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # DBA needs larger images than the embedded ones.
    rows = [row for row in rows if row["row"].split(" / ")[0] != "DBA"]
    measured = [row for row in rows if not math.isnan(float(row["measured"]))]
    assert len(measured) > 0.8 * len(rows), "a few need images that the embedded data are too small for"
    text = (tmp_path / "out" / f"{stem}.md").read_text(encoding="utf-8")
    assert f"reproduce.py {name} {' '.join(overrides)} --quick" in text

    # Shown as if it were the whole suite, of which a run is missing: the committed page stays.
    Store(tmp_path / "out").forget([0])
    pages = tmp_path / "pages"
    page = pages / f"{name}.md"
    page.parent.mkdir(parents=True)
    page.write_text("measured in full", encoding="utf-8")
    monkeypatch.setattr(reproduce, "RESULTS", pages)
    shown = [script, name, "--render-only", "--out", str(tmp_path / "out")]
    for extra, kept in (([], True), (["--replace-page"], False)):
        monkeypatch.setattr(sys, "argv", [*shown, *extra])
        with pytest.raises(SystemExit) as ended:
            reproduce.main()
        assert ended.value.code == 0
        assert (page.read_text(encoding="utf-8") == "measured in full") == kept
        assert ("runs of the suite are missing" in capsys.readouterr().out) == kept


def test_it_is_a_command(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(HOME))
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(HOME / "reproduce.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_a_missing_file_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HOME))
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "fedsecurity2024/exp8"])
    with pytest.raises(SystemExit, match=r"error: .*exp8.yaml:8: data.path: .*train.jsonl is not a file"):
        runpy.run_path(str(HOME / "reproduce.py"), run_name="__main__")
