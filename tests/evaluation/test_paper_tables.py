"""Numbers, names and marks of tables for papers."""

import io
import math
import shutil
import subprocess

import pandas as pd
import pytest
from rich.console import Console

from fedguard.contracts.registry import REGISTRIES
from fedguard.core.errors import ResultsError
from fedguard.evaluation.results.export import export
from fedguard.evaluation.results.layout import PRESETS, Layout, layout_of
from fedguard.evaluation.results.marks import marks
from fedguard.evaluation.results.names import DISPLAY, display, display_all, names_of, write_names
from fedguard.evaluation.results.tables import COLUMNS, attack_tables, show
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        (0.767, 0.706, "76.7 [6.1, 100.0]"),
        (0.5, 0.1, "50.0 ± 10.0"),
        (1.0, 0.0, "100.0 ± 0.0"),
        (0.01, 0.02, "1.0 [0.0, 3.0]"),
        (0.4, math.nan, "40.0"),
    ],
)
def test_intervals_of_rates_stay_within_0_and_100(value, width, expected):
    assert show(value, COLUMNS["dacc"], width) == expected


def test_what_is_marked_as_best():
    """By hand: a wins by about 0.2 in every seed; b and c tie; nobody beats a coin in FNR."""
    seeds = range(4)
    values = {"a": [0.9, 0.91, 0.9, 0.9], "b": [0.7, 0.71, 0.69, 0.7], "c": [0.7, 0.71, 0.69, 0.7]}
    runs = pd.DataFrame(
        [
            {"attack": "x", "defense": d, "seed": s, "dacc": values[d][s], "fnr": 0.9}
            for d in values
            for s in seeds
        ]
    )
    frame = runs.groupby(["attack", "defense"], sort=False)[["dacc", "fnr"]].mean().reset_index()
    frame.attrs["keys"] = ["attack", "defense"]
    found = marks(frame, runs, [COLUMNS["dacc"], COLUMNS["fnr"]])
    assert found == {(0, "dacc"): "best"}
    equal = runs.assign(dacc=runs["defense"].map({"a": 0.9, "b": 0.7, "c": 0.7}))
    assert marks(frame, equal, [COLUMNS["dacc"]]) == {}, "four equal signs: p = 2/2⁴ = 12.5 %"
    one = runs[runs["seed"] == 0]
    frame.loc[:, "dacc"] = [0.9, 0.7, 0.6]
    one = one.assign(dacc=[0.9, 0.7, 0.6])
    assert marks(frame, one, [COLUMNS["dacc"]]) == {(0, "dacc"): "best", (1, "dacc"): "second"}


def test_no_second_is_marked_where_no_first_is():
    """By hand: a beats b by 0.2 on average but loses in two seeds of four; b beats c by 0.3 in every seed."""
    values = {"a": [1.0, 0.6, 1.0, 0.6], "b": [0.65, 0.66, 0.65, 0.66], "c": [0.35, 0.35, 0.36, 0.36]}
    runs = pd.DataFrame(
        [{"attack": "x", "defense": d, "seed": s, "dacc": v} for d in values for s, v in enumerate(values[d])]
    )
    frame = runs.groupby(["attack", "defense"], sort=False)[["dacc"]].mean().reset_index()
    frame.attrs["keys"] = ["attack", "defense"]
    assert marks(frame, runs, [COLUMNS["dacc"]]) == {}


