"""LFighter: clients in the suspicious cluster of the output layer's two most active neurons."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.ties import above, tolerance
from fedguard.geometry.clusters import k_means, same

from ._clusters import around_cut, hdbscan_labels
from ._ranking import by_id, ranks
from .deepsight import output_layer

Table = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Decimals, relative to the largest entry, up to which clients count as identical.
DIGITS = 9


def inverse_density(rows: Table) -> float:
    """The mean over i of the largest angle between rows i and j, in radians; 0 for a single row.

    A zero row is at a right angle to all others.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    angles = 2 * np.arcsin(np.clip(cdist(units, units) / 2, 0, 1))  # accurate for small angles, too
    zero = lengths[:, 0] == 0
    angles[zero] = angles[:, zero] = np.pi / 2
    np.fill_diagonal(angles, 0)
    return float(angles.max(1).mean())


class LFighter(Detector):
    """The cluster with the lower |cl| / n · mean_i max_j ∠(x_i, x_j) is suspected.

    For data "mild": x_i is what client i changed of the weights of the two output neurons with the largest
    Σ_k (‖Δw_k,c‖ + |Δb_k,c|) over all clients k, the presumed source and target class of a label flip.
    k-means makes two clusters; the one that is smaller or denser is suspected. **One of the two always is**,
    whether somebody attacks or not.

    For data "extreme", where each client has a single class: x_i holds the two neurons that client i itself
    changed most, the larger change first. HDBSCAN makes clusters of two or more. Of clusters whose mean
    change is largest at the same neuron, all but the largest cluster are suspected, and so are outliers.

    The score of suspects is above 1; scores grow with the distance to the mean of the accepted clients.

    What was read is silent or contradicts itself, and what FedGuard does: the authors' code gives a client an
    angle of a right angle to itself, so that no cluster is denser than that; the paper's formula, taken here,
    has 0, so that a cluster of one client always loses. The paper does not say whether biases belong to a
    neuron: as in the code, they count for the choice of neurons and not for clusters. With one or two
    outputs, all weights of the layer are compared (code). If all clients agree, nobody is suspected. Among
    equal scores, the cluster without the first client by id is suspected; of equally large clusters at one
    neuron, none is. The paper names no distance for HDBSCAN (here Euclidean, one neighbor for density). Which
    of the two settings applies is not estimated: the paper leaves it to the operator.

    Args:
        data: "mild" for data that are alike or mildly skewed, "extreme" for one class per client.

    Raises:
        ParameterError: a parameter out of range.

    Source: Jebreel et al., arXiv 2207.01982 (2022), Defending against the Label-flipping Attack in Federated
    Learning, Algorithm 1, Procedures 1 and 2. Read: its full text, and the authors' ``aggregation.py``.

    Example:
        >>> import torch
        >>> from fedguard import Round, Server, make_detector
        >>> model = torch.nn.Linear(1, 3, bias=False)
        >>> updates = [[1.0, -1, 0], [1.1, -0.8, 0], [0.8, -1.1, 0], [-1, 1, 0], [-1, 1.01, 0]]
        >>> make_detector("lfighter")(Round(updates, server=Server(model=model))).suspects.tolist()
        [False, False, False, True, True]
    """

    card = Card(
        "lfighter",
        "clusters of the output layer's two most active neurons",
        "Jebreel et al., LFighter, arXiv 2022",
    )
    tasks = frozenset({"classification"})
    needs = frozenset({"model"})

    def __init__(self, data: Literal["mild", "extreme"] = "mild") -> None:
        if data not in ("mild", "extreme"):
            raise ParameterError(f"lfighter: data is {data!r}; use 'mild' or 'extreme'")
        self.data = data

    def score(self, round: Round) -> Scores:
        """Find the two neurons, cluster, and choose the suspicious cluster."""
        weights, sizes = _neurons(round)
        order = by_id(round.client_ids)
        slack = tolerance(round.n, round.updates.d, DIGITS)
        if self.data == "mild":
            points = _chosen(weights, np.tile(_top_two(sizes.sum(0)), (round.n, 1)))
            suspects = np.empty(round.n, dtype=bool)
            suspects[order] = _smaller_or_denser(points[order], slack)
        else:
            points = _chosen(weights, np.stack([_top_two(row) for row in sizes]))
            labels = hdbscan_labels(cdist(points, points), 2, round.client_ids, slack)
            suspects = _rivals(weights, labels)
        accepted = points[~suspects] if not suspects.all() else points
        away = np.linalg.norm(points - accepted.mean(0), axis=1).round(DIGITS)
        return Scores(
            around_cut(away, suspects),
            suspects,
            "in the suspicious cluster of the output layer's two most active neurons",
        )


def _neurons(round: Round) -> tuple[Table, Table]:
    """(n, outputs, inputs) changes of the weights, (n, outputs) sizes of the changes; largest size 1."""
    if round.server is None or round.server.model is None:
        raise NeedError("lfighter needs model: give the round a Server(model=…)")
    weight, bias, outputs = output_layer(round.server.model, round.updates.d, "lfighter")
    columns = torch.arange(round.updates.d)
    rows = round.updates.columns(columns[weight]).double().cpu().view(round.n, outputs, -1)
    sizes = rows.norm(dim=2)
    if bias is not None:
        sizes = sizes + round.updates.columns(columns[bias]).double().cpu().abs()
    scale = sizes.max().clamp(min=torch.finfo(torch.float64).tiny)
    return (rows / scale).numpy(), (sizes / scale).numpy()


def _top_two(sizes: Table) -> NDArray[np.intp]:
    """The positions of the two largest sizes, the largest first; all positions if there are at most two."""
    rank = ranks(sizes.round(DIGITS), range(len(sizes)))
    return np.argsort(rank)[::-1][:2]


def _chosen(weights: Table, neurons: NDArray[np.intp]) -> Table:
    """(n, 2 · inputs) each client's weights of its neurons, rounded."""
    if weights.shape[1] > 2:
        weights = np.take_along_axis(weights, neurons[:, :, None], axis=1)
    rounded: Table = weights.reshape(len(weights), -1).round(DIGITS)
    return rounded


def _smaller_or_denser(points: Table, slack: float) -> Mask:
    """(n,) True in one of two clusters of points in the order of their ids."""
    if (same(points, slack) == 0).all():
        return np.zeros(len(points), dtype=bool)
    labels = k_means(points, 2).labels_
    first = labels == labels[0]
    mine, theirs = (part.mean() * inverse_density(points[part]) for part in (first, ~first))
    suspects: Mask = first if above(theirs, mine, slack, scale=1.0) else ~first
    return suspects


def _rivals(weights: Table, labels: NDArray[np.intp]) -> Mask:
    """(n,) outliers, and clusters that share their most active neuron with a larger cluster."""
    suspects = labels < 0
    names = [label for label in np.unique(labels) if label >= 0]
    count = {label: int((labels == label).sum()) for label in names}
    peak = {
        label: int(np.linalg.norm(weights[labels == label].mean(0), axis=1).round(DIGITS).argmax())
        for label in names
    }
    for label in names:
        if any(peak[other] == peak[label] and count[other] > count[label] for other in names):
            suspects |= labels == label
    return suspects
