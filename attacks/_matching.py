"""Labels from the last layer's gradient, for reconstructions by gradient matching."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedguard.core.errors import ParameterError
from fedguard.passive import Leak
from fedguard.training.parameters import predict, split_parameters

#: The number of random inputs that estimate the model's mean prediction.
NOISE = 256


def last_linear(leak: Leak, attack: str) -> tuple[Tensor, Tensor | None]:
    """The gradient of the last linear layer: (classes, features) of its weight, (classes,) of its bias.

    Raises:
        ParameterError: the model does not end in a linear layer with one output per class.
    """
    linear = [(name, part) for name, part in leak.model.named_modules() if isinstance(part, nn.Linear)]
    if not linear or linear[-1][1].out_features != leak.num_classes:
        raise ParameterError(f"{attack}: the model does not end in a linear layer with an output per class")
    name, layer = linear[-1]
    prefix = f"{name}." if name else ""
    parts = split_parameters(leak.model, leak.gradient)
    bias = parts[f"{prefix}bias"] if layer.bias is not None else None
    return parts[f"{prefix}weight"], bias


def count_labels(leak: Leak, attack: str) -> Tensor:
    """(count,) labels from the last layer's gradient.

    With cross-entropy, the bias gradient is mean(p_ic) − n_c / count, n_c the samples of class c. Labels are
    assigned one by one to the class with the most negative rest, to which 1/count is then added. With one
    sample, its class has the only negative entry (iDLG). With several, the model's predictions on noise
    estimate mean(p_ic), and some n_c may be off by one. Without a bias, the sum of the weight gradient over
    features replaces it.

    Source: Zhao et al., iDLG, 2020, §3 (one sample).
    """
    weight, bias = last_linear(leak, attack)
    rest = (weight.sum(1) if bias is None else bias).double()
    if bias is None:
        scale = rest.clamp(max=0).sum().abs()
        rest = rest / scale if scale > 0 else rest
    elif leak.count > 1:
        noise = torch.randn((NOISE, *leak.input_shape), generator=leak.generator).clamp(*leak.bounds)
        rest = rest - predict(leak.model, leak.global_params, noise).double().softmax(1).mean(0)
    rest = rest.clone()
    labels = []
    for _ in range(leak.count):
        label = int(rest.argmin())
        labels.append(label)
        rest[label] += 1 / leak.count
    return torch.tensor(labels)
