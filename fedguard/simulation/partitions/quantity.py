"""Clients with different numbers of samples."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from .base import MAX_DRAWS, Partition, checked_size, cut_points


def quantity(
    labels: ArrayLike,
    n: int,
    rng: np.random.Generator,
    distribution: Literal["lognormal", "dirichlet"] = "dirichlet",
    beta: float = 0.5,
    sigma: float = 1.0,
    min_examples: int = 1,
) -> Partition:
    """q ~ Dir(β·1_n), or q_i ∝ exp(σ z_i) with z_i ~ N(0, 1): client i gets q_i N random samples.

    The labels play no part: each client's are a random sample of all. The sizes are drawn again until every
    client has ``min_examples`` samples.

    Args:
        labels: (N,) or (N, …) labels of any kind.
        n: clients.
        rng: the only source of randomness.
        distribution: "dirichlet" or "lognormal".
        beta: β of dirichlet; the smaller it is, the more the sizes differ.
        sigma: σ of lognormal; the larger it is, the more the sizes differ. 0 means equal sizes.
        min_examples: the least number of samples per client.

    Raises:
        ParameterError: out of range, or none of 1000 draws gives every client enough samples.

    Source: Li et al., Federated Learning on Non-IID Data Silos: An Experimental Study, ICDE 2022,
    "quantity skew" (dirichlet, β = 0.5); Acar et al., Federated Learning Based on Dynamic
    Regularization, ICLR 2021 (lognormal).
    """
    size = checked_size(labels, n)
    if not (beta > 0 and math.isfinite(beta)):
        raise ParameterError(f"partition quantity: beta is {beta}; use a positive number, say 0.5")
    if not 0 <= sigma <= 10:
        raise ParameterError(f"partition quantity: sigma is {sigma}; use 0 … 10, say 1")
    if min_examples < 1 or min_examples * n > size:
        raise ParameterError(
            f"partition quantity: min_examples is {min_examples}; with {size} samples for {n} clients it "
            f"lies in 1 … {size // n}. Lower it, or the number of clients"
        )
    for _ in range(MAX_DRAWS):
        if distribution == "dirichlet":
            shares = rng.dirichlet(np.full(n, beta))
        else:
            shares = np.exp(sigma * rng.standard_normal(n))
            shares /= shares.sum()
        cuts = cut_points(size, shares)
        if np.diff(cuts, prepend=0, append=size).min() >= min_examples:
            return [np.sort(part) for part in np.split(rng.permutation(size), cuts)]
    knob = f"raise beta ({beta:g})" if distribution == "dirichlet" else f"lower sigma ({sigma:g})"
    raise ParameterError(
        f"partition quantity: in {MAX_DRAWS} draws never had all {n} clients at least {min_examples} of the "
        f"{size} samples; {knob}, min_examples or the number of clients"
    )
