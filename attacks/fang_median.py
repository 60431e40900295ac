"""Fang et al.'s attack on the median: like the one on the trimmed mean, with the median's direction."""

from __future__ import annotations

from torch import Tensor

from fedguard.contracts.card import Card

from .fang_trimmed_mean import FangTrimmedMean


class FangMedian(FangTrimmedMean):
    """The intervals of ``fang_trimmed_mean``; the model "without the attack" is the median.

    s_j = 1 where the coordinate-wise median of all before-attack updates is above 0, otherwise −1. The goal
    "deviation" takes the side that moves the median farther. With partial knowledge the attack does not
    depend on the rule and equals ``fang_trimmed_mean``.

    Args:
        knowledge: "full" or "partial".
        b: the factor that bounds the interval, above 1; 2 in the paper.
        goal: "directed", or "deviation" (Appendix B), which the paper has for full knowledge only.
        direction: what gives the model "without the attack" with full knowledge: the "rule" under attack, as
            in Equation 1, or the "mean" of all before-attack updates, see ``fang_trimmed_mean``.

    Raises:
        ParameterError: b ≤ 1, which leaves the interval empty, or deviation with partial knowledge.

    Source: Fang et al., USENIX Security 2020, §3.4 and Appendix B.
    """

    card = Card(
        "fang_median",
        "models just beyond all benign ones, against the direction of the median",
        "Fang et al., Local Model Poisoning Attacks, USENIX Security 2020",
    )

    def aggregate(self, ordered: Tensor, m: int) -> Tensor:
        """The median of every column; the mean of the two middle values if n is even."""
        n = len(ordered)
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
