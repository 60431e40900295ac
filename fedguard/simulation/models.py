"""Models by name, initialized from a generator of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..core.errors import ParameterError
from ..core.params import check_params, nearest

Shape = tuple[int, ...]
Norm = Literal["group", "batch"]
#: Groups of channels that resnet20 normalizes together.
GROUPS = 8


class LogisticRegression(nn.Sequential):
    """softmax(W x + b) on the flattened input.

    Source: McMahan et al., FedAvg, AISTATS 2017 (as multinomial logistic regression).
    """

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


class Mlp(nn.Sequential):
    """Fully connected layers with ReLU on the flattened input.

    Args:
        input_shape: the shape of one input.
        num_classes: the number of labels.
        hidden: the widths of the hidden layers.
    """

    def __init__(self, input_shape: Shape, num_classes: int, hidden: Sequence[int] = (64,)) -> None:
        if not hidden or min(hidden) < 1:
            raise ParameterError(
                f"model mlp: hidden is {list(hidden)}; give at least one width, each at least 1 "
                "(without hidden layers use logistic_regression)"
            )
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))


def _require_images(name: str, input_shape: Shape) -> None:
    if len(input_shape) != 3:
        raise ParameterError(
            f"model {name} works on images (channels, height, width); the data have shape {input_shape}. "
            "Use logistic_regression or mlp"
        )


class _Cnn(nn.Sequential):
    """Twice (convolution without padding, ReLU, 2×2 max pooling), then fully connected layers."""

    name: ClassVar[str]
    channels: ClassVar[tuple[int, int]]
    kernel: ClassVar[int] = 3
    hidden: ClassVar[tuple[int, ...]]

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        _require_images(self.name, input_shape)
        depth, *size = input_shape
        first, second = self.channels
        left = [self._after(self._after(side)) for side in size]
        if min(left) < 1:
            least = 2 * (2 + self.kernel - 1) + self.kernel - 1
            raise ParameterError(
                f"model {self.name}: images of {size[0]}×{size[1]} are too small, the smallest is "
                f"{least}×{least}. Use logistic_regression or mlp"
            )
        layers: list[nn.Module] = []
        for before, after in ((depth, first), (first, second)):
            # The maximum before the ReLU is the same as after it, on a quarter of the values.
            layers += [nn.Conv2d(before, after, self.kernel), nn.MaxPool2d(2), nn.ReLU()]
        layers.append(nn.Flatten())
        for before, after in pairwise((second * left[0] * left[1], *self.hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(self.hidden[-1], num_classes))

    @classmethod
    def _after(cls, side: int) -> int:
        """The side of an image after one convolution and pooling."""
        return (side - cls.kernel + 1) // 2


class FedredefenseFmnistCnn(_Cnn):
    """3×3×30, pool, 3×3×50, pool, 100, L: 139,960 parameters on 28×28 gray images.

    Source: Xie et al., FedREDefense, ICML 2024, Table 5; no padding, which the table leaves open.
    """

    name = "fedredefense_fmnist_cnn"
    channels = (30, 50)
    hidden = (100,)


class FedredefenseCifarCnn(_Cnn):
    """3×3×32, pool, 3×3×64, pool, 512, L: 1,204,682 parameters on 32×32 color images.

    Source: Xie et al., FedREDefense, ICML 2024, Table 6; no padding, which the table leaves open.
    """

    name = "fedredefense_cifar_cnn"
    channels = (32, 64)
    hidden = (512,)


class FangCnn(_Cnn):
    """3×3×30, pool, 3×3×50, pool, 200, L.

    Source: Fang et al., USENIX Security 2020, Table 7a; no padding, which the table leaves open.
    """

    name = "fang_cnn"
    channels = (30, 50)
    hidden = (200,)


class LeNet(_Cnn):
    """5×5×6, pool, 5×5×16, pool, 120, 84, L with ReLU and max pooling, no padding.

    Source: LeCun et al., Gradient-based learning, Proc. IEEE 1998, Fig. 2 (LeNet-5), modernised.
    """

    name = "lenet"
    channels = (6, 16)
    kernel = 5
    hidden = (120, 84)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm not in ("group", "batch"):
        raise ParameterError(f"model resnet20: norm is {norm!r}; use 'group' or 'batch'")
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)


class _Residual(nn.Module):
    """ReLU(x + norm(conv(ReLU(norm(conv(x)))))); where it halves the image, x is subsampled and padded."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = _norm(norm, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = _norm(norm, after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H/stride, W/stride)."""
        inner = torch.relu(self.first_norm(self.first(inputs)))
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(shortcut + self.second_norm(self.second(inner)))


