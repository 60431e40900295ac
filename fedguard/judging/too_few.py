"""What a guard does if fewer clients are left than a method needs.

First it lowers the method's ``num_malicious`` as little as possible, and by at most the number of clients
that are already out of the round. If that does not help, the guard's ``on_too_few`` applies.
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

#: The response to too few clients: keep the global model, replace the method by the mean or the median of
#: the remaining clients, or reject the round.
OnTooFew: TypeAlias = Literal["keep_global", "mean", "median", "error"]


def checked_choice(value: Any) -> OnTooFew | None:
    """The argument if it is a choice or None; raises ParameterError otherwise."""
    known = get_args(OnTooFew)
    if value is not None and value not in known:
        raise ParameterError(f"on_too_few is {value!r}; use {', '.join(map(repr, known))}, or None")
    choice: OnTooFew | None = value
    return choice


def chosen(choice: OnTooFew | None, out: int) -> OnTooFew:
    """The given choice; by default "keep_global" if ``out`` > 0 clients are out of the round, else "error".

    If no client is out, the guard itself is misconfigured.
    """
    return choice or ("keep_global" if out else "error")


def told(method: M, fewer: int) -> M:
    """A copy with ``num_malicious`` lowered by ``fewer`` (not below 0); the method itself if nothing changes.

    Nested methods are lowered, too: an ensemble's members, the aggregator behind stages. The copy shares the
    method's state, which ``score`` and ``aggregate`` do not change.
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
    """:func:`told` for every method in a value; the value itself if nothing changes."""
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
    """``call(fewer)`` for the smallest ``fewer`` that leaves enough clients, and that number.

    Args:
        call: runs a method with ``num_malicious`` lowered by its argument.
        out: the number of clients that are already out of the round, the upper limit of ``fewer``.

    Raises:
        TooFewClientsError: no number helps; the error is that of ``call(0)``.
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
    while high - low > 1:  # bisection: the minimum decreases with `fewer`
        middle = (low + high) // 2
        try:
            result, high = call(middle), middle
        except TooFewClientsError:
            low = middle
    return result, high


def banned_elsewhere(ledger: Ledger, index: int, here: Sequence[ClientId], present: int) -> tuple[int, int]:
    """The number of banned clients that are absent from a round, and how many of them it would have sampled.

    The second number assumes that banned clients participate at the same rate as others, rounded down. With
    full participation it equals the first.

    Args:
        ledger: holds the bans of all clients.
        index: the number of the round.
        here: the clients in the round.
        present: the number of those that are not banned.
    """
    names = set(map(str, here))
    away = sum(str(client) not in names for client in ledger.banned(index))
    admitted = present + sum(str(client) not in names for client in ledger.clients()) - away
    return away, min(away, away * present // admitted) if admitted else 0
