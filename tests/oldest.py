"""Run tests with the oldest releases that pyproject.toml admits, in .venv-oldest.

torch and torchvision stay as in constraints.in: their older releases exist as builds of several gigabytes
only, so that their lower bounds are not tried. All else that FedGuard names itself is as old as it may be.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-oldest"
PYTHON = PLACE / "bin" / "python"
SUBSET = [
    "tests/golden",
    "tests/contract",
    "tests/evaluation/test_suite.py",
    "tests/evaluation/test_results.py",
]
SUBSET += ["tests/evaluation/test_report.py", "tests/cli/test_cli.py", "tests/flower/test_flower.py"]
#: These only run or check the tests, and need to be no older than they are.
TOOLS = ("ruff", "mypy", "build", "types-", "pandas-stubs", "scipy-stubs")


def oldest() -> Path:
    """A file of pins: the lowest of what is named in pyproject.toml, the newest of what that needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    source, pins = PLACE / "direct.in", PLACE / "oldest.txt"
    source.write_text("\n".join(need for need in needs if not need.startswith(TOOLS)) + "\n")
    held = (ROOT / "constraints.in").read_text().splitlines()
    (PLACE / "held.in").write_text("\n".join(line for line in held if line.startswith("torch")) + "\n")
    command = [sys.executable, "-m", "uv", "pip", "compile", str(source), "--resolution", "lowest-direct"]
    command += ["--constraint", str(PLACE / "held.in"), "--no-header", "--no-annotate", "--quiet"]
    subprocess.run([*command, "--no-emit-index-url", "--output-file", str(pins)], check=True)
    return pins


def main(args: list[str]) -> int:
    """Install, then run the tests."""
    if not PYTHON.exists():
        venv.create(PLACE, with_pip=True)
    pins = oldest()
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "-c", str(pins)]
    subprocess.run([*install, "torch"], check=True)  # first and alone, as in dev.py
    subprocess.run([*install, "-r", str(PLACE / "direct.in"), "-e", str(ROOT)], check=True)
    command = [str(PYTHON), "-m", "pytest", "-q", "-n", "auto", *(args or SUBSET)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
