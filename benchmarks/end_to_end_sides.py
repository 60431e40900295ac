"""The sides of ``speed_end_to_end.py``: one federation by FedGuard, a plain loop and byzfl, and its limit.

Every client takes one step of SGD on ``BATCH`` samples per round, from the same global model, and all sides
draw the same batches.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData, Samples
from fedguard.contracts.server import map_in_order
from fedguard.core.seeds import generator
from fedguard.core.threads import single_thread
from fedguard.geometry.workers import map_in_threads
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.federation import Federation
from fedguard.simulation.settings import Cell
from fedguard.simulation.setup import Setup
from fedguard.training.layout import channels_last, store_channels_last
from fedguard.training.parameters import flat, flat_parameters, load_parameters, split_parameters

BATCH, LR, EPSILON = 25, 0.1, 0.1
CLASSES = 10


def _noise(shape: tuple[int, ...], count: int) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    train = Samples(torch.rand(count, *shape, generator=draw), torch.arange(count) % CLASSES)
    return Dataset("noise", train, train.take(torch.arange(100)), CLASSES, (0.5,), (0.29,))


def small_noise(count: int) -> Dataset:
    """Gray images of 28×28: a data set that needs no files; what images show takes no time."""
    return _noise((1, 28, 28), count)


def color_noise(count: int) -> Dataset:
    """Color images of 32×32."""
    return _noise((3, 32, 32), count)


def logistic() -> nn.Module:
    """784 → 10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES))


def cnn() -> nn.Module:
    """byzfl's network for MNIST, 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, CLASSES),
    )


def fresh(setup: Setup) -> nn.Module:
    """The initial model; FedGuard keeps its own copy's convolution weights channels last."""
    model = copy.deepcopy(setup.model)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    load_parameters(model, setup.initial)
    return model.train()


def drawn(setup: Setup, index: int, client: int) -> Tensor:
    """(BATCH,) the rows of the data set on which a client trains in a round."""
    rows = setup.samples[client]
    draw = generator(setup.cell.seed, "batches", index, client)
    return rows[torch.randperm(len(rows), generator=draw)][:BATCH]


def round_batches(setup: Setup, index: int) -> list[LabeledData]:
    """The batch of every client in a round."""
    data = setup.dataset.training_set
    batches = [drawn(setup, index, client) for client in range(len(setup.samples))]
    return [LabeledData(data.inputs[batch], data.labels[batch]) for batch in batches]


class Ours:
    """FedGuard: each call runs the next rounds of one federation."""

    def __init__(self, cell: Cell, rounds: int, map: Any = map_in_order) -> None:
        self.federation = Federation(cell, map)
        self.numbers = itertools.count()
        self.rounds = rounds

    def __call__(self) -> Tensor:
        """The global parameters after the rounds."""
        for _ in range(self.rounds):
            self.federation.step(next(self.numbers))
        return self.federation.params


class PlainLoop:
    """The same in plain PyTorch, as one writes it in a notebook; what the server does is in ``combine``."""

    def __init__(
        self, setup: Setup, rounds: int, attacked: bool, combine: Callable[[Tensor], Tensor]
    ) -> None:
        self.setup, self.rounds, self.combine = setup, rounds, combine
        self.bad = sorted(setup.malicious) if attacked else []
        self.model, self.params = fresh(setup), setup.initial
        self.numbers = itertools.count()

    def __call__(self) -> Tensor:
        """The global parameters after the rounds."""
        honest = [client for client in range(len(self.setup.samples)) if client not in self.bad]
        for _ in range(self.rounds):
            batches = round_batches(self.setup, next(self.numbers))
            updates = torch.zeros(len(batches), len(self.params))
            for client in honest:
                load_parameters(self.model, self.params)
                self.model.train()
                self.model.zero_grad()
                F.cross_entropy(self.model(batches[client].inputs), batches[client].labels).backward()
                gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
                updates[client] = -LR * flat(gradients)
            if self.bad:
                updates[self.bad] = -EPSILON * updates[honest].mean(0)
            self.params = self.params + self.combine(updates)
        return self.params


def plain_mean(updates: Tensor) -> Tensor:
    """The mean."""
    return updates.mean(0)


def plain_nnm_trimmed(f: int) -> Callable[[Tensor], Tensor]:
    """Nearest-neighbor mixing, then the trimmed mean."""

    def combine(updates: Tensor) -> Tensor:
        kept = len(updates) - f
        nearest = torch.cdist(updates, updates).topk(kept, largest=False).indices
        mixing = torch.zeros(len(updates), len(updates)).scatter_(1, nearest, 1 / kept)
        return (mixing @ updates).sort(0).values[f:kept].mean(0)

    return combine


class Batches:
    """A data loader's batch sampler: the rows that one client draws, round after round."""

    def __init__(self, setup: Setup, client: int) -> None:
        self.setup, self.client, self.numbers = setup, client, itertools.count()

    def __iter__(self) -> Iterator[list[int]]:
        """Without end."""
        for index in self.numbers:
            yield drawn(self.setup, index, self.client).tolist()


