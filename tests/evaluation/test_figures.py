"""The numbers and looks of figures, by hand or against scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from fedguard import Guard, Round
from fedguard.core.errors import ParameterError
from fedguard.evaluation.results.figures.axes import Axis, Scale
from fedguard.evaluation.results.figures.client_map import maps, principal
from fedguard.evaluation.results.figures.confusion import shares
from fedguard.evaluation.results.figures.pareto import Point, front
from fedguard.evaluation.results.figures.picture import Area, Boxes, Dots, Key, Picture, Plot, Stroke, Text
from fedguard.evaluation.results.figures.places import Box, beside, spread
from fedguard.evaluation.results.figures.skew_share import by_skew_and_share
from fedguard.evaluation.results.figures.style import _FIXED, COLORS, NO_DEFENSE, Sheet, looks
from fedguard.evaluation.results.figures.svg import drawing, px
from fedguard.evaluation.results.names import DISPLAY
from fedguard.evaluation.results.plot import plot
from fedguard.evaluation.results.store_checks import wrong_text
from fedguard.recording import Recorder, Recording


def luminance(color):
    """WCAG 2: the relative luminance of an sRGB color."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_every_line_has_a_contrast_of_3_to_1(dark):
    paper = luminance(COLORS["paper"][dark])
    for color in (COLORS[f"l{i}"][dark] for i in range(8)):
        low, high = sorted([paper, luminance(color)])
        assert (high + 0.05) / (low + 0.05) >= 3, color


def test_a_method_has_one_look_in_every_figure():
    assert set(_FIXED) <= DISPLAY.keys()
    assert len(set(looks(_FIXED).values())) == len(_FIXED)
    assert looks(["mine", "krum"])["krum"] == looks(["krum"])["krum"] == looks(_FIXED)["krum"]
    assert looks(["undefended"]) == {"undefended": NO_DEFENSE}
    many = [f"method{i}" for i in range(32)]
    assert len(set(looks(many).values())) == 32


def test_a_sheet_has_one_or_two_columns():
    with pytest.raises(ParameterError, match="columns must be 1 or 2, got 3"):
        Sheet(3)


def test_names_at_the_ends_of_lines_do_not_meet_and_stay_inside():
    placed = spread([99.0, 100.0, 98.0, 3.0], 5.0, 0.0, 100.0)
    assert placed == [95.0, 100.0, 90.0, 3.0]


def test_names_beside_points_cover_no_other_name_and_stay_inside():
    """Four points on one spot, and one in the corner: by hand, each box is 5.8 characters of half a line."""
    points = [(50.0, 50.0)] * 4 + [(99.0, 99.0)]
    found = beside(points, ["a" * 5] * 5, 10.0, Box(0, 0, 100, 100))
    boxes = []
    for (x, y), place in zip(points, found, strict=True):
        start, end = sorted((x + place.x, x + place.x + (29 if place.right else -29)))
        boxes.append((start, y + place.y - 6, end, y + place.y + 6))
    for i, (left, low, right, high) in enumerate(boxes):
        assert left >= 0
        assert right <= 100
        assert high <= 100
        assert all(right <= a or c <= left or high <= b or d <= low for a, b, c, d in boxes[i + 1 :])


def test_paper_and_page_draw_the_same_marks():
    """A line, a ring, a box and a word: their places on both, read off by hand."""
    pytest.importorskip("matplotlib")
    from fedguard.evaluation.results.figures.printed import draw

    marks = [
        Area([(1, 0), (2, 0), (2, 10)], "l2"),
        Stroke([(1, 0), (10, 5), (100, 10)], "l1", 1, label="a line"),
        Dots([(10, 5)], "l3", filled=False, shape=3, label="a ring", name="ring"),
        Boxes([(1, 0, 10, 5)], "c3", "a box", "word", "t3"),
        Text(100, 10, "right", right=True),
    ]
    x, y = Axis("x", 1, 100, Scale("log")), Axis("y", 0, 10)
    plot = Plot("", x, y, marks, "alt <text>", (200, 100))
    sheet = Sheet(dark=True)
    with sheet.style():
        axis = draw(sheet, Picture("t", [plot], "", "note", [Key("a line", marks[1])])).axes[0]
    line, ring = axis.get_lines()
    assert line.get_xydata().tolist() == [[0, 0], [1, 5], [2, 10]], "powers of ten"
    assert (line.get_color(), ring.get_markeredgecolor()) == ("#ff9450", "#ef9fd0")
    assert ring.get_markerfacecolor() == "#14171b"
    words = {text.get_text() for text in axis.texts}
    assert words == {"word", " right", "ring"}
    to = drawing(plot)
    left, top = to.left, to.top
    svg = to.svg
    assert (
        f'd="M{px(left)} {px(top + 100)}L{px(left + 100)} {px(top + 50)}L{px(left + 200)} {px(top)}"' in svg
    )
    assert f'd="M{px(left)} {px(top + 100)}H{px(left + 100)}V{px(top + 50)}H{px(left)}Z"' in svg
    assert 'class="line s-l1 dash1"' in svg
    assert "<polygon" in svg
    assert 'aria-label="alt &lt;text&gt;"' in svg
    assert svg.count(">ring<title>") == svg.count(">word<") == svg.count(">right<") == 1


