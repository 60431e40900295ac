"""The metadata card that every method carries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar


@dataclass(frozen=True)
class Card:
    """A method's name, its one-line summary, and its paper.

    Attributes:
        name: the name under which it is registered; lower case, words joined by underscores.
        summary: one line, for ``fedguard list``.
        paper: authors, short title, venue and year; "FedGuard" for our own.
    """

    name: str
    summary: str
    paper: str


#: What labels are: one class per sample, several yes-or-no labels, numbers, or each next token of a text.
TASKS = ("classification", "multilabel", "regression", "causal")
#: The task of a model that generates samples, whatever the labels are.
GENERATIVE = "generative"


class Method:
    """Base class of everything registered by name: detectors, attacks, policies, aggregators, stages."""

    card: ClassVar[Card]
    #: Parameters for the contract checks (see :mod:`fedguard.testing`), if the defaults are too slow.
    check_with: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    #: Contract checks that do not apply to the method: name of the check → reason.
    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})
    #: The tasks of data sets, and of generative models, that it is defined for.
    tasks: ClassVar[frozenset[str]] = frozenset((*TASKS, GENERATIVE))
    #: Whether it makes inputs of real numbers, which a model that reads token numbers cannot take.
    makes_inputs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The registered name."""
        return self.card.name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """The class and the parameters that differ from their defaults, as in ``Krum(num_malicious=2)``."""
        args, kwargs = vars(self).get("_built_from", ((), {}))
        signature = inspect.signature(type(self))
        given = signature.bind(*args, **kwargs).arguments
        words = [
            f"{name}={_short(value)}"
            for name, value in given.items()
            if not _same(value, signature.parameters[name].default)
        ]
        return f"{type(self).__name__}({', '.join(words)})"


def _noting(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that stores its arguments for ``__repr__``."""

    @functools.wraps(init)
    def construct(self: Method, *args: Any, **kwargs: Any) -> None:
        vars(self).setdefault("_built_from", (args, kwargs))  # a base class's constructor runs later
        init(self, *args, **kwargs)

    return construct


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value == default)
    except Exception:  # for example arrays, whose == gives an array
        return False


def _short(value: Any, most: int = 100) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"
