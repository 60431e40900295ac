"""Run suites, and show, export, compare and draw their results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..interrupts import Terminated, terminating
from .common import DataRoot, cores, print_table, set_data_root, write


def evaluate(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, e.g. rounds=3 training.lr=0.05 seeds=[0,1]."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; results/<suite> by default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    data_root: DataRoot = None,
    executor: Annotated[
        str, typer.Option(help="Where to run: pool (processes here), ray or slurm (extras).")
    ] = "pool",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; one is started if absent.")] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="What submitit is told, e.g. --slurm slurm_partition=cpu.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, estimate the effort, run nothing.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")] = False,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Import the module:Class that a results folder's suite names."),
    ] = False,
    columns: Annotated[str, typer.Option(help="Metrics that the tables show, e.g. dacc,ap; or all.")] = "",
    record: Annotated[
        Path | None, typer.Option(help="Record every federation to a folder of its own in this one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="One JSON object per round and run instead, for scripts.")
    ] = False,
    tracker: Annotated[
        list[str] | None, typer.Option(help="Log runs to tensorboard, mlflow or wandb too (extras).")
    ] = None,
) -> None:
    """Run attacks × defences × seeds, show detection metrics, and store every verdict.

    An interrupted run goes on when the same command is given again.
    """
    from ..evaluation.check import check_suite
    from ..evaluation.executors import make_executor
    from ..evaluation.follow import run_followed
    from ..evaluation.json_lines import JsonLines
    from ..evaluation.live import Terminal, show_failures
    from ..evaluation.on_recording import check_recordable
    from ..evaluation.source import assignments
    from ..evaluation.store import folder_for, from_elsewhere
    from ..evaluation.suite import load_suite
    from ..evaluation.tables import SHOWN, columns_named
    from ..evaluation.trackers import make_tracker
    from ..named_code import find_here

    set_data_root(data_root)
    shown = tuple(column.name for column in columns_named(columns.split(","))) if columns else SHOWN
    plan, source = load_suite(suite, overrides, allow_code or not from_elsewhere(suite))
    find_here(source.data)  # what may not be imported was refused
    check_suite(plan, source)
    if record is not None:
        check_recordable(plan)
    count = workers or cores()
    if dry_run:
        from ..evaluation.estimate import estimate

        typer.echo(estimate(plan, count))
        return
    folder = out or folder_for(Path("results") / plan.name, plan)
    where = make_executor(executor, count, plan.parallel, address, folder, assignments(slurm or []))
    followers = [make_tracker(name) for name in tracker or []]
    if json_lines:
        followers.append(JsonLines(sys.stdout))
    elif not quiet:
        followers.append(Terminal(count, shown, record is not None))
    try:
        with terminating():
            store = run_followed(plan, folder, count, followers, retry_failed, where, record)
    except KeyboardInterrupt as end:
        typer.echo(f"interrupted; the same command goes on where it was, in {folder}", err=True)
        raise typer.Exit(143 if isinstance(end, Terminated) else 130) from None
    if show_failures(store):
        raise typer.Exit(1)


def export(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="csv, markdown, latex, json, parquet.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; the screen by default.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Metrics to show, e.g. dacc,auroc; or all.")] = "",
    pivot: Annotated[
        str, typer.Option(help="ROWS,COLUMNS: two settings, e.g. attack,defense or partition.beta,defense.")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these, e.g. --where attack=\\[lie,min_max].")
    ] = None,
    preset: Annotated[str, typer.Option(help="A paper's layout, e.g. fedredefense_table1.")] = "",
) -> None:
    """Write the detection-metrics table of a results folder."""
    from ..evaluation.export import export as render
    from ..evaluation.layout import layout_of
    from ..evaluation.source import assignments
    from ..evaluation.store import Store

    layout = layout_of(preset, pivot, columns, assignments(where or []))
    write(render(Store(folder), format, layout), out)


def compare(
    before: Annotated[Path, typer.Argument(help="A results folder.")],
    after: Annotated[Path, typer.Argument(help="Another one, with runs in common.")],
    columns: Annotated[str, typer.Option(help="Metrics to compare, e.g. dacc,tacc; or all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also what may be the seeds' noise.")] = False,
) -> None:
    """Show what changed between two results folders, with significance over seeds."""
    from ..evaluation.compare import compare as compared
    from ..evaluation.compare import show_comparison
    from ..evaluation.store import Store
    from ..evaluation.tables import SHOWN

    names = columns.split(",") if columns else [name for name in SHOWN if name != "detector_share"]
    for part in show_comparison(compared(Store(before), Store(after), names), everything):
        print_table(part)


def report(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; FOLDER/report.html by default.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only these runs, e.g. --where attack=lie --where mode=closed.")
    ] = None,
) -> None:
    """Write results as one HTML file with its pictures in it."""
    from ..evaluation.report.page import write_report
    from ..evaluation.source import assignments

    path = write_report(folder, out, assignments(where or []))
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB)")


def plot(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .png, .svg or .pdf.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="heatmap, accuracy, roc or scores.")] = "heatmap",
    metric: Annotated[
        str, typer.Option(help="Of the heat map: dacc, fpr, fnr, auroc, tacc or asr.")
    ] = "dacc",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these runs, e.g. --where attack=lie --where mode=closed.")
    ] = None,
) -> None:
    """Draw one figure of results with matplotlib (extra: plot)."""
    from ..evaluation.plot import plot as draw
    from ..evaluation.source import assignments

    typer.echo(f"wrote {draw(folder, kind, out, metric, assignments(where or []))}")


def replay(
    recording: Annotated[Path, typer.Argument(help="A folder that a recorder wrote.")],
    detector: Annotated[
        str | None, typer.Option(help="Any detector; the defence that was recorded, if absent.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A parameter of the detector, e.g. --param window=5.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="What follows, e.g. ban or '{name: ban, strikes: 2}'.")
    ] = None,
    assumed: Annotated[
        int | None, typer.Option(min=0, help="How many malicious clients defences are told.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For a live recording: a suite's model, or module:function.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Validation data: .npz or .safetensors with inputs and labels.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Root data, likewise.")] = None,
    with_banned: Annotated[
        bool, typer.Option("--with-banned", help="Show it clients that were banned when it was recorded.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import the module:Class that the recording names.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write every verdict to this .csv or .json.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Score the rounds of a recording offline, with any detector."""
    from ..evaluation.replay import Question, show_replay
    from ..evaluation.source import assignments
    from ..named_code import find_here

    set_data_root(data_root)
    chosen = assignments([f"policy={policy}"])["policy"] if policy else None
    params = assignments(param or [])
    find_here([detector, params, chosen, model])
    question = Question(
        recording, detector, params, chosen, assumed, model, validation, root, with_banned, allow_code
    )
    if not show_replay(question, out):
        raise typer.Exit(1)
