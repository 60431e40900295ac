"""Recordings: the index, the words and tensors of every round, and the files that hold them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from ...guard import Guard
from ...recording import Recorder, Recording, replay
from ...recording.index import INDEX, OLD_INDEX, Index
from ...registry import make_detector, make_policy
from ...round import Round
from ...server import Server
from ...training import LocalTraining
from .case import CODE, Forbidden, Mutant, Rng, Step
from .files import Victim, damage, no_formulas, unplain
from .values import TEXTS, any_value, at, changed, floats, pick, ways

SUITE = """
data: digits
model: logistic_regression
clients: 5
malicious: 1
rounds: 3
training: {steps: 1, batch_size: 8, lr: 0.1}
attacks: [{name: byzantine, mode: random}]
defenses: {krum: {detector: krum, policy: ban}}
"""
DETECTORS = ("norm_bound", "krum", "foolsgold", "fldetector", "dnc", "signguard")


@dataclasses.dataclass
class Draft:
    """A recording in memory, before it is written.

    Attributes:
        index: the body of the index.
        rounds: tensors and words of every round.
        fixed: fields of entries that are not put right when it is written.
    """

    index: dict[str, Any]
    rounds: list[tuple[dict[str, Any], dict[str, Any]]]
    fixed: set[str] = dataclasses.field(default_factory=set)

    def write(self, folder: Path) -> None:
        """Write it, with the right checksums, sizes and counts."""
        for entry, (tensors, words) in zip(self.index.get("rounds") or [], self.rounds, strict=False):
            data = save(tensors, metadata={"fedguard": json.dumps(words)})
            if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
                continue
            name = f"round-{words['index']:09d}.safetensors" if entry["file"].startswith("round") else ""
            right = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            if isinstance(words.get("client_ids"), list) and words["client_ids"]:
                right["clients"] = len(words["client_ids"])
            entry.update({key: value for key, value in right.items() if key not in self.fixed})
            (folder / (name or "round")).write_bytes(data)
        write_index(folder / INDEX, self.index)


def write_index(path: Path, body: Any) -> None:
    """Write an index with the right checksum."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "recording": body}), encoding="utf-8")


# --- what is changed


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
    """Clients by other names, the same in every round."""
    new: dict[str, Any] = {}
    for _, words in draft.rounds:
        for i, name in enumerate(words["client_ids"]):
            new.setdefault(str(name), pick(rng, TEXTS) if rng.random() < 0.5 else any_value(rng))
            words["client_ids"][i] = new[str(name)]
    return "clients by other names"


def _texts(rng: Rng, draft: Draft) -> str:
    """Reasons, notes and problems that say something else."""
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
    shapes = (old[:0], old[:1], np.concatenate([old, old]), old[None], old.ravel(), np.zeros((0, 10**6), "f4"))
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
    """Other clients in one round, everywhere in it: fewer, none, many, some twice."""
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
    """Other numbers of rounds, in the index and in the rounds alike."""
    start, step = int(pick(rng, (0, 5, 10**6, 2**31, 10**18))), int(pick(rng, (1, 1, 7, 10**9)))
    for k, (entry, (_, words)) in enumerate(zip(draft.index["rounds"], draft.rounds, strict=True)):
        entry["index"] = words["index"] = start + k * step
        entry["file"] = f"round-{entry['index']:09d}.safetensors"
    return f"rounds from {start} in steps of {step}"


def _code(rng: Rng, draft: Draft) -> str:
    """A class to import wherever a text stands."""
    where = draft.index if rng.random() < 0.7 else pick(rng, draft.rounds)[1]
    texts = [way for way in ways(where) if isinstance(at(where, way), str)]
    named = [way for way in texts if way[-1] == "name" or rng.random() < 0.1]
    way = pick(rng, named or texts)
    at(where, way[:-1])[way[-1]] = CODE
    return f"{'.'.join(map(str, way))} names code"


CHANGES = (_index, _about, _words, _words, _names, _texts, _tensor, _tensor, _clients, _order, _code)