class Byzfl:
    """byzfl's training loop (``byzfl.benchmark.train``, algorithm DSGD) without its files and tests.

    Its clients read normalized tensors instead of images, which is faster than its transforms.
    """

    def __init__(
        self, package: Any, setup: Setup, rounds: int, attacked: bool, rule: str, stages: Sequence[str]
    ) -> None:
        models, f = package.fed_framework.models, len(setup.malicious) if attacked else 0
        models.benchmarked = lambda: fresh(setup)  # looked up by name
        bad = set(setup.malicious) if attacked else set()
        data = torch.utils.data.TensorDataset(*setup.dataset.training_set)
        honest = [client for client in range(len(setup.samples)) if client not in bad]
        loaders = [torch.utils.data.DataLoader(data, batch_sampler=Batches(setup, c)) for c in honest]
        optimizer = {"optimizer_name": "SGD", "learning_rate": LR, "weight_decay": 0.0}
        common = {"model_name": "benchmarked", "device": "cpu", **optimizer}
        common.update(milestones=[], learning_rate_decay=1.0)
        self.clients = [
            package.Client(
                {
                    **common,
                    "loss_name": "CrossEntropyLoss",
                    "LabelFlipping": False,
                    "training_dataloader": loader,
                    "momentum": 0.0,
                    "nb_labels": CLASSES,
                    "store_per_client_metrics": False,
                }
            )
            for loader in loaders
        ]
        server = {
            **common,
            "test_loader": loaders[0],
            "aggregator_info": {"name": rule, "parameters": {"f": f}},
            "pre_agg_list": [{"name": name, "parameters": {"f": f}} for name in stages],
        }
        self.server, self.rounds = package.Server(server), rounds
        attack = {"name": "InnerProductManipulation", "f": f, "parameters": {"tau": EPSILON}}
        self.attacker = package.ByzantineClient(attack)
        self._send()

    def _send(self) -> None:
        for client in self.clients:
            client.set_model_state(self.server.get_dict_parameters())

    def __call__(self) -> Tensor:
        """The global parameters after the rounds."""
        for _ in range(self.rounds):
            for client in self.clients:
                client.compute_gradients()
            gradients = [client.get_flat_gradients_with_momentum() for client in self.clients]
            self.server.update_model_with_gradients(gradients + self.attacker.apply_attack(gradients))
            self._send()
        return flat_parameters(self.server.model)


def limits(setup: Setup, rounds: int, threads: int = 1) -> dict[str, Callable[[], Any]]:
    """Ways to compute only the clients' gradients, of batches that lie ready; each returns the last ones.

    With several threads, every loop also comes with a thread for each part of the clients.
    """
    batches = round_batches(setup, 0)
    model, start = fresh(setup), setup.initial

    def loop(net: nn.Module, data: Sequence[LabeledData]) -> Callable[[], Any]:
        parameters = list(net.parameters())

        def run() -> Any:
            for _, batch in itertools.product(range(rounds), data):
                found = torch.autograd.grad(F.cross_entropy(net(batch.inputs), batch.labels), parameters)
            return found

        return run

    forms = {"a plain loop": (model, batches)}
    if batches[0].inputs.ndim == 4 and any(type(part) is nn.Conv2d for part in model.modules()):
        other = copy.deepcopy(model)
        store_channels_last(other)
        turned = [LabeledData(channels_last(batch.inputs), batch.labels) for batch in batches]
        forms["a loop, channels last"] = other, turned
    found = {name: loop(*form) for name, form in forms.items()}
    for name, (net, data) in forms.items() if threads > 1 else ():
        parts = [loop(copy.deepcopy(net), data[k::threads]) for k in range(threads)]
        found[f"{name}, one per thread"] = functools.partial(_together, parts)
    if not list(model.buffers()):
        found["vmap"] = _by_vmap(model, start, batches, rounds)
    if [type(part) for part in model.children()] == [nn.Flatten, nn.Linear]:
        found["one batched product"] = _batched(model, batches, rounds)
    return found


def _together(parts: Sequence[Callable[[], Any]]) -> Any:
    """Run functions at the same time, each in a thread of its own, with one thread in torch."""
    with single_thread():
        return list(map_in_threads(lambda part: part(), parts, len(parts)))


def _stacked(batches: Sequence[LabeledData]) -> tuple[Tensor, Tensor]:
    return torch.stack([b.inputs for b in batches]), torch.stack([b.labels for b in batches])


def _by_vmap(
    model: nn.Module, start: Tensor, batches: Sequence[LabeledData], rounds: int
) -> Callable[[], Any]:
    inputs, labels = _stacked(batches)
    parameters = split_parameters(model, start)

    def loss(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, own, (x,)), y)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), chunk_size=25)

    def run() -> Any:
        for _ in range(rounds):
            found = gradients(parameters, inputs, labels)
        return [part[-1] for part in found.values()]

    return run


def _batched(model: nn.Module, batches: Sequence[LabeledData], rounds: int) -> Callable[[], Any]:
    """Logistic regression's gradients by hand: ∂ℓ/∂W = (softmax − onehot)ᵀ X / samples, per client."""
    inputs, labels = _stacked(batches)
    inputs, wanted = inputs.flatten(2), F.one_hot(labels, CLASSES)
    layer = next(part for part in model.modules() if type(part) is nn.Linear)

    def run() -> Any:
        for _ in range(rounds):
            with torch.no_grad():
                surprise = (torch.softmax(layer(inputs), 2) - wanted) / labels.shape[1]
                found = torch.bmm(surprise.transpose(1, 2), inputs), surprise.sum(1)
        return [part[-1] for part in found]

    return run
