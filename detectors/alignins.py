"""AlignIns: clients whose direction, as a whole or in the signs of its largest entries, is unusual."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.ties import above, tolerance
from fedguard.geometry.updates import Updates

#: Decimals to which both alignments, numbers in [−1, 1], are rounded.
DIGITS = 12


def temporal_alignment(round: Round) -> NDArray[np.float64]:
    """(n,) cos(u_i, w), 0 for a zero update or a zero model."""
    if round.global_params is None:
        raise NeedError("alignins needs global_params: give the round its global_params")
    updates = round.updates
    start = round.global_params.double().to(updates.device)
    scale = updates.norms * start.norm()
    cosines = torch.where(scale > 0, updates.along(start) / scale, 0.0).cpu().numpy()
    return np.asarray(cosines, dtype=np.float64)


def sign_alignment(updates: Updates, count: int) -> NDArray[np.float64]:
    """(n,) the share of an update's largest entries that have the sign of the majority of the clients.

    Args:
        updates: (n, d).
        count: how many entries of an update are large; entries as large as the last of them are, too.
    """
    votes = sum((updates.row(i).sign() for i in range(1, updates.n)), updates.row(0).sign())
    principal = torch.sign(votes)
    shares = np.zeros(updates.n)
    for i in range(updates.n):
        row = updates.row(i)
        size = row.abs()
        large = size >= size.kthvalue(len(size) - count + 1).values
        shares[i] = float((row.sign() == principal)[large].double().mean())
    return shares


class AlignIns(Detector):
    """max(z(ρ_i) / λ_s, z(ω_i) / λ_c) with z(x_i) = |x_i − median x| / std x; at 1 or above, a suspect.

    ω_i = cos(u_i, w) is the temporal direction alignment, w the global model. ρ_i is the masked principal
    sign alignment: the share of the k = ⌊sparsity · d⌋ entries of u_i that are largest in size whose sign is
    sgn(Σ_j sgn(u_j)). The standard deviation is the population's. The method then clips the accepted updates
    to their median norm: add the stage ``norm_clipping``.

    In units of a standard deviation, a limit of 1 rejects a third of normally distributed values by either
    criterion, whether somebody attacks or not.

    What was read is silent about, and what FedGuard does: if all clients agree in an alignment (std 0), it
    accuses nobody, where the authors' code accuses everybody (0 / 0). Entries that tie with the k-th are all
    counted. At least one entry is. If nobody is accepted, the global model stays.

    Args:
        sparsity: the share of the entries that are inspected, in (0, 1]; 0.3.
        lambda_s: λ_s, the limit for the signs; 1.
        lambda_c: λ_c, the limit for the cosines; 1.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xu et al., AlignIns, CVPR 2025 (arXiv 2503.07978). Read: two reviews of the paper, and the
    authors' function with its defaults, as copies of their repository have it.

    Example:
        >>> import numpy as np
        >>> from fedguard import Round, make_detector
        >>> updates = np.tile([3.0, 2.0, 1.0, 1.0], (5, 1)) + np.diag([0.1, 0.2, 0.3, 0.4, 0.5])[:, :4]
        >>> updates[4] = [-3, 2, 1, 1]
        >>> scores = make_detector("alignins", lambda_s=1.5, lambda_c=1.5)(
        ...     Round(updates, global_params=np.ones(4))
        ... )
        >>> scores.suspects.tolist()
        [False, False, False, False, True]
    """

    card = Card(
        "alignins",
        "angle to the global model, and signs of the largest entries",
        "Xu et al., AlignIns, CVPR 2025",
    )
    plant = "backwards"  # it looks at directions, whatever their length
    needs = frozenset({"global_params"})

    def __init__(self, sparsity: float = 0.3, lambda_s: float = 1.0, lambda_c: float = 1.0) -> None:
        if not 0 < sparsity <= 1:
            raise ParameterError(f"alignins: sparsity is {sparsity}; use a share in (0, 1]")
        for name, value in (("lambda_s", lambda_s), ("lambda_c", lambda_c)):
            if not (math.isfinite(value) and value > 0):
                raise ParameterError(f"alignins: {name} is {value}; use a number above 0, say 1")
        self.sparsity = sparsity
        self.lambda_s = lambda_s
        self.lambda_c = lambda_c

    def score(self, round: Round) -> Scores:
        """Both alignments, each in units of its spread."""
        d = round.updates.d
        count = max(1, int(self.sparsity * d + 1e-9))
        slack = tolerance(round.n, d, DIGITS)
        signs = _deviations(sign_alignment(round.updates, count), self.lambda_s, slack)
        angles = _deviations(temporal_alignment(round), self.lambda_c, slack)
        values = np.maximum(signs, angles)
        return Scores(
            values,
            values >= 1,
            "its direction is unusual, as a whole or in the signs of its largest entries",
            info={"by_signs": float((signs >= 1).sum()), "by_angle": float((angles >= 1).sum())},
        )


def _deviations(values: NDArray[np.float64], limit: float, slack: float) -> NDArray[np.float64]:
    """(n,) z / limit, at least 1 exactly where z reaches the limit up to rounding; 0 if all values agree."""
    rounded = values.round(DIGITS)
    spread = float(rounded.std())
    if not above(spread, 0.0, slack, scale=1.0):
        return np.zeros(len(values))
    away = np.abs(rounded - np.median(rounded))
    reached = ~above(limit * spread, away, slack, scale=1.0)
    ratio = away / (limit * spread)
    return np.where(reached, np.maximum(ratio, 1.0), np.minimum(ratio, np.nextafter(1, 0)))
