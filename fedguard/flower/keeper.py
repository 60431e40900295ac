"""The guard's memory on disk: bans, strikes and histories outlive the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import FedGuardError, ParameterError
from ..core.state import load, save
from ..guard import Guard
from ..ledger.memory import Ledger
from .nodes import Identity
from .report import Verdict, log, write

STATE_FILE = "guard.state"
VERDICTS_FILE = "verdicts.jsonl"


class Keeper:
    """A folder with the guard's latest state and every verdict.

    Args:
        folder: made when the first round is kept; None keeps nothing.
        guard: whose state.
        identity: how clients are told apart; a state with other names would ban nobody.
    """

    def __init__(self, folder: Path | None, guard: Guard, identity: Identity) -> None:
        self.folder = folder
        self.guard = guard
        self.identity = identity

    def restore(self) -> int:
        """Take up the state of a server before this one; returns the number of the next round.

        Raises:
            ResultsError: there is a state, but it cannot be read.
            ParameterError: it is of another guard, or its clients have other names.
        """
        state = load(self.folder / STATE_FILE) if self.folder is not None else None
        if state is None:
            return 0
        if state["identity"] != self.identity:
            raise ParameterError(
                f"identity is {self.identity!r}, but the bans in {self.folder} are by "
                f"{state['identity']!r}; say the same, or begin with another folder"
            )
        # A ledger of another class keeps itself, and an operator may have changed it since.
        self.guard.load_state_dict(state["guard"], keep_ledger=type(self.guard.ledger) is not Ledger)
        return int(state["index"])

    def keep(self, index: int, rows: Sequence[Verdict]) -> None:
        """Write what the guard knows after round ``index``; a full disk is told, but fells no federation."""
        if self.folder is None:
            return
        state = {"identity": self.identity, "index": index + 1, "guard": self.guard.state_dict()}
        try:
            save(self.folder / STATE_FILE, state)
            write(self.folder / VERDICTS_FILE, rows)
        except (OSError, FedGuardError) as error:
            log.error("FedGuard: the state is NOT kept, bans of this round end with this server: %s", error)
