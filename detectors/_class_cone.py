"""How much of an update some mix of correctly labeled classes explains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.geometry.updates import Updates

from ._generators import right_gradients

#: Eigenvalues below this share of the largest are rounding errors.
LEAST_EIGENVALUE = 1e-9


def unexplained(
    round: Round, model: torch.nn.Module, start: Tensor, data: LabeledData
) -> NDArray[np.float64] | None:
    """(n,) −cos(u_i, {Σ_c a_c g_c : a ≥ 0}), g_c = −∇L_c(w), L_c the mean cross-entropy on class c.

    A client that trains on correct labels moves along some mix of the class gradients with weights a ≥ 0,
    whichever classes it has. A client that trains on wrong labels or reverses its update does not.
    Non-negative least squares find the nearest point of the cone. A zero update gets 0. Returns None if a
    label has no sample, since a client might have only that class, or if a gradient is not finite.
    """
    directions = right_gradients(model, start, data)
    if directions is None or not torch.isfinite(directions).all():
        return None
    lengths = directions.double().norm(dim=1)
    directions = directions[lengths > 0] / lengths[lengths > 0, None].float()
    updates = round.updates
    if len(directions) == 0:
        return np.zeros(round.n)
    gram = Updates(directions).inner_products.cpu().numpy()
    along = torch.stack([updates.along(direction) for direction in directions], dim=1).cpu().numpy()
    norms = updates.norms.cpu().numpy()
    scaled = np.divide(along, norms[:, None], out=np.zeros_like(along), where=norms[:, None] > 0)
    return -cone_cosines(gram, scaled)


def cone_cosines(gram: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) the lengths of the projections of unit vectors onto a cone, see :func:`nearest_in_cone`."""
    return nearest_in_cone(gram, along)[0]


def nearest_in_cone(
    gram: NDArray[np.float64], along: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project unit vectors onto a cone: (n,) the lengths of the projections, (n, C) their weights a ≥ 0.

    Args:
        gram: (C, C) ⟨g_b, g_c⟩ of the cone's directions.
        along: (n, C) ⟨u_i, g_c⟩.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > LEAST_EIGENVALUE * values[-1]
    roots = np.sqrt(values[kept])
    factor = roots[:, None] * vectors[:, kept].T  # gram = factorᵀ factor
    targets = along @ vectors[:, kept] / roots
    nearest = np.array([nnls(factor, target, maxiter=100 * len(gram))[0] for target in targets])
    return np.minimum(np.linalg.norm(nearest @ factor.T, axis=1), 1.0), nearest
