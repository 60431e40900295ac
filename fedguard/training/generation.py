"""Generative adversarial networks: the loss of both networks in one number, and the Fréchet distance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

#: The numbers that a generative model gives for each sample.
OUTPUTS = 3


def gan(outputs: Tensor, labels: Tensor) -> Tensor:
    """log(1 + e^(−r)) + log(1 + e^f) + log(1 + e^(−g)), mean over the samples.

    The first two are the discriminator's loss, the third the generator's (the one that does not saturate).
    r is the discriminator's logit of a sample, f that of a generated one without a gradient for the
    generator, g the same number without a gradient for the discriminator. So one gradient of this number is
    both networks' gradients, at the same parameters.

    Args:
        outputs: (N, 3) r, f and g of each sample.
        labels: not used.

    Source: Goodfellow et al., NeurIPS 2014, §3; both at once as in Rasouli et al., FedGAN, 2020, Algorithm 1.
    """
    real, fake, fooled = outputs.unbind(1)
    return (F.softplus(-real) + F.softplus(fake) + F.softplus(-fooled)).mean()


class Moments(NamedTuple):
    """Mean (k,) and covariance (k, k) of features, in float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Those of (n, k) features; the covariance is divided by n − 1."""
        return cls(features.double().mean(0), features.double().T.cov())


def frechet_distance(one: Moments, other: Moments) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½), NaN for moments that are not finite.

    Source: Dowson and Landau, 1982; as a score of generators: Heusel et al., NeurIPS 2017.
    """
    if not all(part.isfinite().all() for part in (*one, *other)):
        return float("nan")
    values, vectors = torch.linalg.eigh(one.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (one.mean - other.mean).square().sum()
    found = apart + one.covariance.trace() + other.covariance.trace() - 2 * both
    return max(0.0, float(found))  # rounding may leave it below
