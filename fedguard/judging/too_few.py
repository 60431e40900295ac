"""What a guard does when fewer clients are left than a method needs.

First the method is told of fewer malicious clients, as far as it must be and by at most those who are out
already; where that does not help, the guard's ``on_too_few`` says what happens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from ..contracts.card import Method
from ..core.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from ..core.ids import ClientId
    from ..ledger.memory import Ledger

M = TypeVar("M", bound=Method)
T = TypeVar("T")

#: Where a minimum fails for good: the global model stays, the mean or the median of who is left takes the
#: method's place, or the round is refused.
OnTooFew: TypeAlias = Literal["keep_global", "mean", "median", "error"]


def checked_choice(value: Any) -> OnTooFew | None:
    """Refuse what is no choice (ParameterError)."""
    known = get_args(OnTooFew)
    if value is not None and value not in known:
        raise ParameterError(f"on_too_few is {value!r}; use {', '.join(map(repr, known))}, or None")
    choice: OnTooFew | None = value
    return choice


def chosen(choice: OnTooFew | None, out: int) -> OnTooFew:
    """What to do: the stated choice. Without one, a round that lost ``out`` clients keeps the global model.

    One that lost nobody was too small as it came: an error, since somebody has set the guard up wrongly.
    """
    return choice or ("keep_global" if out else "error")


def told(method: M, fewer: int) -> M:
    """A copy that is told of ``fewer`` malicious clients less (``num_malicious``, never below 0).

    So are the methods within it: an ensemble's members, what is behind stages. ``score`` and ``aggregate``
    change nothing, so a copy may share what the method remembers. The method itself if nothing changes.
    """
    own = getattr(method, "__dict__", {})
    changes = {name: new for name, value in own.items() if (new := _within(value, fewer)) is not value}
    f = own.get("num_malicious")
    if type(f) is int and min(f, fewer) > 0:
        changes["num_malicious"] = max(0, f - fewer)
    if not changes:
        return method
    other = copy.copy(method)
    other.__dict__.update(changes)
    return other


def _within(value: Any, fewer: int) -> Any:
    """The same value if no method in it is told anything else."""
    if isinstance(value, Method):
        return told(value, fewer)
    if type(value) is dict:
        parts = {key: _within(item, fewer) for key, item in value.items()}
        return parts if any(parts[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        items = [_within(item, fewer) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return value


def with_fewer(call: Callable[[int], T], out: Callable[[], int]) -> tuple[T, int]:
    """``call(fewer)`` with the smallest ``fewer`` for which enough clients are left, and that number.

    Args:
        call: runs a method that is told of so many malicious clients less.
        out: how many clients are out of the round already, the most that ``fewer`` may be.

    Raises:
        TooFewClientsError: that of ``call(0)``, if no number helps.
    """
    try:
        return call(0), 0
    except TooFewClientsError as error:
        few, high = error, out()
    try:
        result = call(high) if high else None
    except TooFewClientsError:
        raise few from None
    if result is None:
        raise few
    low = 0
    while high - low > 1:  # the fewer, the smaller the minimum: bisection finds the first that does
        middle = (low + high) // 2
        try:
            result, high = call(middle), middle
        except TooFewClientsError:
            low = middle
    return result, high


def banned_elsewhere(ledger: Ledger, index: int, here: Sequence[ClientId], present: int) -> tuple[int, int]:
    """How many clients outside a round are banned, and how many of them the round would have had.

    That is all of them if everybody else takes part; with partial participation their share, rounded down.

    Args:
        ledger: with everybody's bans.
        index: the number of the round.
        here: the clients in the round.
        present: how many of them are not banned.
    """
    names = set(map(str, here))
    away = sum(str(client) not in names for client in ledger.banned(index))
    admitted = present + sum(str(client) not in names for client in ledger.clients()) - away
    return away, min(away, away * present // admitted) if admitted else 0
