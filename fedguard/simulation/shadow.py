"""Shadow mode: many defenses watch one federation, and none of them acts."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Sequence

from ..contracts.outcome import Outcome
from ..contracts.server import map_in_order
from ..core.errors import FedGuardError
from ..core.state import State
from ..guard import Guard
from .build import build_guard
from .federation import Federation, Map, Progress
from .progress import reported
from .recorded import RecordedFederation
from .records import RoundRecord
from .settings import Cell, Defense


class Watcher:
    """A defense that judges every round and keeps its own state and ledger, but does not act.

    Args:
        cell: its settings.
        federation: the federation that it watches.
        aggregate: run its aggregator too, so that it keeps its state; the aggregate is not used.

    Attributes:
        cell: its settings.
        guard: the defense.
        records: its record of every round.
        error: the error that stopped it; empty if none did.
    """

    def __init__(
        self, cell: Cell, federation: Federation | RecordedFederation, aggregate: bool = False
    ) -> None:
        self.cell = cell
        self._aggregate = aggregate
        self.guard: Guard = build_guard(cell)
        self.records: list[RoundRecord] = []
        self.error = ""
        self._federation = federation

    def ever_banned(self, client: int) -> bool:
        """Whether it would have banned a client, under any id."""
        return any(self.guard.ledger.ever_banned(name) for name in self._federation.names_of(client))

    def watch(self, progress: Progress, actual: RoundRecord) -> None:
        """Judge a round; an error ends this watcher alone."""
        if self.error or progress.round is None:
            return
        try:
            judge = self.guard.process if self._aggregate else self.guard.watch
            outcome = judge(progress.round)
        except FedGuardError as error:
            self.error = str(error)
            return
        except Exception:  # a bug in one method must not cost the others
            self.error = traceback.format_exc()
            return
        self.records.append(self._record(progress, actual, outcome))

    def _record(self, progress: Progress, actual: RoundRecord, outcome: Outcome) -> RoundRecord:
        rows = self._federation.rows(dataclasses.replace(progress, outcome=outcome, seconds={}))
        seconds = {"training": progress.seconds["training"], **outcome.seconds}
        return RoundRecord(
            actual.index,
            rows,
            actual.tacc,
            actual.loss,
            actual.asr,
            outcome.note,
            reported(outcome, actual.info),
            seconds,
            actual.finite,
        )


class Shadow:
    """One undefended federation (FedAvg) under one attack, and the defenses that watch it.

    TACC and ASR are those of the undefended model. An attack that knows the defense sees an undefended
    server. Cells with a recording watch that instead, without training; TACC and ASR are then unknown.

    Args:
        cells: one for every watcher; they differ only in the defense.
        map: runs independent work.
    """

    def __init__(self, cells: Sequence[Cell], map: Map = map_in_order) -> None:
        plain = cells[0].model_copy(update={"defense": Defense(), "defense_label": ""})
        self.federation: Federation | RecordedFederation = (
            Federation(plain, map) if plain.recording is None else RecordedFederation(plain, map)
        )
        self.watchers = [Watcher(cell, self.federation) for cell in cells]

    def run(self, on_round: Callable[[RoundRecord], None] = lambda _: None, done: int = 0) -> None:
        """Run all rounds but the first ``done``; ``on_round`` gets each federation record."""
        for position in range(done, self.federation.cell.rounds):
            progress = self.federation.advance(position)
            record = self.federation.record(progress)
            for watcher in self.watchers:
                watcher.watch(progress, record)
            on_round(record)

    def state_dict(self) -> State:
        """The state of the federation and of all watchers, without their records."""
        watchers = [{"guard": w.guard.state_dict(), "error": w.error} for w in self.watchers]
        return {"federation": self.federation.state_dict(), "watchers": watchers}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self.federation.load_state_dict(state["federation"])
        for watcher, own in zip(self.watchers, state["watchers"], strict=True):
            watcher.guard.load_state_dict(own["guard"])
            watcher.error = own["error"]
