"""``fedguard calibrate``: what detectors and policies would have done on a recorded federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import AllowRecordedCode, DataRoot, RecordedModel, RootData, ValidationData, set_data_root


def calibrate(
    recording: Annotated[Path, typer.Argument(help="A folder that a recorder wrote.")],
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector, e.g. krum or '{name: krum, num_malicious: 2}'; repeat it for several."
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="The policy, e.g. '{name: ban, strikes: 2}'; ban by default.")
    ] = None,
    guard: Annotated[
        Path | None, typer.Option(help="A guard's file to measure, instead of --detector and --policy.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack to inject, e.g. '{name: lie, z: 1.5}'; repeat it for several."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Wanted false suspicions per client and round.")] = 0.01,
    share: Annotated[
        float, typer.Option(help="Share of the recorded clients that are turned malicious.")
    ] = 0.25,
    last: Annotated[int, typer.Option(min=2, help="Rounds to take, the latest ones.")] = 100,
    learn: Annotated[float, typer.Option(help="Share of them to learn thresholds from.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of who attacks and how.")] = 0,
    model: RecordedModel = None,
    validation: ValidationData = None,
    root: RootData = None,
    allow_code: AllowRecordedCode = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the best rule as a guard's file (YAML).")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Tell what each rule would have done on a recorded federation, and write the best as a guard's file."""
    from ..core.errors import ConfigError
    from ..core.named_code import find_here
    from ..evaluation.calibration.calibrate import ATTACKS, DETECTORS, Wish
    from ..evaluation.calibration.show import Question, show_calibration
    from ..evaluation.suites.source import assignments

    def spec(text: str) -> object:
        return assignments([f"spec={text}"])["spec"]

    if guard is not None and (detector or policy or out):
        raise ConfigError("--guard measures the file as it is; leave out --detector, --policy and --out")
    set_data_root(data_root)
    detectors = [spec(text) for text in detector or []] or list(DETECTORS)
    attacks = [spec(text) for text in attack or []] or list(ATTACKS)
    wish = Wish(rate, spec(policy or "ban"), attacks, share, seed)
    find_here([detectors, wish.policy, attacks, model])
    question = Question(recording, detectors, wish, last, learn, guard, model, validation, root, allow_code)
    if not show_calibration(question, out):
        raise typer.Exit(1)
