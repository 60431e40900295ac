"""The command ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import AllowRecordedCode, DataRoot, RecordedModel, set_data_root


def rollback(
    recording: Annotated[Path, typer.Argument(help="A folder that a recorder wrote.")],
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="A client to leave out; may be repeated. By default, all that are banned at the end."
        ),
    ] = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Do not train again, even if it was a simulation.")
    ] = False,
    aggregator: Annotated[
        str | None, typer.Option(help="The server's rule, for the approximation; mean by default.")
    ] = None,
    model: RecordedModel = None,
    test: Annotated[
        Path | None, typer.Option(help="Test data: .npz or .safetensors with inputs and labels.")
    ] = None,
    triggered: Annotated[
        Path | None, typer.Option(help="Inputs with the attacker's trigger and labels, likewise.")
    ] = None,
    allow_code: AllowRecordedCode = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the model: .safetensors.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Give the recorded model without banned clients: retrained in a simulation, approximate if live."""
    from ..core.errors import ConfigError
    from ..core.named_code import find_here
    from ..evaluation.running.rollback import rollback as roll_back
    from ..evaluation.suites.given import given_server, labeled_from
    from ..recording import Recording
    from ..simulation.recorded import cell_of

    set_data_root(data_root)
    if out is not None and out.suffix != ".safetensors":
        raise ConfigError(f"cannot write {out}: use a name that ends in .safetensors")
    own = Recording(recording)
    if (
        model is not None and cell_of(own) is not None
    ):  # its own parts are not built before they are permitted
        raise ConfigError("--model belongs to live recordings; a simulation has its own")
    find_here([model, aggregator])
    server = given_server(own, model, test, None) if model else None
    found = roll_back(
        own,
        without,
        approximate,
        aggregator,
        server.model if server else None,
        labeled_from(test) if test else None,
        labeled_from(triggered) if triggered else None,
        allow_code,
    )
    typer.echo(str(found))
    if out is not None:
        found.save(out)
        typer.echo(f"wrote {out}")
