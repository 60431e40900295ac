"""An LSTM for series of numbers."""

from __future__ import annotations

from torch import Tensor, nn

from ...core.errors import ParameterError
from .base import Shape


class Lstm(nn.Module):
    """softmax(W h_T + b), h_T the last state of an LSTM that reads a series x_1 … x_T.

    An input of shape (T, F) is T steps of F features; one of shape (T,) is T steps of one number each, so
    the columns of a table are read one after the other. With one layer, 4h(F + h + 2) + hL + L parameters:
    17,802 for h = 64, F = 1 and L = 10.

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997, with the forget
    gates of Gers et al., Neural Computation 2000, as ``torch.nn.LSTM`` has them.

    Args:
        input_shape: (steps, features), or (steps,).
        num_classes: the number of labels.
        hidden: the width of the state, h.
        layers: how many LSTMs, each reading the states of the one before.
        dropout: the share of states that are dropped between two layers, in [0, 1).
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        if len(input_shape) not in (1, 2):
            raise ParameterError(
                f"model lstm works on series (steps, features) or (steps,); the data have shape {input_shape}"
            )
        if min(hidden, layers) < 1:
            raise ParameterError(f"model lstm: hidden is {hidden} and layers is {layers}; use at least 1")
        if not 0 <= dropout < 1:
            raise ParameterError(f"model lstm: dropout is {dropout}; it lies in [0, 1)")
        if dropout and layers == 1:
            raise ParameterError("model lstm: dropout works between layers; set layers to at least 2")
        super().__init__()
        features = input_shape[1] if len(input_shape) == 2 else 1
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, dropout=dropout)
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, T, F) or (N, T) → (N, L)."""
        series = inputs if inputs.ndim == 3 else inputs[:, :, None]
        return self.output(self.lstm(series)[1][0][-1])  # type: ignore[no-any-return]
