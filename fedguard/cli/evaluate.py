"""The command ``evaluate``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.interrupts import Terminated, terminating
from .common import DataRoot, cores, set_data_root
from .completion import beginning, suite_names

if TYPE_CHECKING:
    from ..evaluation.results.store import Store
    from ..evaluation.running.follow import Follower
    from ..evaluation.suites.source import Source
    from ..evaluation.suites.suite import Suite


@dataclass(frozen=True)
class Options:
    """The options of ``evaluate``; see its help."""

    suite: str
    overrides: list[str] | None
    out: Path | None
    workers: int | None
    data_root: Path | None
    executor: str
    address: str | None
    ray: list[str] | None
    slurm: list[str] | None
    dry_run: bool
    estimate: bool
    retry_failed: bool
    force: bool
    allow_code: bool
    columns: str
    record: Path | None
    quiet: bool
    json_lines: bool
    tracker: list[str] | None
    fedml: bool = False


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            help="A shipped suite's name, or the path of a YAML file.", autocompletion=beginning(suite_names)
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, e.g. rounds=3 training.lr=0.05 seeds=[0,1]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Results folder; results/<suite> by default.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    data_root: DataRoot = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto; the same as device=… at the end.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where to run: pool (processes here), ray, slurm or flower (extras).")
    ] = "pool",
    address: Annotated[str | None, typer.Option(help="Ray cluster; starts one by default.")] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(help="What a piece of work takes of Ray, or a client of Flower: --ray num_gpus=0.25."),
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="A parameter for submitit, e.g. --slurm slurm_partition=cpu.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say how large it is, check everything, and say how long it takes if runs like it are "
            "stored; run nothing.",
        ),
    ] = False,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="As --dry-run, and say how long it takes, from two rounds of a few runs.",
        ),
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Resume although FedGuard's code has changed since.")
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Import classes (module:Class) named by a results folder's suite."),
    ] = False,
    columns: Annotated[str, typer.Option(help="Metrics in the tables, e.g. dacc,ap; or all.")] = "",
    record: Annotated[
        Path | None, typer.Option(help="Record every federation to a subfolder of this folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print one JSON object per round and run, for scripts.")
    ] = False,
    tracker: Annotated[
        list[str] | None, typer.Option(help="Also log runs to tensorboard, mlflow or wandb (extras).")
    ] = None,
    fedml: Annotated[
        bool, typer.Option("--fedml", help="The file is FedML's: attack_args, defense_args and the rest.")
    ] = False,
) -> None:
    """Run attacks × defenses × seeds, show detection metrics, and store every verdict.

    To resume an interrupted run, give the same command again.
    """
    evaluate_suite(
        Options(
            suite=suite,
            overrides=[*(overrides or []), *([f"device={device}"] if device else [])] or None,
            out=out,
            workers=workers,
            data_root=data_root,
            executor=executor,
            address=address,
            ray=ray,
            slurm=slurm,
            dry_run=dry_run or estimate,
            estimate=estimate,
            retry_failed=retry_failed,
            force=force,
            allow_code=allow_code,
            columns=columns,
            record=record,
            quiet=quiet,
            json_lines=json_lines,
            tracker=tracker,
            fedml=fedml,
        )
    )


def evaluate_suite(options: Options) -> None:
    """Check the suite, then estimate or run it; exit with a nonzero status if interrupted or a run failed."""
    from ..evaluation.results.settled import inputs_of
    from ..evaluation.results.tables import SHOWN, columns_named

    set_data_root(options.data_root)
    columns = columns_named(options.columns.split(",")) if options.columns else None
    shown = SHOWN if columns is None else tuple(column.name for column in columns)
    plan, source = _loaded(options)
    inputs = inputs_of(plan)
    count = options.workers or cores()
    if not options.dry_run and _shown_again(options, plan, inputs, count, shown):
        return
    if options.dry_run:
        from ..evaluation.running.estimate import size

        typer.echo(size(plan))  # first: it takes no time, and the checks may
    _check(options, plan, source)
    if options.dry_run:
        typer.echo("everything fits together; nothing has been run")
        _tell_duration(options, plan, count)
        return
    _run(options, plan, inputs, count, shown)


def _shown_again(
    options: Options, plan: Suite, inputs: str | None, count: int, shown: tuple[str, ...]
) -> bool:
    """Show the runs of a folder that is finished and of the same suite, code and data, if it is.

    Nothing here imports torch, which takes most of a second.
    """
    from ..evaluation.results.names import write_names
    from ..evaluation.results.settled import settled
    from ..evaluation.running.follow import show_settled

    elsewhere = options.executor != "pool" or options.address or options.ray or options.slurm
    if options.out is None or options.record is not None or elsewhere:
        return False
    store = settled(options.out, plan, inputs)
    if store is None or (options.retry_failed and store.failures()):
        return False
    write_names(options.out, plan.names)
    show_settled(plan, store, _followers(options, count, shown))
    _tell_failures(store)
    return True


def _run(options: Options, plan: Suite, inputs: str | None, count: int, shown: tuple[str, ...]) -> None:
    """Run what is left of a checked suite."""
    from ..evaluation.results.folders import folder_for
    from ..evaluation.results.settled import settle
    from ..evaluation.running.executors import make_executor
    from ..evaluation.running.follow import run_followed
    from ..evaluation.suites.source import assignments

    folder = options.out or folder_for(Path("results") / plan.name, plan, options.force)
    where = make_executor(
        options.executor,
        count,
        plan.parallel,
        options.address,
        folder,
        slurm=assignments(options.slurm or []),
        ray=assignments(options.ray or []),
    )
    followers = _followers(options, count, shown)
    try:
        with terminating():
            store = run_followed(
                plan, folder, count, followers, options.retry_failed, where, options.record, options.force
            )
    except KeyboardInterrupt as end:
        typer.echo(f"interrupted; give the same command again to resume (results in {folder})", err=True)
        raise typer.Exit(143 if isinstance(end, Terminated) else 130) from None
    settle(store, plan, inputs)
    _tell_failures(store)


def _tell_failures(store: Store) -> None:
    """Exit with status 1 if a run failed."""
    from ..evaluation.running.live import show_failures

    if show_failures(store):
        raise typer.Exit(1)


def _tell_duration(options: Options, plan: Suite, count: int) -> None:
    """Say how long it takes: measured if asked for, else as the runs that are stored took."""
    from ..evaluation.results.folders import last_folder
    from ..evaluation.running.estimate import duration, duration_as_stored

    folder = options.out or last_folder(Path("results") / plan.name)
    if options.estimate:
        typer.echo(duration(plan, count))
    elif text := duration_as_stored(plan, count, folder):
        typer.echo(text)
    else:
        typer.echo("no run like these is stored, to say how long they take; --estimate times a few rounds")


def _loaded(options: Options) -> tuple[Suite, Source]:
    """Load the suite, and refuse code that must not be imported."""
    from ..evaluation.results.folders import from_elsewhere
    from ..evaluation.suites.load import load_suite

    return load_suite(
        options.suite,
        options.overrides,
        options.allow_code or not from_elsewhere(options.suite),
        options.allow_code,
        options.fedml,
    )


def _check(options: Options, plan: Suite, source: Source) -> None:
    """Refuse what cannot run."""
    from ..core.named_code import find_here
    from ..evaluation.suites.check import check_devices, check_suite
    from ..evaluation.suites.on_recording import check_recordable

    find_here(source.data)
    if options.executor == "pool":
        check_devices(plan, source)
    check_suite(plan, source)
    if options.record is not None:
        check_recordable(plan)


def _followers(options: Options, count: int, shown: tuple[str, ...]) -> list[Follower]:
    """Make the trackers, and either JSON lines, a terminal display or nothing."""
    from ..evaluation.running.json_lines import JsonLines
    from ..evaluation.running.live import Terminal
    from ..evaluation.running.trackers import make_tracker

    followers = [make_tracker(name) for name in options.tracker or []]
    if options.json_lines:
        followers.append(JsonLines(sys.stdout))
    elif not options.quiet:
        followers.append(Terminal(count, shown, options.record is not None))
    return followers
