"""The index of a recording: its rounds, and the checksum of each file.

recording.json       the index, with a checksum of its own
recording.old.json   the index before the last round
round-000000000.safetensors, …
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import ResultsError
from ..core.files import why, write_file
from ..core.folder_marks import INDEX as INDEX
from ..core.folder_marks import OLD_INDEX as OLD_INDEX
from .words import LARGEST

#: Largest accepted index in bytes; enough for some 300,000 rounds.
MAX_BYTES = 64 * 2**20
Precision = Literal["float32", "float16"]


def round_file(index: int) -> str:
    """Return the name of a round's file."""
    return f"round-{index:09d}.safetensors"


class Entry(BaseModel):
    """One round: its number, its file, and the file's size and checksum."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    index: int = Field(ge=0, le=LARGEST)
    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=LARGEST)
    clients: int = Field(ge=1, le=LARGEST)


class Index(BaseModel):
    """The whole index.

    Attributes:
        format: the name of the format.
        version: the version of the format.
        dtype: the precision of the recorded updates.
        keep: the pattern of recorded layers; None for all.
        rotated: how many of the oldest rounds were dropped to bound the disk space.
        missed: numbers of rounds that took place but could not be written.
        about: the recorder's ``about``.
        rounds: the rounds, in ascending order of their numbers.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal["fedguard recording"] = "fedguard recording"
    version: Literal[1] = 1
    dtype: Precision = "float32"
    keep: str | None = None
    rotated: int = Field(0, ge=0, le=LARGEST)
    missed: list[int] = Field(default_factory=list)
    about: dict[str, Any] = Field(default_factory=dict)
    rounds: list[Entry] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_and_order(self) -> Index:
        numbers = [entry.index for entry in self.rounds]
        if numbers != sorted(set(numbers)):
            raise ValueError("its rounds are not in ascending order")
        for entry in self.rounds:  # a path must not lead out of the folder
            if entry.file != round_file(entry.index):
                raise ValueError(f"round {entry.index} is in {entry.file!r}, not {round_file(entry.index)}")
        return self


def write_index(folder: Path, index: Index) -> None:
    """Replace the index atomically, and keep the previous one beside it.

    Raises:
        ResultsError: the index cannot be written.
    """
    body = index.model_dump(mode="json")
    text = json.dumps({"sha256": _digest(body), "recording": body}, indent=1).encode()
    path = folder / INDEX
    try:
        if path.exists():
            before = path.read_bytes()
            write_file(folder / OLD_INDEX, before)
        write_file(path, text)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {why(error)}") from None


def read_index(path: Path) -> Index:
    """Read and check an index.

    Raises:
        ResultsError: the file is missing, cut short, changed, or not an index of a recording.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise ResultsError(f"{path} is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise ResultsError(f"{path} has more than {MAX_BYTES >> 20} MiB; that is no index of a recording")
        whole = json.loads(path.read_bytes())
        body, digest = whole["recording"], whole["sha256"]
        if _digest(body) != digest:
            raise ResultsError(f"{path} is damaged: its checksum does not match")
        return Index.model_validate(body)
    except ResultsError:  # a subclass of OSError
        raise
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ResultsError(f"{path} is no index of a recording: {where} {problem['msg']}") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ResultsError(f"{path} is cut short, or no index of a recording") from None


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
