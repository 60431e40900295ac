"""Keep the guard's state on disk: bans, strikes and histories survive a restart of the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import FedGuardError, ParameterError
from ..core.restored import count
from ..core.state import load, save
from ..guard import Guard
from ..ledger.memory import Ledger
from .nodes import Identity
from .report import Verdict, log, write

STATE_FILE = "guard.state"
VERDICTS_FILE = "verdicts.jsonl"


class Keeper:
    """Write the guard's latest state and every verdict to a folder.

    Args:
        folder: created when the first round is kept; None keeps nothing.
        guard: the guard to store.
        identity: how clients are identified; bans in a state with another identity would never match.
    """

    def __init__(self, folder: Path | None, guard: Guard, identity: Identity) -> None:
        self.folder = folder
        self.guard = guard
        self.identity = identity

    def restore(self) -> int:
        """Load the state of a previous server, and return the number of the next round.

        Raises:
            ResultsError: the state cannot be read.
            ParameterError: it is not a strategy's state, or belongs to another guard or ``identity``.
        """
        path = None if self.folder is None else self.folder / STATE_FILE
        state = None if path is None else load(path)
        if state is None:
            return 0
        missing = {"identity", "index", "guard"} - set(state)
        if missing:
            raise ParameterError(
                f"{path} is not a strategy's state: it has no {min(missing)!r}; use another folder"
            )
        if state["identity"] != self.identity:
            raise ParameterError(
                f"identity is {self.identity!r}, but the bans in {self.folder} are by "
                f"{state['identity']!r}; use the same, or start with another folder"
            )
        index = count(state["index"])
        # Other ledgers (SQLite) persist on their own, and an operator may have changed them since.
        self.guard.load_state_dict(state["guard"], keep_ledger=type(self.guard.ledger) is not Ledger)
        return index

    def greet(self, names: Sequence[str]) -> None:
        """Log the clients that take part for the first time, unless all do."""
        known = {str(client) for client in self.guard.ledger.clients()}
        for name in names if known else []:
            if name not in known:
                log.info("FedGuard: %s takes part for the first time", name)

    def keep(self, index: int, rows: Sequence[Verdict]) -> None:
        """Write the guard's state after round ``index``. A failed write is logged and stops nothing."""
        if self.folder is None:
            return
        state = {"identity": self.identity, "index": index + 1, "guard": self.guard.state_dict()}
        try:
            save(self.folder / STATE_FILE, state)
            write(self.folder / VERDICTS_FILE, rows)
        except (OSError, FedGuardError) as error:
            log.error("FedGuard: the state is NOT kept, bans of this round end with this server: %s", error)
