"""Run suites, and show, export, compare and draw their results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..core.files import is_file
from .common import (
    AllowRecordedCode,
    DataRoot,
    RecordedModel,
    RootData,
    ValidationData,
    print_table,
    set_data_root,
    write,
)


def export(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="csv, markdown, latex, json, parquet.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output by default.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Metrics to show, e.g. dacc,auroc; or all.")] = "",
    pivot: Annotated[
        str, typer.Option(help="ROWS,COLUMNS: two settings, e.g. attack,defense or partition.beta,defense.")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these, e.g. --where attack=\\[lie,min_max].")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="A paper's layout, e.g. fedredefense_table1; or two_columns.")
    ] = "",
    caption: Annotated[str, typer.Option(help="LaTeX: the table's caption.")] = "",
    label: Annotated[str, typer.Option(help="LaTeX: the table's label, e.g. tab:main.")] = "",
    wide: Annotated[bool, typer.Option("--wide", help="LaTeX: across both columns of the page.")] = False,
) -> None:
    """Write the detection-metrics table of a results folder."""
    from ..evaluation.results.export import export as render
    from ..evaluation.results.layout import Float, layout_of
    from ..evaluation.results.store import Store
    from ..evaluation.suites.source import choices

    layout = layout_of(preset, pivot, columns, choices(where or []))
    layout = dataclasses.replace(layout, float=Float(caption, label, wide or layout.float.wide))
    write(render(Store(folder), format, layout), out)


def compare(
    before: Annotated[Path, typer.Argument(help="A results folder.")],
    after: Annotated[
        Path | None, typer.Argument(help="Another one, with runs in common; or give --mine.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Metrics to compare, e.g. dacc,tacc; or all.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also show what may be noise; with --mine, every attack.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write (.csv: numbers); standard output by default."),
    ] = None,
    mine: Annotated[
        str, typer.Option(help="A defense of the folder: compare it with each other one, over seeds.")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="With --mine: only these runs, e.g. --where mode=closed.")
    ] = None,
    per_seed: Annotated[
        bool, typer.Option("--per-seed", help="With --mine: every pair of runs, as CSV.")
    ] = False,
) -> None:
    """Show what changed between two results folders, or compare one defense with the others of its suite."""
    from ..core.errors import ParameterError
    from ..evaluation.results.tables import SHOWN

    names = columns.split(",") if columns else [name for name in SHOWN if name != "detector_share"]
    if bool(mine) == (after is not None):
        raise ParameterError("compare takes a second results folder, or --mine and a defense of the first")
    if after is None:
        _versus(before, mine, names, everything, out, where or [], per_seed)
        return
    if per_seed or where:
        raise ParameterError("--per-seed and --where belong to --mine, not to two folders")
    from ..evaluation.results.compare import compare as compared
    from ..evaluation.results.compare import show_comparison
    from ..evaluation.results.store import Store

    comparison = compared(Store(before), Store(after), names)
    if out is not None:
        write(comparison.text(everything).encode() + b"\n", out)
        return
    for part in show_comparison(comparison, everything):
        print_table(part)


def _versus(
    folder: Path,
    mine: str,
    names: list[str],
    everything: bool,
    out: Path | None,
    where: list[str],
    per_seed: bool,
) -> None:
    from ..evaluation.cells import csv_text
    from ..evaluation.results.store import Store
    from ..evaluation.results.versus import show_versus, versus
    from ..evaluation.suites.source import choices
    from ..evaluation.terminal import terminal

    found = versus(Store(folder), mine, names, choices(where))
    if per_seed:
        write(csv_text(found.pairs).encode(), out)
    elif out is None:
        for part in show_versus(found, everything, terminal(piped_width=120).width):
            print_table(part)
    elif out.suffix.lower() == ".csv":
        write(csv_text(found.frame).encode(), out)
    else:
        write(found.text(everything).encode() + b"\n", out)


def report(
    folder: Annotated[
        Path, typer.Argument(help="A results folder that `evaluate` wrote, or a ledger's file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; FOLDER/report.html or LEDGER.html by default."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only these runs, e.g. --where attack=lie --where mode=closed.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="Of a ledger: the event stream with its rounds.")
    ] = None,
) -> None:
    """Write results, or a ledger, as one self-contained HTML file."""
    if is_file(folder):
        path = _ledger_report(folder, out, events, where)
    else:
        path = _results_report(folder, out, events, where)
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB)")


def _results_report(folder: Path, out: Path | None, events: Path | None, where: list[str] | None) -> Path:
    from ..core.errors import ParameterError
    from ..evaluation.results.report.page import write_report
    from ..evaluation.suites.source import choices

    if events is not None:
        raise ParameterError("--events belongs to the report of a ledger; this is a results folder")
    return write_report(folder, out, choices(where or []))


def _ledger_report(ledger: Path, out: Path | None, events: Path | None, where: list[str] | None) -> Path:
    from ..core.errors import ParameterError
    from ..serve.page import write_ledger_report

    if where:
        raise ParameterError("--where belongs to the report of a results folder; this is a file")
    return write_ledger_report(ledger, out, events)


def plot(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote, or a recording.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write: .svg, .pdf or .png; FOLDER/KIND.svg by default."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            "-k",
            help="heatmap, accuracy, success, roc, scores, pareto, cost, timeline, confusion, who_sees_what, "
            "skew_share, critical_difference, partition; client_map of a recording.",
        ),
    ] = "heatmap",
    metric: Annotated[
        str,
        typer.Option(help="Metric of the heat map: dacc, fpr, fnr, auroc, tacc or asr; of ranks: any."),
    ] = "dacc",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these runs, e.g. --where attack=lie --where mode=closed.")
    ] = None,
    columns: Annotated[int, typer.Option(help="Width: 1 or 2 columns of a paper (3.5 or 7.16 inches).")] = 2,
    dark: Annotated[bool, typer.Option("--dark", help="Light lines on a dark ground.")] = False,
) -> None:
    """Draw one figure of results, or of a recording, with matplotlib (extra: plot)."""
    from ..evaluation.results.figures.style import Sheet
    from ..evaluation.results.plot import plot as draw
    from ..evaluation.suites.source import choices

    sheet = Sheet(columns, dark)
    typer.echo(f"wrote {draw(folder, kind, out, metric, choices(where or []), sheet)}")


def replay(
    recording: Annotated[Path, typer.Argument(help="A folder that a recorder wrote.")],
    detector: Annotated[
        str | None, typer.Option(help="Any detector; the recorded defense by default.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A parameter of the detector, e.g. --param window=5.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="The policy, e.g. ban or '{name: ban, strikes: 2}'.")
    ] = None,
    assumed: Annotated[
        int | None, typer.Option(min=0, help="Number of malicious clients that defenses assume.")
    ] = None,
    model: RecordedModel = None,
    validation: ValidationData = None,
    root: RootData = None,
    with_banned: Annotated[
        bool, typer.Option("--with-banned", help="Include clients that were banned when recorded.")
    ] = False,
    allow_code: AllowRecordedCode = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write every verdict to this .csv or .json.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Score the rounds of a recording offline, with any detector."""
    from ..core.named_code import find_here
    from ..evaluation.running.replay import Question, show_replay
    from ..evaluation.suites.source import assignments

    set_data_root(data_root)
    chosen = assignments([f"policy={policy}"])["policy"] if policy else None
    params = assignments(param or [])
    find_here([detector, params, chosen, model])
    question = Question(
        recording, detector, params, chosen, assumed, model, validation, root, with_banned, allow_code
    )
    if not show_replay(question, out):
        raise typer.Exit(1)
