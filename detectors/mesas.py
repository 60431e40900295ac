"""MESAS: clients that any of six metrics of their update sets apart."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, snapped, tolerance
from fedguard.geometry.clusters import same

from ._clusters import around_cut, largest_cluster
from ._ranking import by_id
from .multi_metric import angle_to_global

Table = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: The order of the columns of ``metrics``.
METRICS = ("cos", "eucl", "count", "var", "min", "max")
#: Decimals, relative to the largest value of a metric, up to which values are equal.
DIGITS = 9


def metrics(round: Round) -> Table:
    """(n, 6) 1 − cos(w, w + u), ‖u‖, number of entries above 0, variance, smallest positive entry, max |u|.

    The variance is the unbiased one. An update without a positive entry has the largest entry of all updates
    in size as its smallest positive one.
    """
    rows = []
    for i in range(round.n):
        row = round.updates.row(i).double().cpu()
        positive = row[row > 0]
        smallest = positive.min() if len(positive) else torch.tensor(math.inf, dtype=torch.float64)
        variance = row.var() if len(row) > 1 else row.new_zeros(())
        parts = [row.norm(), row.new_tensor(float(len(positive))), variance, smallest, row.abs().max()]
        rows.append(torch.stack(parts))
    table = torch.column_stack([angle_to_global(round).cpu(), torch.stack(rows)])
    table[:, 4] = table[:, 4].clamp(max=float(table[:, 5].max()))
    return np.asarray(table.numpy(), dtype=np.float64)


class MESAS(Detector):
    """Suspects: by any metric, in a half that differs or beyond 3 std; then the smaller of two clusters.

    Six metrics x of each update (``metrics``). For each metric, a_i = |x_i − median x|. The clients at or
    above the median, and those at or below it, are compared with all clients by their a: a half is suspected
    if the p-value of Student's t-test, of Levene's test, or of the two-sample Kolmogorov-Smirnov test is at
    most ``significance``. A client with |x_i − mean x| ≥ 3 std x is suspected, too. The clients left over by
    all six metrics are clustered into two by Ward's linkage on their six metrics, and the smaller cluster is
    suspected. **One of the two always is**, whether somebody attacks or not.

    The score of suspects is above 1; scores grow with the distance to the mean of the accepted clients.

    The paper itself could not be read, only its abstract and another group's implementation, with which it
    is compared in arXiv 2410.11205. So it is unknown whether the paper's cascade repeats its steps, and which
    significance it uses. Where that code does what cannot be meant, FedGuard does this instead: clients *at*
    the median are on both sides and suspected only with both, where the code rejects them; the largest
    cluster stays, where the code compares a share with a label; each metric is divided by its largest value
    before clustering (present in the code, but switched off), or the count of entries alone would decide. A
    test without a p-value (a half of one client, or without spread) finds no difference. If all clients
    agree, nobody is suspected. Of two equally large clusters, that of the first client by id stays.
    If no client is left over, the global model stays.

    Args:
        significance: the largest p-value at which a half is suspected, in (0, 1); 1e-4.

    Raises:
        ParameterError: a parameter out of range.

    Source: Krauß & Dmitrienko, MESAS, CCS 2023 (arXiv 2306.03600). Read: its abstract, and
    ``server_mesas.py`` in the repository of AGSD.

    Example:
        >>> import numpy as np
        >>> from fedguard import Round, make_detector
        >>> updates = np.random.default_rng(0).normal(size=(12, 50))
        >>> updates[3] *= 20
        >>> bool(make_detector("mesas")(Round(updates, global_params=np.ones(50))).suspects[3])
        True
    """

    card = Card("mesas", "six metrics of an update, tested one by one", "Krauß & Dmitrienko, MESAS, CCS 2023")
    needs = frozenset({"global_params"})

    def __init__(self, significance: float = 1e-4) -> None:
        if not 0 < significance < 1:
            raise ParameterError(f"mesas: significance is {significance}; use a p-value in (0, 1), say 1e-4")
        self.significance = significance

    def score(self, round: Round) -> Scores:
        """Test every metric, then cluster those who are left."""
        table = _scaled(metrics(round))
        slack = tolerance(round.n, round.updates.d, DIGITS)
        by_metric = np.stack([self._rejected(snapped(x, slack, scale=1.0), slack) for x in table.T])
        suspects = np.asarray(by_metric.any(axis=0))
        order = np.array(by_id(round.client_ids))
        left = order[~suspects[order]]
        suspects[left[~_larger_cluster(table[left], slack)]] = True
        accepted = table[~suspects] if not suspects.all() else table
        away = np.linalg.norm(table - accepted.mean(0), axis=1).round(DIGITS)
        return Scores(
            around_cut(away, suspects),
            suspects,
            f"set apart by one of {', '.join(METRICS)}, or in the smaller cluster of all of them",
            info={name: float(bad.sum()) for name, bad in zip(METRICS, by_metric, strict=True)},
        )

    def _rejected(self, x: Table, slack: float) -> Mask:
        """(n,) whom one metric rejects."""
        median = float(np.median(x))
        away = snapped(np.abs(x - median), slack, scale=1.0)  # equal distances on both sides tie
        high, low = ~above(median, x, slack, scale=1.0), ~above(x, median, slack, scale=1.0)
        bad_high, bad_low = self._differ(away[high], away), self._differ(away[low], away)
        halves = (bad_high | ~high) & (bad_low | ~low)
        spread = float(x.std())
        far = ~above(3 * spread, np.abs(x - x.mean()), slack, scale=1.0)
        rejected: Mask = halves | (far & bool(above(spread, 0.0, slack, scale=1.0)))
        return rejected

    def _differ(self, half: Table, everybody: Table) -> bool:
        """Whether any of the three tests tells the half from all clients."""
        from scipy import stats  # a slow import

        if len(half) < 2 or np.ptp(everybody) == 0:
            return False
        with np.errstate(all="ignore"):
            p_values = [
                stats.ttest_ind(half, everybody).pvalue if np.ptp(half) > 0 else math.nan,
                stats.levene(half, everybody).pvalue,
                stats.ks_2samp(half, everybody).pvalue,
            ]
        return any(p <= self.significance for p in p_values)


def _scaled(table: Table) -> Table:
    largest = np.abs(table).max(0)
    scaled: Table = (table / np.where(largest > 0, largest, 1)).round(DIGITS)
    return scaled


def _larger_cluster(points: Table, slack: float) -> Mask:
    """(k,) the larger of two clusters of points in the order of their ids; everybody if all agree."""
    if len(points) < 2 or (same(points, slack) == 0).all():
        return np.ones(len(points), dtype=bool)
    from sklearn.cluster import AgglomerativeClustering  # a slow import

    labels = AgglomerativeClustering(n_clusters=2).fit(points).labels_
    return largest_cluster(np.where(labels == labels[0], 0, 1))
