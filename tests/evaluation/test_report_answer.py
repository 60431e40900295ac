"""The sentences at the top of the report, by hand."""

import math

import pandas as pd

from fedguard.evaluation.results.report.answer import answers
from fedguard.evaluation.results.report.results import Section


def section(cells, seeds=(0, 1, 2), mode="closed"):
    """Of (attack, defense, DACC by seed, FPR, AUROC)."""
    rows = [
        {"attack": a, "defense": d, "seed": s, "attacked": a != "none", "dacc": dacc[i], "fpr": fpr,
         "auroc": auroc, "tacc": math.nan, "asr": math.nan}
        for a, d, dacc, fpr, auroc in cells
        for i, s in enumerate(seeds)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    keys = ["attack", "defense", "attacked"]
    frame = runs.groupby(keys, sort=False).mean(numeric_only=True).reset_index()
    return Section("", mode, frame, runs)


def test_the_winner_harm_and_what_nobody_sees():
    """DnC − Krum by seed: 0.20, 0.21, 0.19; t = 0.2 / (0.01/√3) = 34.6, p = 0.00083 with 2 degrees."""
    found = answers(
        section(
            [
                ("LIE", "Krum", (0.5, 0.5, 0.5), 0.4, 0.2),
                ("LIE", "DnC", (0.7, 0.71, 0.69), 0.05, 0.55),
                ("none", "Krum", (1, 1, 1), 0.2, math.nan), ("none", "DnC", (1, 1, 1), 0.05, math.nan),
            ]
        )
    )  # fmt: skip
    assert found == [
        "DnC labels the most clients correctly under attack: 70.0 % on average, then Krum with 50.0 %; "
        "3 seeds tell them apart (paired t test, p = 0.00083).",
        "Krum harms honest clients most: it accuses 30.0 % of them on average, attacks or not.",
        "No detector sees LIE (best AUROC 0.55, DnC).",
    ]


def test_the_same_difference_in_every_seed_is_no_proof():
    equal = section([("LIE", "Krum", (0.5, 0.5, 0.5), 0.0, 0.95), ("LIE", "DnC", (0.6, 0.6, 0.6), 0.05, 0.8)])
    assert answers(equal)[0].endswith(
        "3 seeds do not tell them apart (the same difference in each; test of signs, p = 0.25)."
    )


def test_ties_single_seeds_and_harmless_defenses_are_not_dressed_up():
    one = section([("LIE", "Krum", (0.5,), 0.0, 0.95), ("LIE", "DnC", (0.6,), 0.05, 0.8)], seeds=(0,))
    assert answers(one) == [
        "DnC labels the most clients correctly under attack: 60.0 % on average, then Krum with 50.0 %; "
        "one seed, so chance is not ruled out.",
        "Few honest clients are accused: at most 5.0 % (DnC).",
        "At least one detector sees each attack (AUROC of 0.9 or more).",
    ]
    same = section([("LIE", "Krum", (0.5,), 0.0, 0.7), ("LIE", "DnC", (0.5,), 0.0, 0.8)], seeds=(0,))
    assert answers(same)[0] == (
        "Krum and DnC are equal: each labels the most clients correctly under attack (50.0 %)."
    )
    assert answers(same)[-1] == "Seen only in part: LIE (best AUROC 0.80, DnC)."
