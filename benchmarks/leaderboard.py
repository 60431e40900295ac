"""Every detector × every attack × data × skew × share of attackers × seeds, on shared trajectories.

python benchmarks/leaderboard.py FOLDER                    # digits, 2 seeds: minutes
python benchmarks/leaderboard.py FOLDER --data mnist       # other data, 1 seed, β = 0.5, 5 of 20 malicious
python benchmarks/leaderboard.py FOLDER --full             # 3 β × 3 shares of attackers, 3 seeds
python benchmarks/leaderboard.py FOLDER --page PAGE.md     # write the page and its heat maps, too

In shadow mode: all detectors watch one undefended federation per attack and seed, so a few hundred
federations give thousands of results. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from fedguard.contracts.registry import attacks, detectors
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.plot import plot
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite

#: What does not fit a leaderboard of short runs with everybody's defaults, and why.
LEFT_OUT = {"ensemble": "made of others"}
#: A full run is 27 times as long.
LEFT_OUT_OF_FULL = {**LEFT_OUT, "fedredefense": "a minute per federation; in the small run"}
#: With these, short runs show something of methods that wait long by default, or take minutes per round.
PARAMS: dict[str, dict[str, Any]] = {
    "fldetector": {"start": 3, "window": 5},
    "fedredefense": {"preset": "fast"},
}
#: A tenth of the random inputs, which took half of the time of all detectors together.
PARAMS_OF_FULL = {**PARAMS, "deepsight": {"samples": 2000}}
#: Nothing to detect (a server reads clients' data), or made for one guard that is asked again and again.
NO_ATTACKS = {"dlg", "inverting_gradients", "revealing_labels", "adaptive", "adaptive_label_flip"}
#: Attacks that need a parameter.
ATTACK_PARAMS: dict[str, dict[str, Any]] = {"inflated_counts": {"attack": "label_flip"}}
BASE: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [32]},
    "clients": 20,
    "rounds": 10,
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
    "server": {"validation": 100, "root": 100},
    "mode": "shadow",
}
#: Images of 28 × 28 have many more samples per client: so many steps of so many samples, not epochs.
LARGER: dict[str, Any] = {"training": {"steps": 20, "batch_size": 32, "lr": 0.1}}
#: A full run's skews and shares of attackers, of 20 clients; nobody attacks under "none".
GRID: dict[str, list[Any]] = {"partition.beta": [1000.0, 0.5, 0.1], "malicious": [2, 6, 9]}
METRICS = ["auroc", "tpr_at_1", "dacc", "fpr", "fnr"]


def suite(data: str, full: bool, only: list[str] | None, seeds: list[int] | None = None) -> Suite:
    """All registered detectors with their own rules, all attacks that leave something to detect."""
    left_out, params = (LEFT_OUT_OF_FULL, PARAMS_OF_FULL) if full else (LEFT_OUT, PARAMS)
    names = only or [name for name in detectors.names() if name not in left_out]
    larger = LARGER if data != "digits" else {}
    return Suite(
        name="leaderboard",
        data=data,
        **{**BASE, **larger},
        malicious=5,
        partition={"name": "dirichlet", "beta": 0.5},
        seeds=seeds or ([0, 1, 2] if full else [0, 1] if data == "digits" else [0]),
        grid=GRID if full else {},
        attacks={n: {"name": n, **ATTACK_PARAMS.get(n, {})} for n in attacks.names() if n not in NO_ATTACKS},
        defenses={n: {"detector": {"name": n, **params.get(n, {})}} for n in names},
    )


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per detector, the highest DACC first: means over the attacks, and its FPR without one."""
    attacked = frame[frame["attack"] != "none"]
    means = attacked.groupby("defense")[METRICS].mean()
    clean = frame[frame["attack"] == "none"].groupby("defense")["fpr"].mean()
    worst = attacked.groupby("defense")["auroc"].min()
    return means.assign(clean=clean, worst=worst).sort_values("dacc", ascending=False)


def table(frame: pd.DataFrame) -> str:
    """The same as Markdown."""
    head = (
        "| detector | AUROC | lowest AUROC | TPR at 1 % FPR | DACC % | FPR % | FNR % | FPR % with no attack |"
    )
    lines = [head, "|:--|--:|--:|--:|--:|--:|--:|--:|"]
    for name, row in ranked(frame).iterrows():
        rates = " | ".join(f"{100 * row[m]:.1f}" for m in ("tpr_at_1", "dacc", "fpr", "fnr", "clean"))
        lines.append(f"| {name} | {row['auroc']:.3f} | {row['worst']:.2f} | {rates} |")
    return "\n".join(lines)


