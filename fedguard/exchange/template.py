"""A global model as arrays with roles: maps clients' arrays to rows, and an update to the new model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.server import Server
from ..core.errors import RoundError
from ..geometry.streamed import subtract
from .array_like import Misfit, beyond
from .roles import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Sums of weights that differ by less than this share of their total are equal.
_TIE = 1e-12


class Template:
    """The arrays of a global model, and their places in the vectors of updates and statistics.

    Args:
        arrays: the global model; learned arrays and statistics must be finite.
        plan: the arrays' roles.
        labels: the arrays' names, for faults.

    Raises:
        RoundError: no array is learned, or a learned array or a statistic holds NaN or Inf.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]], plan: Plan, labels: Sequence[str]) -> None:
        self.arrays = list(arrays)
        self.plan = plan
        self.labels = list(labels)
        self.statistics = [k for k, role in enumerate(plan.roles) if role == "statistic"]
        for k in [*plan.order, *self.statistics]:
            if not np.isfinite(self.arrays[k]).all():
                raise RoundError(
                    f"{self.labels[k]} of the global model holds NaN or Inf, so no update can be judged; "
                    "start from a finite model"
                )
        self.slots = _slots(self.arrays, plan.order)
        self.places = _slots(self.arrays, self.statistics)
        #: The length of an update vector, and of a vector of statistics.
        self.size, self.width = _length(self.slots), _length(self.places)
        if self.size == 0 or not any(role == "learned" for role in plan.roles):
            raise RoundError("the global model has no floating-point array that is learned")

    def flat(self) -> Tensor:
        """(d,) float32: the arrays of an update vector, flattened and concatenated."""
        vector = torch.empty(self.size, dtype=torch.float32)
        out = vector.numpy()
        with np.errstate(over="ignore"):
            for k, slot in self.slots.items():
                np.copyto(out[slot], self.arrays[k].ravel(), casting="same_kind")
        return vector

    def fill(
        self,
        row: NDArray[np.float32],
        statistics: NDArray[np.float64],
        sent: Sequence[NDArray[Any]],
        deltas: bool = False,
    ) -> None:
        """Write a client's arrays into its rows: w_i − w into ``row``, and the statistics unchanged.

        Numbers beyond float32 become Inf in ``row``, and so a problem of this client's update.

        Args:
            row: (d,) the client's row of updates.
            statistics: (s,) the client's row of statistics.
            sent: the client's arrays, of the model's shapes and kinds.
            deltas: the arrays already are differences from the global model.

        Raises:
            Misfit: a statistic is not finite, or a number is beyond the range of the model's dtype.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            for k, slot in self.slots.items():
                if self.plan.roles[k] != "learned":
                    row[slot] = 0
                    continue
                self._difference(row[slot].reshape(self.arrays[k].shape), sent[k], self.arrays[k], deltas)
                if not deltas and beyond(sent[k], self.arrays[k].dtype):
                    raise Misfit("nan", f"{self.labels[k]} holds numbers beyond {self.arrays[k].dtype}")
        self.note(statistics, {k: sent[k] for k in self.places}, deltas)

    def note(
        self, statistics: NDArray[np.float64], sent: Mapping[int, NDArray[Any]], deltas: bool = False
    ) -> None:
        """Write a client's statistics, by position, into its (s,) row; otherwise as :meth:`fill`."""
        with np.errstate(over="ignore", invalid="ignore"):
            for k, place in self.places.items():
                own, got = self.arrays[k], np.asarray(sent[k], dtype=np.float64)
                got = own + got if deltas else got
                if not np.isfinite(got.astype(own.dtype)).all():
                    raise Misfit("nan", f"{self.labels[k]} holds NaN or Inf")
                statistics[place] = got.ravel()

    def middle(self, statistics: NDArray[np.float64], weights: NDArray[np.float64]) -> list[NDArray[Any]]:
        """The weighted median of the clients' statistics; the old statistics if all weights are 0.

        Clients with less than half of the total weight cannot move a value beyond the range of the others.

        Args:
            statistics: (n, s) the clients' statistics.
            weights: (n,) the clients' weights, in [0, 1].

        Returns:
            One array for each of ``self.statistics``, in the model's dtype.
        """
        heard = weights > 0
        if not heard.any() or not self.width:
            return [self.arrays[k].copy() for k in self.statistics]
        values = weighted_median(statistics[heard], weights[heard])
        return [
            values[place].reshape(self.arrays[k].shape).astype(self.arrays[k].dtype)
            for k, place in self.places.items()
        ]

    def moved(self, update: Tensor, middle: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The new model, with the shapes and dtypes of the old one; shares no memory with it.

        Args:
            update: (d,) added to the learned arrays; sums beyond the dtype's range are clipped to it.
            middle: the new statistics, from :meth:`middle`.
        """
        step = update.detach().cpu().numpy()
        new = dict(zip(self.statistics, middle, strict=True))
        for k, slot in self.slots.items():
            if self.plan.roles[k] == "learned":
                new[k] = _sum(self.arrays[k], step[slot].reshape(self.arrays[k].shape))
        new.update({k: new[first].copy() for k, first in self.plan.twins.items() if first in new})
        return [new[k] if k in new else array.copy() for k, array in enumerate(self.arrays)]

    def lent(self, server: Server | None) -> Server | None:
        """The server, with the global model's statistics copied into a copy of its model."""
        if server is None or server.model is None or not self.plan.buffers:
            return server
        model = copy.deepcopy(server.model)
        buffers = dict(model.named_buffers())
        with torch.no_grad():
            for name, k in self.plan.buffers.items():
                buffers[name].copy_(torch.from_numpy(self.arrays[k].copy()))
        return dataclasses.replace(server, model=model)

    @staticmethod
    def _difference(out: NDArray[Any], sent: NDArray[Any], own: NDArray[Any], deltas: bool) -> None:
        if deltas:
            np.copyto(out, sent, casting="same_kind")
            return
        subtract(out, sent, own)


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(s,) the weighted median of every column; the mean of the two middle values if both qualify.

    With equal weights this is the ordinary median.

    Args:
        values: (n, s) finite.
        weights: (n,) positive.
    """
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    below = np.cumsum(weights[order], axis=0)
    half = below[-1] / 2
    lower = np.argmax(below >= half * (1 - _TIE), axis=0)
    upper = np.minimum(np.argmax(below > half * (1 + _TIE), axis=0), len(values) - 1)
    pick = np.arange(values.shape[1])
    middle: NDArray[np.float64] = ranked[lower, pick] / 2 + ranked[upper, pick] / 2
    return np.where(lower == upper, ranked[lower, pick], middle)  # halving a denormal number would round


def _sum(own: NDArray[Any], step: NDArray[np.float32]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        wide = own.astype(np.promote_types(own.dtype, np.float32)) + step
        result = np.asarray(wide, dtype=own.dtype)
    if not np.isfinite(result).all():
        most = np.finfo(own.dtype).max
        result = np.asarray(np.clip(wide, -most, most), dtype=own.dtype)
    return result


def _slots(arrays: Sequence[NDArray[Any]], chosen: Sequence[int]) -> dict[int, slice]:
    ends = np.cumsum([arrays[k].size for k in chosen]).tolist()
    return {k: slice(start, end) for k, start, end in zip(chosen, [0, *ends], ends, strict=False)}


def _length(slots: dict[int, slice]) -> int:
    return max((slot.stop for slot in slots.values()), default=0)
