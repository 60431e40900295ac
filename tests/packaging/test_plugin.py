"""The example plug-in is installed, found by name, checked, and used in a suite."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Runs several command lines in one process.
COMMANDS = Path(__file__).with_name("commands.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    source, site = folder / "source", folder / "site"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", str(site), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def run(*args):
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_is_listed_checked_and_used_by_name_and_passes_its_own_test(installed):
    test = str(ROOT / "examples" / "plugin" / "test_sign_balance.py")
    small = [
        "rounds=2",
        "attacks=[{name: byzantine, mode: flip}]",
        "defenses=[sign_balance]",
        "server.validation=0",
    ]
    lines = [
        ["list", "detectors"],
        ["check", "sign_balance"],
        ["evaluate", "quickstart", *small, "--workers", "1"],
        ["pytest", "-q", "-p", "no:cacheprovider", test],
    ]
    said = installed(str(COMMANDS), *map(json.dumps, lines))
    _, listed, checked, ran, tested = re.split(r"^\$ fedguard \w+\n", said, flags=re.MULTILINE)
    assert "sign_balance" in listed
    assert "planted attack on top" in checked
    assert "sign balance" in ran
    assert "2 runs" not in ran
    assert "1 passed" in tested
