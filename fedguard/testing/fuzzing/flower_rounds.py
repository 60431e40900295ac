"""Flower rounds: who replies, when, how often and under which name; with stateful detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Error, Message
from flwr.serverapp.strategy import Strategy

from ...flower import GuardedStrategy
from ...guard import Guard
from ...ledger.sqlite import SQLiteLedger
from ..flower import Answer, Arrays, Client, MemoryGrid, reply
from .case import Mutant, Rng
from .flower import HONEST, guard, honest, inner, played, step, unharmed
from .values import TEXTS, pick

#: Detectors that keep state, and a few that do not.
DETECTORS = (
    "",
    "foolsgold",
    "foolsgold",
    "fldetector",
    "fldetector",
    "afa",
    "norm_bound",
    "krum",
    "three_sigma",
)
ROUNDS = 4
HOSTILE = (7, 8, 9)


class Wire(MemoryGrid):
    """A grid that loses, duplicates, delays and forges messages, with nodes that join and leave.

    Args:
        rng: the source of random choices.
        clients: the initial clients.
        events: the events applied to each batch of replies.
    """

    def __init__(self, rng: Rng, clients: dict[int, Client], events: list[Event]) -> None:
        super().__init__(clients, {node: b"-----BEGIN %d" % node for node in clients if rng.random() < 0.5})
        self.rng = rng
        self.events = events
        self.late: list[Message] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the clients' replies after the events."""
        asked = list(messages)
        replies = list(super().send_and_receive(asked, timeout=timeout))
        before, self.late = self.late, list(replies)
        for event in self.events:
            replies = event(self, asked, replies, before)
        return replies


Event = Callable[[Wire, list[Message], list[Message], list[Message]], list[Message]]


def _forged(message: Message, content: Any, **fields: Any) -> Message:
    made = Message(content, reply_to=message)
    made.metadata.__dict__.update({f"_{name}": value for name, value in fields.items()})
    return made


