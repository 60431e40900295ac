"""The report's HTML, parsed and held against what SQLite says; names are hostile on purpose."""

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean

import pytest

from fedguard.core.errors import ConfigError, ParameterError, ResultsError
from fedguard.evaluation.results.ranks import ranking
from fedguard.evaluation.results.report import page
from fedguard.evaluation.results.report.page import render, write_report
from fedguard.evaluation.results.report.results import sections
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import COLUMNS
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

EVIL = "<script>alert(1)</script>"
QUOTED = '"quo\'te" onload=x &amp; <b>'
SUITE = f"""
name: "<h1><script>"
summary: "{EVIL} & more"
clients: 8
rounds: 3
model: logistic_regression
partition: {{name: dirichlet, beta: 1.0}}
malicious: [2, 3]
training: {{epochs: 1, lr: 0.1}}
seeds: [0, 1]
mode: both
attacks:
  none: none
  "{EVIL}": {{name: byzantine, mode: flip}}
  backdoor: scaling_backdoor
defenses:
  nothing: {{}}
  '{QUOTED.replace("'", "''")}': {{detector: {{name: krum, select: m_krum}}}}
  banned: {{detector: {{name: norm_bound, bound: 0.7}}, policy: {{name: ban, strikes: 2, max_share: 1}}}}
"""
TABLES = ("runs", "clients", "rounds", "timings")
VOID = {"meta", "link", "br", "img", "hr"}


class Node:
    def __init__(self, tag, attrs=()):
        self.tag, self.attrs, self.children = tag, dict(attrs), []

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag=None, cls=None):
        for child in self.children:
            if isinstance(child, Node):
                if tag in (None, child.tag) and (cls is None or cls in child.attrs.get("class", "").split()):
                    yield child
                yield from child.all(tag, cls)

    def one(self, tag=None, cls=None):
        found = list(self.all(tag, cls))
        assert len(found) == 1, f"{len(found)} × {tag}.{cls}"
        return found[0]


