"""The roles of a model's arrays, shared by all entry points.

- ``learned``: trained parameters. Detectors score them, and the aggregation rule updates them.
- ``statistic``: floating-point buffers such as BatchNorm's running mean and variance. They are not scored,
  because honest clients with different data differ most in them. The new value is the coordinate-wise median
  of the accepted clients.
- ``frozen``: parameters that clients do not train. The server keeps its values.
- ``counter``: integers and booleans. The server keeps its values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from torch import nn

from ..core.errors import ParameterError
from ..training.parameters import learned
from .adapters import ADAPTERS, adapter_names, is_lora, is_saved, saved_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

Role: TypeAlias = Literal["learned", "statistic", "frozen", "counter"]
ROLES: tuple[str, ...] = get_args(Role)

#: Suffixes of the names of normalization statistics, in PyTorch and Keras.
STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")
#: Suffix of the name of PyTorch's batch counter, which some engines convert to a floating-point number.
COUNTERS = ("num_batches_tracked",)


@dataclass(frozen=True)
class Plan:
    """The roles of a model's arrays, by position.

    Attributes:
        roles: the role of every array.
        order: the arrays in an update vector, in order: all learned arrays and, if a method evaluates the
            model, its frozen parameters (where all updates are 0).
        twins: tied weights: array → the earlier array with the same values, which counts once.
        buffers: name of a buffer of the server's model → the position of its statistic.
        whole: whether ``order`` holds all parameters of the model, with any role.
    """

    roles: tuple[Role, ...]
    order: tuple[int, ...]
    twins: Mapping[int, int] = field(default_factory=dict)
    buffers: Mapping[str, int] = field(default_factory=dict)
    whole: bool = False

    def only(self, chosen: Callable[[int], bool]) -> Plan:
        """The same plan, with the learned arrays that are not chosen frozen."""
        roles: tuple[Role, ...] = tuple(
            "frozen" if role == "learned" and not chosen(k) else role for k, role in enumerate(self.roles)
        )
        return self.having(roles)

    def changed(
        self, changes: Mapping[str, str], names: Sequence[str], arrays: Sequence[NDArray[Any]]
    ) -> Plan:
        """The same plan with other roles for some names.

        Raises:
            ParameterError: a name or a role is unknown, or an integer array is to be learned or a statistic.
        """
        unknown = [name for name in changes if name not in names]
        if unknown:
            raise ParameterError(f"roles: the global model has no array {unknown[0]!r}")
        pairs = zip(names, self.roles, strict=True)
        return self.having(by_choice([changes.get(name, role) for name, role in pairs], arrays).roles)

    def adapters(self, names: Sequence[str]) -> Plan:
        """The same plan with only LoRA adapters and the new head learned.

        Raises:
            ParameterError: the names show no adapter.
        """
        chosen = set(adapter_names(names))
        if not chosen:
            raise ParameterError(
                f"roles is {ADAPTERS!r}, but no array of the global model is named like a LoRA adapter "
                "(lora_A, lora_B, …); give the state_dict() of a model with adapters, and for arrays without "
                "names a list of roles"
            )
        return self.only(lambda k: names[k] in chosen)

    def having(self, roles: tuple[Role, ...]) -> Plan:
        """The same plan with these roles."""
        order = self.order if self.whole else _learned(roles, self.twins)
        return dataclasses.replace(self, roles=roles, order=order)


def by_dtype(arrays: Sequence[NDArray[Any]]) -> Plan:
    """Every floating-point array is learned, since arrays without names have no other information."""
    return by_name([""] * len(arrays), arrays)


def by_name(names: Sequence[str], arrays: Sequence[NDArray[Any]], twins: Mapping[int, int] = {}) -> Plan:
    """Floating-point arrays are learned, except for normalization statistics, recognized by their names."""
    roles = tuple(_named(name, array) for name, array in zip(names, arrays, strict=True))
    return Plan(roles, _learned(roles, twins), twins)


def by_choice(chosen: Sequence[str], arrays: Sequence[NDArray[Any]]) -> Plan:
    """The given roles, one for every array.

    Raises:
        ParameterError: a role is unknown, the number of roles is wrong, or an integer array is to be learned
            or a statistic.
    """
    if isinstance(chosen, str) or not isinstance(chosen, Sequence):
        raise ParameterError(f"roles is a {type(chosen).__name__}; give a list with one role for every array")
    if len(chosen) != len(arrays):
        raise ParameterError(f"roles has {len(chosen)} entries, the global model has {len(arrays)} arrays")
    for k, (role, array) in enumerate(zip(chosen, arrays, strict=True)):
        if role not in ROLES:
            raise ParameterError(f"roles: array {k} is {role!r}; use one of {', '.join(ROLES)}")
        if array.dtype.kind != "f" and role in ("learned", "statistic"):
            raise ParameterError(
                f"roles: array {k} is {role!r} but holds {array.dtype}; use 'counter' or 'frozen'"
            )
    roles: tuple[Any, ...] = tuple(chosen)
    return Plan(roles, _learned(roles, {}))


def by_model(
    model: nn.Module, names: Sequence[str] | None, arrays: Sequence[NDArray[Any]], whole: bool
) -> Plan:
    """The roles from the server's model: its buffers, and which parameters it
    :func:`learns <fedguard.training.parameters.learned>`.

    Args:
        model: the server's model.
        names: the arrays' names; None if they have none.
        arrays: the model's ``state_dict()``, by name or in order, or its ``parameters()`` in order. With
            names, a part of it is enough (for example an adapter), unless a method needs all of it.
        whole: a method evaluates or trains the model and so needs updates of all its parameters; those that
            it learns are enough if none of the frozen ones is sent.

    Raises:
        ParameterError: the arrays do not belong to this model.
    """
    at = _positions(model, names, arrays, whole)
    trained = {id(parameter) for parameter in learned(model).values()}
    roles = [_leftover(_named(names[k] if names else "", array)) for k, array in enumerate(arrays)]
    first: dict[int, int] = {}
    twins: dict[int, int] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in at:
            roles[at[name]] = "learned" if id(parameter) in trained else "frozen"
            first.setdefault(id(parameter), at[name])
            if first[id(parameter)] != at[name]:
                twins[at[name]] = first[id(parameter)]
    floating = {name: at[name] for name, _ in model.named_buffers() if name in at}
    buffers = {name: k for name, k in floating.items() if arrays[k].dtype.kind == "f"}
    for name, k in buffers.items():
        roles[k] = "counter" if name.endswith(COUNTERS) else "statistic"
    order = tuple(first.values()) if whole else _learned(roles, twins)
    return Plan(tuple(roles), order, twins, buffers, whole)


def _named(name: str, array: NDArray[Any]) -> Role:
    plain = name.partition(":")[0]  # Keras appends ":0"
    if array.dtype.kind != "f" or plain.endswith(COUNTERS):
        return "counter"
    return "statistic" if plain.endswith(STATISTICS) or "batch_stats" in plain else "learned"


def _leftover(role: Role) -> Role:
    """The role of an array that is not in the model: it is not trained."""
    return "frozen" if role == "learned" else role


def _learned(roles: Sequence[Role], twins: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(k for k, role in enumerate(roles) if role == "learned" and k not in twins)


def _positions(
    model: nn.Module, names: Sequence[str] | None, arrays: Sequence[NDArray[Any]], whole: bool
) -> dict[str, int]:
    """Name of a parameter or buffer → the position of its array, matched by name or else by order."""
    needed = {name: tuple(p.shape) for name, p in model.named_parameters()}
    state = {name: tuple(t.shape) for name, t in model.state_dict().items() if hasattr(t, "shape")}
    sent = {} if names is None else {name: k for k, name in enumerate(names)}
    ways = [{name: sent[name] for name in {**needed, **state} if name in sent}]
    if names and is_saved(names) and any(map(is_lora, names)):  # as peft.get_peft_model_state_dict names them
        ways.append({name: sent[saved_name(name)] for name in learned(model) if saved_name(name) in sent})
    ways += [{name: k for k, name in enumerate(keys)} for keys in (state, needed) if len(keys) == len(arrays)]
    own = {name: needed[name] for name in learned(model)}

    def least(way: Mapping[str, int]) -> Mapping[str, Any]:
        if not whole:
            return {} if way else needed
        return own if way and way.keys() <= own.keys() else needed

    problems = [_unfit(way, least(way), {**needed, **state}, arrays) for way in ways]
    for way, problem in zip(ways, problems, strict=True):
        if problem is None:
            return way
    name = problems[-1] or ""
    raise ParameterError(
        f"server: {name!r} of the model has no array of shape {({**needed, **state})[name]} in the global "
        "model; send model.state_dict(), and give the guard the same architecture"
    )


def _unfit(
    way: Mapping[str, int],
    needed: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Sequence[NDArray[Any]],
) -> str | None:
    """The first name whose array is missing or has another shape; None if all arrays fit."""
    missing = next((name for name in needed if name not in way), None)
    return missing or next((name for name, k in way.items() if arrays[k].shape != shapes[name]), None)