def duplicates(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Some replies come twice; only hostile ones, so that no honest reply is ignored."""
    return now + [m for m in now if m.metadata.src_node_id in HOSTILE and wire.rng.random() < 0.7]


def late(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Replies of the previous batch come again."""
    return [*before, *now]


def lost(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Replies of hostile nodes get lost."""
    return [m for m in now if m.metadata.src_node_id not in HOSTILE or wire.rng.random() < 0.4]


def strangers(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Replies come from nodes that were not asked, in their own name or in none."""
    if not now:
        return now
    content = now[0].content if now[0].has_content() else Error(0, "x")
    node = int(pick(wire.rng, (0, -1, 77, 2**63, 2**64 - 1)))
    fields = {"src_node_id": node, "reply_to_message_id": pick(wire.rng, ("", "x", *TEXTS))}
    return [*now, *(_forged(m, content, **fields) for m in asked[:3])]


def shuffled(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Replies come in another order."""
    return [now[i] for i in wire.rng.permutation(len(now))]


def other_keys(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Hostile nodes change their keys, or use those of others."""
    for node in HOSTILE:
        keys = (
            b"-----BEGIN 1",
            b"",
            b"\x00",
            b"-----BEGIN 1",
            b"-----BEGIN " + wire.rng.bytes(2000),
            b"x" * 32,
        )
        wire.keys[node] = pick(wire.rng, keys)
    return now


def comings(wire: Wire, asked: list[Message], now: list[Message], before: list[Message]) -> list[Message]:
    """Hostile nodes leave and come back under other ids."""
    for node in list(wire.clients):
        if node not in HONEST and wire.rng.random() < 0.4:
            client = wire.clients.pop(node)
            wire.clients[int(pick(wire.rng, (0, 10, 11, 2**62, 2**63 - 1, *HOSTILE)))] = client
    return now


EVENTS: tuple[Event, ...] = (duplicates, late, lost, strangers, shuffled, other_keys, comings)


# --- what hostile nodes send


def history(rng: Rng) -> tuple[Client, str]:
    """Return a client that poisons detectors' state with the same kind of update in every round."""
    kind = pick(
        rng, ("zero", "huge", "nan", "same", "tiny", "growing", "turning", "error", "honest", "silent")
    )
    draw, fixed = np.random.default_rng(int(rng.integers(2**31))), float(rng.normal())
    turns = iter(range(10**9))

    def client(arrays: Arrays, message: Message) -> Answer:
        turn = next(turns)
        scale = {
            "zero": 0.0, "huge": 1e38, "nan": np.nan, "same": fixed, "tiny": 1e-42,
            "growing": 10.0 ** (9 * turn),
            "turning": (-1.0) ** turn,
        }.get(kind)  # fmt: skip
        if kind == "error" or (kind == "silent" and draw.random() < 0.5):
            return Error(1, "x") if kind == "error" else None
        if scale is None:
            return reply(step(draw, arrays))
        with np.errstate(all="ignore"):
            sent = {
                n: (a + np.asarray(scale, a.dtype) if a.dtype.kind == "f" else a) for n, a in arrays.items()
            }
        return reply(sent)

    return client, kind


class FlowerRounds:
    """Federations with three hostile nodes, an unreliable wire and server restarts."""

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """A federation."""
        detector = pick(rng, DETECTORS)
        events = [EVENTS[i] for i in rng.choice(len(EVENTS), size=int(rng.integers(1, 4)), replace=False)]
        sent = [history(rng) for _ in HOSTILE]
        clients = {node: honest(rng, node) for node in HONEST}
        wire = Wire(
            rng, {**clients, **{n: client for n, (client, _) in zip(HOSTILE, sent, strict=True)}}, events
        )
        kept, ledger = rng.random() < 0.4, folder / "ledger.db" if rng.random() < 0.3 else None
        state, identity = folder / "state" if kept else None, pick(rng, ("auto", "auto", "key", "node"))
        seed = int(rng.integers(2**31))

        def guarded() -> GuardedStrategy:
            draw = np.random.default_rng(seed)
            made = guard(draw, detector, SQLiteLedger(ledger) if ledger else None)
            return _strategy(draw, made, state, identity)

        strategies: list[GuardedStrategy] = []

        def play() -> None:
            strategies[:] = [guarded()]
            played(strategies[0], wire, ROUNDS)

        def again() -> None:
            """Run a restarted server that still gets replies meant for the previous one."""
            strategies.append(guarded())
            played(strategies[-1], wire, 2)

        def check() -> None:
            if not detector:
                for strategy in strategies:
                    unharmed(strategy)

        steps: list[Any] = [("start", play)]
        if rng.random() < 0.5:
            steps.append(("restart", again))
        if ledger is not None:
            steps.append(("two guards on one ledger", lambda: _side_by_side(guarded, wire, state)))
        words = (
            [event.__name__ for event in events] + [kind for _, kind in sent] + [detector or "no detector"]
        )
        refused = lambda: any(r.weight == 0 for s in strategies for r in s.verdicts)  # noqa: E731
        return Mutant(steps, words, True, check, refused)


def _strategy(rng: Rng, made: Guard, state: Path | None, identity: Any) -> GuardedStrategy:
    strategy: Strategy = inner(rng, bool(rng.random() < 0.2))
    refusal, silent = pick(rng, ("keep", "keep", "pass")), pick(rng, ("suspect", "ignore"))
    return GuardedStrategy(
        strategy, made, state=state, identity=identity, on_refusal=refusal, silent=silent, patience=0.0
    )


def _side_by_side(guarded: Callable[[], GuardedStrategy], wire: Wire, state: Path | None) -> None:
    """Two servers take turns on the same ledger."""
    if state is not None:
        return
    one, two = guarded(), guarded()
    for _ in range(2):
        played(one, wire, 1)
        played(two, wire, 1)