class ResNet20(nn.Sequential):
    """3×3×16, three stages of three residual blocks (16, 32, 64 channels), mean over the image, L.

    Group normalization (8 groups) takes the place of the paper's batch normalization unless ``norm`` says
    otherwise. 269,722 parameters on color images.

    Source: He et al., Deep Residual Learning, CVPR 2016, §4.2 (n = 3, shortcuts of option A).

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        norm: "group", or "batch", whose running statistics clients send beside their updates.
    """

    def __init__(self, input_shape: Shape, num_classes: int, norm: Norm = "group") -> None:
        _require_images("resnet20", input_shape)
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False), _norm(norm, 16), nn.ReLU()
        ]  # fmt: skip
        for before, after in ((16, 16), (16, 32), (32, 64)):
            layers.append(_Residual(before, after, after // before, norm))
            layers += [_Residual(after, after, 1, norm) for _ in range(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


class BiLstm(nn.Module):
    """Embedding, one LSTM in each direction, softmax(W (h→, h←) + b) on their last states.

    Classes are the characters of the alphabet, inputs passages of their numbers 0 … L − 1 (in float32, as
    all inputs are). 46,793 parameters on Tiny Shakespeare.

    Source: Han et al., FedSecurity, KDD 2024, Table 5 (RNN, bi-LSTM) names it without sizes; the embedding
    is that of McMahan et al., FedAvg, AISTATS 2017, §3 (8 numbers per character).

    Args:
        input_shape: (characters,) of a passage.
        num_classes: the size of the alphabet, L.
        embedding: numbers per character.
        hidden: the width of the state in each direction.
    """

    def __init__(self, input_shape: Shape, num_classes: int, embedding: int = 8, hidden: int = 64) -> None:
        if len(input_shape) != 1:
            raise ParameterError(
                f"model bilstm works on text (characters,); the data have shape {input_shape}. "
                "Use it with tiny_shakespeare"
            )
        if min(embedding, hidden) < 1:
            raise ParameterError(
                f"model bilstm: embedding is {embedding} and hidden is {hidden}; use at least 1"
            )
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, characters) → (N, L).

        Raises:
            ParameterError: an input is not the number of a character.
        """
        ids = inputs.long()
        size = self.embedding.num_embeddings
        if not torch.equal(ids.to(inputs.dtype), inputs) or not bool(((ids >= 0) & (ids < size)).all()):
            raise ParameterError(
                f"model bilstm takes the numbers of characters, 0 to {size - 1}, and was given others. "
                "Use it with tiny_shakespeare, and no method that makes inputs up (fedredefense, deepsight)"
            )
        states = self.lstm(self.embedding(ids))[1][0]
        return self.output(torch.cat((states[0], states[1]), 1))  # type: ignore[no-any-return]


#: The most parameters of a model: 1 GiB of them.
MAX_PARAMETERS = 2**28

MODELS: dict[str, type[nn.Module]] = {
    "logistic_regression": LogisticRegression,
    "mlp": Mlp,
    "fedredefense_fmnist_cnn": FedredefenseFmnistCnn,
    "fedredefense_cifar_cnn": FedredefenseCifarCnn,
    "fang_cnn": FangCnn,
    "lenet": LeNet,
    "resnet20": ResNet20,
    "bilstm": BiLstm,
}


def build_model(
    name: str, input_shape: Shape, num_classes: int, generator: torch.Generator, **params: Any
) -> nn.Module:
    """A model of :data:`MODELS`, initialized as torch does by default but from ``generator`` only.

    Args:
        name: its name.
        input_shape: the shape of one input.
        num_classes: the number of labels.
        generator: the only source of randomness; torch's global one is left as it was.
        params: the model's own parameters, say ``hidden``.

    Raises:
        ParameterError: a name or parameter is unknown, or the model does not take such inputs.
    """
    if name not in MODELS:
        raise ParameterError(f"unknown model {name!r}{nearest(name, MODELS)} (known: {', '.join(MODELS)})")
    checked = check_params(MODELS[name], params, f"model {name}", skip=2)
    _check_size(name, input_shape, num_classes, checked)
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        model = MODELS[name](tuple(input_shape), num_classes, **checked)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialize(layer, generator)
        elif isinstance(layer, nn.LSTM):
            for weights in layer.parameters():
                nn.init.uniform_(weights, -(layer.hidden_size**-0.5), layer.hidden_size**-0.5, generator)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)
    return model


def _check_size(name: str, input_shape: Shape, num_classes: int, params: dict[str, Any]) -> None:
    """Refuse a model that would not fit into memory, before any of it is allocated."""
    try:
        with torch.device("meta"):
            model = MODELS[name](tuple(input_shape), num_classes, **params)
        size = sum(parameter.numel() for parameter in model.parameters())
    except (RuntimeError, OverflowError, TypeError):  # sizes that overflow
        size = MAX_PARAMETERS + 1
    if size > MAX_PARAMETERS:
        raise ParameterError(f"model {name}: more than {MAX_PARAMETERS:,} parameters; make it smaller")


@torch.no_grad()
def _initialize(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Weights and bias ~ U(−1/√fan_in, 1/√fan_in): Kaiming with a = √5, then torch's rule for the bias."""
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