class Tree(HTMLParser):
    """A tree; refuses tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.root = Node("root")
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert len(self.open) == 1, f"{self.open[-1].tag} is never closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, attrs))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "s.yaml").write_text(SUITE)
    suite, source = load_suite(folder / "s.yaml")
    check_suite(suite, source)
    return run_suite(suite, folder / "out", workers=1)


@pytest.fixture(scope="module")
def html(store):
    return render(store)


@pytest.fixture(scope="module")
def tree(html):
    return Tree(html).root


@pytest.fixture
def copy(store, tmp_path):
    """A results folder that may be spoilt."""
    shutil.copytree(store.folder, tmp_path / "copy")
    return tmp_path / "copy"


def sql(folder, query, *values):
    with closing(sqlite3.connect(folder / "results.sqlite")) as db, db:
        return db.execute(query, values).fetchall()


def average(store, metric, attack, defense, malicious=2, mode="closed"):
    """The mean over seeds of a metric that is defined, by hand."""
    rows = sql(
        store.folder,
        f"SELECT {metric} FROM runs WHERE attack = ? AND defense = ? AND point = ? AND mode = ?",  # noqa: S608
        attack,
        defense,
        json.dumps({"malicious": malicious}),
        mode,
    )
    values = [value for (value,) in rows if value is not None]
    return mean(values) if values else None


def part(tree, title):
    return next(
        s
        for s in tree.all("section", "part")
        if next(s.all("h2")).text.removesuffix("; closed loop") == title.removesuffix("; closed loop")
    )


def figure(section, title):
    found = (f for f in section.all("figure") if next(f.all("figcaption")).text.strip().startswith(title))
    return next(found)


# ---------------------------------------------------------------- safety


def test_nothing_of_a_hostile_name_becomes_markup(tree):
    tags = {node.tag for node in tree.all()}
    assert tree.one("script").text.lstrip().startswith("// Sort the rows")  # the report's own
    assert not tags & {"img", "b>", "iframe", "object", "embed", "base", "form"}
    for node in tree.all():
        assert not [name for name in node.attrs if name.startswith("on")], node.attrs
    assert tree.one("h1").text == "<h1><script>"
    assert next(tree.all("title")).text == "<h1><script>: FedGuard report"
    texts = [node.text for node in tree.all("th")]
    assert any(EVIL in text for text in texts)
    assert QUOTED in [text.strip() for text in texts]


def test_ids_and_errors_are_hostile_too(copy):
    sql(copy, "UPDATE clients SET id = '<img src=x onerror=alert(1)>' WHERE client = 1")
    sql(copy, "UPDATE runs SET status = 'failed', error = '<img src=y>' WHERE run = 3")
    html = render(Store(copy), {"malicious": 2, "mode": "closed"})
    root = Tree(html).root
    assert not list(root.all("img"))
    assert "<img src=y>" in root.one("table", "failures").text
    assert any("<img src=x onerror=alert(1)>" in node.text for node in root.all("title"))


def test_nothing_is_loaded_from_elsewhere(tree):
    for node in tree.all():
        for name in ("href", "src", "xlink:href", "action", "data"):
            assert node.attrs.get(name, "#").startswith(("#", "data:,")), node.attrs
    style = tree.one("style").text
    assert "url(" not in style
    assert "@import" not in style
    policy = next(n.attrs["content"] for n in tree.all("meta") if "http-equiv" in n.attrs)
    assert policy.startswith("default-src 'none'")
    digest = base64.b64encode(hashlib.sha256(tree.one("script").text.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")  # no other script runs


# ---------------------------------------------------------------- numbers


def test_the_summary_shows_the_means_of_the_store(store, tree):
    scale = {"DACC %": 100, "FPR %": 100, "FNR %": 100, "TACC %": 100, "ASR %": 100, "AUROC": 1, "AAR": 1}
    digits = {"AUROC": 3, "AAR": 2}
    compared = 0
    for title, malicious, mode in [
        ("malicious = 2", 2, "closed"),
        ("malicious = 3", 3, "closed"),
        ("malicious = 2; shadow mode", 2, "shadow"),
    ]:
        table = part(tree, title).one("table", "summary")
        heads = [th.text for th in next(table.all("thead")).all("th")]
        for body in table.all("tbody"):
            attack = re.sub(r" \d malicious$", "", body.one("tr", "group").text)
            for line in list(body.all("tr"))[1:]:
                defense = next(line.all("th")).text
                for head, cell in zip(heads[1:], line.all("td"), strict=True):
                    if head not in scale:
                        continue
                    value = average(store, head.split()[0].lower(), attack, defense, malicious, mode)
                    shown = re.split(" ± | \\[", cell.text.lstrip("~"))[0]
                    expected = "" if value is None else f"{value * scale[head]:.{digits.get(head, 1)}f}"
                    assert shown == expected, (title, attack, defense, head)
                    compared += bool(expected)
    assert compared > 60


def test_undefined_is_empty_and_never_0(store, tree):
    table = part(tree, "malicious = 2").one("table", "summary")
    clean = next(body for body in table.all("tbody") if "none" in body.one("tr", "group").text)
    heads = [th.text for th in next(table.all("thead")).all("th")][1:]
    for line in list(clean.all("tr"))[1:]:
        cells = dict(zip(heads, (td.text for td in line.all("td")), strict=True))
        assert cells["FNR %"] == cells["AUROC"] == cells["ASR %"] == ""
    undefended = next(line for line in clean.all("tr") if next(line.all("th")).text == "nothing")
    assert [td.text for td in undefended.all("td")].count("") == len(heads) - 1, "nothing but TACC"


@pytest.mark.parametrize("name", ["DACC", "FPR", "FNR", "TACC", "ASR"])
def test_heat_maps_show_the_means_of_the_store(store, tree, name):
    svg = next(figure(part(tree, "malicious = 3"), name).all("svg", "wide"))
    cells = [*svg.all("g"), *svg.all("path", "none")]
    assert cells
    for cell in cells:
        label = next(cell.all("title")).text
        attack, rest = label.split(" × ", 1)
        defense = rest.rpartition(f": {name} % ")[0] or rest.rpartition(": undefined")[0]
        value = average(store, name.lower(), attack, defense, 3)
        assert (value is None) == (cell.tag == "path")
        if value is None:
            continue
        assert cell.one("text").text == f"{100 * value:.1f}"
        good = value if name in ("DACC", "TACC") else 1 - value
        assert cell.one("path").attrs["class"] == f"f-c{round(10 * good)}"
        assert label.endswith("2 seeds")
    attacks = {next(cell.all("title")).text.split(" × ")[0] for cell in cells}
    assert attacks == {"ASR": {"backdoor"}, "FNR": {EVIL, "backdoor"}}.get(name, {"none", EVIL, "backdoor"})


def panel(section, title, name):
    """The SVG of a panel and its axes' mapping: pixels → values."""
    svg = next(
        next(box.all("svg"))
        for box in figure(section, title).all("div")
        if [h.text for h in box.all("h4")] == [name]
    )
    return svg


