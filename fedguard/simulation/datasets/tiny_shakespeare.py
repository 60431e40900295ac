"""Tiny Shakespeare: predict the next character."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...contracts.data import Samples
from ...core.errors import DataError
from .base import Dataset
from .files import REPLACE, Files

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"
#: Characters that the model sees, as in LEAF's Shakespeare task.
WINDOW = 80
#: Characters from one passage's start to the next.
STRIDE = 20
#: The end of the text is the test set; no passage crosses the border.
TEST_SHARE = 0.1
#: The text has 1.1 MB.
MAX_BYTES = 2**26


def _download(root: str) -> None:
    from ..vision import torchvision

    torchvision.datasets.utils.download_url(URL, f"{root}/tinyshakespeare", "input.txt", md5=MD5)


FILES = Files("tiny_shakespeare", "tinyshakespeare", ("input.txt",), ("",), _download)


#: A speech: after a blank line, the speaker's name, a colon and the end of the line.
SPEAKER = re.compile(r"(?:\A|\n\n)([^\n:]{1,60}):\n")


def load_tiny_shakespeare(
    by: Literal["text", "speaker"] = "text", data_root: str | Path | None = None
) -> Dataset:
    """50,189 + 5,573 passages of 80 characters, 65 classes (the next one); for bilstm.

    Passages x = (c₁, …, c₈₀) of a text with the label c₈₁, from ``tinyshakespeare/input.txt``.
    Characters are numbered in the order of their code points. The numbers are float32, like all inputs, and
    not normalized. The last tenth of the text is the test set.

    Args:
        by: "speaker" makes each speaker a natural client, as LEAF does: 45,309 + 4,403 passages of 253
            speakers' speeches, each speaker's one after the other, and the last tenth of them for testing.
            Speakers without a passage to train on are left out.
        data_root: the folder that holds ``tinyshakespeare``.

    Raises:
        DataError: the file is missing, is not UTF-8 text, or is too short.
    """
    path = FILES.find(data_root)[0]
    points = _code_points(path)
    alphabet, ids = np.unique(points, return_inverse=True)
    if by == "speaker":
        return _by_speaker(path, points, alphabet)
    border = int(len(ids) * (1 - TEST_SHARE))
    train, test = (_passages(part.reshape(-1)) for part in (ids[:border], ids[border:]))
    if len(test.labels) == 0:
        raise DataError(f"{path} has only {len(ids)} characters; {REPLACE}")
    return Dataset("tiny_shakespeare", train, test, len(alphabet), mean=(0.0,), std=(1.0,))


def _by_speaker(path: Path, points: NDArray[np.uint32], alphabet: NDArray[np.uint32]) -> Dataset:
    parts: list[tuple[Samples, Samples]] = []
    names: list[str] = []
    for name, speech in _speeches(points.tobytes().decode("utf-32-le")).items():
        ids = np.searchsorted(alphabet, np.frombuffer(speech.encode("utf-32-le"), np.uint32))
        border = int(len(ids) * (1 - TEST_SHARE))
        if border > WINDOW:
            parts.append((_passages(ids[:border]), _passages(ids[border:])))
            names.append(name)
    if not parts or not sum(len(test.labels) for _, test in parts):
        raise DataError(f"{path} holds no speeches that are long enough; {REPLACE}")
    train, test = (Samples(*map(torch.cat, zip(*half, strict=True))) for half in zip(*parts, strict=True))
    clients = np.repeat(np.arange(len(parts)), [len(own.labels) for own, _ in parts])
    return Dataset("tiny_shakespeare", train, test, len(alphabet), (0.0,), (1.0,), clients, tuple(names))


def _speeches(text: str) -> dict[str, str]:
    """Everything that each speaker says, in the order of their first words."""
    _, *pieces = SPEAKER.split(text)
    speeches: dict[str, list[str]] = {}
    for name, speech in zip(pieces[::2], pieces[1::2], strict=True):
        speeches.setdefault(name, []).append(speech)
    return {name: "\n".join(own) for name, own in speeches.items()}


def _code_points(path: Path) -> NDArray[np.uint32]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES >> 20} MiB; {REPLACE}")
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; {REPLACE}") from error
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _passages(ids: NDArray[np.intp]) -> Samples:
    if len(ids) <= WINDOW:
        return Samples(torch.empty(0, WINDOW), torch.empty(0, dtype=torch.int64))
    windows = np.lib.stride_tricks.sliding_window_view(ids, WINDOW + 1)[::STRIDE]
    inputs, labels = windows[:, :WINDOW].astype(np.float32), windows[:, WINDOW].astype(np.int64)
    return Samples(torch.from_numpy(inputs), torch.from_numpy(labels))
