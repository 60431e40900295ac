"""A small Flower federation for hostile clients: model, honest clients, strategies, invariants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Strategy

from ...contracts.registry import make_detector, make_policy
from ...core.errors import FedGuardError
from ...flower import GuardedStrategy
from ...guard import Guard
from ...ledger.memory import Ledger
from ..flower import Arrays, Client, arrays_record, reply
from .case import Forbidden, Rng
from .values import pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Learned parameters, statistics and a counter.
GLOBAL: dict[str, NDArray[Any]] = {
    "fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 10,
    "fc.bias": np.ones(3, np.float32),
    "bn.running_var": np.ones(3, np.float32),
    "bn.num_batches_tracked": np.array(7, np.int64),
}
HONEST = (1, 2, 3, 4, 5)
INNER = ("FedAvg", "FedAvg", "FedAvg", "FedMedian", "FedTrimmedAvg", "FedAdam", "FedAvgM", "FedProx")
DETECTORS = ("", "", "norm_bound", "krum", "foolsgold", "fldetector", "dnc", "afa", "signguard", "flame")
POLICIES: tuple[dict[str, Any], ...] = (
    {"name": "ban", "strikes": 2},
    {"name": "ban", "strikes": 1, "duration": 2},
    {"name": "exclude"},
    {"name": "observe"},
)


def inner(rng: Rng, evaluate: bool = True) -> Strategy:
    """Return one of Flower's strategies that does not wait for nodes."""
    name, share = pick(rng, INNER), 1.0 if evaluate else 0.0
    few = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    made: Strategy = getattr(strategies, name)(fraction_evaluate=share, **few)
    return _checking(made)


def _checking(made: Strategy) -> Strategy:
    """Make a strategy check that it only gets arrays like the ones it sent."""
    sent: dict[str, tuple[Any, ...]] = {}
    ask, take = made.configure_train, made.aggregate_train

    def configure_train(server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        sent.clear()
        sent.update({name: (array.shape, array.dtype) for name, array in arrays.items()})
        return ask(server_round, arrays, config, grid)

    def aggregate_train(server_round: int, replies: Any) -> Any:
        replies = list(replies)
        for message in replies:
            ((_, record),) = message.content.array_records.items()
            got = {name: (array.shape, array.dtype) for name, array in record.items()}
            if got != sent or list(got) != list(sent):
                raise Forbidden(f"the strategy gets {got} instead of {sent}")
        return take(server_round, replies)

    made.configure_train, made.aggregate_train = configure_train, aggregate_train  # type: ignore[method-assign]
    return made


def guard(rng: Rng, detector: str, ledger: Ledger | None = None) -> Guard:
    """Return a guard with this detector, or with none."""
    params = {"fldetector": {"start": 0, "window": 3}}.get(detector, {})
    policy = dict(pick(rng, POLICIES))
    return Guard(
        [make_detector(detector, **params)] if detector else [],
        make_policy(policy.pop("name"), **policy),
        ledger=ledger,
    )


def honest(rng: Rng, node: int) -> Client:
    """Return a client that moves the model slightly and reports correctly."""
    steps = np.random.default_rng((int(rng.integers(2**31)), node))

    def client(arrays: Arrays, message: Message) -> RecordDict:
        return reply(step(steps, arrays), examples=10 + node)

    return client


def step(rng: Rng, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the global model's arrays after simulated training."""
    return {
        name: (a + 1 if a.dtype.kind == "i" else a + rng.normal(size=a.shape) / 100).astype(a.dtype)
        for name, a in arrays.items()
    }


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Within the block, Flower neither sleeps between polls for nodes nor waits long for them."""
    with mock.patch("flwr.serverapp.strategy.strategy_utils.sleep", return_value=None):
        yield


def played(strategy: GuardedStrategy, grid: Any, rounds: int) -> None:
    """Run Flower's own loop; no client may end it or change the model's arrays.

    Raises:
        Forbidden: a client did.
    """
    try:
        with without_waiting():
            result = strategy.start(grid, arrays_record(GLOBAL), num_rounds=rounds, timeout=5)
    except FedGuardError as error:
        raise Forbidden(f"a client has ended the federation: {error}") from error
    if result.arrays:
        sound({name: array.numpy() for name, array in result.arrays.items()})


def sound(arrays: Arrays) -> None:
    """Raise unless the arrays are finite and have the global model's names and shapes."""
    if list(arrays) != list(GLOBAL):
        raise Forbidden(f"the model has the arrays {list(arrays)}")
    for name, old in GLOBAL.items():
        new = arrays[name]
        if new.shape != old.shape:
            raise Forbidden(f"{name} of the model has the shape {new.shape}")
        if not np.isfinite(new).all():
            raise Forbidden(f"{name} of the model is not finite")


def unharmed(strategy: GuardedStrategy, nodes: tuple[int, ...] = HONEST) -> None:
    """Raise if an honest node is a suspect although no detector scores it."""
    for row in strategy.verdicts:
        if row.node in nodes and (row.suspect or row.banned):
            raise Forbidden(f"honest node {row.node} is a suspect: {row.reason}")
