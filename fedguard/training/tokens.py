"""Texts whose next tokens are predicted: the loss, and how well a model does."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

#: The label of a token that is not to be predicted: of the prompt, or padding.
IGNORED = -1
#: Texts per forward pass of a test: logits have one number per token and word of the vocabulary.
TEXTS = 16


class Tokens(NamedTuple):
    """Sums over the texts of a batch.

    Attributes:
        wrong: of each text's share of answer tokens that another token would have been chosen for, or of
            texts with such a token.
        loss: of each text's mean of −log p over its answer tokens.
    """

    wrong: float
    loss: float


def next_token(outputs: Tensor, labels: Tensor) -> Tensor:
    """−log p of the next token, mean over all tokens of the batch that are to be predicted.

    Args:
        outputs: (N, L, V) logits.
        labels: (N, L) int64 the token that follows each token, −1 where it is not to be predicted.
    """
    return F.cross_entropy(outputs.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def token_sums(outputs: Tensor, labels: Tensor, whole: bool = False) -> Tokens:
    """The wrong tokens and the loss of texts, each text counting once however long it is.

    Args:
        outputs: (N, L, V) logits.
        labels: (N, L) int64, see :func:`next_token`; at least one token of each text is to be predicted.
        whole: a text with one wrong token is wrong altogether; greedy decoding finds exactly the others.
    """
    labels = labels.to(outputs.device)
    counted = labels != IGNORED
    each = F.cross_entropy(outputs.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    missed = (outputs.argmax(-1) != labels) & counted
    lengths = counted.sum(1)
    wrong = missed.any(1) if whole else missed.sum(1) / lengths
    loss = each.sum(1) / lengths
    return Tokens(float(wrong.sum(dtype=torch.float64)), float(loss.sum(dtype=torch.float64)))
