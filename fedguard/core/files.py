"""Write files atomically, and never through a symbolic link."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
#: SQLite reports a limit on a file's size as an I/O error.
_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_IOERR_WRITE")
MAKE_SPACE = "free some space there, then give the same command again"


def why(error: Exception) -> str:
    """The system's description of an error; if the disk is full, also what to do."""
    if isinstance(error, sqlite3.Error):
        full = getattr(error, "sqlite_errorname", "") in _SQLITE_FULL
        return f"{error}; {MAKE_SPACE}" if full else str(error)
    if not isinstance(error, OSError):
        return str(error)
    said = error.strerror or str(error)
    return f"{said}; {MAKE_SPACE}" if error.errno in _FULL else said


def not_written(path: Path, error: Exception, instead: str = "write to another file (--out)") -> str:
    """What to say about a file or a folder that cannot be written: which, why, and what to do."""
    reason = why(error)
    if ";" in reason:  # it says what to do
        return f"cannot write {path}: {reason}"
    first = "create its folder first, or " if getattr(error, "errno", 0) == errno.ENOENT else ""
    return f"cannot write {path}: {reason}; {first}{instead}"


def refuse_link(path: Path) -> None:
    """Refuse to write through a symbolic link, which may point to any file of the user.

    Raises:
        OSError: ``path`` is a link.
    """
    if path.is_symlink():
        problem = f"{path.name} is a link, and FedGuard does not write through links; remove it first"
        raise OSError(errno.ELOOP, problem, str(path))


def refuse_name(path: Path) -> None:
    """Refuse a name that no file can have: too long, a NUL, half a character.

    Raises:
        OSError: there can be no such file.
    """
    try:
        path.lstat()
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise


def refuse_odd(path: Path) -> None:
    """Refuse what is there but no regular file: a folder, a device, a pipe.

    Raises:
        OSError: it is no file, or there can be no such file.
    """
    refuse_name(path)
    if path.exists() and not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file"
        raise OSError(errno.EINVAL, f"{path.name} {what}; use another name", str(path))


def open_fresh(path: Path) -> BinaryIO:
    """Create a file for writing; an existing file is unlinked first, never overwritten.

    Raises:
        OSError: it cannot be created.
    """
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def open_to_append(path: Path) -> BinaryIO:
    """Open or create a file for reading and appending, unbuffered.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    refuse_link(path)
    refuse_odd(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a+b", buffering=0)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a new file beside ``path``, flush it to disk, and move it to ``path`` atomically.

    If anything fails, ``path`` is unchanged. The new file keeps the permissions of the one it replaces.

    Raises:
        OSError: it cannot be written, or ``path`` is a link or not a regular file.
    """
    refuse_link(path)
    refuse_odd(path)
    fresh = path.with_name(f"{path.name}.new")
    try:
        with open_fresh(fresh) as file:
            if path.exists() and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        write(fresh)
        with fresh.open("rb+") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, with :func:`write_atomically`.

    Raises:
        OSError: it cannot be written, or ``path`` is a link.
    """
    # A lone surrogate (from someone else's JSON) has no UTF-8 encoding: it is written as an escape.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    write_atomically(path, lambda fresh: fresh.write_bytes(data))


def is_file(path: Path) -> bool:
    """Whether a file exists; False for an impossible name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name of 300 characters, a NUL
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False for a name that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name of 300 characters, a NUL
        return False


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, if the system supports it."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 checksum of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written; converted from the library's SafetensorError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        found = re.search(r"(?:os error|Os \{ code:) (\d+)", str(error))  # the second form up to 0.6
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from None
