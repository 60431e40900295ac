"""How good the samples of a generative model are: their Fréchet distance from the test set."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..contracts.local_training import LocalTraining
from ..core.seeds import generator
from ..core.threads import single_thread
from ..training.generation import Moments, frechet_distance
from ..training.local import train_client
from ..training.parameters import flat_parameters, load_parameters
from .datasets import Dataset
from .models import build_model

#: How the judge trains: long enough for 98 % on MNIST and on digits' training set.
TRAINING = LocalTraining(epochs=None, steps=1500, batch_size=64, lr=0.1)
#: The most samples that are generated for a score.
MOST = 10_000
_JUDGES: WeakKeyDictionary[Dataset, Judge] = WeakKeyDictionary()


class Judge:
    """A classifier's hidden layer as features, and the moments of the test set in it.

    The classifier is a perceptron with 64 hidden units, trained on the training set of all clients. It is the
    experiment's, not the server's, and the same for every seed.

    Args:
        data: images or other inputs with classes.
    """

    def __init__(self, data: Dataset) -> None:
        self.shape = data.input_shape
        size = data.input_shape, data.num_classes
        model = build_model("mlp", *size, generator(0, "judge"), hidden=[64])
        start = flat_parameters(model)
        with single_thread():
            moved = train_client(model, start, data.training_set, TRAINING, generator(0, "judge batches"))
            load_parameters(model, start + moved)
            self.features = nn.Sequential(*list(model.eval().children())[:-1])
            test = data.test_set.inputs
            self.count = min(len(test), MOST)
            self.real = Moments.of(self._seen(test))

    def distance(self, inputs: Tensor) -> float:
        """The Fréchet distance of (n, *input_shape) inputs from the test set."""
        with single_thread():
            return frechet_distance(Moments.of(self._seen(inputs)), self.real)

    @torch.no_grad()
    def _seen(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.features(inputs)
        return found


def judge_of(data: Dataset) -> Judge:
    """The judge of a data set, trained once per process."""
    if data not in _JUDGES:
        _JUDGES[data] = Judge(data)
    return _JUDGES[data]


def generation_score(data: Dataset, model: nn.Module) -> dict[str, float]:
    """``frechet`` of as many generated samples as the test set has, from the same noise each time.

    Args:
        data: what is imitated.
        model: generative, see :class:`fedguard.simulation.models.gan.Gan`; its parameters are those to score.
    """
    judge = judge_of(data)
    found = judge.distance(samples_of(model, judge.count))
    return {} if math.isnan(found) else {"frechet": found}


@torch.no_grad()
def samples_of(model: nn.Module, count: int) -> Tensor:
    """(count, *input_shape) generated inputs, normalized as the data are; always from the same noise."""
    noise = torch.randn(count, int(model.latent), generator=generator(0, "generated samples"))  # type: ignore[arg-type]
    made: Tensor = model.generate(noise)  # type: ignore[operator]
    return made
