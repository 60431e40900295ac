"""The files of data sets, in a read-only data root or in a download cache."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataError
from ...core.files import is_file, is_folder

VARIABLE = "FEDGUARD_DATA"
#: What to do about a damaged file.
REPLACE = "replace it with a fresh copy (if it is in the cache, delete it: it is downloaded again)"


def cache_root() -> Path:
    """The per-user folder for downloads."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fedguard" / "data"


def from_torchvision(name: str, **params: str) -> Callable[[str], object]:
    """A function that downloads a data set of torchvision into a data root."""

    def download(root: str) -> object:
        from ..vision import datasets

        return getattr(datasets, name)(root, download=True, **params)

    return download


def own_file(path: str, limit: int) -> Path:
    """The user's own file; a relative path counts from the current folder.

    Raises:
        DataError: there is no such file, it is none, or it has more than ``limit`` bytes.
    """
    found = Path(path).expanduser()
    if not is_file(found):
        what = "is a folder" if is_folder(found) else "is not a file"
        raise _named(f"{found.absolute()} {what}{_hint(path)}")
    if found.stat().st_size > limit:
        raise DataError(f"{found} has more than {limit >> 20} MiB; use fewer samples")
    return found


def own_folder(path: str) -> Path:
    """The user's own folder; a relative path counts from the current folder.

    Raises:
        DataError: there is no such folder.
    """
    found = Path(path).expanduser()
    if not is_folder(found):
        raise _named(f"{found.absolute()} is not a folder{_hint(path)}")
    return found


def _hint(path: str) -> str:
    relative = not Path(path).expanduser().is_absolute()
    return (
        "; a relative path counts from the folder where FedGuard runs" if relative else "; correct the path"
    )


def _named(message: str) -> DataError:
    error = DataError(message)
    error.key = "path"
    return error


@dataclass(frozen=True)
class Files:
    """The files of one data set.

    Attributes:
        dataset: its name, for messages.
        folder: their folder below a data root.
        names: the names of the files.
        suffixes: possible suffixes of a name, in order of preference.
        download: downloads them into a data root, for example :func:`from_torchvision`.
    """

    dataset: str
    folder: str
    names: tuple[str, ...]
    suffixes: tuple[str, ...]
    download: Callable[[str], object]

    def find(self, data_root: str | Path | None) -> list[Path]:
        """The path of every file, in the order of ``names``; downloads only into the cache.

        Raises:
            DataError: a file is not in the given root, or cannot be downloaded.
        """
        given = data_root or os.environ.get(VARIABLE)
        if not given:
            root = cache_root()
            if self._missing(root):
                self._download(root)
            return self._present(root)
        root = Path(given).expanduser()
        if not root.is_dir():
            raise DataError(
                f"{self.dataset}: the data root {root} is not a folder; check {_origin(data_root)}"
            )
        missing = self._missing(root)
        if missing:
            raise DataError(
                f"{self.dataset}: {root / self.folder / missing[0]} is missing. Put the "
                f"{len(self.names)} files of the data set into {root / self.folder}, point "
                f"{_origin(data_root)} elsewhere, or unset it to have them downloaded to {cache_root()}"
            )
        return self._present(root)

    def _candidates(self, root: Path, name: str) -> list[Path]:
        return [root / self.folder / f"{name}{suffix}" for suffix in self.suffixes]

    def _missing(self, root: Path) -> list[str]:
        """Missing files, each with its alternatives: ``"x (or x.gz)"``."""
        return [
            " or ".join(f"{name}{suffix}" for suffix in self.suffixes)
            for name in self.names
            if not any(path.is_file() for path in self._candidates(root, name))
        ]

    def _present(self, root: Path) -> list[Path]:
        return [next(p for p in self._candidates(root, name) if p.is_file()) for name in self.names]

    def _download(self, root: Path) -> None:
        """Download to a scratch folder first, so that an interrupted download leaves nothing behind."""
        top = Path(self.folder).parts[0]
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix="download-") as scratch:
                self.download(scratch)
                if self._missing(root):  # no other process was faster
                    shutil.rmtree(root / top, ignore_errors=True)
                    (Path(scratch) / top).rename(root / top)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise DataError(
                f"{self.dataset} could not be downloaded to {root}: {error}. Check the network, or "
                f"set {VARIABLE} to a folder that holds {self.folder}/{self.names[0]}{self.suffixes[-1]} etc."
            ) from error


def _origin(data_root: str | Path | None) -> str:
    return "`data_root`" if data_root else f"--data-root or the environment variable {VARIABLE}"
