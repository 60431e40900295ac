"""Models, data sets and partitions by name: built in, of an installed package, of a library, or one's own."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ..core.entry_points import offered
from ..core.errors import ConfigError, FedGuardError, ParameterError
from ..core.named_code import GIVEN_PREFIX, is_code, load_code
from ..core.params import check_params, nearest
from ..evaluation.terminal import plain

#: Makes a part: a class or a function. It gets what the framework offers under the names that it asks for.
Maker = Callable[..., Any]
#: Looks up ``NAME`` of ``library:NAME``.
Library = Callable[[str], Maker]


class Parts:
    """The parts of one kind, by name.

    A name is one of a package's (an entry point of ``group``), ``module:Class``, ``module:function``,
    ``library:NAME``, or ``given:NAME`` for an object that was given from Python.

    Args:
        kind: in the singular, for messages: "model".
        group: of entry points: "fedguard.models".
        offers: the names of what the framework hands to a maker that asks for it; users do not set these.
        libraries: prefix → look-up, for example of ``torchvision:resnet18``.
    """

    def __init__(
        self, kind: str, group: str, offers: tuple[str, ...], libraries: Mapping[str, Library] | None = None
    ) -> None:
        self.kind = kind
        self.group = group
        self.offers = frozenset(offers)
        self.libraries = dict(libraries or {})

    @functools.cached_property
    def _sources(self) -> dict[str, Callable[[], Any]]:
        return offered(self.group, self.kind)

    def names(self) -> list[str]:
        """The names that installed packages offer, FedGuard's own among them, in their order."""
        return list(self._sources)

    def get(self, name: str) -> Maker:
        """The class or function with this name; an object as it is, if it was given.

        Raises:
            ParameterError: there is no such part, or it cannot be imported.
        """
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self.libraries:
            return self.libraries[prefix](rest)
        if is_code(name) or (prefix == GIVEN_PREFIX and colon):
            try:
                return load_code(name, self.kind)  # type: ignore[no-any-return]
            except ConfigError as error:
                raise ParameterError(str(error)) from error
        if name not in self._sources:
            more = "".join(f", {prefix}:NAME" for prefix in self.libraries)
            raise ParameterError(
                f"unknown {self.kind} {name!r}{nearest(name, self._sources)} (known: "
                f"{', '.join(self._sources)}{more}; your own is named by 'module:name')"
            )
        return self._sources[name]()  # type: ignore[no-any-return]

    def params(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A part's parameters, checked against its signature and converted.

        Raises:
            ParameterError: one is unknown, missing or of the wrong type.
        """
        return check_params(self.get(name), params, f"{self.kind} {name}", self.offers)

    def make(self, name: str, offers: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        """Call the part's maker with the parameters and with those offers that it asks for.

        Raises:
            ParameterError: the name or a parameter is wrong, or the maker needs something else.
        """
        maker = self.get(name)
        if not callable(maker):
            raise ParameterError(
                f"{self.kind} {name} is neither a class nor a function, but of type {type(maker).__name__}"
            )
        checked = self.params(name, params)
        return called(maker, {**asked(maker, offers), **checked}, f"{self.kind} {name}")

    def summary(self, name: str) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0]


def called(maker: Maker, arguments: Mapping[str, Any], what: str) -> Any:
    """What a maker returns.

    Raises:
        ParameterError: it failed; names the exception and its line, since it may be the user's own code.
    """
    try:
        return maker(**arguments)
    except FedGuardError:
        raise
    except Exception as error:  # a user's code may raise anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ParameterError(
            f"{what} failed: {type(error).__name__}: {plain(error)} ({where.filename}:{where.lineno})"
        ) from error


def asked(maker: Maker, offers: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offers that a maker's signature names."""
    names = inspect.signature(maker).parameters
    return {name: value for name, value in offers.items() if name in names}
