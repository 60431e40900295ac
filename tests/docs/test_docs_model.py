"""The page your-own-model.md: its module, its suite and its Python, run as a reader would."""

import contextlib
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

PAGE = Path(__file__).parents[2] / "docs/how-to/your-own-model.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(blocks("python")[0])
    (tmp_path / "suite.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("my_module", None)


def test_the_python_of_the_page_runs(folder):
    written = io.StringIO()
    code = "from my_module import *\nfrom my_module import Net\n" + "\n".join(blocks("python")[1:])
    with contextlib.redirect_stdout(written):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102 - our own page
    checks, error, count = written.getvalue().splitlines()
    assert "no global state" in checks
    (said,) = re.findall(r"# … (.*) …$", TEXT, re.MULTILINE)
    assert said in error
    assert int(count) == 8 * 10 + 10


def test_the_suite_of_the_page_runs(folder):
    suite, _ = load_suite(folder / "suite.yaml", ["rounds=1", "clients=6", "malicious=1"])
    store = run_suite(suite, folder / "out", workers=1)
    assert set(store.finished().values()) == {"done"}


def test_the_second_suite_names_a_model_that_exists():
    from fedguard.simulation.models import models

    name, weights = re.search(r"name: (\S+), weights: (\S+)}", blocks("yaml")[1]).groups()
    assert {"weights": weights} == models.params(name, {"weights": weights})
