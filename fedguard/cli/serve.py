"""``fedguard serve``: the control room of a live guard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    ledger: Annotated[Path, typer.Argument(help="The ledger's file, which guards write.")],
    events: Annotated[
        Path | None, typer.Option(help="The event stream that a guard's EventLog writes.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default only this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8642,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the login token, created if absent; by default one is printed."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show only: no bans, no unbans.")] = False,
    user_header: Annotated[
        str, typer.Option(help="Header in which a proxy that logs users in names them (with --token-file).")
    ] = "",
) -> None:
    """Serve a page for the operator of a live guard: rounds, clients, bans (extra: serve)."""
    from ..serve.run import serve as run

    try:
        run(ledger, events, host, port, token_file, read_only, user_header, typer.echo)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
