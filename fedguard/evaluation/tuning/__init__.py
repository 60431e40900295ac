"""Searches for an attack's strength or a defense's parameters, over ordinary runs of a suite.

``fedguard.tune`` returns a :class:`Tuned`; ``fedguard tune`` is the same from the command line.
"""

from __future__ import annotations

from .explore import Proposals, Tried
from .objective import Goal, Score
from .outcome import Check, Tuned
from .space import Choice, Range

__all__ = ["Check", "Choice", "Goal", "Proposals", "Range", "Score", "Tried", "Tuned"]
