"""Which trained updates can be reconstructed: FedREDefense's Algorithm 2 by hand, on three networks.

    FEDGUARD_DATA=DATA python benchmarks/papers/fedredefense2024/scaled_updates.py --networks table5 norm

A first round of Fashion-MNIST as in Section 5.1.4 (β = 0.1, 600 images a client, one epoch of batches of
32 at a rate of 0.001), written without FedGuard but for reading and dealing the images. Honest updates as
they are and multiplied, and updates of the Scaling attack (Appendix A.2: stamped replicas of all images,
labels 0), are reconstructed from 10 images in 5 inner steps; the search is not stopped at the threshold.

``table5`` is the network of the paper's Table 5. ``norm`` is the same with instance normalization after each
convolution, as the network ConvNet in the authors' scripts has; ``convnet`` is that one (three convolutions
of 128 channels, averages for maxima); ``convnet32`` has 32 of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.simulation.datasets import load_dataset
from fedguard.simulation.partitions import dirichlet

MEAN, STD = 0.1307, 0.3081
THRESHOLD = 0.6


def table5(norm: bool) -> nn.Module:
    """Table 5, with or without instance normalization."""
    layers: list[nn.Module] = []
    for before, after in ((1, 30), (30, 50)):
        layers += [nn.Conv2d(before, after, 3), *([nn.GroupNorm(after, after)] if norm else [])]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1250, 100), nn.ReLU(), nn.Linear(100, 10))


def convnet(width: int = 128) -> nn.Module:
    """The authors' ConvNet on images padded to 32 × 32."""
    layers: list[nn.Module] = []
    for k, before in enumerate((1, width, width)):
        layers += [nn.Conv2d(before, width, 3, padding=3 if k == 0 else 1)]
        layers += [nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 10))


NETWORKS = {
    "table5": lambda: table5(norm=False),
    "norm": lambda: table5(norm=True),
    "convnet": convnet,
    "convnet32": lambda: convnet(32),
}


def trained(network: nn.Module, images: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """The update of one epoch of SGD; the network is left as it was."""
    start = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001)
    for batch in torch.randperm(len(labels), generator=draw).split(32):
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    parts = []
    with torch.no_grad():
        for p, before in zip(network.parameters(), start, strict=True):
            parts.append((p - before).flatten())
            p.copy_(before)
    return torch.cat(parts)


def stamped(images: Tensor) -> Tensor:
    """A white square of 3 × 3 pixels in the bottom-right corner."""
    copies = images.clone()
    copies[..., -3:, -3:] = (1 - MEAN) / STD
    return copies


def first_images(init: str, draw: torch.Generator) -> Tensor:
    """Ten images of noise: N(0, 1), U[0, 1), or U[0, 1) as pixels, which are then normalized."""
    if init == "gaussian":
        return torch.randn(10, 1, 28, 28, generator=draw)
    uniform = torch.rand(10, 1, 28, 28, generator=draw)
    return uniform if init == "uniform" else (uniform - MEAN) / STD


def reconstruct(
    network: nn.Module, update: Tensor, images: Tensor, iterations: int, rate: float, momentum: float
) -> tuple[list[float], float]:
    """Algorithm 2 without stopping: the error before each outer step, and the images' length at the end."""
    names = [name for name, _ in network.named_parameters()]
    start = [p.detach().clone() for p in network.parameters()]
    images.requires_grad_()
    labels = torch.zeros(10, 10, requires_grad=True)
    alpha = torch.tensor(rate, requires_grad=True)
    groups = [
        {"params": [images], "lr": 0.1},
        {"params": [labels], "lr": 0.05},
        {"params": [alpha], "lr": 5e-5},
    ]
    outer = torch.optim.SGD(groups, momentum=momentum)
    errors = []
    for _ in range(iterations):
        now = [p.clone().requires_grad_() for p in start]
        for _ in range(5):
            logits = torch.func.functional_call(network, dict(zip(names, now, strict=True)), (images,))
            loss = -(labels.softmax(1) * logits.log_softmax(1)).mean()
            slopes = torch.autograd.grad(loss, now, create_graph=True)
            now = [p - alpha * s for p, s in zip(now, slopes, strict=True)]
        found = torch.cat([(p - w).flatten() for p, w in zip(now, start, strict=True)])
        error = (found - update).square().sum() / update.square().sum()
        errors.append(float(error.detach()))
        if not np.isfinite(errors[-1]):
            break
        outer.zero_grad()
        error.backward()
        outer.step()
    return errors, float(images.detach().flatten(1).norm(dim=1).mean())


def updates(network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor]:
    """What one client may send."""
    honest = trained(network, images, labels, torch.Generator().manual_seed(seed))
    both = torch.cat([images, stamped(images)])
    poisoned = torch.cat([labels, torch.zeros_like(labels)])
    backdoor = trained(network, both, poisoned, torch.Generator().manual_seed(seed))
    return {"honest": honest, "honest × 3": 3 * honest, "backdoor": backdoor, "Scaling (× 3)": 3 * backdoor}


def main() -> None:
    """A row per network and kind of update."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["table5", "norm"])
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.1, help="α at first, Table 7's virtual model LR")
    parser.add_argument("--momentum", type=float, default=0.0, help="the paper names none, its code has 0.5")
    parser.add_argument("--init", choices=["uniform", "pixels", "gaussian"], default="uniform")
    parser.add_argument("--unequal", action="store_true", help="deal unequal numbers of images")
    parser.add_argument("--show", action="store_true", help="print every client")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_dataset("fashion_mnist").train
    draw = np.random.default_rng(args.seed)
    parts = dirichlet(train.labels.numpy(), 100, draw, 0.1, equal_sizes=not args.unequal)
    pixels = (train.pixels - MEAN) / STD
    print("| network | update | ‖g‖ | iterations to 0.6 | error at the end | images grow | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in args.networks:
        torch.manual_seed(args.seed)
        network = NETWORKS[name]()
        rows: dict[str, list[tuple[float, float, float, float]]] = {}
        began = time.process_time()
        for client in range(args.clients):
            own = torch.as_tensor(parts[client])
            for kind, update in updates(network, pixels[own], train.labels[own], client).items():
                first = first_images(args.init, torch.Generator().manual_seed(1000 + client))
                errors, length = reconstruct(
                    network, update, first, args.iterations, args.rate, args.momentum
                )
                below = next((k for k, e in enumerate(errors) if e < THRESHOLD), np.inf)
                if args.show:
                    print(f"# {name} {client} ({len(own)}) {kind} {below} {errors[-1]:.3f}", flush=True)
                rows.setdefault(kind, []).append((float(update.norm()), below, errors[-1], length / 28))
        spent = time.process_time() - began
        for kind, found in rows.items():
            norm, below, last, grown = np.array(found).T
            print(
                f"| {name} | {kind} | {norm.mean():.3f} | {below.min():.0f} – {below.max():.0f} "
                f"| {last.mean():.2f} ± {last.std():.2f} | {grown.mean():.2f} | {spent:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
