"""Language models as modules of one tensor of token numbers, the form that the simulation trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ParameterError

#: Texts per forward pass in evaluation mode: attention takes much memory.
TEXTS = 64


def tokens_and_mask(texts: Tensor, base: Any) -> tuple[Tensor, Tensor]:
    """(N, L) int64 token numbers and the attention mask: 0 where ``texts`` holds −1, which is padding.

    Raises:
        ParameterError: a number lies beyond the model's vocabulary, or a text has more tokens than it reads.
    """
    longest = getattr(base.config, "max_position_embeddings", None)
    if longest is not None and texts.shape[1] > longest:
        raise ParameterError(
            f"the data have texts of {texts.shape[1]} tokens, and the model reads at most {longest}; set the "
            f"data's `max_length` to {longest}"
        )
    mask = texts >= 0
    tokens = torch.where(mask, texts, float(base.config.pad_token_id)).long()
    largest = int(tokens.max())
    if largest >= base.config.vocab_size:
        raise ParameterError(
            f"the data have the token {largest}, and the model knows {base.config.vocab_size}; give the data "
            "the model's own `tokenizer: hf:…`, or a smaller `vocabulary`"
        )
    return tokens, mask.long()


class TextClassifier(nn.Module):
    """(N, L) token numbers as float32, padded with −1 → (N, classes) logits.

    Args:
        base: a model of transformers for sequence classification.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    def forward(self, texts: Tensor) -> Tensor:
        """In evaluation mode, :data:`TEXTS` texts at a time."""
        if not self.training and len(texts) > TEXTS:
            return torch.cat([self(part) for part in torch.split(texts, TEXTS)])
        tokens, mask = tokens_and_mask(texts, self.base)
        return self.base(input_ids=tokens, attention_mask=mask).logits  # type: ignore[no-any-return]


class NextToken(nn.Module):
    """(N, L) token numbers as float32, padded with −1 → (N, L, V) logits of each next token.

    Args:
        base: a causal language model of transformers.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    def forward(self, texts: Tensor) -> Tensor:
        """All texts at once; who tests many passes few at a time."""
        tokens, mask = tokens_and_mask(texts, self.base)
        found = self.base(input_ids=tokens, attention_mask=mask, use_cache=False)
        return found.logits  # type: ignore[no-any-return]
