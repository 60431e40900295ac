"""Where a round is between asking and aggregating."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, Message

from ..contracts.outcome import Outcome
from .arrays import Layout
from .report import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Open:
    """A round between asking and aggregating.

    Attributes:
        arrays: the global model.
        layout: what its arrays are.
        asked: the messages.
        clients: node id → the client's name in the ledger.
        skipped: why nobody was asked, empty if somebody was.
        statistics: (n, s) what those who were heard sent of BatchNorm statistics.
    """

    arrays: ArrayRecord
    layout: Layout
    asked: list[Message] = field(default_factory=list)
    clients: dict[int, str] = field(default_factory=dict)
    skipped: str = ""
    statistics: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass
class Judged:
    """What became of the replies of a round, in their order."""

    weights: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    outcome: Outcome | None = None
    refusal: str = ""
    note: str = ""
