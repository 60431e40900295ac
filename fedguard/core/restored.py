"""Check the parts of a loaded state: a checkpoint may be damaged or come from someone else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from .errors import FedGuardError, ParameterError

if TYPE_CHECKING:
    from .ids import ClientId
    from .state import State


def pairs(value: Any) -> Iterator[tuple[ClientId, Any]]:
    """The (client, value) pairs of a state.

    Raises:
        ParameterError: it is not a list of pairs, or a client is neither a string nor an integer.
    """
    for pair in _list(value):
        client, *rest = _list(pair)
        if type(client) not in (str, int) or len(rest) != 1:
            raise ParameterError("a state holds something other than a pair of a client and a value")
        yield client, rest[0]


def vectors(value: Any) -> list[tuple[ClientId, Tensor]]:
    """:func:`pairs` whose values are vectors."""
    return [(client, vector(kept)) for client, kept in pairs(value)]


def vector(value: Any) -> Tensor:
    """A one-dimensional floating-point tensor (ParameterError otherwise)."""
    if not (isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point()):
        raise ParameterError("a state holds another value where a vector belongs")
    return value


def tensor(value: Any) -> Tensor:
    """A tensor (ParameterError otherwise)."""
    if not isinstance(value, Tensor):
        raise ParameterError("a state holds another value where a tensor belongs")
    return value


def numbers(value: Any, size: int | None = None) -> list[float]:
    """A list of numbers, of length ``size`` if given (ParameterError otherwise)."""
    found = _list(value)
    if (size is not None and len(found) != size) or not all(type(number) in (int, float) for number in found):
        raise ParameterError("a state holds another value where a list of numbers belongs")
    return list(found)


def whole_numbers(value: Any) -> list[int]:
    """A list of integers (ParameterError otherwise)."""
    found = _list(value)
    if not all(type(number) is int for number in found):
        raise ParameterError("a state holds another value where a list of integers belongs")
    return list(found)


def count(value: Any) -> int:
    """An integer from 0 (ParameterError otherwise)."""
    if type(value) is not int or value < 0:
        raise ParameterError("a state holds another value where a count belongs")
    return value


class Remembers(Protocol):
    """An object with a state."""

    def state_dict(self) -> State:
        """A snapshot of the state."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        ...


@contextmanager
def all_or_nothing(*parts: Remembers) -> Iterator[None]:
    """Restore the states of all parts if the block raises an error.

    Raises:
        FedGuardError: as raised in the block; any other error becomes a ParameterError.
    """
    before = [part.state_dict() for part in parts]
    try:
        yield
    except BaseException as error:
        for part, state in zip(parts, before, strict=True):
            part.load_state_dict(state)
        if isinstance(error, FedGuardError) or not isinstance(error, Exception):
            raise
        raise ParameterError(
            f"the state does not fit this guard, which is unchanged ({type(error).__name__}: {error}); "
            "it belongs to another guard or version, or is damaged"
        ) from error


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ParameterError("a state holds another value where a list belongs")
    return value
