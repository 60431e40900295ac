"""Methods by name: built-in methods and plug-ins register through the same entry points.

An entry point of the group ``fedguard.detectors``, ``fedguard.attacks``, ``fedguard.aggregators``,
``fedguard.stages`` or ``fedguard.policies`` names either one class or a catalogue: a table
``name -> "module:Class"`` whose own name is in capitals.
``"module:Class"`` is accepted wherever a name is. A class is imported and checked on first use; one that
breaks its contract is rejected with the reason. Names that the field uses for a method with some of its
parameters are in :mod:`.aliases`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ..core.entry_points import offered
from ..core.errors import ConfigError, RegistryError
from ..core.named_code import GIVEN_PREFIX, is_code, load_code
from ..core.params import check_params, nearest, params_model
from .aggregator import Aggregator
from .aliases import ALIASES, spelled
from .attack import KNOWLEDGE, Attack
from .card import Card, Method
from .detector import NEEDS, Detector
from .policy import Policy
from .stage import Stage
from .template import template

M = TypeVar("M", bound=Method)


class Registry(Generic[M]):
    """The methods of one kind.

    Args:
        kind: the kind's name, for example ``"detector"``.
        base: the base class of its methods.
        extra_check: an additional check of a class; returns what is wrong, or None.
    """

    def __init__(self, kind: str, base: type[M], extra_check: Callable[[type[M]], str | None]) -> None:
        self.kind = kind
        self.base = base
        self.group = f"fedguard.{'policies' if kind == 'policy' else kind + 's'}"
        self.aliases = ALIASES.get(self.group.removeprefix("fedguard."), {})
        self._extra_check = extra_check
        self._added: dict[str, type[M]] = {}
        self._valid: dict[str, type[M]] = {}  # those of others that were checked

    @functools.cached_property
    def _sources(self) -> dict[str, Callable[[], Any]]:
        return offered(self.group, self.kind)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted({*self._sources, *self._added})

    def add(self, cls: type[M]) -> type[M]:
        """Register a class under the name on its card; works as a decorator.

        Raises:
            RegistryError: the name is taken, or the class breaks the contract.
        """
        self._validate(cls, None)
        if cls.card.name in self.names():
            raise RegistryError(f"{self.kind} {cls.card.name!r} is already registered; choose another name")
        self._added[cls.card.name] = cls
        return cls

    def get(self, name: str) -> type[M]:
        """The class with this name, or the one that ``"module:Class"`` refers to.

        Raises:
            RegistryError: unknown name (the nearest one is suggested), failed import, invalid class.
        """
        if ":" in name:
            # The checks that refuse code recognize exactly these names.
            given = name.startswith(f"{GIVEN_PREFIX}:")
            if not is_code(name) and not given:
                raise RegistryError(f"cannot load {self.kind} {name!r}: write module:Class")
            found = _import(name, self.kind)
            return self._validate(template(found) if given and isinstance(found, self.base) else found, None)
        if name in self._added:
            return self._added[name]
        if name not in self._sources:
            raise RegistryError(
                f"unknown {self.kind} {name!r}{self._hint(name)} "
                f"(`fedguard list {self.group.removeprefix('fedguard.')}` shows all; "
                "your own class is named by 'module:Class')"
            )
        found = self._sources[name]()
        if self._valid.get(name) is not found:
            self._valid[name] = self._validate(found, name)
        return self._valid[name]

    def resolve(self, name: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The name and the parameters that an alias stands for; parameters that are given have priority.

        Every other name is returned as it is. A method that is registered under an alias has priority, too.
        """
        if name not in self.aliases or name in self._added or name in self._sources:
            return name, dict(params)
        real, implied = self.aliases[name]
        return real, {**implied, **params}

    def _hint(self, name: str) -> str:
        if name in self.aliases:
            return f": it stands for {spelled(*self.aliases[name])}; write that"
        close = nearest(name, [*self.names(), *self.aliases])
        if close:
            return close
        others = [o for o in REGISTRIES.values() if o is not self and name in {*o.names(), *o.aliases}]
        if not others:
            return ""
        found = f"{'an' if others[0].kind[0] in 'aeiou' else 'a'} {others[0].kind}"
        write = f"; write {{{others[0].kind}: {name}}}" if others[0].kind == "aggregator" else ""
        return f"; {name!r} is {found}{write}"

    def make(self, name: str, **params: Any) -> M:
        """Build the method with this name or alias; checks the parameters against its signature.

        Raises:
            RegistryError: see :meth:`get`.
            ParameterError: a parameter is unknown, of the wrong type or out of range.
        """
        real, params = self.resolve(name, params)
        cls = self.get(real)
        return cls(**check_params(cls, params, f"{self.kind} {name}"))

    def _validate(self, cls: Any, name: str | None) -> type[M]:
        problem = self._problem(cls, name)
        if problem:
            raise RegistryError(f"{getattr(cls, '__name__', cls)!s} is not a valid {self.kind}: {problem}")
        return cls  # type: ignore[no-any-return]

    def _problem(self, cls: Any, name: str | None) -> str | None:
        if not (inspect.isclass(cls) and issubclass(cls, self.base)):
            return f"it does not inherit from fedguard.{self.base.__name__}"
        if inspect.isabstract(cls):
            return f"it does not define {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"
        card = getattr(cls, "card", None)
        if not isinstance(card, Card):
            return "it has no `card = Card(name=…, summary=…, paper=…)`"
        if name is not None and card.name != name:
            return f"its card says {card.name!r} but it is registered as {name!r}"
        if not card.name.isidentifier() or card.name != card.name.lower():
            return f"the name {card.name!r} is not lower_case_with_underscores"
        if "\n" in card.summary or not card.summary or not card.paper:
            return "its card needs a one-line summary and a paper"
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                return f"its parameter *{parameter.name} would swallow misspelled names; spell parameters out"
            if parameter.annotation is parameter.empty:
                return f"its parameter {parameter.name!r} has no type annotation"
        try:
            params_model(cls)  # type: ignore[arg-type]  # classes are hashable
        except Exception as error:  # evaluating a plug-in's annotations may raise anything
            return f"its parameters cannot be checked: {error}"
        return self._extra_check(cls)


