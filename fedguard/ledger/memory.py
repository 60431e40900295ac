"""What the guard remembers of every client: scores seen, strikes, bans."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from ..core.errors import ParameterError

if TYPE_CHECKING:  # the ledger of an operator's command line needs no torch
    from ..core.ids import ClientId
    from ..core.state import State

log = logging.getLogger(__name__)

#: Characters of a reason that are kept: clients have a say in it (their ids, their claims).
REASON = 500
#: Who bans when nobody else is named.
GUARD = "guard"


@dataclass
class Record:
    """One client's entry.

    Attributes:
        rounds: rounds in which it was judged.
        strikes: the rounds in which it was a suspect (the latest, see ``keep`` of the ledger).
        banned_since: the round of the ban in force (or of the last one), None if never banned.
        banned_until: the first round in which it may come back; None means for good.
        ban_reason: why it was banned.
        judged_since_ban: rounds in which it was judged after the last ban.
        last_score: its latest score.
        last_round: the highest number of a round in which it was judged, None if it never was.
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
        """What makes a client worth remembering: its last strike, then how many rounds it was there."""
        return max(self.strikes, default=-1), self.rounds

    def is_banned(self, round_index: int) -> bool:
        """Whether a ban is in force in this round."""
        return self.banned_since is not None and (
            self.banned_until is None or round_index < self.banned_until
        )

    def outlasts(self, since: int, until: int | None) -> bool:
        """Whether the ban in force in round ``since`` ends no earlier than ``until``."""
        if not self.is_banned(since):
            return False
        return self.banned_until is None or (until is not None and until <= self.banned_until)