def points(path):
    return [tuple(map(float, p.split())) for p in re.findall(r"[ML]([\d. -]+)", path)]


def line(svg, defense):
    return next(p for p in svg.all("path", "line") if p.one("title").text == defense)


def inverse(ticks):
    """From pixels to values by two ticks (pixel, value)."""
    (p, u), (q, v) = ticks[0], ticks[-1]
    return lambda pixel: u + (pixel - p) * (v - u) / (q - p)


def axes(svg):
    """Both axes of a panel, read off its ticks as a reader would."""
    ticks = list(svg.all("text", "tick"))
    down = [(float(t.attrs["y"]) - 3.5, float(t.text)) for t in ticks if t.attrs["text-anchor"] == "end"]
    along = [(float(t.attrs["x"]), float(t.text)) for t in ticks if t.attrs["text-anchor"] == "middle"]
    return inverse(along), inverse(down)


def test_accuracy_lines_go_through_the_means_over_seeds(store, tree):
    svg = panel(part(tree, "malicious = 2"), "Test accuracy by round", EVIL)
    x, y = axes(svg)
    for defense in ("nothing", QUOTED, "banned"):
        drawn = [(x(a), y(b)) for a, b in points(line(svg, defense).attrs["d"])]
        rows = sql(
            store.folder,
            "SELECT round, avg(rounds.tacc) FROM rounds JOIN runs USING (run) "
            "WHERE attack = ? AND defense = ? AND point = ? AND mode = 'closed' GROUP BY round ORDER BY 1",
            EVIL,
            defense,
            '{"malicious": 2}',
        )
        assert len(drawn) == len(rows) == 3
        for (a, b), (number, tacc) in zip(drawn, rows, strict=True):
            assert a == pytest.approx(number + 1, abs=0.02)
            assert b == pytest.approx(100 * tacc, abs=0.1)


@pytest.mark.parametrize("title", ["malicious = 2", "malicious = 3; shadow mode"])
def test_the_area_under_a_drawn_roc_curve_is_the_auroc_of_the_store(store, tree, title):
    malicious, mode = int(title[12]), "shadow" if "shadow" in title else "closed"
    compared = 0
    for attack in (EVIL, "backdoor"):
        svg = panel(part(tree, title), "ROC curves", attack)
        x, y = axes(svg)
        for defense in (QUOTED, "banned"):
            expected = average(store, "auroc", attack, defense, malicious, mode)
            if expected is None:
                continue
            drawn = [(x(a), y(b)) for a, b in points(line(svg, defense).attrs["d"])]
            assert drawn[0] == pytest.approx((0, 0), abs=0.005)
            assert drawn[-1] == pytest.approx((1, 1), abs=0.005)
            area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(drawn))
            assert area == pytest.approx(expected, abs=0.004)
            compared += 1
    assert compared >= 3


def test_a_dot_marks_where_the_defense_decided(store, tree):
    svg = panel(part(tree, "malicious = 3"), "ROC curves", "backdoor")
    x, y = axes(svg)
    for dot in svg.all("circle", "mark"):
        defense = dot.one("title").text.removesuffix(": where it decided")
        fpr, fnr = (average(store, name, "backdoor", defense, 3) for name in ("afpr", "afnr"))
        assert x(float(dot.attrs["cx"])) == pytest.approx(fpr, abs=0.005)
        assert y(float(dot.attrs["cy"])) == pytest.approx(1 - fnr, abs=0.005)
    assert len(list(svg.all("circle", "mark"))) == 2


