"""Texts as tensors of tokens: padded, with the labels that models are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...contracts.data import Samples
from ...core.errors import DataError
from ...training.tokens import IGNORED
from .arrays import Arrays, client_numbers, from_arrays
from .base import Dataset
from .table import wrong
from .tokenizers import Tokenizer, tokenizer

#: What stands for no token.
PADDING = -1


@dataclass(frozen=True)
class Texts:
    """Texts with what belongs to them, as they were read.

    Attributes:
        where: the file, for messages.
        texts: the texts; of instructions, the prompts.
        labels: their labels; of instructions, the answers.
        clients: the name of each text's natural client, if there are any.
        place: the place of a text in the file, for messages.
    """

    where: str
    texts: Sequence[str]
    labels: Sequence[str]
    clients: Sequence[str] | None
    place: Callable[[int], str]

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Some of the texts."""
        own = [[values[i] for i in rows] for values in (self.texts, self.labels)]
        clients = None if self.clients is None else [self.clients[i] for i in rows]
        return Texts(self.where, own[0], own[1], clients, lambda i: self.place(int(rows[i])))


@dataclass(frozen=True)
class Tokenized:
    """How texts become tokens.

    Attributes:
        tokenizer: the name, see :func:`.tokenizers.tokenizer`.
        vocabulary: the size of the vocabulary of "words".
        max_length: the most tokens of a text.
    """

    tokenizer: str
    vocabulary: int
    max_length: int

    def made(self, texts: Sequence[str]) -> Tokenizer:
        """The tokenizer; "words" are those of the texts.

        Raises:
            ParameterError: a parameter is out of range.
        """
        if not 4 <= self.max_length <= 2**16:
            raise wrong("max_length", f"{self.max_length} tokens; use 4 to {2**16}")
        if not 4 <= self.vocabulary <= 2**20:
            raise wrong("vocabulary", f"{self.vocabulary} words; use 4 to {2**20}")
        return tokenizer(self.tokenizer, texts, self.vocabulary)


def labeled_texts(name: str, train: Texts, test: Texts, how: Tokenized) -> Dataset:
    """Texts of classes: (N, L) tokens and (N,) classes, in the alphabetic order of their names.

    A text is cut behind ``max_length`` tokens, and shorter ones are padded with −1.

    Raises:
        DataError: a class has no training text.
    """
    own = how.made(train.texts)
    names = class_names(train, test)
    numbers = {text: k for k, text in enumerate(names)}
    room = how.max_length - len(own.start) - len(own.end)
    rows = [
        [[*own.start, *tokens[:room], *own.end] for tokens in own.encode(part.texts)]
        for part in (train, test)
    ]
    width = max(len(row) for part in rows for row in part)
    parts = [
        Arrays(
            part.where,
            padded(tokens, width, PADDING).astype(np.float32),
            np.array([numbers[label] for label in part.labels]),
            None if part.clients is None else np.array(part.clients, dtype=object),
            part.place,
        )
        for part, tokens in zip((train, test), rows, strict=True)
    ]
    return from_arrays(name, parts[0], parts[1], normalize=False, class_names=names)


def class_names(*parts: Texts) -> list[str]:
    """The classes: in the order of their numbers if all are whole numbers, else in alphabetic order."""
    names = {label for part in parts for label in part.labels}
    if all(name.removeprefix("-").isdecimal() and len(name) < 20 for name in names):
        return sorted(names, key=int)
    return sorted(names)


def answered_texts(name: str, train: Texts, test: Texts, how: Tokenized) -> Dataset:
    """Prompts with answers: (N, L) tokens and (N, L) next tokens, −1 where they belong to no answer.

    A text is start, prompt, answer, end. If it is too long, the beginning of the prompt is left out, and then
    the end of the answer.

    Raises:
        DataError: a text has no answer, or nothing before it.
    """
    own = how.made([f"{p} {a}" for p, a in zip(train.texts, train.labels, strict=True)])
    parts = []
    for part in (train, test):
        prompts, answers = own.encode(part.texts), own.encode(part.labels)
        rows = [_answered(own, *pair, how.max_length) for pair in zip(prompts, answers, strict=True)]
        empty = next((i for i, (tokens, first) in enumerate(rows) if not 0 < first < len(tokens)), None)
        if empty is not None:
            raise DataError(f"{part.place(empty)}: a prompt and an answer of at least one token are needed")
        parts.append(rows)
    width = max(len(tokens) for rows in parts for tokens, _ in rows) - 1
    clients, client_names = client_numbers(
        None if train.clients is None else np.array(train.clients, dtype=object)
    )
    first, second = (_causal(rows, width) for rows in parts)
    return Dataset(name, first, second, own.size, (0.0,), (1.0,), clients, client_names, task="causal")


def _answered(own: Tokenizer, prompt: list[int], answer: list[int], most: int) -> tuple[list[int], int]:
    """The tokens of a text, and where the answer begins; one token more than a model sees."""
    said = [*answer, *own.end][:most]
    room = most + 1 - len(said) - len(own.start)
    kept = prompt[max(0, len(prompt) - room) :] if room > 0 else []
    before = [*own.start, *kept]
    return [*before, *said], len(before)


def _causal(rows: list[tuple[list[int], int]], width: int) -> Samples:
    """Every token but the last, and the next one of each that belongs to the answer."""
    inputs = padded([tokens[:-1] for tokens, _ in rows], width, PADDING)
    targets = [[IGNORED] * (first - 1) + tokens[first:] for tokens, first in rows]
    return Samples(
        torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(padded(targets, width, IGNORED))
    )


def padded(rows: Sequence[Sequence[int]], width: int, value: int) -> NDArray[np.int64]:
    """(N, width) rows of different lengths, filled up at their ends."""
    result = np.full((len(rows), width), value, np.int64)
    for own, row in zip(result, rows, strict=True):
        own[: len(row)] = row
    return result
