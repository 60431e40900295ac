"""The recorder: an observer that writes every round of a guard to a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from filelock import FileLock, Timeout

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..core.errors import ParameterError, ResultsError
from ..core.files import not_written, refuse_link, refuse_name, sha256_of, sync_folder, why, write_atomically
from .content import kept_columns, save_round
from .index import INDEX, Entry, Index, Precision, read_index, round_file, write_index

log = logging.getLogger("fedguard")

#: Files that a killed recorder can leave behind; the last pattern is safetensors' name for unfinished files.
_LEFT_OVER = re.compile(r"round-\d{9,}\.safetensors(\.new)?|recording(\.old)?\.json\.new|\.tmp[A-Za-z0-9]{6}")


class Recorder:
    """An observer that writes every round of a guard to a folder: one file per round, and an index.

    A round is recorded once the index names it; a crash loses at most the round being written. The recorder
    locks the folder until ``close``.

    Args:
        folder: the folder; created if absent. An existing recording is continued.
        dtype: "float32" keeps every bit; "float16" halves the space (11 significant bits per parameter,
            relative to a client's largest one). Global parameters are always float32.
        keep: record only layers whose names match this pattern, say "fc2.*"; None records all.
        max_bytes: most bytes of all round files together; after each round, the oldest are dropped.
        layers: name → number of parameters, in order; needed for ``keep`` if the server has no model.
        about: JSON values to store about the federation.
        rewind: recording a round again drops it and all that follow it, as a simulation needs that goes on
            from a checkpoint; otherwise round numbers must ascend.

    Raises:
        ParameterError: a parameter out of range.
        ResultsError: the folder holds something else, is damaged, is in use, or cannot be written.

    Example:
        >>> import tempfile
        >>> from fedguard import Guard, Round
        >>> from fedguard.recording import Recorder, Recording
        >>> folder = tempfile.mkdtemp()
        >>> round = Round([[1.0, 2.0], [3.0, 4.0]], client_ids=["a", "b"])
        >>> with Recorder(folder) as recorder:
        ...     outcome = Guard(observers=[recorder]).process(round)
        >>> len(Recording(folder))
        1
    """

    def __init__(
        self,
        folder: Path | str,
        dtype: Precision = "float32",
        keep: str | None = None,
        max_bytes: int | None = None,
        layers: Mapping[str, int] | None = None,
        about: Mapping[str, Any] | None = None,
        rewind: bool = False,
    ) -> None:
        if dtype not in get_args(Precision):
            raise ParameterError(f"recorder: dtype is {dtype!r}; use 'float32' or 'float16'")
        if max_bytes is not None and max_bytes < 1:
            raise ParameterError(f"recorder: max_bytes is {max_bytes}; use at least 1, or None for no bound")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.layers = None if layers is None else dict(layers)
        self.rewind = rewind
        wanted = Index(dtype=dtype, keep=keep, about=dict(about or {}))
        try:
            refuse_name(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            refuse_link(self.folder / "lock")
            self._lock = FileLock(self.folder / "lock", timeout=0)
            self._lock.acquire()
        except Timeout:
            raise ResultsError(f"another recorder is writing to {self.folder}") from None
        except OSError as error:
            raise ResultsError(not_written(self.folder, error, "record to another folder")) from None
        try:
            self._index = self._open(wanted)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unlock the folder. The recorder cannot be used afterwards."""
        self._lock.release()

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Record a round. If that fails, the index lists it as missing.

        Raises:
            ResultsError: the round cannot be written, or its number is not above the last one.
            ParameterError: ``keep`` does not fit the round.
        """
        if not self._lock.is_locked:
            raise ResultsError(f"the recorder of {self.folder} is closed")
        self._make_way(round.index)
        try:
            self._record(round, outcome)
        except Exception:
            self._index.missed.append(round.index)  # written with the next round
            raise

    def _record(self, round: Round, outcome: Outcome) -> None:
        columns = kept_columns(round, self._index.keep, self.layers)
        path = self.folder / round_file(round.index)
        try:
            words = self.remarks(round, outcome)
            write_atomically(
                path, lambda fresh: save_round(fresh, round, outcome, columns, self._index.dtype, words)
            )
            size, digest = path.stat().st_size, sha256_of(path)
        except OSError as error:
            raise ResultsError(f"cannot record round {round.index} to {self.folder}: {why(error)}") from None
        entry = Entry(index=round.index, file=path.name, sha256=digest, bytes=size, clients=round.n)
        self._add(entry)

    def remarks(self, round: Round, outcome: Outcome) -> Mapping[str, Any]:
        """Return JSON values to store with a round; subclasses override this."""
        return {}

    def _make_way(self, index: int) -> None:
        """Refuse a round that does not follow the last one; with ``rewind``, drop the rounds it replaces."""
        rounds = self._index.rounds
        if not rounds or index > rounds[-1].index:
            return
        if not self.rewind:
            raise ResultsError(
                f"{self.folder} already holds round {rounds[-1].index}, so round {index} does not follow; "
                "record a new run to its own folder"
            )
        self._index.missed[:] = [number for number in self._index.missed if number < index]
        self._write([entry for entry in rounds if entry.index < index], self._index.rotated)

    def _add(self, entry: Entry) -> None:
        rounds, rotated = [*self._index.rounds, entry], self._index.rotated
        if self.max_bytes is not None:
            if entry.bytes > self.max_bytes:
                (self.folder / entry.file).unlink()
                raise ResultsError(
                    f"one round takes {entry.bytes} bytes, more than max_bytes = {self.max_bytes}; "
                    "keep fewer layers, or use float16"
                )
            while sum(e.bytes for e in rounds) > self.max_bytes:
                rounds, rotated = rounds[1:], rotated + 1
        self._write(rounds, rotated)

    def _write(self, rounds: list[Entry], rotated: int) -> None:
        """Write the index first, then remove the files that it no longer names."""
        index = self._index.model_copy(update={"rounds": rounds, "rotated": rotated})
        write_index(self.folder, index)
        gone = {e.file for e in self._index.rounds} - {e.file for e in rounds}
        self._index = index
        for name in sorted(gone):
            (self.folder / name).unlink(missing_ok=True)

    def _open(self, wanted: Index) -> Index:
        """Return the folder's index if it fits, and remove what an interrupted recorder left."""
        names = {path.name for path in self.folder.iterdir()} - {"lock"}
        if INDEX not in names:
            foreign = sorted(name for name in names if name != f"{INDEX}.new")
            if foreign:
                raise ResultsError(f"{self.folder} holds {foreign[0]} and no {INDEX}: it is no recording")
            write_index(self.folder, wanted)
            return wanted
        index = read_index(self.folder / INDEX)
        for name in ("dtype", "keep", "about"):
            if getattr(index, name) != getattr(wanted, name):
                what = (
                    "about another federation" if name == "about" else f"with {name} {getattr(index, name)}"
                )
                raise ResultsError(f"{self.folder} already holds a recording {what}; give another folder")
        self._clear(index, names)
        return index

    def _clear(self, index: Index, names: set[str]) -> None:
        """Remove unfinished files and rounds missing in the index, which an interrupted recorder left."""
        listed = {entry.file for entry in index.rounds}
        for name in sorted(names - listed):
            if _LEFT_OVER.fullmatch(name):
                log.warning("%s: removed %s, which an interrupted recorder left", self.folder, name)
                (self.folder / name).unlink()
        sync_folder(self.folder)
