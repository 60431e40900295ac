"""Every detector × every attack × data × skew × share of attackers × seeds, on shared trajectories.

python benchmarks/leaderboard.py FOLDER                    # digits, 2 seeds: minutes
python benchmarks/leaderboard.py FOLDER --data mnist       # other data, 1 seed, β = 0.5, 5 of 20 malicious
python benchmarks/leaderboard.py FOLDER --full             # 3 β × 3 shares of attackers, 3 seeds
python benchmarks/leaderboard.py FOLDER --page PAGE.md     # write the page, its rows (PAGE.csv) and heat maps
python benchmarks/leaderboard.py FOLDER --add module:Class # a detector of your own beside the others

In shadow mode: all detectors watch one undefended federation per attack and seed, so a few hundred
federations give thousands of results. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from leaderboard_rows import HARMLESS, LOSSES, RANKED, SEEN, losses, read_rows, rows_of, standing, write_rows
from PIL import Image

from fedguard.contracts.registry import attacks, detectors
from fedguard.core.named_code import find_here
from fedguard.evaluation.results.plot import plot
from fedguard.evaluation.running.live import show_failures
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_devices, check_suite
from fedguard.evaluation.suites.source import Source
from fedguard.evaluation.suites.suite import Suite
from fedguard.passive import PassiveAttack

#: What does not fit a leaderboard of short runs with everybody's defaults, and why.
LEFT_OUT = {
    "ensemble": "made of others",
    "adapter_products": "for low-rank adapters",
    "backdoor_indicator": "needs a task that its stage plants into the model",
    "lora_probe": "for low-rank adapters, and needs a trained probe",
}
#: A full run is 27 times as long.
LEFT_OUT_OF_FULL = {**LEFT_OUT, "fedredefense": "a minute per federation; in the small run"}
#: With these, short runs show something of methods that wait long by default, or take minutes per round.
PARAMS: dict[str, dict[str, Any]] = {
    "fldetector": {"start": 3, "window": 5},
    "fedredefense": {"preset": "fast"},
}
#: In a full run and on larger images a tenth of the random inputs, which took most of all detectors' time.
FASTER = {**PARAMS, "deepsight": {"samples": 2000}}
#: Made for one guard that is asked again and again, or for texts. Passive attacks leave nothing to detect.
NO_ATTACKS = {"adaptive", "adaptive_label_flip", "text_backdoor", "text_style", "poisoned_answers"}
#: Attacks that need a parameter.
ATTACK_PARAMS: dict[str, dict[str, Any]] = {"inflated_counts": {"attack": "label_flip"}}
#: On images of 8 × 8, DBA's default trigger would be cut off.
SMALL_PARAMS: dict[str, dict[str, Any]] = {**ATTACK_PARAMS, "dba": {"size": 3, "gap": 1}}
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

EXPLAINED = (
    "In percentage points. A missed attacker counts as *identical to honest* if it sent its honest update; "
    f"as *harmless* if its attack does harm below {HARMLESS:g} (less than one point of accuracy and 10 % "
    "success); else as *seen by a detector* if the best detector of the board ranks this run's attackers at "
    f"AUROC ≥ {SEEN:g}, as *ranked* from {RANKED:g} on, and as *seen by nobody* below."
)


def attackers() -> list[str]:
    """The attacks of the board: all that send something else than the honest update."""
    active = [name for name in attacks.names() if not issubclass(attacks.get(name), PassiveAttack)]
    return [name for name in active if name not in NO_ATTACKS]


def settings(data: str, full: bool) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Which detectors a board leaves out, and why; and the parameters of the others."""
    return (LEFT_OUT_OF_FULL if full else LEFT_OUT), (FASTER if full or data != "digits" else PARAMS)


