"""Contract checks for your own methods, the same that FedGuard's built-in methods pass.

    from fedguard.testing import parametrize_checks

    @parametrize_checks([MyScorer])
    def test_the_contract(check):
        check()

``fedguard check my_module:MyScorer`` runs the same checks and prints a table; ``check_detector(MyScorer)``
and the like return a report.
"""

from __future__ import annotations

import importlib
from typing import Any

from .aggregators import check_aggregator
from .attacks import check_attack
from .core import Report, Result
from .detectors import check_detector
from .parametrize import parametrize_checks
from .policies import check_policy
from .stages import check_stage

__all__ = [
    "Report",
    "Result",
    "check_aggregator",
    "check_attack",
    "check_detector",
    "check_partition",
    "check_policy",
    "check_stage",
    "parametrize_checks",
]

#: Checks of parts need the simulation, which is imported on first use.
_PARTS = {"check_partition": "partitions"}


def __getattr__(name: str) -> Any:
    """Import the checks of parts."""
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PARTS[name]}"), name)
