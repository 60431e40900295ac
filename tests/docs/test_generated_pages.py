"""What the site is made of: the glossary, links to papers, pages from the registry, the changelog."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import fedguard
from fedguard.contracts.registry import REGISTRIES
from fedguard.evaluation.results.glossary import GLOSSARY
from fedguard.evaluation.results.tables import COLUMNS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from _ext import (  # noqa: E402 - what the site is built with
    checkout,
    data_sets,
    dead_links,
    methods,
    networks,
    public,
    site,
    suite,
)


def test_the_glossary_defines_every_column_in_the_same_words():
    assert GLOSSARY.keys() == COLUMNS.keys()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", (ROOT / "docs/glossary.md").read_text(), re.M)
    assert rows == [(name, column.title, GLOSSARY[name]) for name, column in COLUMNS.items()]


def test_readme_footer_and_report_lead_to_the_glossary():
    from fedguard.evaluation.results.tables import FOOTNOTE

    assert "docs/glossary.md" in FOOTNOTE
    assert "fedguard list metrics" in FOOTNOTE
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    (report,) = (ROOT / "fedguard").rglob("report.html")
    assert '<a href="#terms">' in report.read_text(encoding="utf-8")


def test_every_paper_has_a_link():
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            for paper, url in methods.links(registry.get(name).card.paper):
                assert url or paper == "FedGuard", f"{kind} {name}: {paper} is missing in docs/papers.yaml"


def test_every_method_has_a_page_with_its_parameters():
    pages = methods.pages()
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            assert f":doc:`{name} <{name}>`" in pages[f"{kind}/index.rst"]
            assert f"autoclass:: {registry.get(name).__module__}" in pages[f"{kind}/{name}.rst"]
    assert "``num_malicious``" in pages["detectors/krum.rst"]
    assert "arxiv.org/abs/1703.02757" in pages["detectors/krum.rst"]


def test_every_model_is_on_its_page_with_its_parameters():
    from fedguard.simulation.models import models

    page = networks.page()
    for name in models.names():
        assert f"\n{name}\n{'-' * len(name)}\n" in page
    assert "* - ``norm``\n     - ``Norm``\n     - ``'batch'``" in page
    assert "* - ``weights``" in page
    assert "``input_shape``" not in page


def test_every_data_set_is_on_its_page_with_its_parameters():
    from fedguard.simulation.datasets import datasets

    page = data_sets.page()
    for name in datasets.names():
        assert f"\n{name}\n{'-' * len(name)}\n" in page
    assert (
        "* - ``label``\n     - required\n     - the column with the label; several for the other tasks."
        in page
    )
    assert "``data_root``" not in page
    assert "torchvision:GTSRB" in page


def test_indexes_name_the_aliases():
    pages = methods.pages()
    assert "* - ``multikrum``\n     - krum with select: multi\\_krum" in pages["detectors/index.rst"]
    assert "* - ``fedavg``\n     - mean" in pages["aggregators/index.rst"]
    assert "Other names" not in pages["policies/index.rst"]


def test_the_systems_of_the_papers_name_methods_that_exist():
    page = (ROOT / "docs/explanation/systems-of-the-papers.md").read_text(encoding="utf-8")
    found = re.findall(r"\[`(\w+)`\]\(\.\./reference/generated/(\w+)/(\w+)\.rst\)", page)
    assert len(found) > 60
    for label, kind, name in found:
        assert label == name
        assert name in REGISTRIES[kind].names(), f"{kind}: {name}"
    passive = {
        name for name in REGISTRIES["attacks"].names() if REGISTRIES["attacks"].get(name).kind == "passive"
    }
    assert passive <= {name for _, _, name in found}


def test_every_public_name_is_documented():
    text = "\n".join(public.pages().values())
    for name in fedguard.__all__:
        home = getattr(fedguard, name)
        if name != "__version__" and not inspect.ismodule(home):
            assert f":: fedguard.{name}\n" in text or f"{home.__module__}.{name}\n" in text, name


def test_every_command_is_documented():
    page = public.pages()["cli.rst"]
    for option in ("fedguard evaluate", "fedguard ledger unban", "``--workers``", "``--dry-run``"):
        assert option in page
    assert "A class or function as module:name, or a registered name." in page


def test_every_key_of_a_suite_says_what_it_means():
    page = suite.page()
    for key in ("clients", "assumed\\_malicious", "lr", "validation", "rejoin\\_after"):
        assert key.replace("\\", "") in page
    empty = [key for key, value in suite.schema()["properties"].items() if not value.get("description")]
    assert empty == []


def test_links_out_of_the_pages():
    origin = Path("docs/how-to/ledger.md")
    text = (
        "[a](../../benchmarks/results/ledger.md) [b](../../tests/conftest.py) [c](flower.md#x) [d](gone.md)"
    )
    expected = (
        "[a](/results/measured/ledger.md) b (`tests/conftest.py`) [c](/how-to/flower.md#x) [d](gone.md)"
    )
    assert checkout.rewritten(text, origin) == expected
    board = "[b](../../benchmarks/results/leaderboard/board.html)"
    there = '<a href="../results/measured/leaderboard/board.html">b</a>'
    assert checkout.rewritten(board, origin) == there, "a page of its own, not a download"
    code = "```python\nx = a[0](../../tests/conftest.py)\n```"
    assert checkout.rewritten(code, origin) == code


def test_boards_are_part_of_the_site(tmp_path):
    checkout.copy_boards(tmp_path)
    assert (tmp_path / "results/measured/leaderboard/board.html").is_file()


def test_docstrings_are_taken_as_prose():
    lines = ["|x| of *all* u_ in ``a * b_ |`` and :class:`Round_`", "the ``f()``s of ``a`` and ``b``"]
    site.plain(None, "class", "name", None, None, lines)
    assert lines == [
        r"\|x\| of \*all\* u\_ in ``a * b_ |`` and :class:`Round_`",
        r"the ``f()``\ s of ``a`` and ``b``",
    ]


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">1</a><a href="b.html#no">2</a><a href="c.html">3</a>'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#here">ok</a><a href="https://example.org">out</a>')
    assert dead_links.dead(tmp_path) == [
        "a.html: b.html#no has no such anchor",
        "a.html: c.html leads nowhere",
    ]


def collector():
    spec = importlib.util.spec_from_file_location("collect", ROOT / "changes" / "collect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fragments_are_well_named():
    assert collector().fragments(ROOT / "changes").keys() == collector().KINDS.keys()


def test_fragments_become_a_section_of_the_changelog(tmp_path):
    (tmp_path / "x.fixed.md").write_text("Now it\nworks.\n")
    (tmp_path / "y.added.md").write_text("Something new.\n")
    (tmp_path / "CHANGELOG").write_text("# Changelog\n\nHead.\n\n## 0.1.0\n\nOld.\n")
    collector().collect("0.2.0", tmp_path, tmp_path / "CHANGELOG", "2030-01-02")
    assert (tmp_path / "CHANGELOG").read_text() == (
        "# Changelog\n\nHead.\n\n## 0.2.0 (2030-01-02)\n\n### Added\n\n- Something new.\n\n"
        "### Fixed\n\n- Now it works.\n\n## 0.1.0\n\nOld.\n"
    )
    assert list(tmp_path.glob("*.md")) == []


def test_a_fragment_of_no_kind_is_refused(tmp_path):
    (tmp_path / "x.md").write_text("text")
    with pytest.raises(ValueError, match=r"x\.md: call it <short-name>"):
        collector().fragments(tmp_path)


def test_the_version_is_the_same_everywhere():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version == fedguard.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
