"""BackdoorIndicator's first half: train a task of the server's own into the global model that is sent."""

from __future__ import annotations

import math
from types import MappingProxyType

from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import NeedError, ParameterError
from ..core.threads import single_thread
from ..training.indicator import PlantedTask, planted


class IndicatorTask(Stage):
    """w_t ← SGD from w_t on CE(w; the indicator task) + μ/2 · ‖w − w_t‖, after the aggregator.

    The task is inputs unlike the clients' data, with labels that mean nothing. The detector
    ``backdoor_indicator`` looks in the next round for clients whose models still know it: give both the same
    ``samples``, ``source`` and ``standardize``. The server's seed determines the task, so keep it secret: a
    client that knows the task can forget it on purpose.

    Only parameters are changed. BatchNorm statistics travel beside them and stay the clients', as the
    authors' code restores them before it sends the model. After the last round (as far as
    ``Server.rounds`` tells) nothing is planted, as that model is deployed; accuracies measured in between are
    those of models with the task in them. Stages do not run in a round in which everybody is excluded: the
    model then keeps the task, after the last round, too. If the training diverges, the model is sent without
    the task. A server optimizer other than plain averaging changes what was planted.

    A small network that learns the task forgets much of its own: look at the accuracy of what is sent, and
    choose ``lr`` and ``samples`` so that the detector's ``info`` says that the task is known. With few
    samples per label, some label is kept by chance; the authors have 80.

    The training costs ``epochs`` · ``samples`` / 64 steps in every round.

    Args:
        samples: how many samples; rounded down to whole batches of 64.
        source: "noise", "photos" (crops of scikit-learn's two photographs) or an .npy file of images. The
            authors take CIFAR-100 for CIFAR-10, and CIFAR-10 for CIFAR-100 and EMNIST; their code also offers
            noise.
        standardize: whether the inputs get mean 0 and standard deviation 1, as suites normalize data.
        epochs: passes over the samples; 200, in the authors' settings for CIFAR-100 50.
        lr: the learning rate at first; the authors use 0.0005 to 0.0008 for ResNet-18.
        mu: μ; 0.1.
        start: the number of the first round, from 1, whose clients get a model with the task in it. The
            authors start late, from a model that has nearly converged.

    Raises:
        ParameterError: a parameter out of range.

    Source: Li & Dai, BackdoorIndicator, USENIX Security 2024. Read: the abstract, and the authors'
    ``IndicatorServer.py``, ``WMFLDataloader.py`` and settings, which the training follows.
    """

    card = Card(
        "indicator_task",
        "train a task of the server's own into the model that is sent",
        "Li & Dai, BackdoorIndicator, USENIX Security 2024",
    )
    needs = frozenset({"global_params", "model"})
    tasks = frozenset({"classification"})
    makes_inputs = True
    check_with = MappingProxyType({"samples": 30, "epochs": 5})

    def __init__(
        self,
        samples: int = 800,
        source: str = "noise",
        standardize: bool = True,
        epochs: int = 200,
        lr: float = 0.0005,
        mu: float = 0.1,
        start: int = 1,
    ) -> None:
        if epochs < 1:
            raise ParameterError(f"indicator_task: epochs is {epochs}; use at least 1")
        if not 0 < lr < math.inf:
            raise ParameterError(f"indicator_task: lr is {lr}; use a finite number above 0")
        if not 0 <= mu < math.inf:
            raise ParameterError(f"indicator_task: mu is {mu}; use a finite number from 0")
        if start < 1:
            raise ParameterError(f"indicator_task: start is {start}; round 0 gets the initial model, use 1")
        self.task = PlantedTask(samples, source, standardize)
        self.epochs = epochs
        self.lr = lr
        self.mu = mu
        self.start = start

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Plant the task into the updated global model."""
        server, base = round.server, round.global_params
        if server is None or server.model is None or base is None:
            raise NeedError("indicator_task needs model and global_params")
        following = round.index + 1
        if following < self.start or following == server.rounds:
            return update
        start = base.to(update.device) + update
        draw = server.generator(self.name, round.index)
        with single_thread():
            data = self.task.data(server)
            model = planted(server.model, start, data, self.epochs, self.lr, self.mu, draw)
        moved = model.to(update.device) - base.to(update.device)
        return moved.to(update.dtype) if bool(moved.isfinite().all()) else update
