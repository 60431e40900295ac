"""Detection metrics as pure functions: arrays in, numbers with their counts out.

All rates are fractions in [0, 1]. An undefined rate (FNR without attackers, say) is NaN, never 0.
Definitions: Xie et al., FedREDefense, ICML 2024, Appendix A.4 and B.1.
"""

from __future__ import annotations

from .certificates import certified_radius, vote_bounds
from .detection import (
    aar,
    active_metrics,
    benign_excluded,
    detection_metrics,
    fpr_by_skew,
    rounds_to_detection,
)
from .harm_weights import harm, harm_weighted_fnr
from .scores import auroc, average_precision, mean_auroc, mean_over_rounds, tpr_at_fpr

__all__ = [
    "aar",
    "active_metrics",
    "auroc",
    "average_precision",
    "benign_excluded",
    "certified_radius",
    "detection_metrics",
    "fpr_by_skew",
    "harm",
    "harm_weighted_fnr",
    "mean_auroc",
    "mean_over_rounds",
    "rounds_to_detection",
    "tpr_at_fpr",
    "vote_bounds",
]