def test_costs_are_means_of_the_timings(store, tree):
    svg = next(figure(part(tree, "malicious = 2"), "Cost").all("svg", "wide"))
    label = svg.attrs["aria-label"]
    for defense in ("nothing", "banned"):
        rows = sql(
            store.folder,
            "SELECT part, avg(seconds) FROM timings JOIN runs USING (run) WHERE defense = ? AND point = ? "
            "AND mode = 'closed' AND part != 'total' GROUP BY part",
            defense,
            '{"malicious": 2}',
        )
        parts = dict(rows)
        assert f"{defense} {sum(parts.values()):.2f}, detectors" in label
        titles = [t.text for t in svg.all("title")]
        for name, seconds in parts.items():
            assert seconds == 0 or f"{defense}: {name} {seconds:.3f} s" in titles


def test_timelines_show_the_verdicts_of_the_first_seed(store, tree):
    details = part(tree, "malicious = 3").all("details", "detail")
    chosen = next(d for d in details if d.one("summary").text.startswith("backdoor × banned"))
    svg = chosen.one("svg", "wide")
    ((run,),) = sql(
        store.folder,
        "SELECT run FROM runs WHERE attack = 'backdoor' AND defense = 'banned' "
        "AND seed = 0 AND mode = 'closed' AND point = ?",
        '{"malicious": 3}',
    )
    rows = sql(
        store.folder, "SELECT suspect, banned, participated, attacking FROM clients WHERE run = ?", run
    )
    expected = {
        "flagged": sum(s and p for s, _, p, _ in rows),
        "banned": sum(bool(b) and not (s and p) for s, b, p, _ in rows),
        "passed": sum(bool(p) and not s and not b for s, b, p, _ in rows),
    }
    assert expected["flagged"] > 0
    assert expected["banned"] > 0
    for state, count in expected.items():
        assert svg.one("path", f"f-{state}").attrs["d"].count("M") == count, state
    assert sum(dots.attrs["d"].count("M") for dots in svg.all("path", "dots")) == sum(
        a and p for *_, p, a in rows
    )
    assert sum(text.text.startswith("▲") for text in svg.all("text", "strong")) == 3
    assert "seed 0" in svg.attrs["aria-label"]


def test_verdicts_by_round_are_stacked_to_the_shares_of_the_store(store, tree):
    """Of every kind the heights of the bars, in percent of the frame, are the mean shares over seeds."""
    details = part(tree, "malicious = 3").all("details", "detail")
    chosen = next(d for d in details if d.one("summary").text.startswith("backdoor × banned"))
    svg = next(figure(chosen, "Verdicts by round").all("svg"))
    rows = sql(
        store.folder,
        "SELECT run, round, 2 * clients.malicious + suspect, COUNT(*) FROM clients JOIN runs USING (run) "
        "WHERE attack = 'backdoor' AND defense = 'banned' AND mode = 'closed' AND point = ? "
        "AND participated = 1 GROUP BY 1, 2, 3",
        '{"malicious": 3}',
    )
    totals: dict[tuple[int, int], int] = {}
    for run, number, _, count in rows:
        totals[run, number] = totals.get((run, number), 0) + count
    looks = {3: ("class", "f-l1"), 2: ("fill", "url(#stripes-l1)"), 1: ("fill", "url(#stripes-l0)")}
    for kind, (name, value) in looks.items():
        shares: dict[int, list[float]] = {}
        for run, number, code, count in rows:
            if code == kind:
                shares.setdefault(number, []).append(100 * count / totals[run, number])
        expected = sum(sum(found) / store_seeds(store) for found in shares.values())
        drawn = [path for path in svg.all("path") if path.attrs.get(name) == value]
        boxes = re.findall(r"M[\d.]+ ([\d.]+)H[\d.]+V([\d.]+)", drawn[0].attrs["d"] if drawn else "")
        assert sum(float(low) - float(high) for low, high in boxes) / 1.5 == pytest.approx(expected, abs=0.3)
        assert bool(drawn) == (expected > 0)
    assert {pattern.attrs["id"] for pattern in tree.all("pattern")} == {"stripes-l0", "stripes-l1"}


