"""Contract checks for your own methods, the same that FedGuard's built-in methods pass.

    from fedguard.testing import check_detector

    def test_my_scorer():
        check_detector(MyScorer).raise_for_failures()

``fedguard check my_module:MyScorer`` runs the same checks and prints a table.
"""

from .aggregators import check_aggregator
from .attacks import check_attack
from .core import Report, Result
from .detectors import check_detector
from .policies import check_policy
from .stages import check_stage

__all__ = [
    "Report",
    "Result",
    "check_aggregator",
    "check_attack",
    "check_detector",
    "check_policy",
    "check_stage",
]