def suite(
    data: str,
    full: bool,
    only: list[str] | None = None,
    seeds: list[int] | None = None,
    add: list[str] | None = None,
    attacked_by: list[str] | None = None,
) -> Suite:
    """All registered detectors with their own rules, all attacks that leave something to detect.

    Args:
        data: the data set.
        full: at every point of the grid.
        only: these detectors alone.
        seeds: instead of the usual ones.
        add: ``module:Class`` of detectors of one's own, beside the others.
        attacked_by: these attacks alone; "none" is always there, which harm is measured against.
    """
    left_out, params = settings(data, full)
    names = only if only is not None else [name for name in detectors.names() if name not in left_out]
    own = {name.partition(":")[2] or name: name for name in add or ()}
    chosen = attackers() if attacked_by is None else ["none", *(n for n in attacked_by if n != "none")]
    larger, fitting = (LARGER, ATTACK_PARAMS) if data != "digits" else ({}, SMALL_PARAMS)
    return Suite(
        name="leaderboard",
        data=data,
        **{**BASE, **larger},
        malicious=5,
        partition={"name": "dirichlet", "beta": 0.5},
        seeds=seeds or ([0, 1, 2] if full else [0, 1] if data == "digits" else [0]),
        grid=GRID if full else {},
        attacks={n: {"name": n, **fitting.get(n, {})} for n in chosen},
        defenses={n: {"detector": {"name": n, **params.get(n, {})}} for n in names}
        | {label: {"detector": {"name": name}} for label, name in own.items()},
    )


def percent(row: Any, name: str) -> str:
    """A rate in percent, with the half width of its interval if there is one."""
    width = row.get(f"{name}_ci", float("nan"))
    value = "–" if pd.isna(row[name]) else f"{100 * row[name]:.1f}"
    return value if pd.isna(width) else f"{value} ± {100 * width:.1f}"


def table(rows: pd.DataFrame) -> str:
    """One row per detector, as Markdown."""
    rates = {
        "dacc": "DACC %",
        "dacc_active": "DACC % (active)",
        "fpr": "FPR %",
        "fnr": "FNR %",
        "fnr_harm": "FNR %, by harm",
        "clean": "FPR % with no attack",
    }
    lines = ["| detector | AUROC | lowest AUROC | TPR % at 1 % FPR | " + " | ".join(rates.values()) + " |"]
    lines.append("|:--|" + "--:|" * (3 + len(rates)))
    for name, row in standing(rows).iterrows():
        cells = [f"{row['auroc']:.3f}", f"{row['worst']:.2f}", f"{100 * row['tpr_at_1']:.1f}"]
        lines.append(f"| {name} | " + " | ".join([*cells, *(percent(row, rate) for rate in rates)]) + " |")
    return "\n".join(lines)


def best(rows: pd.DataFrame) -> str:
    """One row per attack: its harm, who ranks its clients best, and whose own rule does best."""
    lines = ["| attack | harm | best AUROC | by | best DACC % | by |", "|:--|--:|--:|:--|--:|:--|"]
    for attack, part in rows[rows["attack"] != "none"].groupby("attack", sort=False):
        means = part.groupby("detector")[["auroc", "dacc"]].mean()
        if means["auroc"].isna().all() or means["dacc"].isna().all():
            continue
        leader, right = means["auroc"].idxmax(), means["dacc"].idxmax()
        cells = f"{means['auroc'].max():.3f} | {leader} | {100 * means['dacc'].max():.1f} | {right}"
        lines.append(f"| {attack} | {part['harm'].mean():.2f} | {cells} |")
    return "\n".join(lines)


def lost(rows: pd.DataFrame) -> str:
    """Where each detector loses DACC, in percentage points."""
    names = ["lost", *LOSSES, "false positives"]
    lines = ["| detector | " + " | ".join(names) + " |", "|:--|" + "--:|" * len(names)]
    for detector, row in losses(rows).iterrows():
        lines.append(f"| {detector} | " + " | ".join(f"{100 * row[name]:.1f}" for name in names) + " |")
    return "\n".join(lines)