class Recordings:
    """Mutants of two recordings: one of a live guard, one of a simulation."""

    @cached_property
    def originals(self) -> list[Draft]:
        """Both recordings, as they were made."""
        with TemporaryDirectory() as folder:
            _record_live(Path(folder) / "live")
            _record_suite(Path(folder))
            recorded = next((Path(folder) / "rec").iterdir())
            return [_draft_of(Path(folder) / "live"), _draft_of(recorded)]

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Change one of them."""
        live, victim = rng.random() < 0.6, Victim(folder)
        draft = copy.deepcopy(self.originals[0 if live else 1])
        home = folder / "recording"
        home.mkdir()
        words = []
        for _ in range(int(rng.integers(1, 4))):
            try:
                words.append(pick(rng, CHANGES)(rng, draft))
            except (KeyError, TypeError, IndexError, AttributeError, ValueError):
                break  # an earlier change has left nothing to change there
        _written(draft, home)
        if rng.random() < 0.25:
            words.append(_on_disk(rng, home, victim.path))
        return Mutant(_steps(rng, home, live), words, is_whole(home), victim.unharmed)


def _written(draft: Draft, home: Path) -> None:
    try:
        draft.write(home)
    except (TypeError, ValueError, AttributeError, KeyError):  # no place left for the right numbers
        write_index(home / INDEX, draft.index)


def _on_disk(rng: Rng, home: Path, victim: Path) -> str:
    files = sorted(path for path in home.iterdir())
    path = pick(rng, files)
    how = int(rng.integers(4))
    if how == 0:
        return unplain(rng, path, victim)
    if how == 1:
        (home / OLD_INDEX).write_bytes((home / INDEX).read_bytes())
        return damage(rng, home / INDEX) + ", with the index before"
    words = damage(rng, path)
    if how == 2 and path.name != INDEX and path.name.startswith("round-"):
        body = json.loads((home / INDEX).read_bytes())["recording"]
        data = path.read_bytes()
        for entry in body["rounds"]:
            if isinstance(entry, dict) and entry.get("file") == path.name:
                entry.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        write_index(home / INDEX, body)
        words += ", with the right checksum"
    return words


def is_whole(home: Path) -> bool:
    """Whether checksums, sizes and the schema of the index hold, and every round is a safetensors file."""
    try:
        if not all(path.is_file() and not path.is_symlink() for path in home.iterdir()):
            return False
        whole = json.loads((home / INDEX).read_bytes())
        body = json.dumps(whole["recording"], sort_keys=True).encode()
        if hashlib.sha256(body).hexdigest() != whole["sha256"]:
            return False
        for entry in Index.model_validate(whole["recording"]).rounds:
            data = (home / entry.file).read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.sha256 or len(data) != entry.bytes:
                return False
            with safe_open(home / entry.file, "np"):
                pass
    except Exception:  # whatever it is, it does not pass
        return False
    return True


# --- what is tried


def _steps(rng: Rng, home: Path, live: bool) -> list[Step]:
    detector = pick(rng, DETECTORS)
    out = home.parent / pick(rng, ("out.csv", "out.json"))
    more: list[Step] = [
        ("replay", lambda: list(replay(Recording(home), Guard(make_detector(detector), make_policy("ban"))))),
        ("fedguard replay --detector", lambda: _asked(home, detector, out)),
        ("fedguard replay", lambda: _asked(home, None, out)),
        ("suite on a recording", lambda: _suite_on(home)),
        ("Recorder", lambda: Recorder(home).close()),
    ]
    chosen = [more[i] for i in sorted(rng.choice(len(more), size=2, replace=False))]
    first: list[Step] = [
        ("Recording.check", lambda: Recording(home).check()),
        ("Recording", lambda: list(Recording(home))),
        ("Recording.words", lambda: [Recording(home).words(k) for k in range(len(Recording(home)))]),
    ]
    return [*first, *chosen]


def _asked(home: Path, detector: str | None, out: Path) -> None:
    from ...evaluation.replay import Question, ask, show_replay

    question = Question(home, detector, policy="ban" if detector else None, assumed=1)
    error = ask(question).watcher.error.strip().splitlines()
    if error and not error[-1].startswith("fedguard.errors."):  # the watcher keeps what its guard raises
        raise Forbidden(f"a guard on it fails with {error[-1]} ({' '.join(error[-4:-1])})")
    show_replay(question, out)
    if out.suffix == ".csv" and out.exists():
        no_formulas(out.read_text(encoding="utf-8"))


def _suite_on(home: Path) -> None:
    from ...evaluation.check import check_suite
    from ...evaluation.suite import load_suite

    path = home.parent / "suite.yaml"
    text = f"recording: {json.dumps(str(home))}\nassumed_malicious: 1\ndefenses: [norm_bound]\n"
    path.write_text(text, encoding="utf-8")
    check_suite(*load_suite(path, allow_code=False))


# --- the originals


def _record_live(folder: Path) -> None:
    rng = np.random.default_rng(0)
    server = Server(input_shape=(1, 2), num_classes=3, training=LocalTraining(lr=0.1), seed=3)
    with Recorder(folder, about={"note": "x"}) as recorder:
        guard = Guard(make_detector("norm_bound"), make_policy("ban"), observers=[recorder])
        for index in range(3):
            updates = rng.normal(size=(6, 9)).astype(np.float32)
            updates[5] *= 100
            names = ["a", "b", 3, "d", "e", "f"]
            start = np.zeros(9, np.float32)
            guard.process(Round(updates, names, np.arange(6) + 1, index, start, server))


def _record_suite(folder: Path) -> None:
    from ...evaluation.runner import run_suite
    from ...evaluation.suite import load_suite

    (folder / "s.yaml").write_text(SUITE, encoding="utf-8")
    run_suite(load_suite(folder / "s.yaml")[0], folder / "out", 1, record=folder / "rec")


def _draft_of(folder: Path) -> Draft:
    index = json.loads((folder / INDEX).read_bytes())["recording"]
    rounds = []
    for entry in index["rounds"]:
        with safe_open(folder / entry["file"], "np") as file:
            words = json.loads(file.metadata()["fedguard"])
        rounds.append((load_file(folder / entry["file"]), words))
    return Draft(index, rounds)


_Change = Callable[[Rng, Draft], str]
