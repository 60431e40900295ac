"""The ledger in memory: every client's scores, strikes and bans."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from ..core.errors import ParameterError

if TYPE_CHECKING:  # `fedguard ledger` must not import torch
    from ..core.ids import ClientId
    from ..core.state import State

log = logging.getLogger(__name__)

#: The maximum number of characters of a stored reason. Clients influence its text (ids, claimed counts).
REASON = 500
#: The default author of a ban.
GUARD = "guard"


@dataclass
class Record:
    """One client's entry.

    Attributes:
        rounds: the number of rounds in which it was judged.
        strikes: the latest rounds in which it was a suspect, at most ``keep`` of the ledger.
        banned_since: the round of the current or last ban; None if it was never banned.
        banned_until: the first round in which it may return; None for a permanent ban.
        ban_reason: the reason for the ban.
        judged_since_ban: the number of rounds in which it was judged after the last ban.
        last_score: its latest score.
        last_round: the highest number of a round in which it was judged; None if it never was.
    """

    rounds: int = 0
    strikes: list[int] = field(default_factory=list)
    banned_since: int | None = None
    banned_until: int | None = None
    ban_reason: str = ""
    judged_since_ban: int = 0
    last_score: float | None = None
    last_round: int | None = None

    @property
    def weight(self) -> tuple[int, int]:
        """The priority for keeping the record: last strike first, then the number of rounds."""
        return max(self.strikes, default=-1), self.rounds

    def is_banned(self, round_index: int) -> bool:
        """Whether the client is banned in this round."""
        return self.banned_since is not None and (
            self.banned_until is None or round_index < self.banned_until
        )

    def outlasts(self, since: int, until: int | None) -> bool:
        """Whether the client is banned in round ``since``, and the ban ends no earlier than ``until``."""
        if not self.is_banned(since):
            return False
        return self.banned_until is None or (until is not None and until <= self.banned_until)


class Ledger:
    """Records by client id, in memory. The guard writes to it after a round is decided.

    Ids with the same text are the same client: a ban of 7 also applies to "7". Guards that run at the same
    time should share a :class:`fedguard.SQLiteLedger` instead.

    Memory is bounded. Beyond ``max_clients``, the ledger evicts strike-free clients first, those seen least
    first, and then the clients with the oldest last strike. It never evicts a client that was ever banned. If
    these alone exceed ``max_clients``, it grows with every ban and logs a warning.

    Args:
        keep: the number of latest strikes kept per client.
        max_clients: the maximum number of clients kept.

    Raises:
        ParameterError: a number is below 1.

    Example:
        >>> from fedguard import Guard, Ledger, Round
        >>> ledger = Ledger()
        >>> guard = Guard(ledger=ledger)
        >>> outcome = guard.process(Round([[1.0], [float("nan")]], client_ids=["ann", "bob"]))
        >>> ledger["bob"].strikes
        [0]
    """

    def __init__(self, keep: int = 1000, max_clients: int = 100_000) -> None:
        for name, value in (("keep", keep), ("max_clients", max_clients)):
            if value < 1:
                raise ParameterError(f"ledger: {name} is {value}; use 1 or more")
        self.keep = keep
        self.max_clients = max_clients
        self._records: dict[str, tuple[ClientId, Record]] = {}
        self._tidy_at = max_clients

    def __getitem__(self, client: ClientId) -> Record:
        """The client's record; an empty one for an unknown client."""
        return self._records.get(str(client), (client, Record()))[1]

    def clients(self) -> list[ClientId]:
        """All clients with a record, in order of appearance."""
        return [client for client, _ in self._records.values()]

    def is_banned(self, client: ClientId, round_index: int) -> bool:
        """Whether the client is banned in this round."""
        return self[client].is_banned(round_index)

    def banned(self, round_index: int) -> list[ClientId]:
        """All clients that are banned in this round."""
        past = self.view(self.clients())
        return [client for client in past.clients() if past.is_banned(client, round_index)]

    def next_round(self) -> int:
        """The round after the last one in which any client was judged; 0 if there is none."""
        return 1 + max(
            (r.last_round for _, r in self._records.values() if r.last_round is not None), default=-1
        )

    def ever_banned(self, client: ClientId) -> bool:
        """Whether the client was ever banned; this is its label at the end of a run."""
        return self[client].banned_since is not None

    def view(self, clients: Iterable[ClientId]) -> Ledger:
        """A snapshot of these clients' records for one round; a ledger in memory is its own view."""
        return self

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo everything written in the block if it raises an error."""
        before = dict(self._records)  # a shallow copy suffices: writing replaces records
        try:
            yield
        except BaseException:
            self._records = before
            raise

    def judge(
        self, client: ClientId, round_index: int, score: float, suspect: bool, reason: str = ""
    ) -> None:
        """Store a verdict. Only durable ledgers keep the reason.

        A round that was judged before (repeated by a restarted server) does not count twice. A strike of that
        round remains.
        """
        record = self._open(client)
        new = record.last_round is None or round_index > record.last_round
        record.rounds += new
        record.judged_since_ban += new
        record.last_score = score
        record.last_round = round_index if new else record.last_round
        if suspect and (new or round_index not in record.strikes):
            record.strikes = sorted([*record.strikes, round_index])[-self.keep :]

    def ban(self, client: ClientId, since: int, until: int | None, reason: str, by: str = GUARD) -> None:
        """Ban a client, unless it is already banned for at least as long."""
        if self[client].outlasts(since, until):
            return
        record = self._open(client)
        record.banned_since, record.banned_until, record.ban_reason = since, until, reason[:REASON]
        record.judged_since_ban = 0

    def unban(self, client: ClientId, by: str, why: str) -> None:
        """Lift a ban (or end a parole) and forgive all strikes so far.

        Args:
            client: the banned client.
            by: the person who decides.
            why: the reason.

        Raises:
            ParameterError: the client is not banned, or ``by`` or ``why`` is empty.
        """
        check_unban(client, self[client], by, why)
        record = self._open(client)
        record.banned_since, record.banned_until, record.ban_reason = None, None, ""
        record.strikes, record.judged_since_ban = [], 0
        log.info("client %s was unbanned by %s: %s", client, by, why)

    def _open(self, client: ClientId) -> Record:
        """Replace the client's record by a copy, and return the copy for changes."""
        key = str(client)
        if key not in self._records and len(self._records) >= self._tidy_at:
            self._make_room()
        first, record = self._records.get(key, (client, Record()))
        record = replace(record, strikes=list(record.strikes))
        self._records[key] = first, record
        return record

    def _make_room(self) -> None:
        """Evict a tenth of the clients at once, because finding them takes a pass over all records."""
        spare = [key for key, (_, record) in self._records.items() if record.banned_since is None]
        spare.sort(key=lambda key: self._records[key][1].weight)
        step = max(1, self.max_clients // 10)
        surplus = len(self._records) - self.max_clients + step
        for key in spare[:surplus]:
            del self._records[key]
        self._tidy_at = max(self.max_clients, len(self._records) + step)
        report_room(len(spare[:surplus]), len(self._records), self.max_clients)

    def state_dict(self) -> State:
        """A snapshot of all records, as JSON values."""
        return {"records": [[client, asdict(record)] for client, record in self._records.values()]}

    def load_state_dict(self, state: State) -> None:
        """Replace all records by those of ``state_dict``.

        Raises:
            ParameterError: the state belongs to a ledger in a file, or is invalid; nothing has changed.
        """
        if "records" not in state:
            raise ParameterError(
                "the state is of a guard whose ledger is a file; give this guard the same file, "
                "ledger=SQLiteLedger(path)"
            )
        self._records = {str(client): (client, record) for client, record in records_of(state)}
        self._tidy_at = self.max_clients


def records_of(state: State) -> list[tuple[ClientId, Record]]:
    """The records in a ledger's state.

    Raises:
        ParameterError: it is not the state of a ledger.
    """
    from ..core.restored import pairs  # lazy: it imports torch, which `fedguard ledger` must not

    try:
        records = list(pairs(state["records"]))
        return [(client, _checked(Record(**fields))) for client, fields in records]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ParameterError(f"the state does not hold a ledger's records: {error}") from None


def _checked(record: Record) -> Record:
    """A copy of the record; raises ValueError if a value has the wrong type."""
    strikes = list(record.strikes)
    whole = [record.rounds, record.judged_since_ban, *strikes]
    maybe = [record.banned_since, record.banned_until, record.last_round]
    wrong: list[object] = [value for value in whole if type(value) is not int]
    wrong += [value for value in maybe if value is not None and type(value) is not int]
    wrong += [value for value in [record.last_score] if value is not None and type(value) not in (int, float)]
    wrong += [value for value in [record.ban_reason] if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{str(wrong[0])[:60]!r} has the wrong type")
    return replace(record, strikes=strikes, ban_reason=record.ban_reason[:REASON])


def check_unban(client: ClientId, record: Record, by: str, why: str) -> None:
    """Raise ParameterError if the client is not banned, or ``by`` or ``why`` is empty."""
    if not by.strip() or not why.strip():
        raise ParameterError(f"an unban of client {client} is recorded; say who decides it (by) and why")
    if record.banned_since is None:
        raise ParameterError(f"client {client} is not banned; nothing was changed")


def report_room(forgotten: int, left: int, max_clients: int) -> None:
    """Log how many clients were evicted, and whether too many remain."""
    if forgotten:
        log.info("the ledger forgot %d clients that were never banned: it keeps %d", forgotten, max_clients)
    if left >= max_clients:
        log.warning(
            "the ledger holds %d clients, more than max_clients = %d: those that were banned are never "
            "forgotten; make new identities more expensive, or raise the bound",
            left,
            max_clients,
        )
