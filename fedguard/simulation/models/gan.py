"""A generative adversarial network: generator and discriminator in one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...core.errors import ParameterError
from .base import Shape


class Gan(nn.Module):
    """G(z) and D(x), fully connected, z ~ N(0, I); an update is that of both, the generator's first.

    A pass over a batch x draws one z per sample and gives what the loss ``gan`` takes: D(x), D(G(z)) without
    a gradient for G, and D(G(z)) without a gradient for D. Training draws z from torch's global generator;
    evaluation takes the same ones each time.

    A class of your own is trained and scored likewise if it sets ``generative = True``, has such passes, and
    has ``latent`` and ``generate``.

    Source: Goodfellow et al., NeurIPS 2014; in a federation Rasouli et al., FedGAN, 2020.

    Args:
        input_shape: the shape of one input.
        latent: the number of coordinates of z.
        hidden: the widths of the hidden layers of G; those of D are the same in reverse.

    Raises:
        ParameterError: a width below 1.
    """

    #: The suite's task is then "generative": labels are not used, and generated samples are scored.
    generative = True

    def __init__(self, input_shape: Shape, latent: int = 16, hidden: Sequence[int] = (128,)) -> None:
        if not hidden or min(latent, *hidden) < 1:
            raise ParameterError(f"model gan: latent is {latent}, hidden is {list(hidden)}; use at least 1")
        super().__init__()
        self.latent = latent
        self.input_shape = tuple(input_shape)
        size = math.prod(input_shape)
        self.generator = _layers([latent, *hidden, size])
        self.discriminator = nn.Sequential(nn.Flatten(), _layers([size, *reversed(hidden), 1]))

    def generate(self, noise: Tensor) -> Tensor:
        """(N, latent) → (N, *input_shape) inputs as the data are normalized."""
        made: Tensor = self.generator(noise)
        return made.view(-1, *self.input_shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, *input_shape) → (N, 3)."""
        fake = self.generate(self._noise(inputs))
        held = {name: part.detach() for name, part in self.discriminator.named_parameters()}
        fooled = torch.func.functional_call(self.discriminator, held, (fake,))
        return torch.cat([self.discriminator(inputs), self.discriminator(fake.detach()), fooled], 1)

    def _noise(self, inputs: Tensor) -> Tensor:
        shape = len(inputs), self.latent
        if self.training:
            return torch.randn(shape, dtype=inputs.dtype, device=inputs.device)
        draw = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=draw, dtype=inputs.dtype).to(inputs.device)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    pairs = list(pairwise(widths))
    layers: list[nn.Module] = []
    for before, after in pairs[:-1]:
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(*pairs[-1]))
