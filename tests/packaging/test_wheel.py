"""The wheel holds everything that is needed, nothing else, and works outside the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Runs several command lines in one process.
COMMANDS = Path(__file__).with_name("commands.py")
#: Says where FedGuard lies, then runs the program that comes next.
WHERE = """
import runpy, sys
import fedguard, fedguard.detectors
print(fedguard.__file__, fedguard.detectors.__file__, flush=True)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    tracked = ["pyproject.toml", "README.md", "LICENSE", "fedguard", "detectors", "attacks", "configs"]
    subprocess.run(["cp", "-r", *tracked, str(source)], cwd=ROOT, check=True)  # build litter stays outside
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    expected = {
        str(Path("fedguard", path.relative_to(ROOT)) if folder != "fedguard" else path.relative_to(ROOT))
        for folder, pattern in [
            ("fedguard", "*.py"),
            ("fedguard", "*.txt"),
            ("fedguard", "*.html"),
            ("fedguard", "*.css"),
            ("fedguard", "*.js"),
            ("detectors", "*.py"),
            ("attacks", "*.py"),
            ("configs", "*.py"),
            ("configs", "*.yaml"),
        ]
        for path in (ROOT / folder).rglob(pattern)
    }
    assert package == expected | {"fedguard/py.typed"}
    assert any(name.endswith("LICENSE") for name in names)


def test_runs_outside_the_checkout(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*args):
        done = subprocess.run(
            [sys.executable, *args], cwd=elsewhere, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    overrides = ["rounds=1", "attacks=[none, lie]", "defenses=[none, krum]", "--workers=1", "--quiet"]
    lines = [
        ["list", "detectors"],
        ["evaluate", "quickstart", *overrides],
        ["report", "results/quickstart", "--out", "report.html"],
        ["export", "results/quickstart", "--format", "csv", "--out", "table.csv"],
    ]
    said = run("-c", WHERE, str(COMMANDS), *map(json.dumps, lines)).split("$ fedguard ")
    assert said[0].count(str(site)) == 2
    assert "fedredefense" in said[1]
    table = (elsewhere / "table.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 1 + 2 * 2
    assert "<svg" in (elsewhere / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["detectors", "attacks"])
def test_bare_names_are_refused(name):
    """A second copy of every class would break isinstance checks and the registry."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"import this package as fedguard.{name}" in done.stderr
