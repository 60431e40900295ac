"""Recordings in memory, and changes to one before it is written with correct checksums."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ...recording.index import INDEX
from .case import CODE, Rng
from .values import TEXTS, any_value, at, changed, floats, pick, ways


@dataclasses.dataclass
class Draft:
    """A recording in memory, before it is written.

    Attributes:
        index: the body of the index.
        rounds: tensors and words of every round.
        fixed: fields of entries that are not corrected on writing.
    """

    index: dict[str, Any]
    rounds: list[tuple[dict[str, Any], dict[str, Any]]]
    fixed: set[str] = dataclasses.field(default_factory=set)

    def write(self, folder: Path) -> None:
        """Write it with correct checksums, sizes and counts."""
        for entry, (tensors, words) in zip(self.index.get("rounds") or [], self.rounds, strict=False):
            data = save(tensors, metadata={"fedguard": json.dumps(words)})
            if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
                continue
            name = f"round-{words['index']:09d}.safetensors" if entry["file"].startswith("round") else ""
            right = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            if isinstance(words.get("client_ids"), list) and words["client_ids"]:
                right["clients"] = len(words["client_ids"])
            entry.update({key: value for key, value in right.items() if key not in self.fixed})
            with contextlib.suppress(OSError):  # no file can have a name so long
                (folder / (name or "round")).write_bytes(data)
        write_index(folder / INDEX, self.index)


def write_index(path: Path, body: Any) -> None:
    """Write an index with a correct checksum."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "recording": body}), encoding="utf-8")


# --- changes


def _index(rng: Rng, draft: Draft) -> str:
    draft.index, words = changed(rng, draft.index)
    draft.fixed = {"clients", "bytes", "sha256"} if rng.random() < 0.3 else set()
    return f"index: {words}"


def _about(rng: Rng, draft: Draft) -> str:
    draft.index["about"], words = changed(rng, draft.index["about"] or {"note": "x", "malicious": [0]})
    return f"about: {words}"


def _words(rng: Rng, draft: Draft) -> str:
    k = int(rng.integers(len(draft.rounds)))
    tensors, before = draft.rounds[k]
    after, words = changed(rng, before, gentle=0.7)
    draft.rounds[k] = tensors, after if isinstance(after.get("index"), int) else before
    return f"words of round {k}: {words}"


def _names(rng: Rng, draft: Draft) -> str:
    """Rename clients, consistently in every round."""
    new: dict[str, Any] = {}
    for _, words in draft.rounds:
        for i, name in enumerate(words["client_ids"]):
            new.setdefault(str(name), pick(rng, TEXTS) if rng.random() < 0.5 else any_value(rng))
            words["client_ids"][i] = new[str(name)]
    return "clients by other names"


def _texts(rng: Rng, draft: Draft) -> str:
    """Change reasons, notes and problems."""
    _, words = pick(rng, draft.rounds)
    words["note"] = pick(rng, TEXTS)
    words["reasons"] = [pick(rng, TEXTS) for _ in words["reasons"]]
    if rng.random() < 0.3:
        words["problems"] = [pick(rng, (None, *TEXTS)) for _ in words["problems"]]
    return "other reasons and notes"


def _tensor(rng: Rng, draft: Draft) -> str:
    tensors, _ = pick(rng, draft.rounds)
    name = pick(rng, sorted(tensors))
    how = pick(rng, (_numbers, _numbers, _shape, _dtype, _gone, _more))
    return f"tensor {name}: {how(rng, tensors, name)}"


def _numbers(rng: Rng, tensors: dict[str, Any], name: str) -> str:
    old = tensors[name]
    if old.dtype == bool:
        tensors[name] = rng.random(old.shape) < 0.5
    elif old.dtype.kind == "f":
        tensors[name] = floats(rng, old.shape).astype(old.dtype)
    else:
        info = np.iinfo(old.dtype)
        tensors[name] = np.full_like(old, pick(rng, (0, 1, info.min, info.max)))
    return "other numbers"


def _shape(rng: Rng, tensors: dict[str, Any], name: str) -> str:
    old = tensors[name]
    shapes = (
        old[:0],
        old[:1],
        np.concatenate([old, old]),
        old[None],
        old.ravel(),
        np.zeros((0, 10**6), "f4"),
    )
    tensors[name] = np.ascontiguousarray(pick(rng, (*shapes, np.zeros((), old.dtype), old.reshape(-1, 1))))
    return f"shape {tensors[name].shape}"


def _dtype(rng: Rng, tensors: dict[str, Any], name: str) -> str:
    dtype = pick(rng, ("f8", "f4", "f2", "i8", "i4", "i1", "u1", "bool", "u8"))
    with np.errstate(all="ignore"):
        tensors[name] = tensors[name].astype(dtype)
    return f"dtype {dtype}"


def _gone(rng: Rng, tensors: dict[str, Any], name: str) -> str:
    del tensors[name]
    return "removed"


def _more(rng: Rng, tensors: dict[str, Any], name: str) -> str:
    tensors[pick(rng, ("scale", "scores/x", "scores/", "x", "scores/\x1b"))] = tensors[name]
    return "twice, by another name"


def _clients(rng: Rng, draft: Draft) -> str:
    """Change the clients of one round, consistently: fewer, none, many, some twice."""
    k = int(rng.integers(len(draft.rounds)))
    tensors, words = draft.rounds[k]
    n = len(words["client_ids"])
    size = pick(rng, (0, 1, 2, n, 300))
    rows = rng.integers(n, size=size) if size != n else rng.permutation(n)
    for name in [name for name in tensors if name != "global_params"]:
        tensors[name] = np.ascontiguousarray(tensors[name][rows])
    for name in ("client_ids", "problems", "reasons"):
        words[name] = [words[name][i] for i in rows]
    if size == 300 and rng.random() < 0.8:
        words["client_ids"] = [f"c{i}" for i in range(size)]
    if isinstance(words["remarks"].get("clients"), list):
        words["remarks"]["clients"] = [words["remarks"]["clients"][i] for i in rows]
    return f"round {k} has {size} clients"


def _order(rng: Rng, draft: Draft) -> str:
    """Change the numbers of rounds, both in the index and in the rounds."""
    start, step = int(pick(rng, (0, 5, 10**6, 2**31, 10**18))), int(pick(rng, (1, 1, 7, 10**9)))
    for k, (entry, (_, words)) in enumerate(zip(draft.index["rounds"], draft.rounds, strict=True)):
        entry["index"] = words["index"] = start + k * step
        entry["file"] = f"round-{entry['index']:09d}.safetensors"
    return f"rounds from {start} in steps of {step}"


def _code(rng: Rng, draft: Draft) -> str:
    """Replace a text by the name of a class to import."""
    where = draft.index if rng.random() < 0.7 else pick(rng, draft.rounds)[1]
    texts = [way for way in ways(where) if isinstance(at(where, way), str)]
    named = [way for way in texts if way[-1] == "name" or rng.random() < 0.1]
    way = pick(rng, named or texts)
    at(where, way[:-1])[way[-1]] = CODE
    return f"{'.'.join(map(str, way))} names code"


CHANGES = (_index, _about, _words, _words, _names, _texts, _tensor, _tensor, _clients, _order, _code)