def store_seeds(store):
    return len({seed for (seed,) in sql(store.folder, "SELECT seed FROM runs")})


def test_ranks_are_those_of_the_comparison(store, tree):
    found = ranking(sections(store)[2].runs, COLUMNS["dacc"])
    text = figure(part(tree, "malicious = 3; closed loop"), "DACC: average ranks").text
    assert f"over {found.blocks} {found.unit}s" in text
    assert f"CD = {found.difference:.2f}" in text
    for rank in found.ranks:
        assert f"{rank:.2f}" in text


def test_the_same_results_give_the_same_bytes_and_every_picture_without_matplotlib(store, html, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert render(Store(Path(store.folder))) == html
    for title in ("Who sees what", "Honest clients accused, attackers missed", "Accuracy and cost"):
        assert list(figure(part(Tree(html).root, "malicious = 3"), title).all("svg"))


def test_a_large_dot_is_a_high_auroc_and_a_ring_a_low_one(store, tree):
    svg = next(figure(part(tree, "malicious = 3"), "Who sees what").all("svg"))
    dots = list(svg.all("circle"))
    assert dots
    largest = 0.6 * 34 / 2
    for dot in dots:
        names, shown = dot.one("title").text.rsplit(": AUROC ", 1)
        attack, defense = names.split(" × ", 1)
        auroc = average(store, "auroc", attack, defense, 3)
        assert shown == f"{auroc:.3f}"
        size = max(0.07, math.sqrt(2 * abs(auroc - 0.5)))
        assert float(dot.attrs["r"]) == pytest.approx(largest * size, abs=0.06)
        assert dot.attrs["class"] == ("mark s-l0 f-l0" if auroc >= 0.5 else "mark s-l1 f-paper")


# ---------------------------------------------------------------- what is told apart and left out


def test_points_and_modes_are_kept_apart(tree):
    titles = [next(s.all("h2")).text for s in tree.all("section", "part")]
    assert titles == [f"malicious = {m}{mode}" for m in (2, 3) for mode in ("; closed loop", "; shadow mode")]
    links = [a.attrs["href"] for a in next(tree.all("nav")).all("a")]
    assert links == [f"#{s.attrs['id']}" for s in tree.all("section", "part")]
    shadow = panel(part(tree, titles[1]), "Test accuracy by round", EVIL)
    assert [p.one("title").text for p in shadow.all("path", "line")] == ["undefended"]
    assert "means over 2 seeds" in part(tree, titles[0]).text


def test_every_picture_has_a_title_axes_and_words(tree):
    figures = list(tree.all("figure"))
    assert len(figures) > 40
    for one in figures:
        assert one.one("figcaption").text.strip()
    for svg in tree.all("svg"):
        if svg.attrs.get("aria-hidden") != "true" and "scale" not in svg.attrs.get("class", ""):
            assert svg.attrs["role"] == "img"
            assert len(svg.attrs["aria-label"]) > 20
            diagram = svg.attrs["aria-label"].startswith("Average ranks")
            assert list(svg.all("text", None if diagram else "axis")), svg.attrs["aria-label"]
    for box in tree.all("div", "scroll"):
        assert box.attrs["aria-label"]


def test_details_are_bounded_and_what_is_left_out_is_said(store, monkeypatch):
    monkeypatch.setattr(page, "MAX_DETAILS", 6)
    section = part(Tree(render(store, {"malicious": 2})).root, "malicious = 2")
    shown = [d.one("summary").text for d in section.all("details", "detail")]
    assert len(shown) == 3, "one for each attack"
    for attack, text in zip(("none", EVIL, "backdoor"), shown, strict=True):
        best = max((QUOTED, "banned"), key=lambda defense: average(store, "dacc", attack, defense))
        assert text.startswith(f"{attack} × {best}")
    assert "3 of 6 combinations are left out" in section.text


def test_sections_are_bounded_and_what_is_left_out_is_said(store, monkeypatch):
    monkeypatch.setattr(page, "MAX_SECTIONS", 1)
    root = Tree(render(store)).root
    assert "the pictures of 3 further sections" in root.text
    sections = list(root.all("section", "part"))
    assert [bool(list(s.all("figure"))) for s in sections] == [True, False, False, False]
    assert all(list(s.all("table", "summary")) for s in sections), "their numbers are there all the same"


def test_long_tables_are_collapsed(store, monkeypatch):
    monkeypatch.setattr(page, "LONG_TABLE", 5)
    where = {"malicious": 2, "mode": "closed"}
    section = part(Tree(render(store, where)).root, "malicious = 2")
    assert len(list(section.all("table", "summary"))) == 3
    monkeypatch.setattr(page, "MAX_ROWS", 4)
    section = part(Tree(render(store, where)).root, "malicious = 2")
    assert "5 further rows are left out" in section.text


def test_where(store):
    root = Tree(render(store, {"attack": ["backdoor"], "mode": "closed", "malicious": 3})).root
    section = root.one("section", "part")
    assert next(section.all("h2")).text == "malicious = 3"
    groups = [g.text for g in section.all("tr", "group")]
    assert len(groups) == 1
    assert groups[0].startswith("backdoor")
    assert "Only runs with attack = backdoor, mode = closed, malicious = 3." in root.text
    with pytest.raises(ParameterError, match="there is no setting malicous, did you mean 'malicious'"):
        render(store, {"malicous": 3})
    with pytest.raises(ParameterError, match="no run is left"):
        render(store, {"attack": "nobody"})
    with pytest.raises(ParameterError, match="several seeds"):
        render(store, {"seed": [0, 1]})
    one = Tree(render(store, {"seed": 1, "mode": "closed", "malicious": 2})).root
    assert "One seed" in one.text


@pytest.mark.slow
def test_every_attack_by_every_defense_is_a_file_that_still_opens(tmp_path):
    """34 attacks × 47 defenses on 20 clients, 10 rounds: the rows of one run, many times over."""
    suite, _ = load_suite("quickstart", ["attacks=[lie]", "defenses=[{detector: krum}]"])
    folder = run_suite(suite, tmp_path / "out", workers=1).folder
    columns = {t: [row[1] for row in sql(folder, f"PRAGMA table_info({t})")] for t in TABLES}
    with closing(sqlite3.connect(folder / "results.sqlite")) as db, db:
        for k in range(34 * 47):
            new = {"run": str(k + 1), "attack": f"'attack_{k % 34}'", "defense": f"'defense_{k // 34}'"}
            for table, names in columns.items():
                values = ", ".join(new.get(name, name) for name in names)
                db.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run = 0")  # noqa: S608
        for table in TABLES:
            db.execute(f"DELETE FROM {table} WHERE run = 0")  # noqa: S608
    html = render(Store(folder))
    assert len(html) < 5e6
    root = Tree(html).root
    assert len(list(root.all("details", "detail"))) == 34 * (page.MAX_DETAILS // 34)
    assert f"{34 * 47 - 34 * 4} of {34 * 47} combinations are left out" in root.text
    assert root.one("section", "part").text.count("attack 33 × defense 46") >= 1


# ---------------------------------------------------------------- broken and unfinished results


def test_an_unfinished_folder_says_so(copy):
    sql(copy, "DELETE FROM runs WHERE run >= 20")
    sql(copy, "UPDATE runs SET status = 'failed', error = 'no' WHERE run IN (3, 4)")
    root = Tree(render(Store(copy))).root
    total = 2 * (3 * 3 + 3 * 2) * 2
    assert f"{total - 20} not run yet" in root.one("p", "status").text
    assert "18 runs finished" in root.one("p", "status").text
    assert "2 failed" in root.one("p", "status").text


def test_failed_runs_are_shown(copy):
    sql(
        copy,
        "UPDATE runs SET status = 'failed', error = 'Trace\nOh: no', dacc = NULL, tacc = NULL WHERE run = 2",
    )
    root = Tree(render(Store(copy), {"malicious": 2})).root
    cells = [td.text for td in root.one("table", "failures").all("td")]
    assert cells == [QUOTED, "0", "malicious = 2; closed loop", "Oh: no"]
    assert "1 failed" in root.one("p", "status").text
    assert "1 failed" in part(root, "malicious = 2").one("table", "summary").text


def test_a_folder_in_which_everything_failed(copy):
    keep = "run, key, point, mode, attack, defense, seed, clients, malicious, assumed_malicious, settings"
    names = [row[1] for row in sql(copy, "PRAGMA table_info(runs)") if row[1] not in keep.split(", ")]
    sql(copy, f"UPDATE runs SET {', '.join(f'{n} = NULL' for n in names)}")  # noqa: S608
    sql(copy, "UPDATE runs SET status = 'failed', error = 'no'")
    for table in ("clients", "rounds", "timings"):
        sql(copy, f"DELETE FROM {table}")  # noqa: S608
    root = Tree(render(Store(copy))).root
    assert "0 runs finished" in root.one("p", "status").text
    assert not list(root.all("figure"))


@pytest.mark.parametrize(
    "content",
    [None, "{broken", *(pytest.param(text, marks=pytest.mark.slow) for text in ("- a list", "\xff")),
     "participation: [a]", *(pytest.param(text, marks=pytest.mark.slow) for text in ("seeds: 5", "grid: 3"))],
)  # fmt: skip
def test_without_a_readable_suite(copy, content):
    (copy / "suite.yaml").unlink()
    if content is not None:
        (copy / "suite.yaml").write_bytes(content.encode("latin-1"))
    root = Tree(render(Store(copy), {"malicious": 2, "mode": "closed"})).root
    assert "how many runs there should be is unknown" in root.one("p", "status").text
    assert list(root.all("svg", "wide"))


def test_an_empty_or_torn_store(copy):
    with pytest.raises(ResultsError, match="holds no results"):
        write_report(copy.parent)
    content = (copy / "results.sqlite").read_bytes()
    (copy / "results.sqlite").write_bytes(content[:8192] + b"\xff" * 30000)
    with pytest.raises(ResultsError, match=r"results\.sqlite"):
        write_report(copy)


def test_a_store_without_runs(copy):
    sql(copy, "DELETE FROM runs")
    with pytest.raises(ResultsError, match="no finished run"):
        write_report(copy)


def test_where_it_goes(copy, tmp_path, monkeypatch):
    sql(copy, "DELETE FROM runs WHERE run > 2")
    assert write_report(copy) == copy / "report.html"
    assert (copy / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    monkeypatch.setattr(page, "render", lambda store, where: "the same")
    assert write_report(copy, tmp_path / "else.html").exists()
    with pytest.raises(ConfigError, match=r"cannot write .*nowhere.*directory; create its folder first"):
        write_report(copy, tmp_path / "nowhere" / "r.html")
    (copy / "report.html").unlink()
    (copy / "report.html").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .* is a folder; use another name"):
        write_report(copy)


# ---------------------------------------------------------------- colors


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes(style):
    light, dark = (
        dict(re.findall(r"--([\w]+): (#[0-9a-f]{6}|#[0-9a-f]{3})\b", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    full = {
        k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:]) for k, v in {**light, **dark}.items()
    }
    base = {k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:]) for k, v in light.items()}
    return {"light": base, "dark": full}


@pytest.mark.parametrize("name", ["light", "dark"])
def test_words_and_lines_stand_out_in_either_scheme(tree, name):
    colors = schemes(tree.one("style").text)[name]
    for text in ("ink", "soft", "link"):
        assert contrast(colors[text], colors["paper"]) >= 4.5, text
    for k in range(11):
        written = colors.get(f"t{k}", colors["ink"])
        assert contrast(written, colors[f"c{k}"]) >= 4.5, f"c{k}"
    for k in range(8):
        assert contrast(colors[f"l{k}"], colors["paper"]) >= 3, f"l{k}"
    # Without any sense of hue, what a client's fate was can still be told.
    fates = [colors[name] for name in ("passed", "flagged", "banned")]
    for i, one in enumerate(fates):
        assert all(contrast(one, other) >= 1.9 for other in fates[i + 1 :])


def test_a_nan_is_no_number():
    from fedguard.evaluation.results.report.results import Cost

    nothing = dict.fromkeys(("training", "detectors", "policy", "aggregator"), 0.0)
    assert math.isnan(Cost("d", nothing).share)
