"""Commands that list, check and create methods."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ConfigError
from ..core.files import not_written
from .common import DataRoot, print_table, set_data_root, write
from .completion import beginning, kinds


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="detectors, attacks, aggregators, stages, policies, models, datasets, partitions, rules, "
            "suites, metrics or aliases.",
            autocompletion=beginning(kinds),
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    aliases: Annotated[
        bool, typer.Option("--aliases", help="The field's other names for methods of this kind.")
    ] = False,
) -> None:
    """List what is available: name, summary, paper, needs."""
    from .listing import aliases as aliases_of
    from .listing import as_records, listing

    if aliases:
        print_table(aliases_of([kind]))
    elif as_json:
        _print_json(as_records(kind))
    else:
        print_table(listing(kind))


def show(
    name: Annotated[str, typer.Argument(help="A name, or module:name.")],
    kind: Annotated[
        str | None, typer.Option(help="detector, model, partition, suite …, if several kinds have the name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one method, model, data set, partition, rule, metric or suite, with its parameters."""
    from ..core.named_code import find_here
    from .show import description
    from .show import show as print_description

    find_here([name])
    found = description(name, kind)
    if as_json:
        _print_json(found)
    else:
        print_description(found)


def _print_json(value: object) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check(
    method: Annotated[
        str | None, typer.Argument(help="A class or function as module:name, or a registered name.")
    ] = None,
    params: Annotated[list[str] | None, typer.Argument(help="Its parameters, e.g. limit=2.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="detector, attack, aggregator, stage, policy, model, dataset or partition, if ambiguous."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything registered.")] = False,
) -> None:
    """Run the contract checks on your own method, model, data or partition, with advice for each failure."""
    from ..core.named_code import find_here
    from ..evaluation.suites.source import assignments
    from .checking import check_all, check_one

    if everything == (method is not None):
        raise ConfigError("name one method, or give --all")
    given = assignments(params or [])
    find_here([method, given])
    ok = check_all() if method is None else check_one(method, kind, given)
    if not ok:
        raise typer.Exit(1)


def new(
    kind: Annotated[
        str,
        typer.Argument(help="detector, attack, aggregator, policy, stage, model, dataset or partition."),
    ],
    name: Annotated[str, typer.Argument(help="Its name: lower_case_with_underscores.")],
) -> None:
    """Create a new method, model, data set or partition and its test in this folder, ready to run."""
    from .scaffold import KINDS, scaffold, shadows, target

    warning = shadows(kind, name) if kind in KINDS and name.isidentifier() else ""
    module, test = scaffold(kind, name, Path.cwd())
    if warning:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"wrote {module.name} and {test.name}; next: fedguard check {target(kind, name)}")


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output by default.")
    ] = None,
) -> None:
    """Write the JSON schema of a suite, for editors."""
    import json

    from ..evaluation.suites.schema import suite_schema

    text = json.dumps(suite_schema(), indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        write(text.encode(), out)


def leak(
    attack: Annotated[str, typer.Argument(help="A passive attack: dlg, inverting_gradients, …")],
    params: Annotated[
        list[str] | None, typer.Argument(help="Its parameters, e.g. iterations=1000 tv=0.01.")
    ] = None,
    data: Annotated[str, typer.Option(help="The data set; images only.")] = "digits",
    model: Annotated[str, typer.Option(help="The model.")] = "mlp",
    samples: Annotated[int, typer.Option(min=1, help="Number of samples of the client.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Full-batch training steps.")] = 1,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="Start from the result of this attack, e.g. distilled_knowledge.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--out", "-o", "--picture", help="Write truth and reconstruction to this PNG."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Measure what one client's update, or its defended version, reveals about its data."""
    from ..core.named_code import find_here
    from ..evaluation.running.leak import LeakSettings, leak_of, passive, save_picture
    from ..evaluation.suites.source import assignments

    set_data_root(data_root)
    settings = LeakSettings(data, model, samples, steps, lr, seed)
    given = assignments(params or [])
    find_here([attack, start, given])
    chosen = passive(attack, given)
    result = leak_of(settings, chosen, passive(start, {}) if start else None)
    for name, value in result.metrics.items():
        typer.echo(f"{name:11} {value:8.3f}")
    if picture is not None:
        try:
            save_picture(result, picture)
        except OSError as error:
            raise ConfigError(not_written(picture, error, "write to another file (--picture)")) from None
        except ValueError as error:
            raise ConfigError(f"cannot write {picture}: {error}") from None
