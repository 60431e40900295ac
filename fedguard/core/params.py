"""Check parameters given by name (in YAML or Python) against a signature."""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from .deprecation import current
from .errors import ParameterError


def nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    """``", did you mean 'x'?"`` for a misspelled word, or an empty string; ``prefix`` goes before x."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f", did you mean {prefix + close[0]!r}?" if close else ""


@functools.lru_cache(maxsize=512)
def params_model(function: Callable[..., Any], omit: frozenset[str] = frozenset()) -> type[BaseModel]:
    """A pydantic model of a signature: one field per parameter, extra fields only where ``**`` takes them.

    Args:
        function: a class (for its ``__init__``) or a function; a parameter without annotation takes anything.
        omit: the names of parameters that users do not set.
    """
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.name not in omit and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    extra: Literal["allow", "forbid"] = (
        "allow" if any(p.kind is p.VAR_KEYWORD for p in parameters) else "forbid"
    )
    config = ConfigDict(extra=extra, strict=False, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(getattr(function, "__name__", "Params"), __config__=config, **fields)


def check_params(
    function: Callable[..., Any],
    params: Mapping[str, Any],
    where: str,
    omit: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """``params``, validated and converted to the annotated types.

    Args:
        function: a class (for its ``__init__``) or a function.
        params: name → value.
        where: how error messages begin.
        omit: the names of parameters that users do not set.

    Raises:
        ParameterError: a parameter is unknown (suggests the nearest name), missing or of the wrong type.
    """
    try:
        model = params_model(function, omit)
    except Exception as error:  # evaluating annotations of other people's code may raise anything
        raise ParameterError(f"{where}: its parameters cannot be checked: {error}") from None
    params = current(function, params)
    nameless = [key for key in params if not isinstance(key, str)]
    if nameless:
        raise ParameterError(f"{where}: {nameless[0]!r} is not a valid parameter name")
    try:
        checked = model(**params)
    except ValidationError as error:
        raise ParameterError(f"{where}: {explain(error, model)}") from None
    return {name: getattr(checked, name) for name in params}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem in words. Unknown names come first, since a misspelled parameter is also missing."""
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = list(_around(first["loc"], model).model_fields)
        return (
            f"unknown parameter {key!r}{nearest(str(first['loc'][-1]), known)} "
            f"(known: {', '.join(known) or 'none'})"
        )
    if first["type"] == "missing":
        return f"parameter {key!r} is missing"
    return f"parameter {key!r}: {first['msg']}, got {first['input']!r}"


def _around(where: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel]:
    """The model that a path's last name is a field of, as far as annotations tell."""
    for name in where[:-1]:
        field = model.model_fields.get(str(name))
        kinds = () if field is None else (field.annotation, *typing.get_args(field.annotation))
        nested = (kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel))
        model = next(nested, model)
    return model
