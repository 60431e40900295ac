"""The source distribution is the whole checkout, and its metadata is what an index shows."""

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked():
    """What git knows; the tests of an unpacked sdist have no git and nothing to compare with."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("no git checkout")
    return [line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")
    files = "\n".join(tracked())
    copy = ["tar", "--create", "--files-from=-"]
    packed = subprocess.run(copy, cwd=ROOT, input=files.encode(), capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=source, input=packed, check=True)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz"))


def test_it_is_complete(sdist):
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = set(tracked()) - inside - {".containerignore", ".gitignore"}
    assert missing == set()
    for needed in ("detectors/krum.py", "configs/quickstart.yaml", "tests/conftest.py", "docs/conf.py"):
        assert needed in inside


def test_nothing_generated_is_in_it(sdist):
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    extra = {name for name in files - set(tracked()) if "egg-info" not in name}
    assert extra <= {"setup.cfg", "PKG-INFO"}


def test_metadata(sdist):
    with tarfile.open(sdist) as archive:
        member = next(
            m for m in archive.getmembers() if m.name.count("/") == 1 and m.name.endswith("PKG-INFO")
        )
        text = archive.extractfile(member).read().decode()
    head, _, body = text.partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert "License-Expression: Apache-2.0" in head
    assert body.strip().startswith("# FedGuard")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for classifier in project["classifiers"]:
        assert f"Classifier: {classifier}\n" in head + "\n"
    assert project["keywords"]
    assert project["authors"]


def test_the_matrix_of_the_workflow_is_that_of_the_classifiers():
    import yaml

    flow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert flow["jobs"]["tests"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"
