"""Attacks to plant in the updates of the small federation; each returns the malicious positions."""

from __future__ import annotations

import torch
from torch import Tensor


def wild(matrix: Tensor) -> list[int]:
    """Client 2 sends noise a thousand times as long as the others' updates."""
    noise = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(3))
    matrix[2] = 1000 * matrix.norm(dim=1).mean() * noise / noise.norm()
    return [2]


def sybils(matrix: Tensor) -> list[int]:
    """Clients 2, 4 and 5 send the same update, no longer than the others'."""
    noise = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(3))
    matrix[[2, 4, 5]] = matrix.norm(dim=1).mean() * noise / noise.norm()
    return [2, 4, 5]


def backwards(matrix: Tensor) -> list[int]:
    """Client 2 sends the negated and magnified mean of the others."""
    matrix[2] = -1000 * matrix[[0, 1, 3, 4, 5, 6, 7]].mean(0)
    return [2]


def one_output(matrix: Tensor) -> list[int]:
    """Client 2 changes only one output neuron, as if all its data had one label."""
    matrix[2, -130:] = 0  # the last layer: 10 x 12 weights and 10 biases
    matrix[2, -130:-118] = matrix[2, -10] = 1.0
    return [2]


#: The allowed values of ``Detector.plant``.
PLANTS = {"wild": wild, "sybils": sybils, "backwards": backwards, "one_output": one_output}
