"""Suites on a recording, which sets the federation, the attack and the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...contracts.detector import NEEDS
from ...core.errors import ConfigError, FedGuardError, ResultsError
from ...core.named_code import code_in, find_here, refuse_code
from ...recording import Recording
from ...recording.index import INDEX
from ...simulation.build import build_guard, resolve_attack
from ...simulation.recorded import Roster, cell_of
from ...simulation.settings import AttackSpec, Cell, Settings, Spec
from ...simulation.setup import check_parts, setup_for
from ...simulation.specs import LIVE
from .source import Source
from .suite import Suite

#: The keys that a suite on a recording may set; the recording sets the rest.
FREE = frozenset(
    {"assumed_malicious", "recording", "name", "summary", "defenses", "only", "exclude", "parallel"}
)


def on_recording(suite: Suite, source: Source, allow_code: bool = False) -> Suite:
    """The suite with the settings of the recording that it is on.

    Args:
        suite: the suite.
        source: its file, for messages.
        allow_code: allow importing the model, the data set and other parts that the recording names.

    Raises:
        ConfigError: the recording cannot be read, is damaged, contradicts the suite, or names code.
    """
    try:
        recording = Recording(Path(str(suite.recording)).expanduser().absolute())
        damage = recording.check()
        if recording.whole < len(recording.index.rounds) or len(recording) == 0:
            raise ResultsError("; ".join(damage) or f"{recording.folder} holds no round")
        permit_parts(recording, allow_code)
        facts = facts_of(recording)
    except FedGuardError as error:
        raise source.error(("recording",), str(error)) from None
    for key in suite.model_fields_set & facts.keys():
        if getattr(suite, key) != facts[key] and key not in FREE:
            raise source.error((key,), "this comes from the recording; leave it out")
    if "malicious" not in recording.index.about and suite.assumed_malicious is None:
        raise source.error(
            ("assumed_malicious",),
            "this recording does not say how many clients are malicious; set what defenses are told",
        )
    return suite.model_copy(update=facts)


def permit_parts(recording: Recording, allow_code: bool) -> None:
    """Refuse a recording whose federation is built of code: its model, data, partition or training.

    Args:
        recording: the recording.
        allow_code: do not refuse it, and import the code from the current folder, too.

    Raises:
        ConfigError: names the file, the key path and the code.
    """
    cell = cell_of(recording)
    if cell is not None:
        parts = cell.model_dump(mode="json", include={"data", "partition", "model", "training"})
        if not allow_code:
            refuse_code(parts, recording.folder / INDEX, ("about", "cell"))
        find_here(parts)


def facts_of(recording: Recording) -> dict[str, Any]:
    """The settings of a suite that the recording determines."""
    common = {
        "recording": str(recording.folder),
        "mode": "recorded",
        "grid": {},
        "rounds": len(recording),
    }
    cell = cell_of(recording)
    if cell is not None:
        settings = {name: getattr(cell, name) for name in Settings.model_fields}
        told = {"assumed_malicious"} & settings.keys()
        attacks = {cell.attack_label: _described(cell)}
        free = {name: value for name, value in settings.items() if name not in told}
        return {**free, "attacks": attacks, "seeds": [cell.seed], **common}
    parts = {name: Spec(name=LIVE) for name in ("data", "partition", "model")}
    clients = len(Roster(recording).names)
    attacks = {LIVE: AttackSpec(name="none")}
    plain = {n: f.get_default(call_default_factory=True) for n, f in Settings.model_fields.items()}
    plain.pop("assumed_malicious")
    return {**plain, **parts, "clients": clients, "attacks": attacks, "seeds": [0], **common}


def _described(cell: Cell) -> AttackSpec:
    """The recorded attack. It does not run again, so its class is not imported."""
    code = any(code_in(cell.attack.model_dump()))
    return cell.attack if code else resolve_attack(cell.attack, cell)


def check_on_recording(cell: Cell) -> None:
    """Refuse a defense that the recording cannot serve (ParameterError, NeedError, TooFewClientsError)."""
    recording = Recording(str(cell.recording))
    if cell_of(recording) is not None:
        setup_for(cell).check_guard(build_guard(cell), _most(recording))
        return
    tensors = recording.read(0).round
    have = {"global_params"} if tensors.global_params is not None else set()
    if tensors.server is not None and tensors.server.training is not None:
        have.add("training")
    check_parts(build_guard(cell), _most(recording), frozenset(have & NEEDS.keys()))


def _most(recording: Recording) -> int:
    return max(entry.clients for entry in recording.index.rounds)


def check_recordable(suite: Suite) -> None:
    """Refuse, before anything runs, to record suites on a recording and defenses with several guards.

    Raises:
        ConfigError: the suite cannot be recorded; says what to leave out.
    """
    if suite.recording is not None:
        raise ConfigError("--record: this suite is on a recording already")
    several = [cell.defense_label for cell in suite.cells() if cell.defense.flcert is not None]
    if several:
        raise ConfigError(
            f"--record: {several[0]} has several guards (flcert), which cannot be recorded; leave it out "
            f'with "exclude=[{{defense: {several[0]}}}]"'
        )
