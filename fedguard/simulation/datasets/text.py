"""Texts of one's own, for language models."""

from __future__ import annotations

from pathlib import Path

from ...core.files import is_folder
from .base import Dataset
from .files import own_folder
from .text_files import parted, read_folder, read_texts
from .tokens import Texts, Tokenized, answered_texts, labeled_texts


def load_text(
    path: str,
    text: str = "text",
    label: str = "label",
    client: str | None = None,
    test: float | None = None,
    test_path: str | None = None,
    tokenizer: str = "words",
    vocabulary: int = 1000,
    max_length: int = 128,
    encoding: str = "utf-8",
) -> Dataset:
    """Texts with classes, as token numbers: a CSV or JSON Lines file, or a folder ``CLASS/*``.

    A sample is (L,) float32: the numbers of its tokens, and −1 behind its end; L is the length of the longest
    text, at most ``max_length``. Longer texts are cut.

    Args:
        path: the file or folder, UTF-8; relative to the current folder. A folder may have the folders
            ``train`` and ``test``, with one folder per class in each.
        text: the column, or key, of the texts.
        label: the column of their classes; the folders' names are those of a folder.
        client: the column that names each text's client, for natural clients.
        test: the share of test texts, 0.2 by default; the split is stratified and always the same.
        test_path: a file or folder with the test texts instead.
        tokenizer: "words" (the training part's most frequent ones), "bytes", or ``hf:NAME`` for that of a
            language model, which needs the extra ``llm``.
        vocabulary: the size of the vocabulary of "words".
        max_length: the most tokens of a text.
        encoding: of the files of a folder.

    Raises:
        DataError: a file cannot be read, or a value is wrong; names file and line.
        ParameterError: a column does not exist, or a parameter does not fit.
    """

    def read(where: str) -> Texts:
        if is_folder(Path(where).expanduser()):
            return read_folder(own_folder(where), encoding)
        return read_texts(where, (text, label), client, "text label")

    train, held = parted(path, test, test_path, read)
    return labeled_texts("text", train, held, Tokenized(tokenizer, vocabulary, max_length))


def load_instructions(
    path: str,
    prompt: str = "prompt",
    answer: str = "answer",
    client: str | None = None,
    test: float | None = None,
    test_path: str | None = None,
    tokenizer: str = "bytes",
    vocabulary: int = 1000,
    max_length: int = 128,
) -> Dataset:
    """Prompts with answers, for causal language models: a CSV or JSON Lines file.

    A sample is (L,) float32 token numbers of start, prompt, answer and end, and −1 behind it. Its labels are
    (L,) int64: the next token where it belongs to the answer or ends it, else −1. Of texts that are too long,
    the beginning of the prompt is left out first.

    Args:
        path: the file, UTF-8; relative to the current folder.
        prompt: the column, or key, of what the model is given.
        answer: the column of what it learns to say.
        client: the column that names each text's client, for natural clients.
        test: the share of test texts, 0.2 by default; the split is always the same.
        test_path: a file with the test texts instead.
        tokenizer: see ``text``.
        vocabulary: likewise.
        max_length: the most tokens that the model sees at once.

    Raises:
        DataError: a file cannot be read, or a value is wrong; names file and line.
        ParameterError: a column does not exist, or a parameter does not fit.
    """

    def read(where: str) -> Texts:
        return read_texts(where, (prompt, answer), client, "prompt answer")

    train, held = parted(path, test, test_path, read, stratified=False)
    return answered_texts("instructions", train, held, Tokenized(tokenizer, vocabulary, max_length))