def test_a_table_fits_the_terminal():
    values = {"dacc": 1.0, "fpr": 0.5, "tacc": 0.9, "dacc_ci": 0.1, "fpr_ci": 0.2, "tacc_ci": math.nan}
    about = {"point": "", "mode": "closed", "attack": "lie", "clients": 8, "malicious": 2, "basis": "rounds"}
    rest = {"assumed_malicious": 2, "failed": 0, "diverged": math.nan}
    frame = pd.DataFrame([{"defense": d, **about, **values, **rest} for d in ("krum", "no_defense")])
    seen = {}
    for width in (0, 70, 40, 24):
        parts = attack_tables(frame, ["dacc", "fpr", "tacc"], {"krum": "Ours"}, width)
        console = Console(file=io.StringIO(), width=width or 200)
        for _, table in parts:
            console.print(table)
        seen[width] = console.file.getvalue()
        assert all(len(line) <= width for line in seen[width].splitlines()) or not width
        assert [heading.split("   ")[0] for heading, _ in parts] == ["attack: LIE", *[""] * (len(parts) - 1)]
        assert "Ours" in seen[width]
        assert "…" not in seen[width]
    assert "~100.0" in seen[40]
    assert "[90.0" not in seen[40]
    assert "~100.0 [90.0, 100.0]" in seen[70]
    assert "~50.0±20.0" in seen[0]
    assert seen[24].count("defense") > 1


def test_labels_that_would_get_one_name_keep_their_own():
    assert display("costs $1 or $2_x") == "costs $1 or $2_x"
    assert display_all(["lie", "krum", "scaling", "scaling_backdoor"], {"krum": "LIE"}) == {
        "lie": "lie", "krum": "krum", "scaling": "scaling", "scaling_backdoor": "scaling_backdoor",
    }  # fmt: skip


def test_a_suites_own_names_reach_the_table_and_may_change(tmp_path):
    write_names(tmp_path, {"krum": "Krüm"})
    assert names_of(tmp_path) == {"krum": "Krüm"}
    assert display("krum", names_of(tmp_path)) == "Krüm"
    write_names(tmp_path, {})
    assert display("krum", names_of(tmp_path)) == "Krum"
    (tmp_path / "names.yaml").write_text("[1, 2]")
    with pytest.raises(ResultsError, match="not a mapping"):
        names_of(tmp_path)


def test_every_built_in_method_has_a_name_in_print():
    names = {n for kind in ("attacks", "detectors", "aggregators") for n in REGISTRIES[kind].names()}
    assert names - DISPLAY.keys() <= {"sklearn"}


@pytest.mark.parametrize(
    ("preset", "head", "first"),
    [
        ("fang_table2", "defense,none,lie", "none,"),
        ("ndss_reduction", "attack,none,krum", "lie,"),
        ("fedsecurity", "attack,none,krum", "none,"),
        ("two_columns", "attack,krum dacc,krum fpr", "lie,"),
    ],
)
def test_presets_have_the_rows_and_columns_of_their_papers(tmp_path, preset, head, first):
    changes = [
        "clients=6",
        "malicious=2",
        "rounds=1",
        "attacks=[none, lie]",
        "defenses=[none, {detector: krum}]",
    ]
    suite, _ = load_suite("quickstart", changes)
    store = run_suite(suite, tmp_path / "out", workers=1)
    lines = export(store, "csv", PRESETS[preset]).decode().splitlines()
    titles = [title for title in lines[0].split(",") if not title.endswith("_ci")]
    assert ",".join(titles) == head
    assert lines[1].startswith(first)
    text = export(store, "latex", PRESETS[preset]).decode()
    assert ("table*" in text) == (preset == "two_columns")


@pytest.mark.slow
def test_latex_compiles_the_table(tmp_path):
    """With TeX Live of the system (Debian: texlive-latex-recommended)."""
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    few = ["clients=6", "malicious=2", "rounds=2", "seeds=[0, 1, 2]", "only=[{attack: [none, lie]}]"]
    suite, _ = load_suite("quickstart", few)
    store = run_suite(suite, tmp_path / "a_b%c", workers=1)
    layouts = {"long": Layout(), "wide": layout_of("", "attack,defense", "dacc,fnr", {}), **PRESETS}
    for name, layout in layouts.items():
        (tmp_path / f"{name}.tex").write_bytes(export(store, "latex", layout))
    inputs = "".join(f"\\input{{{name}}}" for name in layouts)
    (tmp_path / "main.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{inputs}\\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    (tmp_path / "page.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\usepackage[margin=2cm]{geometry}"
        "\\begin{document}\\input{two_columns}\\end{document}"
    )
    page = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Overfull" not in page.stdout, "six defenses fit across two columns"
    assert "Output written on main.pdf" in done.stdout
