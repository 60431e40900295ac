"""The data of a round between ``configure_train`` and ``aggregate_train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor

from ..contracts.outcome import Outcome
from ..geometry.updates import Updates
from .arrays import Layout
from .replies import Reply, check_arrays, check_metrics, check_record_names
from .report import Verdict
from .spill import Spill

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
        spill: the replies on disk, if they are kept there.
    """

    arrays: ArrayRecord
    layout: Layout
    asked: list[Message] = field(default_factory=list)
    clients: dict[int, str] = field(default_factory=dict)
    skipped: str = ""
    statistics: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    spill: Spill | None = None

    def updates(self, heard: Sequence[Reply], weight_key: str | None, most: float) -> Updates:
        """Return the updates of the clients that replied, and their statistics in ``statistics``.

        Faults of the replies are recorded in them; their updates are zeros.

        Args:
            heard: the replies.
            weight_key: the metric with the number of examples.
            most: the largest number of examples to accept.
        """
        template = self.layout.template
        self.statistics = np.zeros((len(heard), template.width))
        check_metrics(heard, weight_key, most)
        if self.spill is not None:
            updates: Updates = self.spill.updates(heard, self.statistics)
        else:
            matrix = torch.empty(len(heard), template.size)
            check_arrays(heard, self.layout, matrix.numpy(), self.statistics)
            updates = Updates(matrix)
        check_record_names(heard)
        return updates

    def keep(self, reply: Message) -> None:
        """Write a reply to disk, if they are kept there."""
        if self.spill is not None:
            self.spill.keep(reply)

    def put_aside(self, replies: Sequence[Reply]) -> None:
        """Put the replies aside that could not be written to disk; nobody is blamed."""
        if self.spill is not None:
            self.spill.put_aside(replies)

    def params(self) -> Tensor:
        """(d,) the global model, flattened and concatenated."""
        return self.layout.template.flat() if self.spill is None else self.spill.params()

    def close(self) -> None:
        """Remove what is on disk."""
        if self.spill is not None:
            self.spill.close()


@dataclass
class Judged:
    """The verdicts on the replies of a round, in their order."""

    weights: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    outcome: Outcome | None = None
    refusal: str = ""
    note: str = ""

    def counted(self) -> list[float]:
        """The share of each reply's examples that counts."""
        found = None if self.outcome is None else self.outcome.counted
        return [1.0] * len(self.weights) if found is None else [float(share) for share in found]
