"""Structure-aware fuzzing of untrusted input, one module per kind.

    python -m fedguard.testing.fuzz --kind recordings --seed 1234

A kind starts with a small valid artifact, changes it, and repairs checksums, lengths and counts, so that the
change reaches the code behind the first check. Its kind and seed determine a case completely.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case import Kind

#: All kinds, in the order of the table.
KINDS = ("flower replies", "flower rounds", "recordings", "ledgers", "results folders", "suites")


@cache
def kind_of(name: str) -> Kind:
    """Return the kind of input with this name; imports its module only now.

    Raises:
        ValueError: no kind has this name.
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
