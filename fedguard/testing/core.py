"""Shared by all checks. A check is a function that raises if it fails; a report lists the results."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from ..contracts.registry import Registry
from ..core.threads import single_thread

#: A check takes a case and raises if it fails; its docstring says what it checks, then what to do.
Check: TypeAlias = Callable[[Any], None]


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        check: its name.
        status: passed, failed, exempt (the method says why it does not apply) or info.
        message: what went wrong, or why it is exempt.
        advice: what the check requires, and what to do if it fails.
    """

    check: str
    status: Literal["passed", "failed", "exempt", "info"]
    message: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """All results for one method with one set of parameters.

    Attributes:
        method: its name.
        params: its parameters.
        results: in the order of the checks.
    """

    method: str
    params: Mapping[str, Any]
    results: tuple[Result, ...] = field(default_factory=tuple)

    @property
    def failures(self) -> list[Result]:
        """The checks that failed."""
        return [result for result in self.results if result.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    def raise_for_failures(self) -> None:
        """Raise an AssertionError that names every failed check, what went wrong, and what to do."""
        if self.failures:
            raise AssertionError(_broken(self.method, self.failures))


def resolve(method: type[Any] | str, registry: Registry[Any]) -> type[Any]:
    """Return the validated class; looks up a name or "module:Class"."""
    return registry.get(method) if isinstance(method, str) else registry._validate(method, None)


def check_contract(
    method: type[Any] | str,
    registry: Registry[Any],
    params: Mapping[str, Any] | None,
    make_case: Callable[[Any, dict[str, Any]], Any],
    checks: Mapping[str, Check],
) -> Report:
    """Run the checks of a kind on a method; ``params`` default to the class's ``check_with``."""
    cls = resolve(method, registry)
    chosen = dict(cls.check_with) if params is None else dict(params)
    return run(cls, checks, make_case(cls, chosen), chosen)


@dataclass(frozen=True)
class MethodCheck:
    """One check of one method; calling it runs it.

    Attributes:
        cls: the method's class, or what makes a part of the federation: a class or a function.
        name: the check's name.
        check: what it does.
        case: the method with its parameters.
    """

    cls: Any
    name: str
    check: Check
    case: Any

    @property
    def exempt(self) -> str | None:
        """Why the method's class says that the check does not apply to it."""
        reason: str | None = getattr(self.cls, "exempt", {}).get(self.name)
        return reason

    @property
    def advice(self) -> str:
        """What the check is about and what to do if it fails."""
        return " ".join((inspect.getdoc(self.check) or "").split())

    def __call__(self) -> None:
        """Run it on one thread, exempt or not.

        Raises:
            AssertionError: the method breaks its contract; says how, and what to do.
        """
        try:
            with single_thread():
                self.check(self.case)
        except Exception as error:
            raise AssertionError(_broken(name_of(self.cls), [self._failed(error)])) from error

    def result(self) -> Result:
        """What becomes of it; an exempt check is not run."""
        if self.exempt is not None:
            return Result(self.name, "exempt", self.exempt, self.advice)
        try:
            with single_thread():
                self.check(self.case)
        except Exception as error:  # a stranger's method may raise anything
            return self._failed(error)
        return Result(self.name, "passed", "", self.advice)

    def _failed(self, error: Exception) -> Result:
        return Result(self.name, "failed", _message(error), self.advice)


def name_of(method: Any) -> str:
    """The name on the card of a method; of anything else its own."""
    card = getattr(method, "card", None)
    return str(card.name if card is not None else getattr(method, "__name__", type(method).__name__))


def run(cls: Any, checks: Mapping[str, Check], case: Any, params: Mapping[str, Any]) -> Report:
    """Run every check on one thread; exempt ones are not run."""
    results = (MethodCheck(cls, name, check, case).result() for name, check in checks.items())
    return Report(name_of(cls), dict(params), tuple(results))


def _broken(method: str, failures: list[Result]) -> str:
    lines = [f"{r.check}: {r.message} ({r.advice})" for r in failures]
    return f"{method} breaks its contract\n" + "\n".join(lines)


def _message(error: Exception) -> str:
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def require(condition: Any, message: str) -> None:
    """Fail the check unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)


def variants(cls: type[Any]) -> Iterator[dict[str, Any]]:
    """Yield ``check_with``, then a variation for every other choice of a Literal or bool parameter."""
    base = dict(cls.check_with)
    yield base
    for parameter in inspect.signature(cls, eval_str=True).parameters.values():
        options = getattr(parameter.annotation, "__args__", ())
        for choice in (True, False) if parameter.annotation is bool else options:
            if isinstance(choice, str | bool) and choice != base.get(parameter.name, parameter.default):
                yield {**base, parameter.name: choice}


def documented(cls: type[Any]) -> None:
    """The docstring's Args list the parameters, in order, and its Source has a year.

    Document every parameter under "Args:" as "name: text", and end with "Source: authors, venue year".
    """
    text = inspect.getdoc(cls) or ""
    found = re.search(r"^Args:\n((?:[ ]+.*\n|\n)+)", text + "\n", re.MULTILINE)
    names = re.findall(r"^(\w+): \S", inspect.cleandoc(found[1]), re.MULTILINE) if found else []
    wanted = list(inspect.signature(cls).parameters)
    require(names == wanted, f"the docstring documents {names or 'no parameter'}, the signature has {wanted}")
    own = cls.card.paper in ("FedGuard",) or "nobody" in cls.card.paper
    require(own or re.search(r"^Source: [\s\S]*\d{4}", text, re.MULTILINE), "there is no Source with a year")


def carded(cls: type[Any]) -> None:
    """The card is complete: a summary of 10 to 80 characters without a full stop, and a paper.

    Write Card("name", "what it looks at", "Authors, Title, Venue 2026"); "FedGuard" will do.
    """
    summary = cls.card.summary
    require(10 <= len(summary) <= 80 and not summary.endswith("."), f"the card's summary is {summary!r}")
    require(cls.card.paper, "the card names no paper")


class Untouched:
    """Checks that the given objects and the global random states do not change."""

    def __init__(self, **things: Any) -> None:
        self._things = things
        self._before = {name: _snapshot(thing) for name, thing in things.items()}
        self._torch = torch.get_rng_state()
        self._numpy = np.random.get_state()[1].copy()  # type: ignore[index]

    def verify(self) -> None:
        """Fail if anything changed."""
        for name, thing in self._things.items():
            require(_equal(self._before[name], thing), f"it changed the {name} that it was given")
        require(torch.equal(self._torch, torch.get_rng_state()), "it drew from torch's global generator")
        same = (self._numpy == np.random.get_state()[1]).all()  # type: ignore[index]
        require(same, "it drew from NumPy's global generator")


def _snapshot(thing: Any) -> Any:
    return thing.clone() if isinstance(thing, torch.Tensor) else np.array(thing, copy=True)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(after, torch.Tensor):
        return torch.equal(before, after)
    return bool(np.array_equal(before, after))
