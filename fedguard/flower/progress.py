"""The data of a round between ``configure_train`` and ``aggregate_train``."""

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
    """A round whose messages are sent and whose replies are not yet aggregated.

    Attributes:
        arrays: the global model.
        layout: the roles of its arrays.
        asked: the messages sent.
        clients: node id → client id in the ledger.
        skipped: why no message was sent; empty if any was.
        statistics: (n, s) the BatchNorm statistics of the clients that replied.
    """

    arrays: ArrayRecord
    layout: Layout
    asked: list[Message] = field(default_factory=list)
    clients: dict[int, str] = field(default_factory=dict)
    skipped: str = ""
    statistics: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass
class Judged:
    """The verdicts on the replies of a round, in their order."""

    weights: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    outcome: Outcome | None = None
    refusal: str = ""
    note: str = ""