def best(frame: pd.DataFrame) -> str:
    """One row per attack: who ranks its clients best, and whose own rule does best."""
    lines = ["| attack | best AUROC | by | best DACC % | by |", "|:--|--:|:--|--:|:--|"]
    for attack, part in frame[frame["attack"] != "none"].groupby("attack", sort=False):
        means = part.groupby("defense")[["auroc", "dacc"]].mean()
        if means["auroc"].isna().all() or means["dacc"].isna().all():
            continue
        leader, right = means["auroc"].idxmax(), means["dacc"].idxmax()
        cells = f"{means['auroc'].max():.3f} | {leader} | {100 * means['dacc'].max():.1f} | {right}"
        lines.append(f"| {attack} | {cells} |")
    return "\n".join(lines)


def by_point(frame: pd.DataFrame, metric: str, order: list[str]) -> str:
    """A metric of every detector at every point of the grid, in percent: means over attacks and seeds."""
    attacked = frame[frame["attack"] != "none"]
    means = 100 * attacked.pivot_table(metric, "defense", "point", sort=False).loc[order]
    points = [f"β {beta:g}, {count}" for beta in GRID["partition.beta"] for count in GRID["malicious"]]
    lines = [f"| {metric.upper()} % | " + " | ".join(points) + " |", "|:--|" + "--:|" * len(points)]
    lines += [f"| {name} | " + " | ".join(f"{v:.1f}" for v in row) + " |" for name, row in means.iterrows()]
    return "\n".join(lines)


def smaller(picture: Path) -> None:
    """A fifth of the bytes: a heat map needs no more than 64 colors."""
    Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)


def pictures(folder: Path, out: Path, grid: bool) -> list[str]:
    """Heat maps by attack and detector beside the page: of a grid at each skew, with the middle share."""
    shown = [{}]
    if grid:
        malicious = GRID["malicious"][1]
        shown = [{"partition.beta": beta, "malicious": malicious} for beta in GRID["partition.beta"]]
    found = []
    for where in shown:
        for metric in ("auroc", "dacc"):
            parts = [out.stem, metric, *(f"{value:g}" for value in where.values())]
            name = "_".join(parts) + ".png"
            smaller(plot(folder, "heatmap", out.with_name(name), metric, where))
            at = "".join(f", {key} = {value:g}" for key, value in where.items())
            found.append(f"![{metric} by attack and detector{at}]({name})")
    return found


def page(folder: Path, out: Path, command: str, plan: Suite, seconds: float) -> None:
    """The Markdown page, with heat maps beside it."""
    frame = read_results(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    left_out, params = (LEFT_OUT_OF_FULL, PARAMS_OF_FULL) if plan.grid else (LEFT_OUT, PARAMS)
    left = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    text = [
        "# Leaderboard of the detectors",
        f"Produced by `{command}` ({len(frame)} results, {int(frame['failed'].sum())} failed runs, "
        f"{seconds:.0f} s).",
        f"Every detector with its own rule, in shadow mode: all watch the same undefended rounds. "
        f"{_where(plan)} Means over attacks and seeds, sorted by DACC.",
        f"Left out: {left}. With parameters: {params}.",
        table(frame),
    ]
    if plan.grid:
        order = ranked(frame).index.tolist()
        note = "Dirichlet's β and how many of the 20 clients are malicious; in the order of the table above."
        parts = [by_point(frame, m, order) for m in ("dacc", "fpr", "fnr")]
        text += ["## By skew and share of attackers", note, *parts]
    text += ["## By attack", best(frame), *pictures(folder, out, bool(plan.grid))]
    out.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _where(plan: Suite) -> str:
    """The federation in a sentence."""
    training = plan.training
    work = f"{training.steps} steps" if training.steps else f"{training.epochs} epochs"
    return (
        f"{plan.data.name}, {plan.clients} clients, {plan.malicious} of them malicious, {plan.rounds} rounds "
        f"of {work} with batches of {training.batch_size}, partition {plan.partition.name} "
        f"{plan.partition.params}, model {plan.model.name} {plan.model.params}, seeds {plan.seeds}"
        + (f", instead at every point of {plan.grid}." if plan.grid else ".")
    )


def main() -> None:
    """Run what is left of the leaderboard, and write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--data", default="digits", help="the data set")
    parser.add_argument("--only", nargs="*", help="these detectors alone")
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of 3 of a full run, else 1 or 2")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    start = time.perf_counter()
    plan = suite(given.data, given.full, given.only, given.seeds)
    store = run_suite(
        plan, given.folder, given.workers, on_cell=lambda result: print(".", end="", flush=True)
    )
    print()
    del store
    if given.page:
        command = "python benchmarks/leaderboard.py FOLDER" + (" --full" if given.full else "")
        command += f" --data {given.data}" if given.data != "digits" else ""
        command += f" --seeds {' '.join(map(str, given.seeds))}" if given.seeds else ""
        page(given.folder, given.page, command, plan, time.perf_counter() - start)


if __name__ == "__main__":
    main()
