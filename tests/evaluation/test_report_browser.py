"""The report in headless Chromium: a quiet console, nothing loaded, no sideways scrolling on a phone."""

import pytest

from fedguard.evaluation.results.report.page import write_report
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    changes = [
        "rounds=2", "seeds=[0,1]", "mode=both", "clients=12", "malicious=3",
        "attacks=[none, scaling_backdoor, {name: label_flip, label: a_long_name_without_any_space_in_it}]",
        "defenses=[none, {label: <script>alert(1)</script>, detector: krum}, {detector: dnc, policy: ban}]",
    ]  # fmt: skip
    suite, source = load_suite("quickstart", changes)
    check_suite(suite, source)
    return write_report(run_suite(suite, folder / "out", workers=1).folder)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_renders_quietly_and_fits(browser, report, width, dark):
    browser.open(report, width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [report.absolute().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg')"
    outside += f" && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    assert browser.evaluate(outside) == []
    heights = "[...document.querySelectorAll('svg[role=img]')].map(e => e.getBoundingClientRect().height)"
    assert min(browser.evaluate(heights)) > 40
    assert browser.evaluate("document.querySelectorAll('figure').length") > 10
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_pictures_lie_within_their_frames(browser, report):
    """No word and no line of a picture is drawn where it would be cut off."""
    browser.open(report, 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text, path, rect')].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && (r.left < box.left - 3 || r.right > box.right + 3 || r.bottom > box.bottom + 3);
        }).map(e => svg.getAttribute('aria-label').slice(0, 40) + ': ' + e.textContent);
    })"""
    assert browser.evaluate(cut) == []


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(375, False, marks=pytest.mark.slow),
        (375, True),
        (1280, False),
        pytest.param(1280, True, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_barrier(browser, report, width, dark):
    pytest.importorskip("axe_core_python")
    browser.open(report, width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.violations() == []


def test_on_paper_it_is_light_and_complete(browser, report, tmp_path):
    browser.open(report, 1280, dark=True)
    browser(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    browser("Emulation.setEmulatedMedia", media="")


def test_a_table_sorts_and_filters(browser, report):
    browser.open(report, 1280)
    column = (
        "[...document.querySelector('table.summary tbody').rows].slice(1).map(r => r.cells[1].textContent)"
    )
    click = "document.querySelectorAll('table.summary thead button')[1].click()"
    values = []
    for _ in range(2):
        browser.evaluate(click)
        values.append([float(v.strip("~").split()[0]) for v in browser.evaluate(column) if v])
    assert values[0] == sorted(values[0], reverse=True)
    assert values[1] == sorted(values[1])
    assert browser.evaluate("document.querySelectorAll('[aria-sort=ascending]').length") == 1
    browser.evaluate("box = document.querySelector('[data-filter] input'); box.value = 'DNC'")
    browser.evaluate("box.dispatchEvent(new Event('input'))")
    left = "[...document.querySelector('[data-filter]').querySelectorAll('tbody tr:not(.group)')]"
    assert set(browser.evaluate(f"{left}.filter(r => !r.hidden).map(r => r.cells[0].textContent)")) == {"DnC"}
    assert browser.complaints() == []


def test_the_report_opens_with_the_answer_and_explains_terms(browser, report):
    browser.open(report, 1280)
    assert browser.evaluate("document.querySelector('main').firstElementChild.className") == "answer"
    said = browser.evaluate("document.querySelector('#answer').textContent")
    assert "labels the most clients correctly under attack" in said
    title = "[...document.querySelectorAll('th abbr')].find(e => e.textContent == 'FPR %').title"
    assert browser.evaluate(title).startswith("False positive rate")
