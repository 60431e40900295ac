"""The page language-models.md: its Python and its suite, run as a reader would."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

TEXT = (Path(__file__).parents[2] / "docs/how-to/language-models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """torchvision comes before transformers, which imports it; here, as most processes run other tests."""
    from fedguard.simulation.vision import torchvision  # noqa: F401

    pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("peft", exc_type=ImportError)


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        exec(compile("\n".join(blocks("python")), "page", "exec"), {"__name__": "page"})  # noqa: S102
    texts, sums, count, phrase, products = written.getvalue().splitlines()
    assert texts.startswith("classification (6,) [1, ")
    assert sums.startswith("causal 258 [-1, -1, ")
    assert count == "2,308 of 171,972 parameters are trained and sent"
    assert phrase == "[99, 102]"
    assert products == "AdapterProducts(detector={'name': 'dnc', 'num_malicious': 1}, layers=4)"
    for text in blocks("yaml"):
        Path("suite.yaml").write_text(text)
        check_suite(*load_suite(Path("suite.yaml"), []))


def test_the_quickstart_fits_its_data():
    check_suite(*load_suite("llm_quickstart", []))