def by_point(rows: pd.DataFrame, metric: str, order: list[str]) -> str:
    """A metric of every detector at every point of the grid, in percent: means over attacks and seeds."""
    attacked = rows[rows["attack"] != "none"]
    means = 100 * attacked.pivot_table(metric, "detector", ["beta", "malicious"], sort=False).loc[order]
    points = [f"β {beta:g}, {count}" for beta, count in means.columns]
    lines = [f"| {metric.upper()} % | " + " | ".join(points) + " |", "|:--|" + "--:|" * len(points)]
    lines += [f"| {name} | " + " | ".join(f"{v:.1f}" for v in row) + " |" for name, row in means.iterrows()]
    return "\n".join(lines)


def smaller(picture: Path) -> None:
    """A fifth of the bytes: a heat map needs no more than 64 colors."""
    Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)


def pictures(folder: Path, out: Path, grid: bool) -> list[str]:
    """Heat maps by attack and detector beside the page: of a grid at each skew, with the middle share."""
    if find_spec("matplotlib") is None:
        print('no heat maps: they need pip install "fedguard[plot]"')
        return []
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


def page(folder: Path, out: Path, command: str, plan: Suite) -> None:
    """The Markdown page, with its rows as CSV and heat maps beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(rows_of(folder), out.with_suffix(".csv"))
    rows = read_rows(out.with_suffix(".csv"))
    left_out, params = settings(plan.data.name, bool(plan.grid))
    left = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    text = [
        "# Leaderboard of the detectors",
        f"Produced by `{command}` ({len(rows)} runs, {int((rows['status'] == 'failed').sum())} of them "
        f"failed). Every run is a row of [{out.stem}.csv]({out.stem}.csv).",
        f"Every detector with its own rule, in shadow mode: all watch the same undefended rounds. "
        f"{_where(plan)} Means over attacks and seeds, sorted by DACC; ± is the half width of the 95 % "
        "interval over seeds. “Active” leaves out attackers in rounds in which they send their honest "
        "update; “by harm” weights every run with the harm of its attack to the undefended federation.",
        f"Left out: {left}. With parameters: {params}.",
        table(rows),
        "## Where DACC is lost",
        EXPLAINED,
        lost(rows),
    ]
    if plan.grid:
        order = standing(rows).index.tolist()
        note = "Dirichlet's β and how many of the 20 clients are malicious; in the order of the table above."
        parts = [by_point(rows, m, order) for m in ("dacc", "fpr", "fnr")]
        text += ["## By skew and share of attackers", note, *parts]
    text += ["## By attack", best(rows), *pictures(folder, out, bool(plan.grid))]
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
    parser.add_argument("--attacks", nargs="*", help="these attacks alone, and none")
    parser.add_argument("--add", nargs="*", metavar="module:Class", help="detectors of your own, too")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    find_here(given.add)
    plan = checked(suite(given.data, given.full, given.only, given.seeds, given.add, given.attacks))
    store = run_suite(
        plan, given.folder, given.workers, on_cell=lambda result: print(".", end="", flush=True)
    )
    print()
    failed = show_failures(store)
    if given.page:
        page(given.folder, given.page, _command(given), plan)
    else:
        print(table(rows_of(given.folder)))
    raise SystemExit(1 if failed else 0)


def checked(plan: Suite) -> Suite:
    """The suite, once it has passed every check that ``fedguard evaluate`` runs."""
    source = Source("the leaderboard", {})
    check_suite(plan, source)
    check_devices(plan, source)
    return plan


def _command(given: argparse.Namespace) -> str:
    """The command, for the page."""
    command = "python benchmarks/leaderboard.py FOLDER" + (" --full" if given.full else "")
    command += f" --data {given.data}" if given.data != "digits" else ""
    for name in ("only", "seeds", "attacks", "add"):
        values = getattr(given, name)
        command += f" --{name} {' '.join(map(str, values))}" if values else ""
    return command


if __name__ == "__main__":
    main()
