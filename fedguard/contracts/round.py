"""One round of federated learning, as the server sees it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import RoundError
from ..core.ids import MAX_ID, ClientId
from ..geometry.updates import Index, Updates, positions
from .server import Server

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _LeftOut(int):
    """The index of a round whose number was left out: 0 to whoever reads it, until a guard counts."""


@dataclass(frozen=True, eq=False, init=False)
class Round:
    """The updates that n clients sent, and what the server knows about them.

    Args:
        updates: (n, d) array, tensor or :class:`Updates`; row i is client i's w_i − w_{t−1}.
        client_ids: n distinct strings or integers; 0 … n−1 if absent. History is keyed by them.
        num_examples: (n,) sample counts as *claimed* by the clients; 1 each if absent.
        num_steps: (n,) local steps as claimed by the clients, for FedNova (its ‖a_i‖₁); 1 each if absent.
        faults: (n,) what whoever received the replies found wrong with each (a missing array, say), or None;
            none at all if absent. The row of a faulty client counts for nothing.
        index: the number of the round, an integer from 0. Left out, a guard counts (see ``Guard.process``),
            and whoever else reads it finds 0.
        global_params: (d,) the global model w_{t−1} that the clients started from.
        server: what the server owns (model, validation data, …), see :class:`Server`.

    Raises:
        RoundError: shapes do not fit, an id appears twice or is endless, there is no client, or the index is
            no number of a round.

    A client whose update holds NaN or Inf, or whose sample or step count is no positive finite number, does
    not make the round invalid: it is a *problem* of that client (see ``problems``), who is a suspect
    while everybody else is treated as if it were absent.
    """

    updates: Updates
    client_ids: tuple[ClientId, ...]
    num_examples: NDArray[np.float64]
    num_steps: NDArray[np.float64]
    index: int
    global_params: Tensor | None
    server: Server | None
    faults: tuple[str | None, ...]

    def __init__(
        self,
        updates: Any,
        client_ids: Sequence[Any] | None = None,
        num_examples: Any = None,
        index: int | None = None,
        global_params: Any = None,
        server: Server | None = None,
        num_steps: Any = None,
        faults: Sequence[str | None] | None = None,
    ) -> None:
        matrix = updates if isinstance(updates, Updates) else Updates(updates)
        if matrix.n == 0 or matrix.d == 0:
            raise RoundError(
                f"a round needs at least one client and one parameter, got {matrix.n} x {matrix.d}"
            )
        fields = {
            "updates": matrix,
            "client_ids": _ids(client_ids, matrix.n),
            "num_examples": _counts(num_examples, matrix.n, "num_examples"),
            "num_steps": _counts(num_steps, matrix.n, "num_steps"),
            "index": _round_index(index),
            "global_params": _params(global_params, matrix.d),
            "server": server,
            "faults": _faults(faults, matrix.n),
        }
        for name, value in fields.items():  # the usual assignment is closed: a round is frozen
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Number and shape; the updates are too many to print."""
        server = "" if self.server is None else ", server=…"
        return f"{type(self).__name__}(index={self.index}, n={self.n}, d={self.updates.d}{server})"

    @property
    def n(self) -> int:
        """Number of clients in this round."""
        return self.updates.n

    @property
    def numbered(self) -> bool:
        """Whether the round has a number of its own; False if ``index`` was left out."""
        return not isinstance(self.index, _LeftOut)

    @cached_property
    def problems(self) -> tuple[str | None, ...]:
        """For each client, why its update is unusable; None if it is usable."""
        each = zip(self.faults, self.updates.finite, self.num_examples, self.num_steps, strict=True)
        return tuple(_problem(*values) for values in each)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) True where a client has no problem."""
        return np.array([problem is None for problem in self.problems])

    def take(self, clients: Index) -> Round:
        """The same round as if only these clients (positions, or a mask) had taken part."""
        index = positions(clients)
        return dataclasses.replace(
            self,
            updates=self.updates.take(index),
            client_ids=tuple(self.client_ids[i] for i in index),
            num_examples=self.num_examples[index],
            num_steps=self.num_steps[index],
            faults=tuple(self.faults[i] for i in index),
        )

    def with_updates(self, updates: Any) -> Round:
        """The same round with other updates of the same clients."""
        return dataclasses.replace(self, updates=updates)

    def with_server(self, **changes: Any) -> Round:
        """The same round with some parts of its server replaced."""
        return dataclasses.replace(self, server=dataclasses.replace(self.server or Server(), **changes))


def as_round(value: Any) -> Round:
    """Accept a round, or bare updates as a round of their own."""
    return value if isinstance(value, Round) else Round(value)


def _problem(fault: str | None, finite: bool, examples: float, steps: float) -> str | None:
    """Why one client's update is unusable; None if it is usable."""
    if fault is not None:
        return fault
    if not finite:
        return "non-finite update"
    for what, count in (("sample", examples), ("step", steps)):
        if not (np.isfinite(count) and count > 0):
            return f"{what} count {count:g} is not a positive finite number"
    return None


