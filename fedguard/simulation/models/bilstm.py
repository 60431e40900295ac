"""A bidirectional LSTM that predicts the next character of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import ParameterError
from .base import Shape


class BiLstm(nn.Module):
    """Embedding, one LSTM in each direction, softmax(W (h→, h←) + b) on their last states.

    Classes are the characters of the alphabet. Inputs are passages of their numbers 0 … L − 1 (in float32,
    like all inputs). 46,793 parameters on Tiny Shakespeare.

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
            ParameterError: an input is not the number of a character. On other devices than the CPU, where
                reading a check's result back would stall the device, the outputs are NaN instead.
        """
        ids = inputs.long()
        size = self.embedding.num_embeddings
        valid = (ids.to(inputs.dtype) == inputs) & (ids >= 0) & (ids < size)
        if inputs.device.type != "cpu":
            ids = ids.clamp(0, size - 1)
        elif not bool(valid.all()):
            raise ParameterError(
                f"model bilstm takes the numbers of characters, 0 to {size - 1}, and got others. "
                "Use it with tiny_shakespeare, without methods that generate inputs (fedredefense, deepsight)"
            )
        states = self.lstm(self.embedding(ids))[1][0]
        logits: Tensor = self.output(torch.cat((states[0], states[1]), 1))
        return logits if inputs.device.type == "cpu" else logits.where(valid.all(1, keepdim=True), torch.nan)
