"""The kinds of hostile rounds, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from ..contracts.data import LabeledData
from ..contracts.local_training import LocalTraining
from ..contracts.round import Round
from ..contracts.server import Server
from ..core.seeds import generator

LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Draft:
    """The arguments of a round; some may be invalid.

    Attributes:
        kinds: its kinds of hostility, by name.
        rng: the source of its random numbers.
        updates: any value.
        client_ids: any value.
        num_examples: any value.
        num_steps: any value.
        index: any value.
        global_params: any value.
        server: what the server owns.
        seen: ids of earlier rounds.
    """

    kinds: tuple[str, ...]
    rng: np.random.Generator
    updates: Any
    client_ids: Any
    num_examples: Any
    num_steps: Any
    index: Any
    global_params: Any
    server: Server | None
    seen: Sequence[Any]

    def build(self) -> Round:
        """Build the round; raises RoundError if it is malformed."""
        return Round(
            self.updates,
            self.client_ids,
            self.num_examples,
            self.index,
            self.global_params,
            self.server,
            self.num_steps,
        )

    def rows(self, share: float = 0.3) -> Any:
        """(n,) a random mask with at least one client."""
        some = self.rng.random(len(self.updates)) < share
        if len(some):
            some[self.rng.integers(len(some))] = True
        return some


Kind: TypeAlias = Callable[[Draft], None]


def _resized(n: Callable[[np.random.Generator], int]) -> Kind:
    def change(draft: Draft) -> None:
        count, d = n(draft.rng), draft.updates.shape[1]
        draft.updates = draft.rng.normal(size=(count, d)).astype(np.float32)
        draft.client_ids = some_ids(draft.rng, count, draft.seen)
        draft.num_examples, draft.num_steps = some_counts(draft.rng, count), None

    return change


def _valued(value: Callable[[Draft, Any, Any], Any]) -> Kind:
    """Replace the updates by ``value(draft, x, rows)``: x is the (n, d) matrix, rows a random mask."""

    def change(draft: Draft) -> None:
        if len(draft.updates):
            with np.errstate(over="ignore"):
                new = np.asarray(value(draft, draft.updates.astype(np.float64), draft.rows()))
                draft.updates = np.broadcast_to(new, draft.updates.shape).astype(np.float32)

    return change


def _entry(number: float) -> Kind:
    def value(draft: Draft, x: Any, rows: Any) -> Any:
        x[draft.rng.integers(len(x)), draft.rng.integers(x.shape[1])] = number
        return x

    return _valued(value)


def _row(number: float) -> Kind:
    return _valued(lambda draft, x, rows: np.where(rows[:, None], number, x))


def _copies(distance: float) -> Kind:
    def value(draft: Draft, x: Any, rows: Any) -> Any:
        noise = draft.rng.normal(size=x.shape)
        return np.where(rows[:, None], x[int(rows.argmax())] + distance * noise, x)

    return _valued(value)


def _claims(field: str, number: Any) -> Kind:
    def change(draft: Draft) -> None:
        n = len(draft.updates)
        claims: list[Any] = draft.rng.integers(1, 100, n).tolist()
        for i in np.flatnonzero(draft.rows()):
            claims[i] = number
        setattr(draft, field, claims)

    return change


def _set(field: str, make: Callable[[Draft], Any]) -> Kind:
    return lambda draft: setattr(draft, field, make(draft))


def _renamed(draft: Draft) -> None:
    """Turn numeric ids into text, and text ids that read as numbers into numbers."""
    draft.client_ids = [
        str(i) if isinstance(i, int) else int(i) if i.isdecimal() else i for i in draft.client_ids
    ]


def _strange(draft: Draft) -> None:
    odd = ["", " ", "\x00", "\ud800", "<script>alert(1)</script>", "../../x", "a\nb", "x" * 500, -1, 2**63]
    for i in np.flatnonzero(draft.rows()):
        draft.client_ids[i] = odd.pop(draft.rng.integers(len(odd))) if odd else f"odd {i}"


def _one_id(make: Callable[[Draft], Any]) -> Kind:
    def change(draft: Draft) -> None:
        if draft.client_ids:
            draft.client_ids[-1] = make(draft)

    return change


def _one_class(draft: Draft) -> None:
    server = draft.server
    if server is not None and server.validation is not None:
        labels = torch.zeros_like(server.validation.labels)
        draft.server = server_of_everything(LabeledData(server.validation.inputs, labels))


SIZES: dict[str, Kind] = {
    "no client": _resized(lambda rng: 0),
    "one client": _resized(lambda rng: 1),
    "two clients": _resized(lambda rng: 2),
    "hardly more than f": _resized(lambda rng: int(rng.integers(3, 7))),
    "a hundred sybils": _resized(lambda rng: int(rng.integers(60, 140))),
}
VALUES: dict[str, Kind] = {
    "NaN in one entry": _entry(math.nan),
    "Inf in one entry": _entry(math.inf),
    "-Inf in one entry": _entry(-math.inf),
    "NaN in some rows": _row(math.nan),
    "Inf in some rows": _row(-math.inf),
    "NaN in all rows": _valued(lambda draft, x, rows: math.nan),
    "Inf in all rows": _valued(lambda draft, x, rows: math.inf),
    "rows of 1e30": _valued(lambda draft, x, rows: np.where(rows[:, None], 1e30 * x, x)),
    "all of 1e30": _valued(lambda draft, x, rows: -1e30 * x),
    "largest float32": _valued(lambda draft, x, rows: np.where(rows[:, None], np.sign(x) * LARGEST, x)),
    "denormal rows": _valued(lambda draft, x, rows: np.where(rows[:, None], 1e-42 * x, x)),
    "all denormal": _valued(lambda draft, x, rows: 1e-42 * x),
    "scales of 1e-30 to 1e30": _valued(
        lambda draft, x, rows: x * 10 ** draft.rng.uniform(-30, 30, (len(x), 1))
    ),
    "zero rows": _row(0.0),
    "all zero": _valued(lambda draft, x, rows: 0.0),
    "constant rows": _valued(lambda draft, x, rows: np.where(rows[:, None], x[:, :1], x)),
    "all the same": _valued(lambda draft, x, rows: x[:1]),
    "duplicates": _copies(0.0),
    "duplicates to 1e-3": _copies(1e-3),
    "duplicates to 1e-6": _copies(1e-6),
    "opposite rows": _valued(lambda draft, x, rows: np.where(rows[:, None], -x[:1], x)),
    "one value": _valued(lambda draft, x, rows: np.sign(x)),
}
IDS: dict[str, Kind] = {
    "no ids": _set("client_ids", lambda draft: None),
    "new ids": _set(
        "client_ids",
        lambda draft: [f"sybil {draft.rng.integers(10**9)} {i}" for i, _ in enumerate(draft.updates)],
    ),
    "renamed": _renamed,
    "strange ids": _strange,
    "an id twice": _one_id(lambda draft: draft.client_ids[0]),
    "7 and '7'": _one_id(lambda draft: str(draft.client_ids[0])),
    "an id of no type": _one_id(lambda draft: [None, 1.5, True, b"x", ("a",)][draft.rng.integers(5)]),
    "an endless id": _one_id(lambda draft: [10**6000, -(10**6000), "x" * 10**6][draft.rng.integers(3)]),
    "an id too few": _set("client_ids", lambda draft: draft.client_ids[1:]),
    "NumPy ids": _set("client_ids", lambda draft: np.arange(len(draft.updates))),
}
CLAIMS: dict[str, Kind] = {
    f"{field.removeprefix('num_')} {text}": _claims(field, number)
    for field in ("num_examples", "num_steps")
    for text, number in {
        "0": 0,
        "negative": -3,
        "NaN": math.nan,
        "Inf": math.inf,
        "1e12": 1e12,
        "1e308": 1e308,
        "1e-320": 1e-320,
        "10**400": 10**400,
        "text": "many",
        "missing": None,
    }.items()
} | {"too few claims": _set("num_examples", lambda draft: [1])}
SCENES: dict[str, Kind] = {
    "an earlier index": _set("index", lambda draft: 0),
    "index 2**70": _set("index", lambda draft: 2**70),
    "a negative index": _set("index", lambda draft: -1),
    "index 0.5": _set("index", lambda draft: 0.5),
    "no server": _set("server", lambda draft: None),
    "no global model": _set("global_params", lambda draft: None),
    "NaN in the global model": _set("global_params", lambda draft: draft.global_params * math.nan),
    "a global model of 1e30": _set("global_params", lambda draft: draft.global_params * 1e30),
    "a global model of zeros": _set("global_params", lambda draft: draft.global_params * 0),
    "a global model of another size": _set("global_params", lambda draft: draft.global_params[1:]),
    "validation data of one class": _one_class,
}
FORMS: dict[str, Kind] = {
    "float64": _set("updates", lambda draft: draft.updates.astype(np.float64)),
    "float64 beyond float32": _set("updates", lambda draft: draft.updates.astype(np.float64) * 1e300),
    "float16": _set("updates", lambda draft: torch.from_numpy(draft.updates).half()),
    "bfloat16": _set("updates", lambda draft: torch.from_numpy(draft.updates).bfloat16()),
    "integers": _set(
        "updates", lambda draft: np.nan_to_num(100 * draft.updates).clip(-(2**62), 2**62).astype(np.int64)
    ),
    "bytes": _set("updates", lambda draft: torch.from_numpy(draft.updates > 0).to(torch.uint8)),
    "booleans": _set("updates", lambda draft: draft.updates > 0),
    "complex numbers": _set("updates", lambda draft: torch.from_numpy(draft.updates).to(torch.complex64)),
    "text": _set("updates", lambda draft: draft.updates.astype(str)),
    "objects": _set("updates", lambda draft: [[object()]]),
    "ragged lists": _set(
        "updates", lambda draft: [row[: 1 + i % 2].tolist() for i, row in enumerate(draft.updates)]
    ),
    "lists": _set("updates", lambda draft: draft.updates.tolist()),
    "a list of tensors": _set("updates", lambda draft: [torch.from_numpy(row) for row in draft.updates]),
    "one dimension": _set("updates", lambda draft: draft.updates.ravel()),
    "three dimensions": _set("updates", lambda draft: draft.updates[None]),
    "no parameters": _set("updates", lambda draft: draft.updates[:, :0]),
    "another size": _set("updates", lambda draft: draft.updates[:, 1:]),
    "not contiguous": _set("updates", lambda draft: torch.from_numpy(draft.updates.T.copy()).T),
    "strided": _set("updates", lambda draft: np.repeat(draft.updates, 2, 1)[:, ::2]),
    "big-endian": _set("updates", lambda draft: draft.updates.astype(">f4")),
    "read-only": _set("updates", lambda draft: np.broadcast_to(draft.updates, draft.updates.shape)),
    "with gradients": _set("updates", lambda draft: torch.from_numpy(draft.updates).requires_grad_()),
    "another device": _set("updates", lambda draft: _elsewhere(torch.from_numpy(draft.updates))),
    "sparse": _set("updates", lambda draft: torch.from_numpy(draft.updates).to_sparse()),
    "nothing": _set("updates", lambda draft: None),
}
#: Kinds of the same group exclude each other.
GROUPS: tuple[dict[str, Kind], ...] = (
    {"ordinary": lambda draft: None},
    SIZES,
    VALUES,
    IDS,
    CLAIMS,
    SCENES,
    FORMS,
)
#: All kinds of hostile rounds.
KINDS: dict[str, Kind] = {name: kind for group in GROUPS for name, kind in group.items()}


def some_ids(rng: np.random.Generator, n: int, seen: Sequence[Any]) -> list[Any]:
    """Return some earlier and some new ids, numbers and text."""
    known = [seen[i] for i in rng.permutation(len(seen))[: rng.integers(0, n + 1)]]
    taken, ids = {str(i) for i in known}, list(known)
    while len(ids) < n:
        number = int(rng.integers(0, 10 * n + 20))
        new = number if rng.random() < 0.5 else f"client {number}"
        if str(new) not in taken:
            taken.add(str(new))
            ids.append(new)
    return ids


def some_counts(rng: np.random.Generator, n: int) -> Any:
    """Return sample counts as honest clients claim them, or None."""
    return None if rng.random() < 0.3 else rng.integers(1, 200, n)


def _elsewhere(tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to the accelerator if there is one, else to the meta device, which holds only shapes."""
    return tensor.to("cuda" if torch.cuda.is_available() else "meta")


def server_of_everything(validation: LabeledData | None = None) -> Server:
    """Return a server with tiny versions of everything a method can need; always the same."""
    draw = generator(0, "server of hostile rounds")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    inputs = torch.randn((12, 1, 2, 2), generator=draw)
    labels = torch.arange(12) % 3
    return Server(
        model=model,
        input_shape=(1, 2, 2),
        num_classes=3,
        validation=validation or LabeledData(inputs[:6], labels[:6]),
        root=LabeledData(inputs[6:], labels[6:]),
        training=LocalTraining(epochs=None, steps=1, batch_size=6, lr=0.1),
        seed=1,
    )