def _import(target: str, kind: str) -> Any:
    try:
        return load_code(target, kind)
    except ConfigError as error:
        raise RegistryError(str(error)) from error


def _check_detector(cls: type[Detector]) -> str | None:
    if not isinstance(cls.needs, frozenset | set):
        return "its `needs` is not a set of names"
    unknown = cls.needs - NEEDS.keys()
    if not unknown:
        return None
    return f"it needs unknown things: {', '.join(sorted(unknown))} (known: {', '.join(NEEDS)})"


def _check_attack(cls: type[Attack]) -> str | None:
    if getattr(cls, "kind", None) not in ("none", "model", "data", "backdoor", "passive"):
        return "its `kind` is none of 'none', 'model', 'data', 'backdoor', 'passive'"
    if not isinstance(cls.knowledge, frozenset | set):
        return "its `knowledge` is not a set of names"
    unknown = cls.knowledge - KNOWLEDGE.keys()
    return f"it declares unknown knowledge: {', '.join(sorted(unknown))}" if unknown else None


def _check_stage(cls: type[Stage]) -> str | None:
    idle = cls.before is Stage.before and cls.after is Stage.after
    return "it defines neither `before` nor `after`" if idle else None


def _no_check(_: Any) -> None:
    return None


detectors: Registry[Detector] = Registry("detector", Detector, _check_detector)  # type: ignore[type-abstract]
attacks: Registry[Attack] = Registry("attack", Attack, _check_attack)
aggregators: Registry[Aggregator] = Registry("aggregator", Aggregator, _no_check)  # type: ignore[type-abstract]
stages: Registry[Stage] = Registry("stage", Stage, _check_stage)
policies: Registry[Policy] = Registry("policy", Policy, _no_check)  # type: ignore[type-abstract]

make_detector = detectors.make
make_attack = attacks.make
make_aggregator = aggregators.make
make_stage = stages.make
make_policy = policies.make

REGISTRIES: dict[str, Registry[Any]] = {
    "detectors": detectors,
    "attacks": attacks,
    "aggregators": aggregators,
    "stages": stages,
    "policies": policies,
}
