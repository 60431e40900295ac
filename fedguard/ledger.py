"""What the guard remembers of every client: scores seen, strikes, bans."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from . import history
from .round import ClientId
from .state import State

#: The most strikes that are kept of a client: the latest.
MAX_STRIKES = 1000


@dataclass
class Record:
    """One client's entry.

    Attributes:
        rounds: rounds in which it was judged.
        strikes: the rounds in which it was a suspect, the last ``MAX_STRIKES`` of them.
        banned_since: the round of the ban in force (or of the last one), None if never banned.
        banned_until: the first round in which it may come back; None means for good.
        ban_reason: why it was banned.
        judged_since_ban: rounds in which it was judged after the last ban.
        last_score: its latest score.
    """

    rounds: int = 0
    strikes: list[int] = field(default_factory=list)
    banned_since: int | None = None
    banned_until: int | None = None
    ban_reason: str = ""
    judged_since_ban: int = 0
    last_score: float | None = None


class Ledger:
    """Records by client id; only :meth:`Guard.process` writes, once a round is decided.

    Ids that read the same are the same client, so that nobody sheds a ban when 7 comes back as "7".
    Whoever was ever banned is never forgotten; of the others, at most ``fedguard.history.MAX_CLIENTS`` have a
    record: who was judged least recently goes first.
    """

    def __init__(self) -> None:
        self._records: dict[str, tuple[ClientId, Record]] = {}
        self._unbanned: dict[str, None] = {}  # who can be forgotten, in the same order

    def __getitem__(self, client: ClientId) -> Record:
        """The client's record; an empty one for a client never seen."""
        return self._records.get(str(client), (client, Record()))[1]

    def clients(self) -> list[ClientId]:
        """Everyone with a record, who was judged least recently first."""
        return [client for client, _ in self._records.values()]

    def is_banned(self, client: ClientId, round_index: int) -> bool:
        """Whether a ban is in force in this round."""
        record = self[client]
        return record.banned_since is not None and (
            record.banned_until is None or round_index < record.banned_until
        )

    def ever_banned(self, client: ClientId) -> bool:
        """Whether the client was ever banned (this is what labels a client at the end of a run)."""
        return self[client].banned_since is not None

    def judge(self, client: ClientId, round_index: int, score: float, suspect: bool) -> None:
        """Note a verdict."""
        record = self._open(client)
        self._seen(str(client))
        record.rounds += 1
        record.judged_since_ban += 1
        record.last_score = score
        if suspect:
            record.strikes.append(round_index)
            del record.strikes[:-MAX_STRIKES]

    def ban(self, client: ClientId, since: int, until: int | None, reason: str) -> None:
        """Put a ban into force."""
        record = self._open(client)
        record.banned_since, record.banned_until, record.ban_reason = since, until, reason
        record.judged_since_ban = 0
        self._unbanned.pop(str(client), None)

    def _seen(self, key: str) -> None:
        self._records[key] = self._records.pop(key)
        if self._records[key][1].banned_since is None:
            self._unbanned.pop(key, None)
            self._unbanned[key] = None
        while len(self._unbanned) > history.MAX_CLIENTS:
            forgotten = next(iter(self._unbanned))
            del self._unbanned[forgotten], self._records[forgotten]

    def _open(self, client: ClientId) -> Record:
        return self._records.setdefault(str(client), (client, Record()))[1]

    def state_dict(self) -> State:
        """All records as JSON values."""
        return {"records": [[client, asdict(record)] for client, record in self._records.values()]}

    def load_state_dict(self, state: State) -> None:
        """Replace all records by those of ``state_dict``."""
        self._records = {
            str(client): (client, Record(**{**fields, "strikes": list(fields["strikes"])}))
            for client, fields in state["records"]
        }
        self._unbanned = {key: None for key, (_, r) in self._records.items() if r.banned_since is None}