def _round_index(index: Any) -> int:
    if index is None or isinstance(index, _LeftOut):  # copies of an unnumbered round are unnumbered, too
        return _LeftOut()
    try:
        plain = operator.index(index)  # no NumPy integers: the index ends up in saved states
    except TypeError:
        plain = -1
    if plain < 0:
        raise RoundError(f"index is {index!r}; rounds are numbered by integers from 0")
    return plain


def _ids(ids: Sequence[Any] | None, n: int) -> tuple[ClientId, ...]:
    if ids is None:
        return tuple(range(n))
    plain = tuple(i.item() if isinstance(i, np.generic) else i for i in ids)
    if len(plain) != n:
        raise RoundError(f"{len(plain)} client ids for {n} updates")
    wrong = [i for i in plain if isinstance(i, bool) or not isinstance(i, int | str)]
    if wrong:
        raise RoundError(f"client id {wrong[0]!r} is neither a string nor an integer")
    endless = [i for i in plain if (len(i) if isinstance(i, str) else i.bit_length()) > MAX_ID]
    if endless:
        raise RoundError(
            f"a client id has more than {MAX_ID} {'characters' if isinstance(endless[0], str) else 'bits'}"
        )
    texts = [str(i) for i in plain]
    twice = sorted({t for t in texts if texts.count(t) > 1}) if len(set(texts)) < n else []
    if twice:
        raise RoundError(
            f"client id {twice[0]!r} appears more than once; each client sends one update per round"
        )
    return plain


def _faults(faults: Sequence[str | None] | None, n: int) -> tuple[str | None, ...]:
    if faults is None:
        return (None,) * n
    if len(faults) != n or not all(fault is None or (isinstance(fault, str) and fault) for fault in faults):
        raise RoundError(f"faults must be {n} phrases, one for every client, with None where there is none")
    return tuple(faults)


def _counts(counts: Any, n: int, what: str) -> NDArray[np.float64]:
    if counts is None:
        return np.ones(n)
    try:
        array = np.asarray(counts, dtype=np.float64)
    except OverflowError:  # an integer beyond float64 is its sender's problem, not the round's
        array = np.array([float(c) if abs(c) < 2**1023 else np.inf for c in counts])
    except (TypeError, ValueError):
        raise RoundError(f"{what} is not numeric") from None
    if array.shape != (n,):
        raise RoundError(f"{what} has shape {array.shape}, but there are {n} clients")
    return array


def _params(params: Any, d: int) -> Tensor | None:
    if params is None:
        return None
    if not isinstance(params, Tensor):
        params = torch.tensor(np.asarray(params), dtype=torch.float32)
    vector: Tensor = params.detach().to(torch.float32)
    if vector.shape != (d,):
        raise RoundError(
            f"global_params has shape {tuple(vector.shape)}, but updates have d = {d} parameters"
        )
    return vector
