"""The tutorials: every cell of every notebook runs, in order. The site shows what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOTEBOOKS = sorted(p.name for p in TUTORIALS.glob("*.md") if CELL.search(p.read_text(encoding="utf-8")))


def cells(page):
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    return [re.sub(r"\A(:.*\n)+", "", cell) for cell in CELL.findall(text)]


def run_bash(cell, scope):
    """What IPython's %%bash does: the variable after --out gets the output."""
    first, _, script = cell.partition("\n")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(
        ["bash", "-e"], input=script, capture_output=True, text=True, check=False, env=env, timeout=120
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    if name := re.search(r"--out (\w+)", first):
        scope[name[1]] = done.stdout


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_cell_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # cells change it; this brings it back
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if re.search(r"matplotlib|\.plot\(", "".join(cells(page))):
        pytest.importorskip("matplotlib")
    scope = {"__name__": "notebook"}
    for cell in cells(page):
        if cell.startswith("%%bash"):
            run_bash(cell, scope)
        else:
            exec(compile(cell, page, "exec"), scope)  # noqa: S102 - our own page


def test_the_notebooks_are_in_the_table_of_contents():
    contents = (TUTORIALS / "index.md").read_text(encoding="utf-8").split()
    assert len(NOTEBOOKS) >= 3
    assert {Path(page).stem for page in NOTEBOOKS} <= set(contents)