def test_the_front_by_hand():
    points = [Point(name, 0, x, y) for name, x, y in [("a", 1, 9), ("b", 1, 5), ("c", 4, 5), ("d", 6, 1)]]
    assert [p.name for p in front(points, down=True)] == ["b", "d"]
    assert [p.name for p in front(points, down=False)] == ["a"]


def test_principal_components_are_those_of_scikit_learn():
    x = np.random.default_rng(0).normal(size=(9, 30)) * np.linspace(5, 0.1, 30)
    centered = x - x.mean(0)
    places, explained = principal(centered @ centered.T)
    pca = PCA(2).fit(x)
    assert np.abs(places) == pytest.approx(np.abs(pca.transform(x)), abs=1e-9)
    assert explained == pytest.approx(pca.explained_variance_ratio_)


def test_shares_by_hand():
    """Run 0: one of two attackers caught, one of two honest clients accused; run 1: all right; 4 was away."""
    rows = [
        (0, 0, 1, 1, 1), (0, 0, 1, 0, 1), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1), (0, 0, 1, 1, 0),
        (1, 0, 1, 1, 1), (1, 0, 0, 0, 1),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["run", "round", "malicious", "suspect", "participated"])
    found = shares(table)
    assert found.loc[1].tolist() == [37.5, 12.5, 12.5, 37.5]


def test_a_client_map_needs_no_truth_and_names_rounds_that_are_missing(tmp_path):
    pytest.importorskip("matplotlib")
    with Recorder(tmp_path / "rec") as recorder:
        guard = Guard("norm_bound", observers=[recorder])
        for index in range(2):
            guard.process(Round([[1.0, 2.0], [1.5, 2.0], [1.0, float("nan")], [9.0, 9.0]], index=index))
    (first, second) = maps(Recording(tmp_path / "rec"))
    assert (first.round, second.round, len(first.places), first.malicious) == (1, 2, 3, None)
    out = plot(tmp_path / "rec", "client_map", where={"round": 2})
    assert out == tmp_path / "rec-client_map.svg"
    assert Recording(tmp_path / "rec").check() == []
    with pytest.raises(ParameterError, match="has no round 3"):
        plot(tmp_path / "rec", "client_map", tmp_path / "f.svg", where={"round": 3})
    with pytest.raises(ParameterError, match="draw it with --kind client_map"):
        plot(tmp_path / "rec", "heatmap", tmp_path / "f.svg")


def test_auroc_by_skew_and_share_by_hand():
    """Partitions by their numbers, not their letters; seeds and attacks are averaged; no AUROC, no cell."""
    spec = '{{"partition": {{"name": "dirichlet", "beta": {}}}}}'
    rows = [
        ("krum", 10.0, 2, 0.9),
        ("krum", 10.0, 2, 0.7),
        ("krum", 0.5, 2, 0.6),
        ("krum", 0.5, 4, 0.2),
        ("krum", 10.0, 0, np.nan),
        ("dnc", 0.5, 4, 1.0),
    ]
    runs = pd.DataFrame(
        [
            {"defense": d, "settings": spec.format(beta), "malicious": m, "clients": 8, "auroc": value}
            for d, beta, m, value in rows
        ]
    )
    found = by_skew_and_share(runs)
    assert list(found) == ["krum", "dnc"]
    assert list(found["krum"].index) == ["dirichlet, beta = 0.5", "dirichlet, beta = 10"]
    assert list(found["krum"].columns) == [25.0, 50.0]
    np.testing.assert_allclose(found["krum"].to_numpy(), [[0.6, 0.2], [0.8, np.nan]])
    with pytest.raises(ParameterError, match="auroc is undefined"):
        by_skew_and_share(runs[runs["malicious"] == 0])


@pytest.mark.parametrize("partition", [None, [], {}, {"name": 1}])
def test_settings_whose_partition_is_none_are_refused(partition):
    defense = {"detector": [], "stages": [], "aggregator": {"name": "mean"}, "policy": None, "flcert": None}
    settings = {"attack": {"name": "none"}, "defense": defense}
    assert wrong_text("{}", json.dumps({**settings, "partition": {"name": "iid"}})) == ""
    assert wrong_text("{}", json.dumps({**settings, "partition": partition})).startswith("settings.partition")
