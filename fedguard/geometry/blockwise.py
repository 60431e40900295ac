"""Updates that never come into this process's memory as a whole, only in column blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.errors import StreamedError
from .blocks import ranges
from .updates import Updates


class BlockwiseUpdates(Updates):
    """What updates on disk and in shards share. Subclasses have n, d, block, row, columns and take."""

    #: Where the updates are, for messages.
    where: str

    @property
    def device(self) -> torch.device:
        """The device of the blocks: the CPU."""
        return torch.device("cpu")

    @property
    def matrix(self) -> Tensor:
        """Not available, since the updates may not fit into memory.

        Raises:
            StreamedError: always.
        """
        raise StreamedError(
            f"the updates {self.where}, but a method needs all of them at once "
            f"({self.n} x {self.d}, {4e-9 * self.n * self.d:.2g} GB); use methods that work on blocks, "
            "distances, norms or cosines, or load the updates into memory"
        )

    def blocks(self) -> Iterator[Tensor]:
        """Yield consecutive column blocks as float64 tensors that fit a core's cache."""
        for span in ranges(self.n, self.d):
            yield torch.from_numpy(self.block(*span)).double()

    def addresses(self) -> None:
        """Nothing: the rows are not in memory."""
