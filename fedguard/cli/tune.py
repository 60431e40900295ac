"""The command ``tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.interrupts import Terminated, terminating
from .common import DataRoot, cores, print_table, set_data_root


def tune(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, e.g. rounds=3 seeds=[0,1].")
    ] = None,
    attack: Annotated[str | None, typer.Option(help="Tune this attack: hurt most, within tolerance.")] = None,
    defense: Annotated[str | None, typer.Option(help="Tune this defense: bear the worst attack.")] = None,
    against: Annotated[str, typer.Option(help="Its opponents, e.g. krum,dnc; all by default.")] = "",
    search: Annotated[
        list[str] | None,
        typer.Option(help="PATH=LOW:HIGH, PATH=log:LOW:HIGH, PATH=\\[one, two]; else the suite's `search`."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Points to try.")] = 20,
    metric: Annotated[
        str | None, typer.Option(help="What to tune for; tacc, asr for backdoors, dacc in shadow mode.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Share of attacking updates that a defense may keep out.")
    ] = 0.1,
    test_seeds: Annotated[
        str, typer.Option(help="Seeds of the check, e.g. 10,11; as many above the tuning seeds by default.")
    ] = "",
    sampler: Annotated[
        str, typer.Option(help="tpe (Parzen estimator), or gp (Gaussian process: fewer trials, slower each).")
    ] = "tpe",
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Trials to propose at a time, to run side by side.")] = 4,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; results/<suite>-tune-<label> by default.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    data_root: DataRoot = None,
    executor: Annotated[str, typer.Option(help="Where to run: pool, ray or slurm (extras).")] = "pool",
    address: Annotated[str | None, typer.Option(help="Ray cluster; starts one by default.")] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="A parameter for submitit, e.g. --slurm slurm_partition=cpu.")
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Import classes (module:Class) named by a results folder's suite."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line per trial.")] = False,
) -> None:
    """Search for an attack's strength or a defense's parameters; check it on unused seeds (extra: tune).

    To resume an interrupted search, give the same command again.
    """
    from ..core.errors import ParameterError
    from ..core.named_code import find_here
    from ..evaluation.results.folders import from_elsewhere
    from ..evaluation.suites.load import load_suite
    from ..evaluation.suites.source import assignments
    from ..evaluation.tuning.report import checks_table, heading, trial_line, verdict
    from ..evaluation.tuning.search import goal_of
    from ..evaluation.tuning.search import tune as searched

    set_data_root(data_root)
    allowed = allow_code or not from_elsewhere(suite)
    plan, source = load_suite(suite, overrides, allowed)
    find_here(source.data)  # load_suite has refused code that must not be imported
    opponents = [label for label in against.split(",") if label]
    goal = goal_of(plan, attack, defense, opponents, metric, tolerance)
    try:
        seeds = [int(text) for text in test_seeds.split(",") if text]
    except ValueError:
        raise ParameterError(f"--test-seeds {test_seeds!r}: write whole numbers, e.g. 10,11") from None
    try:
        with terminating():
            tuned = searched(
                suite,
                overrides or [],
                attack=attack,
                defense=defense,
                against=opponents,
                search=search or [],
                trials=trials,
                metric=metric,
                tolerance=tolerance,
                test_seeds=seeds,
                sampler=sampler,
                seed=seed,
                batch=batch,
                out=out,
                workers=workers or cores(),
                executor=executor,
                address=address,
                slurm=assignments(slurm or []),
                allow_code=allowed,
                on_trial=lambda tried: None if quiet else typer.echo(trial_line(goal, tried)),
            )
    except KeyboardInterrupt as end:
        typer.echo("interrupted; give the same command again to resume", err=True)
        raise typer.Exit(143 if isinstance(end, Terminated) else 130) from None
    if tuned.best is None:
        typer.echo(f"nothing found: {verdict(tuned)}", err=True)
        raise typer.Exit(1)
    print_table(checks_table(tuned))
    for line in heading(tuned)[-5:]:
        typer.echo(line)
    typer.echo(f"wrote {tuned.found}")
