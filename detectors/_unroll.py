"""FedREDefense's inner loop: N differentiable full-batch SGD steps on the distilled knowledge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.training.parameters import fitting, load_parameters, split_parameters

from ._dense_unroll import DenseLoop, is_dense
from ._stack import closed_form, unroll

Average: TypeAlias = Literal["classes", "batch"]
#: (images, soft labels, learning rate) → (d,) the parameters after N steps, differentiable in all three.
#: With (B,) learning rates, and images and labels of B clients, (B, d).
InnerLoop: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def virtual_network(model: nn.Module) -> nn.Module:
    """A copy of the model whose training is deterministic and depends on its parameters only.

    Batch norm normalizes by the batch, as in training, but neither uses nor keeps running statistics.
    Everything else is in eval mode, so that dropout does not make the reconstruction error random.
    """
    network = copy.deepcopy(model).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def soft_cross_entropy(logits: Tensor, targets: Tensor, average: Average) -> Tensor:
    """−Σ_c t_c log p_c, averaged over the batch, or over the batch and the classes (1/C of it)."""
    terms = -(targets * F.log_softmax(logits, dim=1))
    return terms.mean() if average == "classes" else terms.sum(1).mean()


def functional_loop(network: nn.Module, start: Tensor, steps: int, average: Average) -> InnerLoop:
    """The inner loop from the (d,) parameters ``start``, by ``torch.func.functional_call``."""
    first = split_parameters(network, start)

    def run(images: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        # Tensor by tensor: a flat vector would be split and concatenated again in every step.
        now = {name: part.detach().requires_grad_() for name, part in first.items()}
        for _ in range(steps):
            logits = torch.func.functional_call(network, now, (images,))
            loss = soft_cross_entropy(logits, targets, average)
            gradients = torch.autograd.grad(
                loss, list(now.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            now = {name: part - lr * g for (name, part), g in zip(now.items(), gradients, strict=True)}
        return torch.cat([part.flatten() for part in now.values()])

    return client_by_client(run)


def closed_loop(network: nn.Module, start: Tensor, steps: int, average: Average) -> InnerLoop:
    """The same in closed form for a plain stack of layers, by ``torch.func`` for any other network.

    A network without convolutions and pooling trains for B clients at once.
    """
    stack, general = closed_form(network, average), functional_loop(network, start, steps, average)
    first = list(split_parameters(network, start).values())
    vectors = stack and stack.of_vectors()

    def one(images: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        if stack is None or not stack.fits(images):
            return general(images, targets, lr)
        return unroll(stack, first, steps, images, targets, lr)

    def run(images: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        if lr.dim() and stack is not None and vectors is not None and stack.fits(images[0]):
            return unroll(vectors, first, steps, images.flatten(2), targets, lr)
        return client_by_client(one)(images, targets, lr)

    return run


def client_by_client(one: InnerLoop) -> InnerLoop:
    """A loop that takes one client, for one client or for each of B."""

    def run(images: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        if lr.dim() == 0:
            return one(images, targets, lr)
        return torch.stack([one(*parts) for parts in zip(images, targets, lr, strict=True)])

    return run


def trains_together(network: nn.Module) -> bool:
    """Whether ``closed_loop`` trains several clients at less cost than one after the other."""
    stack = closed_form(network, "classes")
    return stack is not None and stack.of_vectors() is not None


def higher_loop(network: nn.Module, start: Tensor, steps: int, average: Average) -> InnerLoop:
    """The same by the package ``higher``."""
    import higher  # an optional dependency

    module = copy.deepcopy(network)
    load_parameters(module, start)
    names, moved = [name for name, _ in module.named_parameters()], fitting(module, len(start))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)

    def run(images: Tensor, targets: Tensor, lr: Tensor) -> Tensor:
        with higher.innerloop_ctx(module, optimizer, override={"lr": [lr]}) as (functional, differentiable):
            for _ in range(steps):
                differentiable.step(soft_cross_entropy(functional(images), targets, average))
            parts = zip(names, functional.parameters(), strict=True)
            return torch.cat([part.flatten() for name, part in parts if name in moved])

    return client_by_client(run)


INNER_LOOPS = {"closed": closed_loop, "func": functional_loop, "higher": higher_loop}


class Unrolled(Protocol):
    """N steps for B clients, and the gradients through them."""

    def ends(self, images: Tensor, targets: Tensor, rate: Tensor) -> Tensor:
        """(B, d) the parameters after N steps; valid until the next call."""
        ...

    def pull(self, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of ⟨along, ends⟩ with respect to images, targets and rates."""
        ...


class ByAutograd:
    """Any inner loop."""

    def __init__(self, loop: InnerLoop) -> None:
        self._loop = loop

    @torch.enable_grad()
    def ends(self, images: Tensor, targets: Tensor, rate: Tensor) -> Tensor:
        """(B, d) the parameters after N steps."""
        self._leaves = [part.detach().requires_grad_() for part in (images, targets, rate)]
        self._end = self._loop(*self._leaves)
        return self._end.detach()

    def pull(self, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients through the latest ``ends``."""
        to_images, to_targets, to_rate = torch.autograd.grad(self._end, self._leaves, along)
        return to_images, to_targets, to_rate


def unrolled(
    name: str, network: nn.Module, start: Tensor, steps: int, average: Average, sample: Tensor
) -> Unrolled:
    """The inner loop by its name, with its gradients; ``sample`` is some client's images."""
    stack = closed_form(network, average) if name == "closed" else None
    vectors = stack and stack.of_vectors()
    if stack is not None and vectors is not None and stack.fits(sample) and is_dense(vectors):
        first = list(split_parameters(network, start).values())
        return DenseLoop(vectors, first, steps)
    return ByAutograd(INNER_LOOPS[name](network, start, steps, average))
