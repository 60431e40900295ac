"""Hashable keys of cells: for caches, and for what travels to workers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pydantic_core import PydanticSerializationError

from ..core.errors import ParameterError
from .settings import AttackSpec, Cell, Defense


@dataclass(frozen=True)
class CellKey:
    """A cell as a hashable value, small enough to travel to workers with every piece of work.

    A cell itself is not hashable: its parameters are dictionaries. Cells that share a setup, or the data
    that an attack poisons, have equal keys for it.

    Attributes:
        settings: the cell as JSON.
    """

    settings: str

    @classmethod
    def of(cls, cell: Cell) -> CellKey:
        """The key of a cell.

        Raises:
            ParameterError: a setting is text that cannot be written (half of a surrogate pair).
        """
        try:
            return cls(cell.model_dump_json())
        except PydanticSerializationError as error:
            raise ParameterError(f"a setting cannot be written: {error}") from None

    @classmethod
    def for_setup(cls, cell: Cell) -> CellKey:
        """The key of what a cell's setup depends on: neither the attack nor the defense."""
        return cls._shared(cell, AttackSpec(name="none"))

    @classmethod
    def for_attack(cls, cell: Cell) -> CellKey:
        """The key of what poisoned data depend on: the setup and the attack, whatever its schedule."""
        return cls._shared(cell, AttackSpec(name=cell.attack.name, **cell.attack.params))

    @classmethod
    def _shared(cls, cell: Cell, attack: AttackSpec) -> CellKey:
        labels = {"attack_label": "", "defense_label": "", "point": {}}
        rest = {"attack": attack, "defense": Defense(), "mode": "closed", "recording": None}
        return cls.of(cell.model_copy(update={**labels, **rest}))

    @property
    def cell(self) -> Cell:
        """The cell, parsed once per process."""
        return _parsed(self)

    @property
    def setup(self) -> CellKey:
        """See :meth:`for_setup`."""
        return _shared_keys(self)[0]

    @property
    def attack(self) -> CellKey:
        """See :meth:`for_attack`."""
        return _shared_keys(self)[1]


@functools.lru_cache(maxsize=256)
def _parsed(key: CellKey) -> Cell:
    return Cell.model_validate_json(key.settings)


@functools.lru_cache(maxsize=1024)
def _shared_keys(key: CellKey) -> tuple[CellKey, CellKey]:
    return CellKey.for_setup(key.cell), CellKey.for_attack(key.cell)