class Ledger:
    """Records by client id, in memory; only :meth:`Guard.process` writes, once a round is decided.

    Ids that read the same are the same client, so that nobody sheds a ban when 7 comes back as "7". Guards
    that run at the same time share a :class:`fedguard.SQLiteLedger`, not this one.

    Memory is bounded: when more than ``max_clients`` are known, clients without strikes are forgotten
    first (those of the fewest rounds), then those whose last strike is the oldest. Whoever was ever banned
    is never forgotten; if they alone are more than ``max_clients``, the ledger grows with every ban and
    says so in the log.

    Args:
        keep: strikes kept per client, the latest.
        max_clients: clients remembered.

    Raises:
        ParameterError: a number below 1.
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
        """The client's record; an empty one for a client never seen."""
        return self._records.get(str(client), (client, Record()))[1]

    def clients(self) -> list[ClientId]:
        """Everyone with a record, in order of appearance."""
        return [client for client, _ in self._records.values()]

    def is_banned(self, client: ClientId, round_index: int) -> bool:
        """Whether a ban is in force in this round."""
        return self[client].is_banned(round_index)

    def banned(self, round_index: int) -> list[ClientId]:
        """Everyone whose ban is in force in this round."""
        past = self.view(self.clients())
        return [client for client in past.clients() if past.is_banned(client, round_index)]

    def next_round(self) -> int:
        """The round after the last one that any client was judged in; 0 if there is none."""
        return 1 + max(
            (r.last_round for _, r in self._records.values() if r.last_round is not None), default=-1
        )

    def ever_banned(self, client: ClientId) -> bool:
        """Whether the client was ever banned (this is what labels a client at the end of a run)."""
        return self[client].banned_since is not None

    def view(self, clients: Iterable[ClientId]) -> Ledger:
        """These clients' records as they are now, for a whole round; a ledger in memory is its own view."""
        return self

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside counts as a whole; not at all if an error comes out of it."""
        before = dict(self._records)  # writing replaces records, it never changes one
        try:
            yield
        except BaseException:
            self._records = before
            raise

    def judge(
        self, client: ClientId, round_index: int, score: float, suspect: bool, reason: str = ""
    ) -> None:
        """Note a verdict; the reason is for ledgers that outlive the server.

        A round that was judged before (a restarted server plays it again) does not count twice: neither the
        round nor its strike, which is not undone either.
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
        """Put a ban into force, unless one is in force already that lasts as long."""
        if self[client].outlasts(since, until):
            return
        record = self._open(client)
        record.banned_since, record.banned_until, record.ban_reason = since, until, reason[:REASON]
        record.judged_since_ban = 0

    def unban(self, client: ClientId, by: str, why: str) -> None:
        """Lift a ban (or end a parole) and forgive the strikes so far.

        Args:
            client: who is let in again.
            by: who decided that.
            why: the reason, in words.

        Raises:
            ParameterError: the client is not banned, or it is not said who decides and why.
        """
        check_unban(client, self[client], by, why)
        record = self._open(client)
        record.banned_since, record.banned_until, record.ban_reason = None, None, ""
        record.strikes, record.judged_since_ban = [], 0
        log.info("client %s was unbanned by %s: %s", client, by, why)

    def _open(self, client: ClientId) -> Record:
        """A fresh copy of the client's record, in its place."""
        key = str(client)
        if key not in self._records and len(self._records) >= self._tidy_at:
            self._make_room()
        first, record = self._records.get(key, (client, Record()))
        record = replace(record, strikes=list(record.strikes))
        self._records[key] = first, record
        return record

    def _make_room(self) -> None:
        """Forget a tenth of the clients, at once: looking for them takes a pass over all."""
        spare = [key for key, (_, record) in self._records.items() if record.banned_since is None]
        spare.sort(key=lambda key: self._records[key][1].weight)
        step = max(1, self.max_clients // 10)
        surplus = len(self._records) - self.max_clients + step
        for key in spare[:surplus]:
            del self._records[key]
        self._tidy_at = max(self.max_clients, len(self._records) + step)
        report_room(len(spare[:surplus]), len(self._records), self.max_clients)

    def state_dict(self) -> State:
        """All records as JSON values."""
        return {"records": [[client, asdict(record)] for client, record in self._records.values()]}

    def load_state_dict(self, state: State) -> None:
        """Replace all records by those of ``state_dict``.

        Raises:
            ParameterError: the state is of a guard whose ledger is a file, or is none; nothing has changed.
        """
        if "records" not in state:
            raise ParameterError(
                "the state is of a guard whose ledger is a file; give this guard the same one, "
                "ledger=SQLiteLedger(path)"
            )
        self._records = {str(client): (client, record) for client, record in records_of(state)}
        self._tidy_at = self.max_clients


def records_of(state: State) -> list[tuple[ClientId, Record]]:
    """The records of a ledger's state.

    Raises:
        ParameterError: it is none.
    """
    from ..core.restored import pairs  # here: it needs torch, as whoever has a state does

    try:
        records = list(pairs(state["records"]))
        return [(client, _checked(Record(**fields))) for client, fields in records]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ParameterError(f"the state holds no ledger's records: {error}") from None


def _checked(record: Record) -> Record:
    """The record with strikes of its own, if every value is of its type."""
    strikes = list(record.strikes)
    whole = [record.rounds, record.judged_since_ban, *strikes]
    maybe = [record.banned_since, record.banned_until, record.last_round]
    wrong: list[object] = [value for value in whole if type(value) is not int]
    wrong += [value for value in maybe if value is not None and type(value) is not int]
    wrong += [value for value in [record.last_score] if value is not None and type(value) not in (int, float)]
    wrong += [value for value in [record.ban_reason] if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{str(wrong[0])[:60]!r} is of another type")
    return replace(record, strikes=strikes, ban_reason=record.ban_reason[:REASON])


def check_unban(client: ClientId, record: Record, by: str, why: str) -> None:
    """Refuse an unban of somebody who is not banned, or that nobody answers for (ParameterError)."""
    if not by.strip() or not why.strip():
        raise ParameterError(f"an unban of client {client} is recorded; say who decides it (by) and why")
    if record.banned_since is None:
        raise ParameterError(f"client {client} is not banned; nothing was changed")


def report_room(forgotten: int, left: int, max_clients: int) -> None:
    """Tell the log what became of the clients beyond the bound."""
    if forgotten:
        log.info("the ledger forgot %d clients that were never banned: it keeps %d", forgotten, max_clients)
    if left >= max_clients:
        log.warning(
            "the ledger holds %d clients, more than max_clients = %d: those who were banned are never "
            "forgotten; make new identities dearer, or raise the bound",
            left,
            max_clients,
        )
