"""Recording simulated federations, and watching recordings in their place."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server, map_in_order
from ..core.errors import ParameterError, ResultsError
from ..core.ids import ClientId
from ..core.state import State
from ..evaluation.terminal import plain
from ..recording import Recorder, Recording
from ..recording.replay import seen
from .federation import Federation, Map, Progress
from .records import ClientRow, RoundRecord
from .settings import Cell
from .setup import setup_for

#: The most settings of a recorded simulation.
MAX_SETTINGS = 10_000


class FederationRecorder(Recorder):
    """Records a simulated federation, with its settings and the truth about its clients.

    Args:
        folder: the folder of the recording.
        federation: the federation; attach the recorder to its guard.
        code: the version of the code that runs it.
    """

    def __init__(self, folder: Path, federation: Federation, code: str = "") -> None:
        self._federation = federation
        about = {
            "cell": federation.cell.model_dump(mode="json"),
            "malicious": list(federation.malicious),
            "code": code,
            "data": federation.setup.dataset.fingerprint,
        }
        super().__init__(folder, about=about, rewind=True)

    def remarks(self, round: Round, outcome: Outcome) -> Mapping[str, Any]:
        """The clients' numbers in the federation, and which of them attack in this round."""
        numbers = {self._federation.id_of(client): client for client in self._federation.clients}
        clients = [numbers[name] for name in round.client_ids]
        attacking = self._federation.attacking(round.index)
        return {"clients": clients, "attacking": [client for client in clients if client in attacking]}


@contextlib.contextmanager
def recording_to(folder: Path | None, federation: object, code: str = "") -> Iterator[None]:
    """Record what a federation does in the block; without a folder, record nothing.

    Raises:
        ResultsError: the folder cannot be recorded to.
        ParameterError: it is not a federation with one guard (FLCert, a recording), or its model has
            BatchNorm statistics.
    """
    if folder is None:
        yield
        return
    if not isinstance(federation, Federation):
        raise ParameterError(
            "only a federation with one guard can be recorded, neither FLCert nor a recording"
        )
    if len(federation.statistics):
        raise ParameterError(
            "recordings do not store BatchNorm statistics, so methods that evaluate the model would see "
            "another model in a replay; use a model without them (resnet20 with norm: group)"
        )
    with FederationRecorder(folder, federation, code) as recorder:
        federation.guard.observers = (*federation.guard.observers, recorder)
        yield


def cell_of(recording: Recording) -> Cell | None:
    """The settings of the recorded federation; None if it was not a simulation.

    Raises:
        ResultsError: they are of another version, or not valid.
    """
    settings = recording.index.about.get("cell")
    if settings is None:
        return None
    if _values_in(settings) > MAX_SETTINGS:
        raise ResultsError(f"{recording.folder}: about.cell has more than {MAX_SETTINGS:,} values")
    try:
        cell = Cell.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ResultsError(
            f"{recording.folder} was recorded with other settings: {where} {problem['msg']}"
        ) from None
    if cell.defense.flcert is not None:
        raise ResultsError(f"{recording.folder} says that several guards judged (flcert); it can hold one")
    return cell


def _values_in(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values_in, parts))


def server_of(recording: Recording, map: Map = map_in_order) -> Server | None:
    """The server of a recorded simulation, rebuilt; None if it was not a simulation.

    Raises:
        ResultsError: its data have changed since; recordings of older versions cannot say so.
    """
    cell = cell_of(recording)
    if cell is None:
        return None
    setup, then = setup_for(cell), recording.index.about.get("data")
    if then is not None and then != setup.dataset.fingerprint:
        raise ResultsError(
            f"{recording.folder} was recorded on other data: {cell.data.name} has changed since (fingerprint "
            f"{plain(then, 12)}, now {setup.dataset.fingerprint[:12]}); restore the data"
        )
    return setup.server(map)


