"""The papers' suites: their quick forms run, and every number of a published table has its cell."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedguard.evaluation.suite import load_suite

HOME = Path(__file__).parents[2] / "benchmarks" / "papers"
NAMES = sorted(
    str(p.relative_to(HOME)).removesuffix(".published.yaml") for p in HOME.rglob("*.published.yaml")
)


def cells(published):
    for table in published["tables"]:
        width = len(table["columns"])
        for label, row in table["rows"].items():
            parts = [row.get(key, table.get(key)) for key in ("attack", "defense", "metric")]
            parts = [part if isinstance(part, list) else [part] * width for part in parts]
            assert len(row["published"]) == width, f"{table['title']}, {label}"
            yield from zip(*parts, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_number_is_measured(name):
    published = yaml.safe_load((HOME / f"{name}.published.yaml").read_text(encoding="utf-8"))
    suite, _ = load_suite(HOME / f"{name}.yaml")
    run = {(cell.attack_label, cell.defense_label) for cell in suite.cells()}
    shown = set()
    for attack, defense, _metric in cells(published):
        assert (attack, defense) in run
        shown.add((attack, defense))
    assert run - shown <= {(a, d) for a, d in run if a == "none"}, "runs that no table shows"


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_runs(name, tmp_path):
    script = HOME / "reproduce.py"
    command = [sys.executable, str(script), name, "--quick", "--workers", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "rounds=1"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stem = Path(name).name
    with (tmp_path / "out" / f"{stem}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if not math.isnan(float(row["measured"]))]
    assert len(measured) > 0.8 * len(rows), "a few need images that the embedded data are too small for"
    text = (tmp_path / "out" / f"{stem}.md").read_text(encoding="utf-8")
    assert f"reproduce.py {name} rounds=1 --quick" in text
