"""The rounds of a recording as a calibration takes them: usable updates of clients taken as honest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...contracts.round import Round
from ...contracts.server import Server
from ...core.errors import ConfigError, ResultsError
from ...core.ids import ClientId
from ...recording import Recording
from ...recording.content import Recorded
from ...recording.replay import seen


class Rounds:
    """The latest rounds of a recording, split into one part to learn from and one to measure.

    Left out are clients that were banned when recorded, unusable updates, and clients that a recorded
    simulation knows to be malicious.

    Args:
        recording: the recording, checked.
        last: how many rounds to take, the latest ones.
        learn: the share of them to learn from, in (0, 1).
        server: what recordings do not hold.

    Attributes:
        clients: the ids in the rounds that are measured, in order of appearance.

    Raises:
        ConfigError: there are fewer than 2 rounds.
        ResultsError: the recording does not say properly who is malicious.
    """

    def __init__(self, recording: Recording, last: int, learn: float, server: Server | None) -> None:
        self._recording, self._server = recording, server
        positions = list(range(len(recording)))[-last:]
        if len(positions) < 2:
            raise ConfigError(
                f"{recording.folder} has {len(positions)} usable round(s); a calibration learns from some "
                "and measures others: record at least 2, better 50"
            )
        cut = min(max(1, round(learn * len(positions))), len(positions) - 1)
        self._learned, self._measured = positions[:cut], positions[cut:]
        known = recording.index.about.get("malicious", [])
        if not isinstance(known, list) or any(type(number) is not int for number in known):
            raise ResultsError(f"{recording.folder}: about.malicious is not a list of its clients' numbers")
        self._malicious = frozenset(known)
        found: dict[str, ClientId] = {}
        for position in self._measured:
            words = recording.words(position)
            for client in self._honest(words["client_ids"], words["remarks"]):
                found.setdefault(str(client), client)
        self.clients = list(found.values())
        if not self.clients:
            raise ConfigError(f"{recording.folder}: no client of the measured rounds is taken as honest")

    @property
    def counts(self) -> tuple[int, int]:
        """How many rounds are learned from, and how many are measured."""
        return len(self._learned), len(self._measured)

    def learned(self) -> Iterator[Round]:
        """The rounds to learn from."""
        return self._rounds(self._learned)

    def measured(self) -> Iterator[Round]:
        """The rounds to measure."""
        return self._rounds(self._measured)

    def _rounds(self, positions: list[int]) -> Iterator[Round]:
        size: int | None = None
        for position in positions:
            kept = self._kept(self._recording.read(position))
            if kept is not None:
                if size not in (None, kept.updates.d):
                    raise ResultsError(
                        f"{self._recording.folder}: round {kept.index} has {kept.updates.d} parameters, "
                        f"those before {size}"
                    )
                size = kept.updates.d
                yield kept

    def _kept(self, recorded: Recorded) -> Round | None:
        round = seen(recorded, self._server)
        if round is None:
            return None
        honest = set(map(str, self._honest(recorded.round.client_ids, recorded.remarks)))
        fine = [str(client) in honest for client in round.client_ids]
        left = np.flatnonzero(round.usable & np.array(fine))
        return round.take(left) if len(left) else None

    def _honest(self, ids: Sequence[ClientId], remarks: Mapping[str, Any]) -> list[ClientId]:
        """The clients of a round that are not known to be malicious."""
        numbers = remarks.get("clients") or [None] * len(ids)
        return [c for c, number in zip(ids, numbers, strict=True) if number not in self._malicious]
