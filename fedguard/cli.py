"""The command line. Heavy imports happen inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import ConfigError, FedGuardError

app = typer.Typer(
    name="fedguard",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the data sets; the environment variable FEDGUARD_DATA otherwise."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedguard {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Score every client update, decide who may contribute, and measure how well that worked."""


@app.command()
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
        bool, typer.Option("--allow-code", help="Import the module:Class that the suite's file names.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Run attacks × defences × seeds, show detection metrics, and store every verdict.

    An interrupted run goes on when the same command is given again.
    """
    from .evaluation.check import check_suite
    from .evaluation.executors import make_executor
    from .evaluation.live import show_suite
    from .evaluation.source import assignments
    from .evaluation.store import folder_for
    from .evaluation.suite import load_suite

    _set_data_root(data_root)
    plan, source = load_suite(suite, overrides, allow_code)
    check_suite(plan, source)
    count = workers or _cores()
    if dry_run:
        from .evaluation.estimate import estimate

        typer.echo(estimate(plan, count))
        return
    folder = out or folder_for(Path("results") / plan.name, plan)
    where = make_executor(executor, count, plan.parallel, address, folder, assignments(slurm or []))
    try:
        failed = show_suite(plan, folder, count, quiet, retry_failed, where)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command goes on where it was, in {folder}", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="detectors, attacks, aggregators, policies, datasets or suites.")
    ],
) -> None:
    """Show what there is: name, one line, paper, needs."""
    from .evaluation.listing import listing

    _print_table(listing(kind))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A results folder that `evaluate` wrote.")],
    format: Annotated[str, typer.Option("--format", "-f", help="csv, markdown, latex or json.")] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; the screen by default.")
    ] = None,
) -> None:
    """Write the detection-metrics table of a results folder."""
    from .evaluation.export import export as render
    from .evaluation.store import Store

    text = render(Store(folder), format)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from None


@app.command()
def leak(
    attack: Annotated[str, typer.Argument(help="A passive attack: dlg, inverting_gradients, …")],
    params: Annotated[
        list[str] | None, typer.Argument(help="Its parameters, e.g. iterations=1000 tv=0.01.")
    ] = None,
    data: Annotated[str, typer.Option(help="The data set; images only.")] = "digits",
    model: Annotated[str, typer.Option(help="The model.")] = "mlp",
    samples: Annotated[int, typer.Option(min=1, help="Samples that the client has.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Full-batch steps that it trains.")] = 1,
    lr: Annotated[float, typer.Option(help="Its learning rate.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The seed of everything.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="Begin at what this attack finds, e.g. distilled_knowledge.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Write truth and reconstruction to this PNG.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Measure what one client's update (or what a defence makes of it) gives away about its data."""
    from .evaluation.leak import LeakSettings, leak_of, passive, save_picture
    from .evaluation.source import assignments

    _set_data_root(data_root)
    settings = LeakSettings(data, model, samples, steps, lr, seed)
    chosen = passive(attack, assignments(params or []))
    result = leak_of(settings, chosen, passive(start, {}) if start else None)
    for name, value in result.metrics.items():
        typer.echo(f"{name:11} {value:8.3f}")
    if picture is not None:
        try:
            save_picture(result, picture)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot write {picture}: {error}") from None


@app.command()
def check(
    method: Annotated[
        str | None, typer.Argument(help="A class as module:Class, or a registered name.")
    ] = None,
    params: Annotated[list[str] | None, typer.Argument(help="Its parameters, e.g. limit=2.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="detector, attack, aggregator, stage or policy, if it is not clear.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every registered method.")] = False,
) -> None:
    """Run the contract checks over a method of yours (or a built-in one), and say what to do."""
    from .evaluation.checking import check_all, check_one
    from .evaluation.source import assignments

    if everything == (method is not None):
        raise ConfigError("name one method, or give --all")
    ok = check_all() if method is None else check_one(method, kind, assignments(params or []))
    if not ok:
        raise typer.Exit(1)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="detector or attack.")],
    name: Annotated[str, typer.Argument(help="Its name: lower_case_with_underscores.")],
) -> None:
    """Write a method of your own and its test into the current folder, ready to run."""
    from .scaffold import scaffold

    module, test = scaffold(kind, name, Path.cwd())
    words = "".join(part.capitalize() for part in name.split("_"))
    typer.echo(f"wrote {module.name} and {test.name}; next: fedguard check {name}:{words}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a suite, for editors."""
    import json

    from .evaluation.schema import suite_schema

    sys.stdout.write(json.dumps(suite_schema(), indent=2) + "\n")


def _set_data_root(folder: Path | None) -> None:
    if folder is not None:
        os.environ["FEDGUARD_DATA"] = str(folder.expanduser().absolute())


def _cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _print_table(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit status 2."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        # So that module:Class finds a module of the current folder; last, so that a torch.py that lies there
        # is not taken for PyTorch.
        sys.path.append(str(Path.cwd()))
    try:
        app()
    except FedGuardError as error:
        sys.stderr.write(f"fedguard: error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
