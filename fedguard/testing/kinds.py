"""Which kind a method or a part of a federation is of, and what is checked of that kind."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..contracts.registry import REGISTRIES
from ..core.entry_points import offered
from ..core.errors import ConfigError, RegistryError
from ..core.named_code import GIVEN_PREFIX, LIBRARIES, is_code, load_code
from ..core.params import nearest
from . import aggregators, attacks, detectors, policies, stages
from .core import Check, MethodCheck, Report, name_of, resolve


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


#: The kinds of parts, and what one is called. Their checks need the simulation, which lies above this
#: package: modules are looked up by name, :mod:`fedguard.testing.partitions` and so on.
PARTS = {"models": "model", "datasets": "dataset", "partitions": "partition"}
KINDS = (*REGISTRIES, *PARTS)
#: The only kind that a library offers. torchvision has models, which are functions, and data sets, which are
#: classes: their names begin with a capital.
_OF_LIBRARY = {
    "timm": "models",
    "hf": "models",
    "flwr": "partitions",
    **dict.fromkeys(("huggingface", "openml"), "datasets"),
}


def singular(plural: str) -> str:
    """The word for one of a kind: "policy" of "policies"."""
    return PARTS.get(plural) or REGISTRIES[plural].kind


def plural_of(kind: str) -> str:
    """The kind in the plural, from the singular or the plural.

    Raises:
        ConfigError: there is no such kind.
    """
    plural = "policies" if kind in ("policy", "policies") else kind.removesuffix("s") + "s"
    if plural not in KINDS:
        words = ", ".join(map(singular, KINDS))
        raise ConfigError(f"unknown kind {kind!r}{nearest(kind, map(singular, KINDS))} (known: {words})")
    return plural


def names_of(plural: str) -> list[str]:
    """The registered names of a kind."""
    if plural in REGISTRIES:
        return REGISTRIES[plural].names()
    return list(offered(f"fedguard.{plural}", PARTS[plural]))


def find_kind(method: Any, kind: str | None = None) -> str:
    """The kind of a class, a function, a registered name or "module:name": "detectors", "models", ….

    Args:
        method: the class or the function, or its name.
        kind: the answer where it is known already, in the singular or the plural.

    Raises:
        ConfigError: there is no such method or kind, or several kinds have one of this name.
        RegistryError: the module cannot be loaded, or the class breaks its contract.
    """
    if kind is not None:
        return plural_of(kind)
    if isinstance(method, str) and method.partition(":")[0] in LIBRARIES and ":" in method:
        library = method.partition(":")[0]
        is_class = method.partition(":")[2][:1].isupper()
        return _OF_LIBRARY.get(library) or ("datasets" if is_class else "models")
    if not isinstance(method, str) or ":" in method:
        return _kind_of_part(method) or _kind_of_class(method)
    found = [plural for plural in KINDS if method in names_of(plural)]
    if not found:
        known = [name for plural in KINDS for name in names_of(plural)]
        raise ConfigError(f"nothing is called {method!r}{nearest(method, known)}")
    if len(found) > 1:
        raise ConfigError(f"{method!r} is in {' and '.join(found)}; say which with --kind (in Python, kind=)")
    return found[0]


def _kind_of_part(method: Any) -> str | None:
    """The kind of a network, a function that makes one or a data set, or one that deals samples; else None.

    Raises:
        ConfigError: it is a function, but not clear of which kind.
        RegistryError: the module cannot be loaded.
    """
    thing = method
    if isinstance(method, str):
        if not is_code(method) and not method.startswith(f"{GIVEN_PREFIX}:"):
            return None
        try:
            thing = load_code(method, "object")
        except ConfigError as error:
            raise RegistryError(str(error)) from error
    if isinstance(thing, nn.Module) or (inspect.isclass(thing) and issubclass(thing, nn.Module)):
        return "models"
    if inspect.isclass(thing) or not callable(thing):
        return None
    if {"labels", "n"} <= inspect.signature(thing).parameters.keys():
        return "partitions"
    returned = typing.get_type_hints(thing).get("return")
    if inspect.isclass(returned) and issubclass(returned, nn.Module):
        return "models"
    if getattr(returned, "__name__", "") == "Dataset":
        return "datasets"
    name = getattr(thing, "__name__", repr(thing))
    raise ConfigError(
        f"{name} is a function; say what it makes with --kind model, dataset or partition (in Python, "
        "kind=), or annotate what it returns"
    )


def part_checker(plural: str) -> Callable[..., Report]:
    """The function that checks a part: ``check_model`` of ``fedguard.testing.models``, and so on.

    Raises:
        ConfigError: this version has no checks for the kind.
    """
    found: Callable[..., Report] = getattr(_module(plural), f"check_{PARTS[plural]}")
    return found


def _module(plural: str) -> Any:
    name = f"{__package__}.{plural}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(f"this version of FedGuard has no checks for {plural}") from None


def _part_checks(plural: str, method: Any, params: Mapping[str, Any] | None) -> list[MethodCheck]:
    module = _module(plural)
    if hasattr(module, "checks"):
        found: list[MethodCheck] = module.checks(method, params)
        return found
    named = method if isinstance(method, str) else f"{method.__module__}:{method.__qualname__}"
    whole = functools.partial(part_checker(plural), named, params)
    return [MethodCheck(method, "contract", lambda _: whole().raise_for_failures(), None)]


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
        raise RegistryError(
            f"{name} inherits from none of Detector, Attack, Aggregator, Stage, Policy and torch.nn.Module"
        )
    raise RegistryError((inherit or problems)[0])


def checks_of(
    method: Any, params: Mapping[str, Any] | None = None, kind: str | None = None
) -> list[MethodCheck]:
    """Every check of a method or a part; ``check_with`` of the class is used if params are absent.

    Raises:
        ConfigError: see :func:`find_kind`.
        RegistryError: see :func:`find_kind`.
    """
    plural = find_kind(method, kind)
    if plural in PARTS:
        return _part_checks(plural, method, params)
    cls = resolve(method, REGISTRIES[plural])
    contract = CONTRACTS[plural]
    case = contract.case(cls, dict(cls.check_with) if params is None else dict(params))
    return [MethodCheck(cls, name, check, case) for name, check in contract.checks.items()]


def label(method: Any, params: Mapping[str, Any] | None) -> str:
    """A method as text: "krum", or "krum(select=m_krum)"."""
    name = method if isinstance(method, str) else name_of(method)
    return f"{name}({', '.join(f'{k}={v}' for k, v in params.items())})" if params else name
