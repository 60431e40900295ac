"""DeepSight: clusters clients by what their output layers reveal about the training data."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import NeedError, ParameterError, RoundError
from fedguard.core.threads import single_thread
from fedguard.core.ties import above, tolerance
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import fitting, predict

from ._clusters import around_cut, hdbscan_labels


def output_layer(model: nn.Module, d: int, method: str = "deepsight") -> tuple[slice, slice | None, int]:
    """The slices of the last linear layer's weight and bias in a flat vector, and its number of outputs.

    Args:
        model: the model.
        d: the number of parameters of an update.
        method: who asks, for messages.

    Raises:
        NeedError: the model has no linear layer.
        RoundError: the model does not have d parameters.
    """
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise NeedError(f"{method} needs a model with a linear output layer")
    try:
        named = fitting(model, d)
    except RoundError as error:
        raise RoundError(f"the updates have {d} parameters, but the model has others: {error}") from None
    places, start = {}, 0
    for name, parameter in named.items():
        places[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    prefix = f"{linear[-1]}." if linear[-1] else ""
    if f"{prefix}weight" not in places:
        raise NeedError(f"{method} needs a model whose linear output layer is trained; it is frozen")
    layer = dict(model.named_modules())[linear[-1]]
    outputs = int(layer.out_features)
    return places[f"{prefix}weight"], places.get(f"{prefix}bias"), outputs


class DeepSight(Detector):
    """Reject clusters of clients with similar training data in which a share τ or more look poisoned.

    The energy of output neuron c is |Δb_c| + Σ_h |Δw_ch|; its square, normalized over c, is the NEUP. A
    client's count is the number of its NEUPs above max(0.01, 1/C) times its largest NEUP. The client looks
    poisoned, trained on too uniform data, if its count is at most half of the median count.

    HDBSCAN clusters clients by each of three distances: cosine of the bias updates, NEUPs, and DDifs (mean
    ratio of the local to the global model's outputs on random inputs, for several seeds). The share of these
    clusterings that separate two clients (DDifs count once, as the mean over seeds) is the distance for a
    last HDBSCAN. A cluster in which the share of poisoned-looking clients is at least τ is rejected; an
    outlier is a cluster of its own. The score of suspects is above 1; scores fall with the count. Without a
    bias, the row sums of the weight replace it.

    Args:
        tau: τ, in (0, 1]; ⅓ in the paper.
        seeds: DDif seeds; 3.
        samples: random inputs per seed; 20,000 in the paper.

    Raises:
        ParameterError: a parameter out of range.

    Source: Rieger et al., DeepSight, NDSS 2022, §IV and Algorithm 1.
    """

    card = Card(
        "deepsight",
        "clusters by output layer, rejected if they look poisoned",
        "Rieger et al., DeepSight, NDSS 2022",
    )
    tasks = frozenset({"classification"})
    makes_inputs = True
    plant = "one_output"
    needs = frozenset({"model", "global_params"})
    check_with = MappingProxyType({"samples": 200})

    def __init__(self, tau: float = 1 / 3, seeds: int = 3, samples: int = 20_000) -> None:
        if not 0 < tau <= 1:
            raise ParameterError(f"deepsight: tau is {tau}; use a share in (0, 1]")
        for name, value in (("seeds", seeds), ("samples", samples)):
            if value < 1:
                raise ParameterError(f"deepsight: {name} is {value}; use at least 1")
        self.tau = tau
        self.seeds = seeds
        self.samples = samples

    def score(self, round: Round) -> Scores:
        """Cluster three ways, combine the clusters, and reject those that look poisoned."""
        server = round.server
        if server is None or server.model is None or round.global_params is None:
            raise NeedError("deepsight needs model and global_params")
        if server.input_shape is None:
            raise NeedError("deepsight needs Server(input_shape=…) for its random inputs")
        weight, bias, outputs = output_layer(server.model, round.updates.d)
        matrix = round.updates.matrix.double().cpu()
        rows = matrix[:, weight].view(round.n, outputs, -1)
        shift = rows.sum(2) if bias is None else matrix[:, bias]
        neups = normalized_energies(rows, None if bias is None else shift)
        slack = tolerance(round.n, round.updates.d)
        limit = max(0.01, 1 / outputs) * neups.max(1, keepdims=True)
        exceeding = above(neups, limit, slack).sum(1)
        poisoned = exceeding <= np.median(exceeding) / 2
        distance = self._combined(round, shift, neups)
        labels = hdbscan_labels(distance, 2, round.client_ids, slack)
        suspects = poisoned.copy()  # an outlier is a cluster of its own
        for label in np.unique(labels[labels >= 0]):
            members = labels == label
            suspects[members] = not above(self.tau, poisoned[members].mean(), slack)
        fewest = outputs - exceeding.astype(np.float64)
        return Scores(
            around_cut(fewest, suspects),
            suspects,
            "in a cluster of updates from suspiciously uniform data",
            info={"poisoned_looking": float(poisoned.sum())},
        )

    def _combined(self, round: Round, shift: Tensor, neups: NDArray[np.float64]) -> NDArray[np.float64]:
        angles = 1 - Updates(shift.float()).cosines.numpy()
        np.fill_diagonal(angles, 0)
        ids, size = round.client_ids, max(2, round.n // 2 + 1)
        slack = tolerance(round.n, round.updates.d)

        def apart(table: NDArray[np.float64]) -> NDArray[np.float64]:
            return _apart(hdbscan_labels(_clean(table), size, ids, slack, scale=1.0))

        parts = [apart(table) for table in (angles, _euclidean(neups))]
        ratios = [apart(_euclidean(table)) for table in self._ratios(round)]
        combined: NDArray[np.float64] = np.mean([*parts, np.mean(ratios, axis=0)], axis=0)
        return combined

    def _ratios(self, round: Round) -> list[NDArray[np.float64]]:
        """Per seed, (n, classes) mean ratio of local to global probabilities on random inputs."""
        server = round.server or Server()
        model, start = server.model, round.global_params
        if model is None or start is None:
            raise NeedError("deepsight needs model and global_params")
        found = []
        with single_thread():
            for seed in range(self.seeds):
                draw = server.generator("deepsight", round.index, seed)
                inputs = torch.rand((self.samples, *(server.input_shape or ())), generator=draw)
                base = predict(model, start, inputs).log_softmax(1)
                rows = [
                    _mean_ratio(predict(model, start + update, inputs).log_softmax(1), base)
                    for update in round.updates.matrix
                ]
                found.append(torch.stack(rows).cpu().numpy())
        return found


def normalized_energies(rows: Tensor, bias: Tensor | None) -> NDArray[np.float64]:
    """(n, outputs) squared energies of the output neurons as shares of their sum; uniform if all are zero."""
    energy = rows.abs().sum(2) + (0 if bias is None else bias.abs())
    square = (energy / energy.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)).square()
    total = square.sum(1, keepdim=True)
    shares = torch.where(total > 0, square / total, 1 / square.shape[1])
    table: NDArray[np.float64] = shares.numpy()
    return table


def _mean_ratio(local: Tensor, base: Tensor) -> Tensor:
    """(classes,) mean over inputs of p_local / p_global; NaN counts as 0."""
    return (local - base).double().clamp(max=50).exp().nan_to_num(0.0).mean(0)


def _euclidean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = table / max(float(np.abs(table).max()), np.finfo(float).tiny)
    distances: NDArray[np.float64] = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    return distances


def _clean(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set distances within rounding of 0 to 0, so that identical updates cluster together."""
    cleaned: NDArray[np.float64] = np.where(distances < 1e-9, 0.0, distances)
    return cleaned


def _apart(labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n, n) 0 where two clients are in the same cluster, otherwise 1; outliers are on their own."""
    same = (labels[:, None] == labels[None]) & (labels[:, None] >= 0)
    np.fill_diagonal(same, True)
    different: NDArray[np.float64] = (~same).astype(np.float64)
    return different
