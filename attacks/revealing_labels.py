"""Revealing labels: the set of a client's labels, from the last layer's gradient alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.passive import Leak, PassiveAttack, Reconstruction

from ._matching import last_linear


class RevealingLabels(PassiveAttack):
    """Label c is present if some vector of the column space of ∇W is negative at c and positive elsewhere.

    ∇W = Gᵀ X for the last linear layer, with one row of G = p_i − onehot(y_i) per sample: negative at y_i
    and positive elsewhere. The rows of G lie in the column space of ∇W (classes × features) if the S
    samples' features are linearly independent. A linear program decides whether such a vector exists for c.
    The attack finds the set of labels, not their counts. It cannot distinguish labels if the rank reaches the
    number of classes minus one.

    Args:
        tolerance: singular values below this share of the largest count as zero.

    Raises:
        ParameterError: a tolerance outside (0, 1), or a model that does not end in a linear layer.

    Source: Dang et al., NeurIPS 2021, §3 (RLG).
    """

    card = Card(
        "revealing_labels",
        "the set of labels from the last layer's gradient",
        "Dang et al., Revealing and Protecting Labels, NeurIPS 2021",
    )

    def __init__(self, tolerance: float = 1e-4) -> None:
        if not 0 < tolerance < 1:
            raise ParameterError(f"revealing_labels: tolerance is {tolerance}; use a share in (0, 1)")
        self.tolerance = tolerance

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Any inputs will do, as it finds labels only."""

    def reconstruct(self, leak: Leak) -> Reconstruction:
        """The labels that the gradient admits, each once."""
        weight, _ = last_linear(leak, self.name)
        vectors, values, _ = np.linalg.svd(weight.double().numpy(), full_matrices=False)
        basis = vectors[:, values > self.tolerance * values[0]] if values[0] > 0 else vectors[:, :0]
        found = [c for c in range(leak.num_classes) if separable(basis, c)]
        return Reconstruction(None, torch.tensor(found, dtype=torch.int64))


def separable(basis: NDArray[np.float64], c: int) -> bool:
    """Whether some combination z of the columns has (basis z)_c ≤ −1 and (basis z)_j ≥ 0 for all j ≠ c."""
    classes, rank = basis.shape
    if rank == 0:
        return False
    sign = -np.ones((classes, 1))
    sign[c] = 1
    limits = np.zeros(classes)
    limits[c] = -1
    answer = linprog(np.zeros(rank), A_ub=sign * basis, b_ub=limits, bounds=(None, None), method="highs")
    return bool(answer.status == 0)
