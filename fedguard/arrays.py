"""Convert between the arrays that FL engines exchange and the rows of a round.

Learned arrays are flattened into one row per client, in order. Statistics are aggregated by their median.
Frozen arrays and counters keep the server's values. :mod:`fedguard.exchange.roles` defines these roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .contracts.round import Round
from .contracts.server import Server
from .core.errors import RoundError
from .core.ids import ClientId
from .exchange.adapters import ADAPTERS
from .exchange.array_like import Misfit, by_key, check_count, listed, number, numbers, taken, tied
from .exchange.roles import Plan, by_choice, by_dtype, by_model, by_name
from .exchange.template import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .contracts.any_guard import AnyGuard
    from .contracts.outcome import Outcome

#: Upper bound on a client's claimed sample count; a larger claim would dominate every weighted mean.
MAX_EXAMPLES = 1e9


class Rows:
    """Clients' arrays as rows of a preallocated (n, d) float32 matrix, filled as replies arrive.

    A reply that does not fit the model (missing or extra arrays, wrong shapes, integers instead of
    floating-point numbers, an absurd sample count, no reply) becomes a row of NaN and a *fault*, which makes
    its client a suspect. A reply may be discarded after it is added.

    Args:
        global_arrays: the global model that clients started from: NumPy arrays, PyTorch tensors of any
            floating-point dtype, or nested lists; with ``names``, one for every name.
        capacity: the maximum number of clients.
        deltas: clients send differences from the global model rather than trained parameters.
        max_examples: a client that claims more samples is a suspect.
        roles: the role of each array (see :mod:`fedguard.exchange.roles`), or a dictionary for some of the
            names. Other roles come from ``model``, or else from the names. Without both, every
            floating-point array is learned. With "adapters", only LoRA adapters and the new head are.
        names: the arrays' names. Replies are then dictionaries with these keys; otherwise lists.
        model: the server's model, to which the arrays belong.
        whole: a method evaluates or trains the model and so needs updates of all its parameters.

    Raises:
        RoundError: the global arrays are empty, have nothing to learn, or are not finite.
        ParameterError: ``roles`` or ``model`` do not fit the arrays.

    Example:
        >>> import numpy as np
        >>> from fedguard import Guard
        >>> from fedguard.arrays import Rows
        >>> rows = Rows([np.zeros(2)], capacity=2)
        >>> rows.add("ann", [np.array([1.0, 3.0])])
        >>> rows.add("bob", [np.zeros(3)])
        "its array 0 has shape (3,), the model's has (2,)"
        >>> rows.new(Guard().process(rows.round()))
        [array([1., 3.])]
    """

    def __init__(
        self,
        global_arrays: Iterable[Any],
        capacity: int,
        deltas: bool = False,
        max_examples: float = MAX_EXAMPLES,
        roles: Sequence[str] | Mapping[str, str] | Literal["adapters"] | None = None,
        names: Sequence[str] | None = None,
        model: nn.Module | None = None,
        whole: bool = False,
    ) -> None:
        given = _sequence(global_arrays)
        labels = [f"array {k}" if names is None else repr(names[k]) for k in range(len(given))]
        read = [
            taken(value, f"{label} of the global model") for value, label in zip(given, labels, strict=True)
        ]
        self.start = [array for array, _ in read]
        self._forms = [form for _, form in read]
        self.names = names
        self.template = Template(self.start, self._plan(given, roles, model, whole), labels)
        self.global_params = self.template.flat()
        self.deltas = deltas
        self.max_examples = max_examples
        self.matrix = torch.empty((capacity, self.template.size), dtype=torch.float32)
        self.statistics = np.zeros((capacity, self.template.width))
        self.clients: list[ClientId] = []
        self.faults: list[str | None] = []
        self._kinds: list[str | None] = []
        self._examples: list[float] = []
        self._steps: list[float] = []

    def add(self, client: ClientId, arrays: Any, examples: Any = 1, steps: Any = 1) -> str | None:
        """Add one client's reply; returns its fault, or None if the reply fits the model.

        Args:
            client: the client's id.
            arrays: a list with one array for every global array (a dictionary, if those have names): NumPy
                arrays, PyTorch tensors or nested lists, of any floating-point precision. Anything else is
                a fault.
            examples: the claimed sample count.
            steps: the claimed number of local steps, for FedNova.

        Raises:
            RoundError: there are more clients than ``capacity``.
        """
        position = len(self.clients)
        if position == len(self.matrix):
            raise RoundError(f"there is room for {position} clients; client {client!r} is one too many")
        counted, row = number(examples), self.matrix[position].numpy()
        fault = kind = None
        try:
            sent = self._read(arrays)
            check_count(examples, counted, self.max_examples)
            self.template.fill(row, self.statistics[position], sent, self.deltas)
        except Misfit as misfit:
            fault, kind = str(misfit), misfit.kind
            row.fill(np.nan)
            self.statistics[position] = 0
        self.clients.append(client)
        self.faults.append(fault)
        self._kinds.append(kind)
        self._examples.append(counted)
        self._steps.append(number(steps))
        return fault

    def fail(self, client: ClientId, fault: str) -> None:
        """Add a client without a usable reply; the engine gives the reason, for example a timeout."""
        self.add(client, None)
        self.faults[-1] = fault or self.faults[-1]

    def refuse_shared(self) -> None:
        """Reject a round in which all replies, at least two, have the same kind of fault.

        The likely cause is the integration code rather than the clients, so no client is blamed.

        Raises:
            RoundError: all replies share a fault; describes the first one and what to do.
        """
        shared = self._shared()
        if shared is None:
            return
        text = self.faults[0] or "its update holds NaN or Inf"
        raise RoundError(
            f"all {len(self.clients)} replies have the same fault, so it is no client's (client "
            f"{self.clients[0]!r}: {text}). {ADVICE[shared]}. Nothing was remembered of this round"
        )

    def round(self, index: int | None = None, server: Server | None = None) -> Round:
        """The round of all clients that were added.

        Raises:
            RoundError: no client was added, or an id was added twice.
        """
        n = len(self.clients)
        return Round(
            self.matrix[:n],
            self.clients,
            self._examples,
            index,
            self.global_params,
            self.template.lent(server),
            self._steps,
            self.faults,
        )

    def new(self, outcome: Outcome) -> list[Any]:
        """The new global model; every array has the type, shape and dtype of the global array.

        Args:
            outcome: a guard's outcome for :meth:`round`.
        """
        middle = self.template.middle(self.statistics[: len(self.clients)], outcome.weights)
        arrays = self.template.moved(outcome.aggregate, middle)
        return [form.given(array) for form, array in zip(self._forms, arrays, strict=True)]

    def _plan(
        self,
        given: Sequence[Any],
        roles: Sequence[str] | Mapping[str, str] | Literal["adapters"] | None,
        model: nn.Module | None,
        whole: bool,
    ) -> Plan:
        if roles == ADAPTERS:
            return self._plan(given, None, model, whole).adapters(self.names or ())
        changes = roles if isinstance(roles, Mapping) else {}
        if roles is not None and not isinstance(roles, Mapping):
            plan = by_choice(roles, self.start)
            if model is None or not whole:
                return plan
            return by_model(model, self.names, self.start, whole).having(plan.roles)
        if model is not None:
            plan = by_model(model, self.names, self.start, whole)
        elif self.names is None:
            plan = by_dtype(self.start)
        else:
            plan = by_name(self.names, self.start, tied(given))
        return plan.changed(changes, self.names or (), self.start) if changes else plan

    def _read(self, reply: Any) -> list[NDArray[Any]]:
        try:
            sent = listed(reply, len(self.start)) if self.names is None else by_key(reply, self.names)
        except Misfit:
            raise
        except Exception as error:  # an unknown container may raise anything
            raise Misfit("form", f"it cannot be read ({type(error).__name__})") from None
        each = zip(sent, self.start, self.template.labels, strict=True)
        return [numbers(value, own, f"its {label}") for value, own, label in each]

    def _shared(self) -> str | None:
        """The kind of fault that all replies share; None if there is none."""
        first = None
        for kind, row in zip(self._kinds, self.matrix, strict=False):
            kind = kind or (None if bool(row.isfinite().all()) else "nan")
            first = first or kind
            if kind is None or kind != first:
                return None
        return first if len(self.clients) > 1 else None


#: What to do about a fault that all replies share.
ADVICE = {
    "nothing": "Check that the replies arrive in time",
    "form": "Give {client: list of arrays}; for state_dict()s there is guard.process_state_dicts",
    "length": "Send what the global model is made of, and nothing else",
    "names": "Send what the global model is made of, and nothing else",
    "shape": "Give clients the model that the server has",
    "dtype": "Send floating-point numbers for floating-point arrays, of whatever precision",
    "count": "Give num_examples the same keys as the replies, and positive numbers",
    "nan": "Training has diverged everywhere: lower the learning rate, or go back to an earlier model",
}


def process(
    guard: AnyGuard,
    arrays: Mapping[Any, Any],
    global_arrays: Iterable[Any],
    num_examples: Mapping[Any, Any] | None = None,
    index: int | None = None,
    server: Server | None = None,
    deltas: bool = False,
    max_examples: float = MAX_EXAMPLES,
    roles: Sequence[str] | None = None,
    repeat: bool = False,
) -> tuple[Outcome, list[Any]]:
    """Judge and aggregate the arrays that clients sent.

    Args:
        guard: the guard.
        arrays: client id → its trained parameters, one array for every global array: NumPy arrays, PyTorch
            tensors or nested lists, of any floating-point precision.
        global_arrays: the global model that the clients started from, of the same types.
        num_examples: client id → claimed sample count; 1 each by default.
        index: the number of the round; by default the guard counts.
        server: what the server owns, for detectors that need it. Its model determines the arrays' roles.
        deltas: clients send differences from the global model rather than trained parameters.
        max_examples: a client that claims more samples is a suspect.
        roles: "learned", "statistic", "frozen" or "counter" for every array (see
            :mod:`fedguard.exchange.roles`). Without roles and ``server.model``, every floating-point array is
            learned, including BatchNorm statistics, since arrays have no names.
        repeat: the round may have been judged before, see :meth:`Guard.process`.

    Returns:
        The outcome, and the new global arrays with the types, shapes and dtypes of ``global_arrays``.

    Raises:
        FedGuardError: as :meth:`Guard.process`; or the global arrays are not a valid model; or all replies,
            at least two, share a fault, so that no client is to blame. The guard's state is unchanged.
    """
    replies = mapping_of(arrays)
    model = server.model if server is not None else None
    rows = Rows(global_arrays, len(replies), deltas, max_examples, roles, None, model, evaluates_model(guard))
    return judged(guard, rows, replies, num_examples, index, server, repeat)


def judged(
    guard: AnyGuard,
    rows: Rows,
    replies: Mapping[Any, Any],
    num_examples: Mapping[Any, Any] | None,
    index: int | None,
    server: Server | None,
    repeat: bool,
) -> tuple[Outcome, list[Any]]:
    """Add all replies to the rows and judge them; returns the outcome and the new arrays."""
    _check_keys(replies, num_examples)
    for client, sent in replies.items():
        rows.add(client, sent, 1 if num_examples is None else num_examples.get(client))
    rows.refuse_shared()
    outcome = guard.process(rows.round(index, server), repeat)
    return outcome, rows.new(outcome)


def evaluates_model(guard: AnyGuard) -> bool:
    """Whether a method of the guard evaluates or trains the server's model."""
    methods: list[Any] = [*guard.detectors.values(), *guard.aggregation()]
    parts = {"model", "validation", "root", "training"}
    return any(parts & set(getattr(method, "needs", ())) for method in methods)


