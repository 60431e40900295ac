"""IBA: a network that makes an imperceptible trigger for every image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.card import Card
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError
from fedguard.core.state import State

from ._backdoor import Backdoor
from ._checks import require_positive
from ._descent import device_of, shuffled

#: Channels between the convolutions of the network.
WIDTH = 16


class IBA(Backdoor):
    """T(x) = clip(x + ε g(x), 0, 1) with a network g: images → [−1, 1], trained in every round.

    The first malicious client of a round trains g on its own samples to minimize ℓ(θ; T(x), ỹ), θ the global
    model and ỹ the target; all malicious clients then train on replicas T(x). No pixel changes by more than
    ε. g continues from round to round. Success is measured with the latest g, at ``test_epsilon``.

    g has three convolutions, of 16, 16 and as many channels as the image, then tanh. The authors take an
    autoencoder for 28 × 28 (MNIST) or a U-Net (CIFAR-10), Adam as here, and let ε decay to the one of the
    test; their partial poisoning of parameters is not here. Their ε is in units of normalized pixels, which
    are about half as large as pixels for MNIST.

    Args:
        target: the label that the trigger should cause.
        fraction: |R| / |D|, in (0, 1].
        epsilon: ε in training, in pixel values; 0.3.
        test_epsilon: ε when success is measured; None takes that of training. 0.05 in the authors' script.
        epochs: passes of g over the data per round; 3.
        lr: its learning rate; 0.001.
        scale: factor on the update.

    Raises:
        ParameterError: a parameter out of range.

    Source: Nguyen et al., IBA, NeurIPS 2023, from the authors' repository (sail-research/iba,
    lira_helper.py, autoencoders.py and iba_mnist_fedavg.sh); the paper itself was not read.
    """

    card = Card(
        "iba",
        "a network makes an imperceptible trigger for every image",
        "Nguyen et al., IBA: Towards Irreversible Backdoor Attacks, NeurIPS 2023",
    )
    check_with = MappingProxyType({"epochs": 1})

    def __init__(
        self,
        target: int = 0,
        fraction: float = 1.0,
        epsilon: float = 0.3,
        test_epsilon: float | None = None,
        epochs: int = 3,
        lr: float = 0.001,
        scale: float = 1.0,
    ) -> None:
        super().__init__(target, scale, fraction)
        for name, value in (("epsilon", epsilon), ("test_epsilon", test_epsilon)):
            if value is not None and not 0 < value <= 1:
                raise ParameterError(f"iba: {name} is {value}; use a share of the pixel range in (0, 1]")
        if epochs < 1:
            raise ParameterError(f"iba: epochs is {epochs}; use at least 1")
        require_positive("iba", "lr", lr)
        self.epsilon = epsilon
        self.test_epsilon = test_epsilon
        self.epochs = epochs
        self.lr = lr
        #: The parameters of g; None before the first attacked round, when they are drawn from a fixed seed.
        self.weights: dict[str, Tensor] | None = None

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """T(x), with the ε of the test for the whole trigger (None)."""
        network = {name: part.to(pixels) for name, part in self._network(pixels.shape[-3]).items()}
        test = self.epsilon if self.test_epsilon is None else self.test_epsilon
        return _stamped(pixels, network, test if rank is None else self.epsilon)

    def extent(self) -> tuple[int, int]:
        """Any image will do."""
        return 1, 1

    def prepare(self, view: LocalView) -> None:
        """Train g against the global model."""
        from torch.optim import Adam  # its import takes a second

        model, device = view.model.eval(), device_of(view.model)
        pixels = view.samples.pixels.to(device)
        network = {
            name: part.to(device, copy=True).requires_grad_()
            for name, part in self._network(pixels.shape[1]).items()
        }
        steps = Adam(network.values(), lr=self.lr)
        for _ in range(self.epochs):
            for batch in shuffled(len(pixels), view.training.batch_size, view.generator):
                outputs = model(view.normalize(_stamped(pixels[batch.to(device)], network, self.epsilon)))
                wanted = torch.full((len(batch),), self.target, device=device)
                loss = F.cross_entropy(outputs, wanted)
                gradients = torch.autograd.grad(loss, list(network.values()))
                for part, gradient in zip(network.values(), gradients, strict=True):
                    part.grad = gradient
                steps.step()
        self.weights = {name: part.detach().cpu() for name, part in network.items()}

    def _network(self, channels: int) -> dict[str, Tensor]:
        return initial_network(channels) if self.weights is None else self.weights

    def state_dict(self) -> State:
        """g."""
        return {} if self.weights is None else {"weights": dict(self.weights)}

    def load_state_dict(self, state: State) -> None:
        """Restore g."""
        self.weights = state.get("weights")


def initial_network(channels: int) -> dict[str, Tensor]:
    """Kernels from N(0, 2/inputs), the same for all: the colluders begin with the same network."""
    draw = torch.Generator().manual_seed(0)
    network = {}
    for i, (before, after) in enumerate(itertools.pairwise((channels, WIDTH, WIDTH, channels))):
        kernel = torch.randn(after, before, 3, 3, generator=draw)
        network[f"kernel{i}"] = kernel * math.sqrt(2 / (9 * before))
        network[f"bias{i}"] = torch.zeros(after)
    return network


def generated(pixels: Tensor, network: Mapping[str, Tensor]) -> Tensor:
    """g(x), the shape of x, in [−1, 1]."""
    values = pixels
    for i in range(3):
        values = F.conv2d(values, network[f"kernel{i}"], network[f"bias{i}"], padding=1)
        values = values.tanh() if i == 2 else values.relu()
    return values


def _stamped(pixels: Tensor, network: Mapping[str, Tensor], epsilon: float) -> Tensor:
    # A test set at once takes a gigabyte.
    parts = [generated(part, network) for part in torch.split(pixels, 1000)]
    return (pixels + epsilon * torch.cat(parts)).clamp(0, 1)
