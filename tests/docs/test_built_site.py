"""The built site: no link is dead, it loads nothing from elsewhere, and it fits a phone.

``make docs`` builds it and runs these; ``FEDGUARD_SITE`` names the folder.
"""

import os
import re
import sys
from pathlib import Path

import pytest

SITE = Path(os.environ.get("FEDGUARD_SITE", "nowhere"))
pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make docs` builds it first")
sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from _ext.dead_links import dead  # noqa: E402 - what the site is built with

PAGES = (
    "index",
    "get-started",
    "tutorials/guard-your-own-rounds",
    "how-to/flower",
    "reference/generated/detectors/index",
    "reference/generated/detectors/fedredefense",
    "reference/generated/api/guard",
    "reference/generated/suite",
    "explanation/detectors",
    "results/measured/leaderboard/digits",
    "glossary",
)


def test_no_internal_link_is_dead():
    assert len(list(SITE.rglob("*.html"))) > 100
    assert dead(SITE) == []


def test_tutorials_show_what_they_print():
    text = (SITE / "tutorials/guard-your-own-rounds.html").read_text(encoding="utf-8")
    assert "banned for good: evidence" in text
    text = (SITE / "tutorials/a-scorer-of-your-own.html").read_text(encoding="utf-8")
    assert "checks, none failed" in text
    assert re.search(r"\| label_flip +\| mine", text)


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("page", PAGES)
def test_it_opens_quietly_and_fits(browser, page, width):
    path = (SITE / f"{page}.html").resolve()
    browser.open(path, width)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('article h1').getBoundingClientRect().height") > 20
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert browser.evaluate(broken) == []


def test_the_long_description_renders_on_an_index():
    renderer = pytest.importorskip("readme_renderer.markdown")
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    html = renderer.render(text)
    assert html is not None
    assert html.count("<table>") >= 2
    assert "<pre" in html