class Roster:
    """The clients of a recording, numbered as in the simulation or in order of appearance.

    Attributes:
        names: number → every id that the client has had.
        malicious: the numbers of the malicious clients; None if unknown.

    Raises:
        ResultsError: the recording names clients that do not exist.
    """

    def __init__(self, recording: Recording) -> None:
        known = recording.index.about.get("malicious")
        cell = cell_of(recording)
        self.names: dict[int, list[ClientId]] = {}
        if cell is not None:
            setup_for(cell)  # refuses more clients than samples before listing them
            self.names = {client: [client] for client in range(cell.clients)}
        numbers: dict[str, int] = {str(client): client for client in self.names}
        for position in range(len(recording)):
            words = recording.words(position)
            ids = words["client_ids"]
            given = words["remarks"].get("clients") or [None] * len(ids)
            for name, number in zip(ids, given, strict=True):
                if cell is not None and number is not None and number >= cell.clients:
                    raise ResultsError(
                        f"{recording.folder}: a round has client {number}, but there are only {cell.clients}"
                    )
                if str(name) not in numbers:
                    numbers[str(name)] = len(self.names) if number is None else number
                    self.names.setdefault(numbers[str(name)], []).append(name)
        self._numbers = numbers
        self.malicious: set[int] | None = None
        if known is not None:
            if not isinstance(known, list) or any(type(k) is not int or k not in self.names for k in known):
                raise ResultsError(
                    f"{recording.folder}: about.malicious is not a list of its clients' numbers"
                )
            self.malicious = set(known)

    def number(self, name: ClientId) -> int:
        """The number of the client with an id."""
        return self._numbers[str(name)]

    def is_malicious(self, client: int) -> bool | None:
        """Whether a client is malicious; None if unknown."""
        return None if self.malicious is None else client in self.malicious


class RecordedFederation:
    """A recording that defenses watch like an undefended federation (see ``Shadow``).

    Defenses see what the recorded detectors saw, without the clients that were banned then.

    Args:
        cell: the settings, with the recording's folder.
        map: runs independent work.
        recording: the recording if it is already open.
        server: the server; the recorded simulation's if absent.
        banned: also show clients that were banned during the recording.

    Raises:
        ResultsError: the recording is damaged.
    """

    def __init__(
        self,
        cell: Cell,
        map: Map = map_in_order,
        recording: Recording | None = None,
        server: Server | None = None,
        banned: bool = False,
    ) -> None:
        self.cell = cell
        self.recording = recording or Recording(str(cell.recording))
        self.roster = Roster(self.recording)
        self._server = server or server_of(self.recording, map)
        recorded = cell_of(self.recording)
        self._rounds = cell.rounds if recorded is None else recorded.rounds
        self._banned = banned

    def advance(self, position: int) -> Progress:
        """Read the next round."""
        recorded = self.recording.read(position)
        server = self._server
        if server is not None and server.training is not None:
            training = server.training.in_round(recorded.round.index, self._rounds)
            server = dataclasses.replace(server, training=training)
        round = seen(recorded, server, self._banned)
        asked = [] if round is None else [self.roster.number(name) for name in round.client_ids]
        attacking = set(recorded.remarks.get("attacking", ()))
        return Progress(recorded.round.index, asked, attacking, None, {"training": 0.0}, round)

    def record(self, progress: Progress) -> RoundRecord:
        """The record of the round, without the models' accuracy, which is not recorded."""
        nan = math.nan
        return RoundRecord(progress.index, self.rows(progress), nan, nan, nan, "", {}, progress.seconds)

    def rows(self, progress: Progress) -> list[ClientRow]:
        """One row for every client of the recording."""
        position = {client: i for i, client in enumerate(progress.asked)}
        return [self._row(client, position.get(client), progress) for client in self.roster.names]

    def names_of(self, client: int) -> list[ClientId]:
        """Every id that a client has had."""
        return self.roster.names[client]

    def state_dict(self) -> State:
        """Empty: a recording does not change."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing: a recording does not change."""

    def _row(self, client: int, i: int | None, progress: Progress) -> ClientRow:
        outcome, round = progress.outcome, progress.round
        truth, attacking = self.roster.is_malicious(client), client in progress.attacking
        if i is None or outcome is None or round is None:
            name, nan = str(self.names_of(client)[-1]), math.nan
            reason = "not seen when it was recorded"
            return ClientRow(client, name, truth, attacking, False, nan, False, 0.0, False, reason)
        return ClientRow(
            client,
            str(round.client_ids[i]),
            truth,
            attacking,
            True,
            float(outcome.scores[i]),
            bool(outcome.suspects[i]),
            float(outcome.weights[i]),
            bool(outcome.banned[i]),
            outcome.reasons[i],
        )
