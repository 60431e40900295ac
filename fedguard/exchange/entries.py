"""The guard's entry points for what engines exchange: lists of arrays, and state dicts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..contracts.any_guard import AnyGuard
    from ..contracts.outcome import Outcome


class Entries:
    """A mixin of :class:`fedguard.Guard`: methods that judge other inputs than a :class:`fedguard.Round`."""

    def process_arrays(
        self,
        arrays: Mapping[Any, Any],
        global_arrays: Iterable[Any],
        num_examples: Mapping[Any, Any] | None = None,
        **options: Any,
    ) -> tuple[Outcome, list[Any]]:
        """Judge a round of lists of arrays (client id → trained parameters), from any FL engine.

        Accepts NumPy arrays, PyTorch tensors and nested lists, of any floating-point precision. A reply that
        does not fit the model makes its client a suspect, with a reason. Returns the outcome, and the new
        global arrays with the types, shapes and dtypes of the old ones. ``options`` are those of
        :func:`fedguard.arrays.process`: ``index``, ``repeat``, ``server``, ``deltas``, ``max_examples``,
        ``roles``.
        """
        from ..arrays import process

        return process(cast("AnyGuard", self), arrays, global_arrays, num_examples, **options)

    def process_state_dicts(
        self,
        state_dicts: Mapping[Any, Any],
        global_state_dict: Mapping[str, Any],
        num_examples: Mapping[Any, Any] | None = None,
        **options: Any,
    ) -> tuple[Outcome, OrderedDict[str, Any]]:
        """Judge a round of state dicts (client id → its trained ``state_dict()``).

        BatchNorm statistics are not scored. Returns the outcome, and the new ``state_dict()`` with tensors of
        the same dtype and device.
        ``options`` are those of :func:`fedguard.exchange.state_dicts.process`: ``index``, ``repeat``,
        ``server``, ``deltas``, ``max_examples``, ``roles``.
        """
        from .state_dicts import process

        return process(cast("AnyGuard", self), state_dicts, global_state_dict, num_examples, **options)
