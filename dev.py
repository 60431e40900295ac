#!/usr/bin/env python3
"""Set up and run FedGuard with only Python: ``python3 dev.py JOB`` (run, test, lint, bench, …).

The first call creates a virtual environment in .venv with the versions of constraints.txt. Later calls start
at once, unless pyproject.toml or constraints.txt changed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "fedguard-setup"
RUN_STAMP = VENV / "fedguard-setup-run"
DOCS_STAMP = VENV / "fedguard-setup-docs"
ALL_STAMP = VENV / "fedguard-setup-all"
#: What `test-all` installs on top of the usual set-up.
EXTRAS = "dev,flower,llm,parquet,plot,prometheus,pyod,ray,serve,slurm,tensorboard"
PIP = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
PIP += ["-c", "constraints.txt"]
PIP += ["--no-compile"]  # which takes longer than all the rest; Python compiles what it imports, when it does


def setup(tools: bool = True) -> None:
    """Create .venv and install FedGuard in it, editable, unless it is up to date.

    Args:
        tools: with what developers need; `run` does without, which takes half of the time.
    """
    wanted = "".join((ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    enough = [STAMP] if tools else [STAMP, RUN_STAMP]
    if any(stamp.exists() and stamp.read_text() == digest for stamp in enough):
        return
    print("setting up .venv (once; this downloads PyTorch) …", flush=True)
    if not (BIN / "python").exists():
        try:
            venv.create(VENV, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"cannot create {VENV}: {error}; on Debian and Ubuntu, install python3-venv first")
    call([*PIP, "torch"])  # first and alone, so that a local CPU wheel is taken where one is configured
    call([*PIP, "-e", ".[dev]" if tools else "."])
    (STAMP if tools else RUN_STAMP).write_text(digest)


def call(command: list[str], **env: str) -> None:
    """Run a command in the checkout; exit with its status if it fails."""
    kept = {"PYTHONDONTWRITEBYTECODE": ""}  # else every process compiles every module anew
    code = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **kept, **env}).returncode
    if code:
        sys.exit(code)


def run(*args: str) -> None:
    """The main job on the embedded data."""
    call([str(BIN / "fedguard"), "evaluate", "quickstart", *args])


def test(*args: str) -> None:
    """The test suite (without the tests marked slow), one process per core and one thread in each.

    A process gets neighboring tests, which share what is built once per file, and takes over some of
    another's when it runs out.
    """
    call(
        [str(BIN / "python"), "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *args],
        OMP_NUM_THREADS="1",
    )


def coverage(*args: str) -> None:
    """The test suite with the lines and branches that it reaches; slower, hence no part of .ci/run."""
    test("--cov", "--cov-report=term", "--cov-report=html:build/coverage", *args)


def bench(*args: str) -> None:
    """Speed compared with peers (pip install -e ".[bench]"); see docs/results/performance.md."""
    call([str(BIN / "python"), "benchmarks/speed.py", *args])


def test_cpus(*args: str) -> None:
    """The golden and contract tests as on other CPUs; minutes for each CPU."""
    call([str(BIN / "python"), "tests/every_cpu.py", *args])


def test_oldest(*args: str) -> None:
    """Tests with the oldest versions that pyproject.toml admits, in a separate environment."""
    call([*PIP, "uv"])
    call([str(BIN / "python"), "tests/oldest.py", *args])


def lock() -> None:
    """Renew constraints.txt: every package of every extra, the newest that constraints.in admits."""
    call([*PIP, "uv"])
    command = [str(BIN / "python"), "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras"]
    command += ["--upgrade", "--universal", "--python-version", "3.11", "--constraint", "constraints.in"]
    command += ["--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    call([*command, "--custom-compile-command", "make lock", "--output-file", "constraints.txt"])


def test_all(*args: str) -> None:
    """Every test that needs no downloaded data, slow ones included, with all extras installed."""
    wanted = STAMP.read_text() + EXTRAS
    if not ALL_STAMP.exists() or ALL_STAMP.read_text() != wanted:
        call([*PIP, "-e", f".[{EXTRAS}]"])
        ALL_STAMP.write_text(wanted)
    test("-m", "slow or not slow", *args)


def lint() -> None:
    """Style and types."""
    call([str(BIN / "ruff"), "check", "."])
    call([str(BIN / "ruff"), "format", "--check", "."])
    call([str(BIN / "mypy")])


def docs(*args: str) -> None:
    """The site, into build/docs/html; warnings are errors, and every tutorial runs."""
    wanted = STAMP.read_text()
    if not DOCS_STAMP.exists() or DOCS_STAMP.read_text() != wanted:
        call([*PIP, "-e", ".[docs]"])
        DOCS_STAMP.write_text(wanted)
    sphinx = [str(BIN / "python"), "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-E", "-q"]
    call([*sphinx, "-d", "build/docs/cache", *args, "docs", "build/docs/html"], OMP_NUM_THREADS="1")
    pytest = [str(BIN / "python"), "-m", "pytest", "-q", "tests/docs/test_built_site.py"]
    call(pytest, FEDGUARD_SITE="build/docs/html", OMP_NUM_THREADS="1")


def fuzz(*args: str) -> None:
    """Hostile rounds, rounds with new ids, and hostile replies and files of every kind, on all cores."""
    sizes = ["--rounds", "100000", "--soak", "10000", "--cases", "10000"]
    sizes += ["--out", "benchmarks/results/fuzz.md"]
    call([str(BIN / "python"), "-m", "fedguard.testing.fuzz", *sizes, *args], OMP_NUM_THREADS="1")


def audit() -> None:
    """Known vulnerabilities of installed packages; needs the network, so it is not part of the tests."""
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check"]
    call([*pip, "install", "--quiet", "pip-audit"])
    freeze = [*pip, "freeze", "--exclude-editable"]
    found = subprocess.run(freeze, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    # Without "+cpu" and the like: advisories name the version only. --strict: a failed lookup is an error.
    pins = [line.partition("+")[0] for line in found if "==" in line]
    (VENV / "audit.txt").write_text("\n".join(pins) + "\n")
    options = ["--strict", "--no-deps", "--disable-pip", "--requirement", str(VENV / "audit.txt")]
    call([str(BIN / "python"), "-m", "pip_audit", *options])


def main() -> None:
    """Set up, then run the job."""
    jobs = {"run": run, "test": test, "test-all": test_all, "lint": lint, "bench": bench, "fuzz": fuzz}
    jobs |= {"test-cpus": test_cpus, "test-oldest": test_oldest, "lock": lock}
    jobs |= {"audit": audit, "coverage": coverage, "docs": docs, "setup": lambda: None}
    if len(sys.argv) < 2 or sys.argv[1] not in jobs:
        sys.exit(f"usage: python3 dev.py {'|'.join(jobs)}")
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs on whatever python3 is
        sys.exit(f"FedGuard needs Python 3.11 or later, this is {sys.version.split()[0]}")
    setup(tools=sys.argv[1] != "run")
    jobs[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
