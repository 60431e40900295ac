"""FLTracer's local anomaly detection: clients far out in signs, in ranks, or in the output layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.ties import above, tolerance
from fedguard.geometry.eigen import top_eigenvector
from fedguard.geometry.updates import Updates

from .deepsight import output_layer
from .dnc import _chosen

Table = NDArray[np.float64]
#: The most coordinates from which signs and ranks are taken.
COORDINATES = 100_000
#: Decimals of projections, relative to a vector of length 1, up to which clients count as equal.
DIGITS = 9
#: Spread below this share of the squared norms is the rounding error of the mean.
ROUNDING = 1e-24
#: Φ⁻¹(¾): the median absolute deviation of a standard normal distribution.
QUARTILE = float(ndtri(0.75))


def robust_deviations(features: Tensor) -> Table:
    """(n,) 0.6745 · |p_i − median p| / MAD(p), p the projections on the first principal component.

    0 where a client is at the median, +Inf where others are if more than half of the clients are there.
    """
    updates = Updates(features.float())
    gram = updates.centered_gram
    if not gram.diagonal().sum() > ROUNDING * updates.norms.square().sum():
        return np.zeros(len(features))
    # C Cᵀ a = λ a, and the projections are √λ a: their deviations in units of the MAD are those of a
    places = top_eigenvector(gram).cpu().numpy().round(DIGITS)
    away = np.abs(places - np.median(places))
    away[away < 2 * 10.0**-DIGITS] = 0  # half a unit of rounding on either side
    mad = float(np.median(away))
    with np.errstate(divide="ignore"):
        deviations: Table = np.divide(QUARTILE * away, mad, out=np.zeros_like(away), where=away > 0)
    return deviations


class FLTracer(Detector):
    """max(z(sign) / λ_sign, z(rank) / λ_rank, z(output) / λ_output); above 1 is a suspect.

    z(F)_i = 0.6745 · |p_i − median p| / median |p − median p|, where p are the clients' projections on the
    first principal component of a feature: the signs of an update's entries, the ranks of its entries among
    the clients' (1 to n per coordinate), and the output layer's weights and biases. Above 100,000 parameters,
    signs and ranks come from 100,000 coordinates drawn anew in each round.

    This is the first of FLTracer's three parts. The other two are not here: task detection needs the
    convolution kernels of a ResNet, VGG or ViT, and domain detection (the Kalman filter) needs several rounds
    of the same clients *in an attack-free federation*, on which an estimator per client is trained. So this
    part sees no slow changes from round to round.

    What was read is silent or contradicts itself, and what FedGuard does: the code takes p with its sign for
    signs and ranks, and by size for the output layer; the sign of a principal component is arbitrary, so the
    size counts everywhere. Its ranks of equal entries depend on the order of the clients; here they share
    their mean rank. If more than half of the clients are at the median, anybody elsewhere is a suspect. The
    limits differ between the authors' experiments (2 to 10); the defaults of their program are taken.

    Args:
        lambda_sign: λ_sign; 3.
        lambda_rank: λ_rank; 3.
        lambda_output: λ_output; 2.5.

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhang et al., FLTracer, IEEE TIFS 2024. Read: the authors' README, ``local_anomaly_detecion.py``,
    ``task_detecion.py``, ``domain_detecion.py``, ``utils.py`` and ``parameters.py``; not the paper.

    Example:
        >>> import numpy as np, torch
        >>> from fedguard import Round, Server, make_detector
        >>> updates = np.random.default_rng(0).normal(size=(9, 60)) + 2
        >>> updates[4] *= -1
        >>> server = Server(model=torch.nn.Linear(20, 3, bias=False))
        >>> bool(make_detector("fltracer")(Round(updates, server=server)).suspects[4])
        True
    """

    card = Card(
        "fltracer",
        "signs, ranks and output layer on their principal components",
        "Zhang et al., FLTracer, IEEE TIFS 2024",
    )
    plant = "backwards"  # signs and ranks do not see lengths
    needs = frozenset({"model"})

    def __init__(
        self, lambda_sign: float = 3.0, lambda_rank: float = 3.0, lambda_output: float = 2.5
    ) -> None:
        limits = {"lambda_sign": lambda_sign, "lambda_rank": lambda_rank, "lambda_output": lambda_output}
        for name, value in limits.items():
            if not (math.isfinite(value) and value > 0):
                raise ParameterError(f"fltracer: {name} is {value}; use a number above 0, say 3")
        self.lambda_sign = lambda_sign
        self.lambda_rank = lambda_rank
        self.lambda_output = lambda_output

    def score(self, round: Round) -> Scores:
        """The largest deviation of the three features."""
        sample = _sample(round)
        limits = (self.lambda_sign, self.lambda_rank, self.lambda_output)
        features = (sample.sign(), _ranks(sample), _output(round))
        shares = np.stack(
            [robust_deviations(part) / limit for part, limit in zip(features, limits, strict=True)]
        )
        values = shares.max(0)
        names = ("signs", "ranks", "output layer")
        return Scores(
            values,
            above(values, 1.0, tolerance(round.n, sample.shape[1], DIGITS)),
            "far from the median in its signs, ranks or output layer",
            reasons=tuple(f"far from the median in its {names[i]}" for i in shares.argmax(0)),
        )


def _sample(round: Round) -> Tensor:
    """(n, min(d, 100,000)) the coordinates from which signs and ranks are taken."""
    d = round.updates.d
    if d <= COORDINATES:
        return round.updates.matrix.cpu()
    draw = (round.server or Server()).generator("fltracer", round.index)
    return round.updates.columns(_chosen(d, COORDINATES, draw)).cpu()


def _ranks(sample: Tensor) -> Tensor:
    """(n, k) the rank of each entry in its column, from 1; equal entries share their mean rank."""
    from scipy.stats import rankdata  # a slow import

    return torch.from_numpy(rankdata(sample.numpy(), axis=0))


def _output(round: Round) -> Tensor:
    """(n, k) the output layer's weights and biases."""
    if round.server is None or round.server.model is None:
        raise NeedError("fltracer needs model: give the round a Server(model=…)")
    weight, bias, _ = output_layer(round.server.model, round.updates.d, "fltracer")
    places = torch.arange(round.updates.d)
    parts = [places[weight]] if bias is None else [places[weight], places[bias]]
    return round.updates.columns(torch.cat(parts)).cpu()
