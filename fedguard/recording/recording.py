"""Read a recording. Every file is checked, and every problem is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import ResultsError
from ..core.files import is_folder, sha256_of
from .content import Recorded, load_round, load_words
from .index import INDEX, OLD_INDEX, Entry, Index, read_index


class Recording:
    """The rounds that a recorder wrote, oldest first.

    If the index is damaged, the previous one is used, and ``problems`` says so.

    Args:
        folder: the recorder's folder.

    Attributes:
        index: the index of the recording.
        problems: the problems found so far, in words; :meth:`check` reads every file.

    Raises:
        ResultsError: there is no readable index.

    Example:
        >>> import tempfile
        >>> from fedguard import Guard, Round
        >>> from fedguard.recording import Recorder, Recording
        >>> folder = tempfile.mkdtemp()
        >>> round = Round([[1.0, 2.0], [3.0, 4.0]], client_ids=["a", "b"])
        >>> with Recorder(folder) as recorder:
        ...     outcome = Guard(observers=[recorder]).process(round)
        >>> [recorded.round.n for recorded in Recording(folder)]
        [2]
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.problems: list[str] = []
        self.index: Index = self._read_index()
        self.problems += [
            f"round {number} could not be recorded and is missing" for number in self.index.missed
        ]
        #: The first position that cannot be used, as the round there is damaged or missing.
        self.whole = len(self.index.rounds)

    def __len__(self) -> int:
        """Number of usable rounds: all or, once ``check`` ran, those before the first damaged one."""
        return self.whole

    def __iter__(self) -> Iterator[Recorded]:
        """Yield the usable rounds in order."""
        return (self.read(position) for position in range(len(self)))

    def read(self, position: int) -> Recorded:
        """Read one round by its position.

        Raises:
            ResultsError: its file is damaged, missing, or not the recorded one.
        """
        entry = self.index.rounds[position]
        self._check_file(entry)
        recorded = load_round(self.folder / entry.file)
        if recorded.round.index != entry.index or recorded.round.n != entry.clients:
            raise ResultsError(f"{self.folder / entry.file} is not round {entry.index} of this recording")
        return recorded

    def words(self, position: int) -> dict[str, Any]:
        """Read a round without its tensors: client ids, reasons, remarks …"""
        return load_words(self.folder / self.index.rounds[position].file)

    def check(self) -> list[str]:
        """Check every file, and return all problems. Rounds from the first damaged one on become unusable."""
        for position, entry in enumerate(self.index.rounds):
            try:
                self._check_file(entry)
            except ResultsError as error:
                self.problems.append(str(error))
                self.whole = min(self.whole, position)
        listed = {entry.file for entry in self.index.rounds} | {INDEX, OLD_INDEX, "lock"}
        self.problems += [
            f"{path} is not in the index: it is not part of the recording"
            for path in sorted(self.folder.iterdir())
            if path.name not in listed
        ]
        return self.problems

    def _check_file(self, entry: Entry) -> None:
        path = self.folder / entry.file
        if path.is_symlink():
            raise ResultsError(f"{path} is a link; recordings hold their own files")
        try:
            size = path.stat().st_size
            digest = sha256_of(path) if size == entry.bytes else ""
        except OSError as error:
            raise ResultsError(f"{path} is missing or cannot be read: {error.strerror}") from None
        if size != entry.bytes:
            raise ResultsError(f"{path} is damaged: it has {size} bytes, {entry.bytes} were recorded")
        if digest != entry.sha256:
            raise ResultsError(f"{path} is damaged: its checksum does not match")

    def _read_index(self) -> Index:
        if not is_folder(self.folder):
            raise ResultsError(f"there is no folder {self.folder}")
        try:
            return read_index(self.folder / INDEX)
        except ResultsError as error:
            try:
                index = read_index(self.folder / OLD_INDEX)
            except ResultsError:
                raise error from None
            self.problems.append(f"{error}; the index before it is used")
            return index
