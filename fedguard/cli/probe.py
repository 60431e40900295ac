"""The command ``probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import AllowRecordedCode, DataRoot, set_data_root


def probe(
    recordings: Annotated[
        list[Path], typer.Argument(help="Folders that `evaluate --record` wrote, of one model and one start.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the probe: .safetensors.")],
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    allow_code: AllowRecordedCode = False,
    data_root: DataRoot = None,
) -> None:
    """Train the probe of the detector lora_probe on recorded simulations."""
    from ..core.errors import ConfigError
    from ..evaluation.calibration.probe import train_probe

    set_data_root(data_root)
    if out.suffix != ".safetensors":
        raise ConfigError(f"cannot write {out}: use a name that ends in .safetensors")
    found = train_probe(recordings, seed, allow_code)
    typer.echo(str(found))
    found.probe.save(out)
    typer.echo(f"wrote {out}")
