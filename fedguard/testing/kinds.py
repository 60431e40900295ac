"""Which kind a method is of, and what is checked of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..contracts.registry import REGISTRIES
from ..core.errors import ConfigError, RegistryError
from ..core.params import nearest
from . import aggregators, attacks, detectors, policies, stages
from .core import Check, MethodCheck, resolve


class Contract(NamedTuple):
    """What is checked of one kind: the case made of a class with its parameters, and the checks by name."""

    case: type[Any]
    checks: Mapping[str, Check]


CONTRACTS = {
    "detectors": Contract(detectors.Case, detectors.CHECKS),
    "attacks": Contract(attacks.Case, attacks.CHECKS),
    "aggregators": Contract(aggregators.Case, aggregators.CHECKS),
    "stages": Contract(stages.Case, stages.CHECKS),
    "policies": Contract(policies.Case, policies.CHECKS),
}


def find_kind(method: type[Any] | str, kind: str | None = None) -> str:
    """The registry that a class, a registered name or "module:Class" belongs to: "detectors", "attacks", ….

    Args:
        method: the class or its name.
        kind: the answer where it is known already, in the singular or the plural.

    Raises:
        ConfigError: there is no such method or kind, or several kinds have one of this name.
        RegistryError: the module cannot be loaded, or the class breaks its contract.
    """
    if kind is not None:
        plural = "policies" if kind in ("policy", "policies") else kind.removesuffix("s") + "s"
        if plural not in REGISTRIES:
            raise ConfigError(f"unknown kind {kind!r}; use detector, attack, aggregator, stage or policy")
        return plural
    if not isinstance(method, str) or ":" in method:
        return _kind_of_class(method)
    found = [plural for plural, registry in REGISTRIES.items() if method in registry.names()]
    if not found:
        known = [name for registry in REGISTRIES.values() for name in registry.names()]
        raise ConfigError(f"nothing is called {method!r}{nearest(method, known)}")
    if len(found) > 1:
        raise ConfigError(f"{method!r} is in {' and '.join(found)}; say which with --kind (in Python, kind=)")
    return found[0]


def _kind_of_class(method: type[Any] | str) -> str:
    problems = []
    for plural, registry in REGISTRIES.items():
        try:
            resolve(method, registry)
        except RegistryError as error:
            problems.append(str(error))
        else:
            return plural
    inherit = [p for p in problems if "does not inherit" not in p]
    if not inherit and not isinstance(method, str):
        name = getattr(method, "__name__", repr(method))
        raise RegistryError(f"{name} inherits from none of Detector, Attack, Aggregator, Stage and Policy")
    raise RegistryError((inherit or problems)[0])


def checks_of(
    method: type[Any] | str, params: Mapping[str, Any] | None = None, kind: str | None = None
) -> list[MethodCheck]:
    """Every check of a method; ``check_with`` of the class is used if params are absent.

    Raises:
        ConfigError: see :func:`find_kind`.
        RegistryError: see :func:`find_kind`.
    """
    plural = find_kind(method, kind)
    cls = resolve(method, REGISTRIES[plural])
    contract = CONTRACTS[plural]
    case = contract.case(cls, dict(cls.check_with) if params is None else dict(params))
    return [MethodCheck(cls, name, check, case) for name, check in contract.checks.items()]


def label(method: type[Any] | str, params: Mapping[str, Any] | None) -> str:
    """A method as text: "krum", or "krum(select=m_krum)"."""
    name = method if isinstance(method, str) else method.card.name
    return f"{name}({', '.join(f'{k}={v}' for k, v in params.items())})" if params else name
