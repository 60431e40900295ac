"""The command line. Commands import heavy modules on their own, so that ``--help`` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import FedGuardError
from ..core.version import __version__
from . import methods, suites
from .calibrate import calibrate
from .evaluate import evaluate
from .ledger import app as ledger_app
from .partition import partition
from .probe import probe
from .rollback import rollback
from .serve import serve
from .tune import tune

app = typer.Typer(
    name="fedguard",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger_app, name="ledger")


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
def watch(
    events: Annotated[Path, typer.Argument(help="The event stream that a guard's EventLog writes.")],
    once: Annotated[bool, typer.Option("--once", help="Print the latest round and exit.")] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Clients to show; as many as fit by default.")
    ] = None,
) -> None:
    """Watch a live guard: the current round's scores, suspects, bans, and how the global model moves."""
    from .watch import watch as show

    try:
        show(events, once, rows)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


for command in (
    evaluate,
    tune,
    suites.export,
    suites.report,
    suites.plot,
    suites.compare,
    suites.replay,
    calibrate,
    rollback,
    partition,
    probe,
    serve,
    methods.show,
    methods.check,
    methods.new,
    methods.leak,
    methods.schema,
):
    app.command()(command)
app.command("list")(methods.list_)


def main() -> None:
    """Run the command line. A usage error prints one line to stderr and exits with status 2."""
    try:
        app()
    except FedGuardError as error:
        sys.stderr.write(f"fedguard: error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
