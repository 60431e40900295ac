"""One round of federated learning from the server's point of view."""

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

from ..core.devices import on_device
from ..core.errors import RoundError
from ..core.ids import MAX_ID, ClientId
from ..geometry.matrix import Index, positions
from ..geometry.updates import Updates
from .server import Server

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _LeftOut(int):
    """The index of a round without a number: equal to 0 until a guard sets it."""


@dataclass(frozen=True, eq=False, init=False)
class Round:
    """The updates u_i = w_i − w_{t−1} that n clients sent, and what the server knows about them.

    The round stays valid if a client's update holds NaN or Inf, or its sample or step count is not a positive
    finite number. This is a *problem* of that client (see ``problems``): it becomes a suspect, and the other
    clients are judged as if it were absent.

    Args:
        updates: (n, d) array, tensor or :class:`Updates`; row i is client i's w_i − w_{t−1}.
        client_ids: n distinct strings or integers; 0 … n−1 by default. History is keyed by them.
        num_examples: (n,) sample counts as *claimed* by the clients; 1 each by default.
        num_steps: (n,) local steps as claimed by the clients, for FedNova (its ‖a_i‖₁); 1 each by default.
        faults: (n,) for each client, what was wrong with its reply (for example a missing array), or None;
            no faults by default. A faulty client's row is ignored.
        index: the number of the round, from 0. By default a guard counts the rounds (see ``Guard.process``);
            until then, the number reads as 0.
        global_params: (d,) the global model w_{t−1} that the clients started from.
        server: what the server owns (model, validation data, …), see :class:`Server`.

    Raises:
        RoundError: shapes do not match, an id appears twice or is too long, there are no clients, or the
            index is not an integer from 0.

    Example:
        >>> from fedguard import Round
        >>> round = Round([[1.0, 2.0], [3.0, float("nan")]], client_ids=["ann", "bob"])
        >>> round
        Round(index=0, n=2, d=2)
        >>> round.problems
        (None, 'non-finite update')
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
        for name, value in fields.items():  # a frozen dataclass forbids plain assignment
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """The round's number and shape."""
        server = "" if self.server is None else ", server=…"
        return f"{type(self).__name__}(index={self.index}, n={self.n}, d={self.updates.d}{server})"

    @property
    def n(self) -> int:
        """Number of clients in this round."""
        return self.updates.n

    @property
    def numbered(self) -> bool:
        """Whether ``index`` was given."""
        return not isinstance(self.index, _LeftOut)

    @cached_property
    def problems(self) -> tuple[str | None, ...]:
        """For each client, why its update is unusable; None if it is usable."""
        each = zip(
            self.usable, self.faults, self.updates.finite, self.num_examples, self.num_steps, strict=True
        )
        return tuple(None if usable else _problem(*values) for usable, *values in each)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) True where a client has no problem."""
        whole = np.array([fault is None for fault in self.faults]) & self.updates.finite
        return whole & _countable(self.num_examples) & _countable(self.num_steps)

    def take(self, clients: Index) -> Round:
        """The round restricted to some clients (positions, or a mask); itself, if that is everybody."""
        index = positions(clients)
        if np.array_equal(index, np.arange(self.n)):
            return self
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

    def to(self, device: str | torch.device) -> Round:
        """The same round on a device: updates, global model, and the server's model and data.

        Copies only what is elsewhere. Streamed updates stay on disk, and their blocks on the CPU.
        """
        place = torch.device(device)
        here = self.global_params
        return dataclasses.replace(
            self,
            updates=_moved(self.updates, place),
            global_params=None if here is None else on_device(here, place),
            server=None if self.server is None else self.server.to(place),
        )

    def with_server(self, **changes: Any) -> Round:
        """The same round with some parts of its server replaced."""
        return dataclasses.replace(self, server=dataclasses.replace(self.server or Server(), **changes))


def _moved(updates: Updates, device: torch.device) -> Updates:
    streamed = type(updates).matrix is not Updates.matrix  # not in memory
    if streamed or updates.device == device:
        return updates
    return Updates(on_device(updates.matrix, device))


def as_round(value: Any) -> Round:
    """The argument if it is a round; otherwise a round of these updates."""
    return value if isinstance(value, Round) else Round(value)


def _countable(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True where a count is positive and finite."""
    return np.isfinite(counts) & (counts > 0)


def _problem(fault: str | None, finite: bool, examples: float, steps: float) -> str:
    """Why one client's update is unusable."""
    if fault is not None:
        return fault
    if not finite:
        return "non-finite update"
    what, count = ("step", steps) if np.isfinite(examples) and examples > 0 else ("sample", examples)
    return f"{what} count {count:g} is not a positive finite number"


def _round_index(index: Any) -> int:
    if index is None or isinstance(index, _LeftOut):  # a copy of an unnumbered round is unnumbered
        return _LeftOut()
    try:
        plain = operator.index(index)  # a Python integer, since the index is stored in states
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
    long = [i for i in plain if (len(i) if isinstance(i, str) else i.bit_length()) > MAX_ID]
    if long:
        raise RoundError(
            f"a client id has more than {MAX_ID} {'characters' if isinstance(long[0], str) else 'bits'}"
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
        raise RoundError(f"faults must be {n} values, one per client: a phrase, or None")
    return tuple(faults)


def _counts(counts: Any, n: int, what: str) -> NDArray[np.float64]:
    if counts is None:
        return np.ones(n)
    try:
        array = np.asarray(counts, dtype=np.float64)
    except OverflowError:  # an integer beyond float64 is a problem of that client only
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
