"""Checks of a suite that report every mistake before training starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...core.devices import resolve_device
from ...core.errors import DataError, FedGuardError, ParameterError
from ...core.named_code import GIVEN_PREFIX, is_code
from ...core.yaml_values import Path_
from ...simulation.build import build_attack, build_guard
from ...simulation.datasets import load_dataset
from ...simulation.settings import Cell
from ...simulation.setup import Setup, forget_data, setup_for
from .on_recording import check_on_recording
from .source import Source
from .suite import Suite


def check_suite(suite: Suite, source: Source) -> None:
    """Build every attack and defense of a suite once and check that they fit its federations.

    Raises:
        ConfigError: with file, line and key path.
        DataError: the data set cannot be read.
    """
    cells = suite.cells()
    if not cells:
        raise source.error((), "nothing is left to run: loosen `only` and `exclude`")
    if suite.recording is not None:
        for cell in cells:
            _check(source, ("defenses", cell.defense_label), cell, partial(check_on_recording, cell))
        return
    forget_data()
    setups: dict[str, Setup] = {}
    for cell in cells:
        where = str(cell.point)
        key = f"{where} {cell.seed}"
        if key not in setups:
            setups[key] = _setup(cell, source)
    for setup in {setup.cell.data.key: setup for setup in setups.values()}.values():
        _check_repeats(setup, source)
    attacks = {(str(cell.point), cell.attack_label): cell for cell in reversed(cells)}
    defenses = {(str(cell.point), cell.defense_label): cell for cell in reversed(cells)}
    for cell in reversed(attacks.values()):
        setup = setups[f"{cell.point} {cell.seed}"]
        _check(source, ("attacks", cell.attack_label), cell, partial(_check_attack, setup, cell))
    for cell in reversed(defenses.values()):
        setup = setups[f"{cell.point} {cell.seed}"]
        _check(source, ("defenses", cell.defense_label), cell, partial(_check_defense, setup, cell))


def check_devices(suite: Suite, source: Source) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        ConfigError: one is missing; names the setting.
    """
    for cell in {cell.device: cell for cell in suite.cells()}.values():
        try:
            resolve_device(cell.device)
        except ParameterError as error:
            raise source.error(("device",), f"{error}{_at(cell)}") from None


def _setup(cell: Cell, source: Source) -> Setup:
    try:
        return setup_for(cell)
    except FedGuardError as error:
        path = tuple(error.key.split(".")) if error.key else ()
        if isinstance(error, DataError) and len(path) < 2:
            raise source.data_error(path, error) from None
        raise source.error(path, f"{error}{_at(cell)}") from None


def _check_repeats(setup: Setup, source: Source) -> None:
    """Refuse the user's own function if it makes other data when it is called again."""
    spec = setup.cell.data
    if not is_code(spec.name) and not spec.name.startswith(f"{GIVEN_PREFIX}:"):
        return
    if load_dataset(spec.name, **spec.params).fingerprint != setup.dataset.fingerprint:
        raise source.error(
            ("data",),
            f"{spec.name} gives other data when it is read again, so no run could be repeated; seed its "
            "generators inside of it, and leave out random augmentation",
        )


def _at(cell: Cell) -> str:
    return f" (at {', '.join(f'{k} = {v}' for k, v in cell.point.items())})" if cell.point else ""


def _check_attack(setup: Setup, cell: Cell) -> None:
    setup.check_attack(build_attack(cell))


def _check_defense(setup: Setup, cell: Cell) -> None:
    if not 1 <= cell.group_size <= cell.clients:
        raise ParameterError(f"flcert: {cell.clients} clients do not fit groups of {cell.group_size}")
    if cell.defense.flcert is not None:
        if cell.malicious_per_round is not None:
            raise ParameterError(
                "flcert: malicious_per_round is of one federation, not of its groups; leave it out"
            )
        if setup.task != "classification":
            raise ParameterError(f"flcert: its models vote for a class, and the task is {setup.task}")
    group = cell.shrunk_to(cell.group_size)
    setup.check_guard(build_guard(group), group.senders)


def _check(source: Source, path: Path_, cell: Cell, action: Callable[[], None]) -> None:
    try:
        action()
    except FedGuardError as error:
        raise source.error(path, f"{error}{_at(cell)}") from None
