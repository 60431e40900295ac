"""Hostile values for trees of JSON values, and damaged bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from .case import CODE, Rng

T = TypeVar("T")
#: A path of keys through dicts and lists.
Way = tuple[Any, ...]

INTEGERS = (0, 1, -1, 2, 7, 255, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**9, 10**20, 10**400)
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e-3, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 3.0)
TEXTS = (
    "", " ", "0", "-1", "null", "x", "a" * 300, "b" * 20_000, "\x00", "a\x00b", "\x1b]0;own\x07", "\x1b[2J",
    "\ud800", "\u202etxt", "\u00e9\u4e2d\U0001f600", "a|b", "*x* _y_", "=1+1", "+1", "@x", "\t=1", "-1+1",
    "<script>x</script>", "{{ 7*7 }}", "%s%n", "\\write18{x}", "$x$", "../../x", "/etc/passwd", "a\nb",
    "a\r\nb",
    "nan", "inf", "1e400", "[" * 50, CODE, "1" * 5000, "node-1", "7",
)  # fmt: skip


def pick(rng: Rng, values: Any) -> Any:
    """Return one of the values, unchanged."""
    return values[int(rng.integers(len(values)))]


def any_value(rng: Rng) -> Any:
    """Return a value of any type."""
    return pick(
        rng,
        (
            None, True, False, [], {}, [[]], {"a": 1}, [None], pick(rng, INTEGERS), pick(rng, FLOATS),
            pick(rng, TEXTS), deep(rng), list(range(50)), [pick(rng, TEXTS)], {pick(rng, TEXTS): 1},
        ),
    )  # fmt: skip


def deep(rng: Rng) -> Any:
    """Return deeply nested lists or mappings."""
    value: Any = 0
    for _ in range(pick(rng, (5, 50, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def like(rng: Rng, value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = (value + 1, value - 1, 2 * value, 0, 1, 2, 3)
        return int(pick(rng, near)) if rng.random() < 0.6 else pick(rng, INTEGERS)
    if isinstance(value, float):
        return float(value * rng.normal()) if rng.random() < 0.5 else pick(rng, FLOATS)
    if isinstance(value, str):
        return pick(rng, TEXTS)
    if isinstance(value, list):
        return _list_like(rng, value)
    if isinstance(value, dict):
        items = list(value.items())
        return dict(items[: int(rng.integers(len(items) + 1))])
    return any_value(rng)


def _list_like(rng: Rng, value: list[Any]) -> list[Any]:
    if not value:
        return value
    some = int(rng.integers(len(value)))
    other: list[Any] = pick(
        rng,
        (
            value[:some],
            value + value,
            [*value, value[some]],
            value[::-1],
            [value[some]] * len(value),
            value[:some] + value[some + 1 :],
            [*value[:some], like(rng, value[some]), *value[some + 1 :]],
        ),
    )  # fmt: skip
    return other


def ways(tree: Any, way: Way = ()) -> Iterator[Way]:
    """Yield the path to every value in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*way, key)
        yield from ways(value, (*way, key))


def at(tree: Any, way: Way) -> Any:
    """Return the value at a path."""
    for key in way:
        tree = tree[key]
    return tree


def changed(rng: Rng, tree: T, gentle: float = 0.6) -> tuple[T, str]:
    """Return a copy with one value changed, and a description of the change.

    Args:
        rng: the source of random choices.
        tree: dicts, lists and JSON values.
        gentle: the probability that the type stays the same.
    """
    tree = copy.deepcopy(tree)
    all_ways = list(ways(tree))
    if not all_ways:
        return tree, "nothing"
    way = pick(rng, all_ways)
    parent, key = at(tree, way[:-1]), way[-1]
    where = ".".join(str(part)[:20] for part in way)
    if rng.random() < gentle:
        parent[key] = like(rng, parent[key])
        return tree, f"{where} of the same type"
    how: Callable[[Any, Any, Rng], str] = pick(rng, (_replace, _replace, _remove, _add, _rename, _swap))
    return tree, f"{where} {how(parent, key, rng)}"


def _replace(parent: Any, key: Any, rng: Rng) -> str:
    parent[key] = any_value(rng)
    return f"is {str(parent[key])[:30]!r}"


def _remove(parent: Any, key: Any, rng: Rng) -> str:
    del parent[key]
    return "removed"


def _add(parent: Any, key: Any, rng: Rng) -> str:
    if isinstance(parent, dict):
        parent[pick(rng, TEXTS)] = any_value(rng)
    else:
        parent.insert(key, any_value(rng))
    return "beside something new"


def _rename(parent: Any, key: Any, rng: Rng) -> str:
    if isinstance(parent, dict):
        parent[pick(rng, TEXTS)] = parent.pop(key)
    else:
        parent.append(parent[key])
    return "under another name"


def _swap(parent: Any, key: Any, rng: Rng) -> str:
    other = pick(rng, list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]
    return f"for {str(other)[:20]}"


def damaged(rng: Rng, data: bytes) -> bytes:
    """Return the bytes with a few of them flipped, cut off, duplicated or inserted."""
    if not data:
        return b"\x00"
    raw, place = bytearray(data), int(rng.integers(len(data)))
    how = int(rng.integers(5))
    if how == 0:
        for spot in rng.integers(len(raw), size=int(rng.integers(1, 9))):
            raw[spot] ^= 1 << int(rng.integers(8))
    elif how == 1:
        del raw[place:]
    elif how == 2:
        raw[place:place] = raw[place : place + int(rng.integers(1, 64))]
    elif how == 3:
        raw[place : place + 8] = int(pick(rng, (0, 2**31, 2**63 - 1))).to_bytes(8, "little")
    else:
        raw += rng.bytes(int(rng.integers(1, 200)))
    return bytes(raw)


def floats(rng: Rng, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return an array of numbers, some of them hostile."""
    values = rng.normal(size=shape).astype(np.float32)
    kind = int(rng.integers(6))
    if kind == 0:
        values[...] = pick(rng, (0, 1e38, -1e38, np.nan, np.inf, 1e-45))
    elif kind == 1 and values.size:
        values.flat[int(rng.integers(values.size))] = pick(rng, (np.nan, np.inf, -np.inf, 3e38, 0))
    elif kind == 2:
        values *= np.float32(pick(rng, (1e30, 1e-30, 1e3, 0)))
    return values
