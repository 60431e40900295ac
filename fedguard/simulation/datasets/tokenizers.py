"""Tokenizers of texts: of our own making, or a language model's.

A tokenizer turns texts into numbers below ``size``; ``start`` and ``end`` are the tokens that stand before
and after a text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ...core.errors import ParameterError
from ...core.extras import extra_module
from .table import wrong

#: A word, or a sign that is none.
WORD = re.compile(r"\w+|[^\w\s]")
#: What a model's own tokenizer is named by.
PREFIX = "hf:"


class Tokenizer(Protocol):
    """Texts as numbers."""

    size: int
    start: tuple[int, ...]
    end: tuple[int, ...]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without ``start`` and ``end``."""


class Bytes:
    """The UTF-8 bytes of a text, 0 … 255; 256 starts a text and 257 ends it."""

    size = 258
    start: tuple[int, ...] = (256,)
    end: tuple[int, ...] = (257,)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes of each text."""
        return [list(text.encode()) for text in texts]


class Words:
    """The most frequent words and signs of some texts, in lower case; 0 stands for all others.

    1 starts a text and 2 ends it. Equally frequent words are ordered alphabetically.

    Args:
        texts: whose words are counted: the training part's.
        size: the size of the vocabulary, with the three special tokens.
    """

    start: tuple[int, ...] = (1,)
    end: tuple[int, ...] = (2,)

    def __init__(self, texts: Iterable[str], size: int) -> None:
        counts = Counter(word for text in texts for word in WORD.findall(text.lower()))
        words = sorted(counts, key=lambda word: (-counts[word], word))[: size - 3]
        #: Word → its number.
        self.numbers = {word: 3 + k for k, word in enumerate(words)}
        self.size = 3 + len(words)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text's words."""
        return [[self.numbers.get(word, 0) for word in WORD.findall(text.lower())] for text in texts]


class OfModel:
    """The tokenizer of a language model: a local folder, a GGUF file, or a name on the Hub.

    Args:
        name: as in ``hf:NAME``.

    Raises:
        ParameterError: there is none, or the extra is missing.
    """

    def __init__(self, name: str) -> None:
        from .. import vision  # noqa: F401 - transformers imports torchvision, which may need its operators
        from ..models.language import TINY, located

        if name in TINY:
            raise wrong("tokenizer", f"hf:{name} has no tokenizer of its own; use words or bytes")
        library = extra_module("transformers", "llm", f"tokenizer hf:{name}")
        where, options = located(name)
        try:
            self._own: Any = library.AutoTokenizer.from_pretrained(where, **options)
        except Exception as error:  # the library and the network raise many kinds
            raise wrong(
                "tokenizer",
                f"hf:{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]} Give a folder with "
                "tokenizer.json, a name on the Hub, words or bytes",
            ) from error
        if len(self._own.get_added_vocab()) == len(self._own):  # made up, since its files are not there
            raise wrong(
                "tokenizer",
                f"hf:{name} has no tokenizer, only special tokens; save it beside the weights "
                "(tokenizer.json), or use words or bytes",
            )
        self.size = len(self._own)
        self.start = self._special("cls_token_id", "bos_token_id")
        self.end = self._special("sep_token_id", "eos_token_id")

    def _special(self, *names: str) -> tuple[int, ...]:
        found = [getattr(self._own, name, None) for name in names]
        return tuple(token for token in found if token is not None)[:1]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        found = self._own(list(texts), add_special_tokens=False, verbose=False)
        return found["input_ids"]  # type: ignore[no-any-return]


def tokenizer(name: str, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """The tokenizer of a name: ``words``, ``bytes`` or ``hf:NAME``.

    Args:
        name: its name.
        texts: of the training part; the words of ``words``.
        vocabulary: the size of the vocabulary of ``words``.

    Raises:
        ParameterError: there is no such tokenizer; its ``key`` is "tokenizer".
    """
    if name == "words":
        return Words(texts, vocabulary)
    if name == "bytes":
        return Bytes()
    if name.startswith(PREFIX):
        try:
            return OfModel(name.removeprefix(PREFIX))
        except ParameterError as error:
            error.key = "tokenizer"
            raise
    raise wrong("tokenizer", f"there is no tokenizer {name!r}; use words, bytes or hf:NAME")
