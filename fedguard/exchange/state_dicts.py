"""Rounds of PyTorch ``state_dict()``s, whose names determine the roles of the arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..arrays import MAX_EXAMPLES, Rows, evaluates_model, judged, mapping_of
from ..contracts.server import Server
from ..core.errors import RoundError

if TYPE_CHECKING:
    from ..contracts.any_guard import AnyGuard
    from ..contracts.outcome import Outcome


def process(
    guard: AnyGuard,
    state_dicts: Mapping[Any, Any],
    global_state_dict: Mapping[str, Any],
    num_examples: Mapping[Any, Any] | None = None,
    index: int | None = None,
    server: Server | None = None,
    deltas: bool = False,
    max_examples: float = MAX_EXAMPLES,
    roles: Mapping[str, str] | Literal["adapters"] | None = None,
    repeat: bool = False,
) -> tuple[Outcome, OrderedDict[str, Any]]:
    """Judge and aggregate the ``state_dict()``s that clients sent.

    Parameters are scored and aggregated. BatchNorm statistics (recognized by their names, or as buffers of
    ``server.model``) are not scored; the new ones are the median of the accepted clients. Counters, and
    parameters that ``server.model`` does not train, keep their values. Tensors that share memory (tied
    weights) count once.

    Args:
        guard: the guard.
        state_dicts: client id → the ``state_dict()`` that it sent, with the keys of the global one.
        global_state_dict: the ``state_dict()`` that the clients started from.
        num_examples: client id → claimed sample count; 1 each by default.
        index: the number of the round; by default the guard counts.
        server: what the server owns, for detectors that need it.
        deltas: clients send differences from the global model rather than trained parameters.
        max_examples: a client that claims more samples is a suspect.
        roles: name → "learned", "statistic", "frozen" or "counter", to override the role of a name. With
            "adapters", only LoRA adapters and the new head are learned, and all else stays the server's.
        repeat: the round may have been judged before, see :meth:`Guard.process`.

    Returns:
        The outcome, and the new ``state_dict()`` with the same keys, dtypes and devices.

    Raises:
        FedGuardError: as :func:`fedguard.arrays.process`.
    """
    if not isinstance(global_state_dict, Mapping):
        raise RoundError(
            f"global_state_dict is a {type(global_state_dict).__name__}; give model.state_dict(), or lists "
            "of arrays to guard.process_arrays"
        )
    replies, names = mapping_of(state_dicts), list(global_state_dict)
    model = server.model if server is not None else None
    rows = Rows(
        global_state_dict.values(),
        len(replies),
        deltas,
        max_examples,
        roles,
        names,
        model,
        evaluates_model(guard),
    )
    outcome, new = judged(guard, rows, replies, num_examples, index, server, repeat)
    return outcome, OrderedDict(zip(names, new, strict=True))
