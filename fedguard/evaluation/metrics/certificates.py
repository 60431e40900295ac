"""CRFL's certificate: how large a backdoor may be without changing a smoothed prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParameterError

Bound = Literal["hoeffding", "clopper_pearson"]

#: The label of a sample on which the smoothed model abstains.
ABSTAINS = -1


def vote_bounds(
    votes: Any, alpha: float = 0.001, bound: Bound = "hoeffding"
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The most frequent label of each sample, p_A from below and the runner-up's p_B from above.

    "hoeffding" is the paper's: p̂ ∓ √(ln(1/α) / 2M) for M votes. "clopper_pearson" is the exact binomial
    bound, which is never looser. Each holds with probability 1 − α, both of a sample with at least 1 − 2α.

    Args:
        votes: (n, classes) how many of M noisy models predict each label, see
            :func:`fedguard.training.smoothing.smoothed_votes`.
        alpha: α.
        bound: the kind of bound.

    Returns:
        (n,) labels, (n,) p_A and (n,) p_B, both in [0, 1].

    Raises:
        ParameterError: not counts, or a parameter out of range.

    Source: Xie et al., CRFL, ICML 2021, Algorithm 2.
    """
    counts = np.asarray(votes, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] < 2 or (counts < 0).any() or (counts != counts.round()).any():
        raise ParameterError("votes must be (samples, classes) counts of at least two classes")
    total = counts.sum(1)
    if (total < 1).any():
        raise ParameterError("votes: a sample without any vote has no prediction")
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha is {alpha}; use a probability in (0, 1)")
    order = np.argsort(-counts, axis=1, kind="stable")[:, :2]
    first, second = np.take_along_axis(counts, order, 1).T
    if bound == "hoeffding":
        slack = np.sqrt(math.log(1 / alpha) / (2 * total))
        lower, upper = first / total - slack, second / total + slack
    elif bound == "clopper_pearson":
        from scipy.special import betaincinv  # a slow import

        lower = betaincinv(np.maximum(first, 1), total - first + 1, alpha)
        rest = np.maximum(total - second, 1)
        upper = np.where(second == total, 1.0, betaincinv(second + 1, rest, 1 - alpha))
    else:
        raise ParameterError(f"bound is {bound!r}; use 'hoeffding' or 'clopper_pearson'")
    return order[:, 0], np.clip(lower, 0, 1), np.clip(upper, 0, 1)


def certified_radius(
    votes: Any,
    *,
    influence: Sequence[float],
    noise: float,
    smoothness: float,
    later: Sequence[tuple[float, float]] = (),
    alpha: float = 0.001,
    bound: Bound = "hoeffding",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The smoothed predictions, and the norm up to which a backdoor pattern provably changes none of them.

    RAD² = −ln(1 − (√p_A − √p_B)²) σ² / (2 R L² Σ_i (p_i γ_i τ_i η_i q_i / n_i)² Π_t (2 Φ(ρ_t/σ_t) − 1)).

    If all R attackers add a pattern of Euclidean norm below RAD to their poisoned samples in one round, what
    results from training with the stage "crfl" predicts the same. It assumes what the theorem assumes: a
    loss whose gradient is L-Lipschitz in the sample, plain averaging, attackers that train as told.

    Args:
        votes: (n, classes) of the final model, clipped, under the noise of the last round.
        influence: (R,) p_i γ_i τ_i η_i q_i / n_i of each attacker: its weight in the mean, the factor on its
            update, its local steps, their learning rate, and the share of a batch that it poisons.
        noise: σ of the round with the attack.
        smoothness: L; √(2 + 2ρ + ρ²) for logistic regression with parameters of norm ρ.
        later: (ρ_t, σ_t) of every round after it; of the last one, the ρ and σ that the votes were cast with.
        alpha: see :func:`vote_bounds`.
        bound: likewise.

    Returns:
        (n,) labels, −1 where the model abstains (p_A ≤ p_B); (n,) radii, 0 where it does.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xie et al., CRFL, ICML 2021; formula and constants as in the authors' certify_mnist.py.
    """
    terms, pairs = np.asarray(influence, dtype=np.float64), np.asarray(later, dtype=np.float64).reshape(-1, 2)
    positive: dict[str, Any] = {"influence": terms, "noise": noise, "smoothness": smoothness, "later": pairs}
    for name, value in positive.items():
        if not (np.isfinite(value).all() and (np.asarray(value) > 0).all()):
            raise ParameterError(f"{name} is {value}; use finite numbers above 0")
    if len(terms) < 1:
        raise ParameterError("influence is empty; give one number per attacker")
    from scipy.special import ndtr  # a slow import

    labels, high, low = vote_bounds(votes, alpha, bound)
    sure = high > low
    gap = np.where(sure, (np.sqrt(high) - np.sqrt(low)) ** 2, 0.0)
    kept = np.prod(2 * ndtr(pairs[:, 0] / pairs[:, 1]) - 1)
    with np.errstate(divide="ignore"):  # p_A = 1 and p_B = 0: no backdoor changes it
        gain = -np.log1p(-gap) * noise**2
    radii = np.sqrt(gain / (2 * len(terms) * smoothness**2 * (terms**2).sum() * kept))
    return np.where(sure, labels, ABSTAINS), radii