def _sequence(arrays: Any) -> list[Any]:
    if isinstance(arrays, Mapping | nn.Module):
        raise RoundError(
            f"global_arrays is a {type(arrays).__name__}; give a list of arrays, or state_dict()s to "
            "guard.process_state_dicts"
        )
    if isinstance(arrays, Tensor | np.ndarray | str | bytes) or not isinstance(arrays, Iterable):
        raise RoundError(f"global_arrays is a {type(arrays).__name__}; give a list of arrays")
    return list(arrays)


def mapping_of(replies: Any) -> Mapping[Any, Any]:
    """The replies if they are a dictionary; raises RoundError otherwise."""
    if not isinstance(replies, Mapping):
        raise RoundError(f"the replies are a {type(replies).__name__}; give a dictionary, client → reply")
    return replies


def _check_keys(replies: Mapping[Any, Any], num_examples: Mapping[Any, Any] | None) -> None:
    """Raise RoundError if counts and replies share no key: this is the caller's mistake, not a client's."""
    if num_examples is None:
        return
    if not isinstance(num_examples, Mapping):
        raise RoundError(
            f"num_examples is a {type(num_examples).__name__}; give a dictionary, client → count"
        )
    if replies and not any(client in num_examples for client in replies):
        own, other = next(iter(replies)), next(iter(num_examples), None)
        raise RoundError(
            f"num_examples has no count for any client: its keys are like {other!r}, those of the replies "
            f"like {own!r}; use the same keys. Nothing was remembered of this round"
        )
