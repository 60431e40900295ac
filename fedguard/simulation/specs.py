"""Parts of a federation by name, as a suite gives them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from ..contracts.aliases import ALIASES
from .base import Model
from .schedule import Schedule
from .victims import Victims

#: The most clients and rounds of a federation, and the most of any other count. Larger values are
#: mistakes or attacks, which would otherwise show only after hours.
MAX_CLIENTS, MAX_ROUNDS, MAX_COUNT = 100_000, 1_000_000, 10**9
#: The name of data set, partition and model if a recording does not come from a simulation.
LIVE = "recorded"


def _spec(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Spec(Model):
    """A method or a part of the federation by name, with its parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def params(self) -> dict[str, Any]:
        """All values except the name."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def key(self) -> str:
        """Name and parameters as one text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


class AttackSpec(Spec):
    """An attack by name, with its parameters, its schedule and its victims beside the name.

    Attributes:
        schedule: when it takes place, and which malicious clients take part; always and all if absent.
        victims: of a passive attack, whose data it reconstructs; one client per round if absent.
    """

    schedule: Schedule = Schedule()
    victims: Victims | None = None

    @property
    def beside(self) -> dict[str, Any]:
        """What stands beside its name and is none of its parameters."""
        return {"schedule": self.schedule, "victims": self.victims}

    @model_serializer(mode="wrap")
    def _without_victims(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs of other attacks keep the keys that they had before there were victims."""
        values: dict[str, Any] = serialized(self)
        return values if self.victims else {k: v for k, v in values.items() if k != "victims"}


def resolved(kind: str) -> AfterValidator:
    """Replace an alias by the method that it stands for."""

    def resolve(spec: Spec) -> Spec:
        if spec.name not in ALIASES[kind]:
            return spec
        from ..contracts.registry import REGISTRIES  # it imports torch

        name, params = REGISTRIES[kind].resolve(spec.name, spec.params)
        if name == spec.name:
            return spec
        fields = spec.beside if isinstance(spec, AttackSpec) else {}
        return type(spec)(name=name, **fields, **params)

    return AfterValidator(resolve)


ShortSpec = Annotated[Spec, BeforeValidator(_spec)]
ShortAttack = Annotated[AttackSpec, BeforeValidator(_spec), resolved("attacks")]
ShortDetector = Annotated[ShortSpec, resolved("detectors")]


def listed(value: Any) -> Any:
    """One part or several, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
