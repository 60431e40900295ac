"""Structure-aware fuzzing of whatever strangers send or hand over, one module per kind of input.

    python -m fedguard.testing.fuzz --kind recordings --seed 1234

A kind begins with a small valid artifact, changes it, and repairs checksums, lengths and counts, so that the
change reaches the code behind the first check. A case is a kind and a seed, which determine it altogether.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case import Kind

#: Every kind, in the order of the table.
KINDS = ("flower replies", "flower rounds", "recordings", "ledgers", "results folders", "suites")


@cache
def kind_of(name: str) -> Kind:
    """The kind of input with this name; what it needs is imported now, and not before.

    Raises:
        ValueError: there is no such kind.
    """
    if name == "flower replies":
        from .flower_replies import FlowerReplies

        return FlowerReplies()
    if name == "flower rounds":
        from .flower_rounds import FlowerRounds

        return FlowerRounds()
    if name == "recordings":
        from .recordings import Recordings

        return Recordings()
    if name == "ledgers":
        from .ledgers import Ledgers

        return Ledgers()
    if name == "results folders":
        from .results_folders import ResultsFolders

        return ResultsFolders()
    if name == "suites":
        from .suites import Suites

        return Suites()
    raise ValueError(f"no kind {name!r}; there are {', '.join(KINDS)}")
