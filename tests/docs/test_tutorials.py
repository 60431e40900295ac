"""The tutorials: every cell of every notebook runs, in order. The site shows what they print."""

import re
import shlex
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOTEBOOKS = sorted(p.name for p in TUTORIALS.glob("*.md") if CELL.search(p.read_text(encoding="utf-8")))


def cells(page):
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    return [re.sub(r"\A(:.*\n)+", "", cell) for cell in CELL.findall(text)]


def run_bash(cell, scope, python):
    """What IPython's %%bash does with lines that are commands of FedGuard: the variable after --out gets
    what they print. Building the site runs them in bash.
    """
    first, *lines = cell.splitlines()
    said = ""
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "fedguard", line
        done = python("-m", program, *arguments, cwd=Path.cwd()).wait()
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said += done.stdout
    if name := re.search(r"--out (\w+)", first):
        scope[name[1]] = said


@pytest.mark.slow  # the site runs them at every build
@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_cell_runs(page, tmp_path, monkeypatch, python):
    monkeypatch.chdir(tmp_path)  # cells change it; this brings it back
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if re.search(r"matplotlib|\.plot\(", "".join(cells(page))):
        pytest.importorskip("matplotlib")
    scope = {"__name__": "notebook"}
    for cell in cells(page):
        if cell.startswith("%%bash"):
            run_bash(cell, scope, python)
        else:
            exec(compile(cell, page, "exec"), scope)  # noqa: S102 - our own page


def test_the_notebooks_are_in_the_table_of_contents():
    contents = (TUTORIALS / "index.md").read_text(encoding="utf-8").split()
    assert len(NOTEBOOKS) >= 3
    assert {Path(page).stem for page in NOTEBOOKS} <= set(contents)
