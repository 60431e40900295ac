"""Run tests with the oldest releases that pyproject.toml admits.

    python tests/oldest.py [--place FOLDER] [TESTS …]

The environment is FOLDER, .venv-oldest unless given. torch and torchvision stay as in constraints.in: their
older releases exist as builds of several gigabytes only, so that their lower bounds are not tried. All else
that FedGuard names itself is as old as it may be, and what that needs is new. The versions are printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUBSET = [
    "core",
    "contracts",
    "aggregators",
    "attacks",
    "detectors",
    "policies",
    "guard",
    "judging",
    "ledger",
]
SUBSET += ["cli", "evaluation/test_suite.py", "evaluation/test_results.py", "evaluation/test_report.py"]
#: These only run or check the tests, and need to be no older than they are.
TOOLS = ("ruff", "mypy", "build", "types-", "pandas-stubs", "scipy-stubs")
#: Flower demands newer releases of what FedGuard needs, too; its tests skip themselves here.
TOOLS += ("flwr",)


def named() -> list[str]:
    """The requirements of FedGuard and of its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [need for need in needs if not need.startswith(TOOLS)]


def oldest(place: Path) -> Path:
    """A file of pins: the lowest of what is named in pyproject.toml, the newest of what that needs."""
    source, held, pins = place / "direct.in", place / "held.in", place / "oldest.txt"
    pins.unlink(missing_ok=True)  # uv would keep what it names
    source.write_text("\n".join(named()) + "\n", encoding="utf-8")
    lines = (ROOT / "constraints.in").read_text(encoding="utf-8").splitlines()
    held.write_text("\n".join(line for line in lines if line.startswith("torch")) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", str(source), "--resolution", "lowest-direct"]
    command += ["--constraint", str(held), "--no-header", "--no-annotate", "--quiet"]
    subprocess.run([*command, "--no-emit-index-url", "--output-file", str(pins)], check=True)
    return pins


def report(python: Path) -> None:
    """Print the version of every package that pyproject.toml names."""
    code = "import re, sys\nfrom importlib.metadata import version\nfor need in sys.argv[1:]:\n"
    code += "    print(' ', need, '->', version(re.split('[<>=!~; ]', need)[0]))"
    print("Installed, by requirement:", flush=True)
    subprocess.run([str(python), "-c", code, *named()], check=True)


def main() -> int:
    """Install, say what, then run the tests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--place", type=Path, default=ROOT / ".venv-oldest", help="the environment's folder")
    parser.add_argument("tests", nargs="*", help="paths and options for pytest; by default a subset")
    arguments, more = parser.parse_known_args()
    place = arguments.place
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    pins = oldest(place)
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(pins)]
    subprocess.run([*install, "torch"], check=True)  # first and alone, as in dev.py
    subprocess.run([*install, "-r", str(place / "direct.in"), "-e", str(ROOT)], check=True)
    report(python)
    tests = arguments.tests or [str(ROOT / "tests" / name) for name in SUBSET]
    command = [str(python), "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *tests, *more]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
