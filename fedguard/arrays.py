"""Between the lists of NumPy arrays that FL engines exchange and the rows of a round.

Floating-point arrays are flattened into one row per client, in order. Integer arrays (counters of
batches, say) are checked like the others, but neither scored nor aggregated: the server's stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .errors import RoundError
from .round import ClientId, Round
from .server import Server

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .guard import Guard, Outcome

#: More examples than any client has; who claims more would own every weighted mean.
MAX_EXAMPLES = 1e9


class Rows:
    """Clients' arrays as the rows of one preallocated (n, d) float32 matrix, filled as replies come in.

    A reply that does not fit the model (missing or extra arrays, other shapes or dtypes, an absurd number
    of examples, nothing at all) becomes a row of NaN and a *fault* of its client, who will be a suspect
    for that reason. A reply may be thrown away as soon as it is added; nothing is copied twice.

    Args:
        global_arrays: the global model that clients started from.
        capacity: the largest number of clients that will be added.
        deltas: clients send differences from the global model rather than trained parameters.
        max_examples: who claims more is a suspect.

    Raises:
        RoundError: the global arrays are no model: none, no floating-point number, or not finite.
    """

    def __init__(
        self,
        global_arrays: Sequence[NDArray[Any]],
        capacity: int,
        deltas: bool = False,
        max_examples: float = MAX_EXAMPLES,
    ) -> None:
        self.start = [np.asarray(array) for array in global_arrays]
        odd = [a.dtype for a in self.start if a.dtype.kind not in "fiub"]
        if odd:
            raise RoundError(f"a global array has dtype {odd[0]}; models are made of real numbers")
        self.global_params = flat(self.start)
        d = len(self.global_params)
        if d == 0:
            raise RoundError("the global model has no floating-point array")
        if not bool(self.global_params.isfinite().all()):
            raise RoundError("the global model holds NaN or Inf")
        self.deltas = deltas
        self.max_examples = max_examples
        self.matrix = torch.empty((capacity, d), dtype=torch.float32)
        self.clients: list[ClientId] = []
        self.faults: list[str | None] = []
        self._examples: list[float] = []
        self._steps: list[float] = []

    def add(self, client: ClientId, arrays: Any, examples: Any = 1, steps: Any = 1) -> str | None:
        """Take in one client's reply; returns its fault, None if the reply fits.

        Args:
            client: its id.
            arrays: a list of NumPy arrays, one for every global array; anything else is a fault.
            examples: how many samples it claims.
            steps: how many local steps it claims, for FedNova.

        Raises:
            RoundError: more clients than ``capacity``.
        """
        position = len(self.clients)
        if position == len(self.matrix):
            raise RoundError(f"there is room for {position} clients; client {client!r} is one too many")
        counted, stepped = _number(examples), _number(steps)
        fault = self._misfit(arrays)
        if fault is None and math.isnan(counted):
            fault = f"its example count is {_short(examples)}"
        if fault is None and counted > self.max_examples:
            fault = f"it claims {counted:g} examples, more than {self.max_examples:g}"
        row = self.matrix[position].numpy()
        if fault is None:
            self._fill(row, arrays)
        else:
            row.fill(np.nan)
        self.clients.append(client)
        self.faults.append(fault)
        self._examples.append(counted)
        self._steps.append(stepped)
        return fault

    def fail(self, client: ClientId, fault: str) -> None:
        """Take in a client that sent nothing usable, for a reason that the engine knows (a timeout, say)."""
        self.add(client, None)
        self.faults[-1] = fault

    def round(self, index: int | None = None, server: Server | None = None) -> Round:
        """The round of everybody who was added.

        Raises:
            RoundError: nobody was, or an id was added twice.
        """
        n = len(self.clients)
        return Round(
            self.matrix[:n],
            self.clients,
            self._examples,
            index,
            self.global_params,
            server,
            self._steps,
            self.faults,
        )

    def _misfit(self, arrays: Any) -> str | None:
        if arrays is None:
            return "it sent nothing"
        if not isinstance(arrays, list | tuple):
            return f"it sent a {type(arrays).__name__}, not a list of arrays"
        if len(arrays) != len(self.start):
            return f"it sent {len(arrays)} arrays, the model has {len(self.start)}"
        for k, (array, own) in enumerate(zip(arrays, self.start, strict=True)):
            if not isinstance(array, np.ndarray | np.generic):
                return f"its array {k} is a {type(array).__name__}, not a NumPy array"
            if array.dtype != own.dtype:
                return f"its array {k} has dtype {array.dtype}, the model's has {own.dtype}"
            if array.shape != own.shape:
                return f"its array {k} has shape {array.shape}, the model's has {own.shape}"
        return None

    def _fill(self, row: NDArray[np.float32], arrays: Sequence[NDArray[Any]]) -> None:
        """Write w_i − w into a row without a temporary copy; overflow becomes Inf, which is refused later."""
        at = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for array, own in zip(arrays, self.start, strict=True):
                if own.dtype.kind != "f":
                    continue
                part = row[at : at + own.size].reshape(own.shape)
                sent = np.asarray(array)  # no subclass with arithmetic of its own
                if self.deltas:
                    np.copyto(part, sent, casting="same_kind")
                else:
                    wide: Any = np.promote_types(own.dtype, np.float32)
                    np.subtract(sent, own, out=part, dtype=wide, casting="same_kind")
                at += own.size


def flat(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """(d,) float32: the floating-point arrays one after the other."""
    parts = [np.ravel(a) for a in arrays if a.dtype.kind == "f"]
    d = sum(part.size for part in parts)
    vector = torch.empty(d, dtype=torch.float32)
    if parts:
        with np.errstate(over="ignore"):
            np.concatenate(parts, out=vector.numpy(), casting="same_kind")
    return vector


def moved(arrays: Sequence[NDArray[Any]], update: Tensor) -> list[NDArray[Any]]:
    """New arrays of the same shapes and dtypes: the floating-point ones moved by a (d,) update."""
    result, at, step = [], 0, update.detach().cpu().numpy()
    for array in map(np.asarray, arrays):
        if array.dtype.kind != "f":
            result.append(array.copy())
            continue
        part = step[at : at + array.size].reshape(array.shape)
        wide = np.promote_types(array.dtype, np.float32)
        result.append(np.asarray(array.astype(wide) + part, dtype=array.dtype))
        at += array.size
    return result


def process(
    guard: Guard,
    arrays: Mapping[Any, Any],
    global_arrays: Sequence[NDArray[Any]],
    num_examples: Mapping[Any, Any] | None = None,
    index: int | None = None,
    server: Server | None = None,
    deltas: bool = False,
    max_examples: float = MAX_EXAMPLES,
    repeat: bool = False,
) -> tuple[Outcome, list[NDArray[Any]]]:
    """Let a guard judge and aggregate what clients sent.

    Args:
        guard: the guard.
        arrays: client id → the trained parameters that it sent, one array for every global array.
        global_arrays: the global model that the clients started from.
        num_examples: client id → claimed sample count; 1 each if absent.
        index: the number of the round; the guard counts if it is absent.
        server: what the server owns, for detectors that need it.
        deltas: clients send differences from the global model rather than trained parameters.
        max_examples: who claims more is a suspect.
        repeat: the round may have been judged before, see :meth:`Guard.process`.

    Returns:
        The outcome, and the new global arrays in the same shapes and dtypes.

    Raises:
        FedGuardError: as :meth:`Guard.process`, or the global arrays are no model.
    """
    rows = Rows(global_arrays, len(arrays), deltas, max_examples)
    for client, sent in arrays.items():
        rows.add(client, sent, 1 if num_examples is None else num_examples.get(client))
    outcome = guard.process(rows.round(index, server), repeat)
    return outcome, moved(rows.start, outcome.aggregate)


def _number(value: Any) -> float:
    """A claimed count as a float; NaN if it is none."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _short(value: Any) -> str:
    text = f"{type(value).__name__} {str(value)[:20]!r}" if isinstance(value, str) else type(value).__name__
    return "missing" if value is None else f"no number ({text})"
