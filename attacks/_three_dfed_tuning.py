"""How 3DFed answers feedback: the strength of the masks and the number of decoys in the next round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._three_dfed_indicators import Verdict

#: A group whose members were accepted to this share was accepted.
MOST = 0.8
#: How far above the best accepted α groups try if others were rejected.
REACH = 0.1
#: α stays away from 0 and 1.
LOWEST, HIGHEST = 0.01, 0.99


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number from U[low, high]."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def next_decoys(decoys: int, backdoors: Sequence[Verdict], sent: Sequence[Verdict]) -> int:
    """One fewer for each decoy that was accepted; one more if everything was rejected.

    Args:
        decoys: their number now.
        backdoors: what became of the backdoor's updates.
        sent: what became of the decoys.
    """
    accepted = sent.count("accepted")
    lost = accepted == 0 and all(verdict == "rejected" for verdict in backdoors)
    return max(decoys - accepted, 0) + lost


def next_alphas(
    alphas: Sequence[float],
    backdoors: Sequence[Verdict],
    groups: Sequence[int],
    lowest: float,
    generator: torch.Generator,
) -> list[float]:
    """α per group, from the α of the groups of which four in five members were accepted.

    All accepted: between the two smallest of these α. Some: from the smallest to 0.1 above it. None: from
    U[lowest, 1]. A single group keeps its α as long as it is accepted.

    Args:
        alphas: α per group now.
        backdoors: what became of the backdoor's updates.
        groups: the group of each.
        lowest: the lower bound of a fresh α.
        generator: the attacker's randomness.
    """
    good = sorted(alpha for group, alpha in enumerate(alphas) if _accepted(group, backdoors, groups))
    if good and len(alphas) == 1:
        return list(alphas)
    if not good:
        low, high = lowest, 1.0
    elif len(good) == len(alphas):
        low, high = good[0], good[1]
    else:
        low, high = good[0], good[0] + REACH
    return [min(max(uniform(low, high, generator), LOWEST), HIGHEST) for _ in alphas]


def _accepted(group: int, backdoors: Sequence[Verdict], groups: Sequence[int]) -> bool:
    own = [verdict for verdict, other in zip(backdoors, groups, strict=True) if other == group]
    return bool(own) and own.count("accepted") >= MOST * len(own)
