"""Serialize the state of methods and ledgers: safetensors for tensors, JSON for the rest, never pickle.

States are written to disk atomically, with a checksum; the previous state is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from .errors import ParameterError, ResultsError
from .files import open_fresh, refuse_name, refuse_odd, why

#: Nested dicts (string keys) and lists of tensors and JSON values.
State: TypeAlias = dict[str, Any]

_TENSOR = "__tensor__"
_DIGEST = hashlib.sha256().digest_size


def pack(state: State) -> bytes:
    """Serialize a state; :func:`unpack` restores it bitwise (tensors on the CPU, tuples as lists).

    Raises:
        ParameterError: a key is not a string, or a value is neither a tensor nor a JSON value.
    """
    tensors: dict[str, Tensor] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, Tensor):
            key = str(len(tensors))
            tensors[key] = value.detach().cpu().clone().contiguous()
            return {_TENSOR: key}
        if isinstance(value, dict):
            wrong = [key for key in value if not isinstance(key, str) or key == _TENSOR]
            if wrong:
                raise ParameterError(
                    f"a state has the key {wrong[0]!r}; keys are strings (for client ids use a list of pairs)"
                )
            return {key: strip(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [strip(item) for item in value]
        return value

    plain = strip(state)
    try:
        tree = json.dumps(plain)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"a state holds tensors and JSON values only: {error}") from None
    return save_tensors(tensors, metadata={"fedguard": tree})


def unpack(data: bytes) -> State:
    """Read what :func:`pack` wrote.

    Raises:
        ResultsError: the bytes are truncated or not a FedGuard state.
    """

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value[_TENSOR]] if _TENSOR in value else {k: fill(v) for k, v in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        tree = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["fedguard"])
        state: State = fill(dict(tree))
    except (
        SafetensorError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,  # torch's, and nesting too deep
        OverflowError,
    ) as error:
        raise ResultsError(f"not a FedGuard state, or cut short: {error}") from None
    return state


def save(path: Path | str, state: State) -> None:
    """Write a state; after a crash at any moment, this state or the previous one (``.old``) is on disk.

    Raises:
        ResultsError: it cannot be written.
    """
    path, data = Path(path), pack(state)
    try:
        refuse_odd(path)
        fresh = path.with_suffix(".new")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_fresh(fresh) as file:
            file.write(hashlib.sha256(data).digest() + data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(path.with_suffix(".old"))
        fresh.replace(path)
    except OSError as error:
        raise ResultsError(f"cannot write the state {path}: {why(error)}") from None


def load(path: Path | str) -> State | None:
    """The latest intact state; None if there is no file.

    Raises:
        ResultsError: every file is truncated, modified, or of another version.
    """
    path = Path(path)
    try:
        refuse_name(path)
    except OSError as error:
        raise ResultsError(f"cannot read the state {path}: {why(error)}") from None
    there = [candidate for candidate in (path, path.with_suffix(".old")) if candidate.exists()]
    for candidate in there:
        try:
            raw = candidate.read_bytes()
        except OSError as error:
            raise ResultsError(f"cannot read the state {candidate}: {error.strerror}") from None
        if hashlib.sha256(raw[_DIGEST:]).digest() == raw[:_DIGEST]:
            try:
                return unpack(raw[_DIGEST:])
            except ResultsError:  # written by another version
                continue
    if there:
        raise ResultsError(
            f"{path} holds no whole state; restore it from a copy, or remove it to start afresh"
        )
    return None
