"""Recordings: the index, the words and tensors of every round, and their files."""

from __future__ import annotations

import copy
import hashlib
import json
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from ...contracts.local_training import LocalTraining
from ...contracts.registry import make_detector, make_policy
from ...contracts.round import Round
from ...contracts.server import Server
from ...guard import Guard
from ...recording import Recorder, Recording, replay
from ...recording.index import INDEX, OLD_INDEX, Index
from .case import Forbidden, Mutant, Rng, Step
from .files import Victim, damage, no_formulas, unplain
from .recording_drafts import CHANGES, Draft, write_index
from .values import pick

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


class Recordings:
    """Mutants of two recordings: one of a live guard, one of a simulation."""

    @cached_property
    def originals(self) -> list[Draft]:
        """Return both recordings, unchanged."""
        with TemporaryDirectory() as folder:
            _record_live(Path(folder) / "live")
            _record_suite(Path(folder))
            recorded = next((Path(folder) / "rec").iterdir())
            return [_draft_of(Path(folder) / "live"), _draft_of(recorded)]

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Make a mutant of one of them."""
        live, victim = rng.random() < 0.6, Victim(folder)
        draft = copy.deepcopy(self.originals[0 if live else 1])
        home = folder / "recording"
        home.mkdir()
        words = []
        for _ in range(int(rng.integers(1, 4))):
            try:
                words.append(pick(rng, CHANGES)(rng, draft))
            except (KeyError, TypeError, IndexError, AttributeError, ValueError):
                break  # an earlier change left nothing to change here
        _written(draft, home)
        if rng.random() < 0.25:
            words.append(_on_disk(rng, home, victim.path))
        return Mutant(_steps(rng, home, live), words, is_whole(home), victim.unharmed)


def _written(draft: Draft, home: Path) -> None:
    try:
        draft.write(home)
    except (TypeError, ValueError, AttributeError, KeyError):  # no place left for the correct numbers
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
    except Exception:  # any error means it is not whole
        return False
    return True


# --- entry points


def _steps(rng: Rng, home: Path, live: bool) -> list[Step]:
    detector = pick(rng, DETECTORS)
    out = home.parent / pick(rng, ("out.csv", "out.json"))
    more: list[Step] = [
        ("replay", lambda: list(replay(Recording(home), Guard(make_detector(detector), make_policy("ban"))))),
        ("fedguard replay --detector", lambda: _asked(home, detector, out)),
        ("fedguard replay", lambda: _asked(home, None, out)),
        ("suite on a recording", lambda: _suite_on(home)),
        ("rollback", lambda: _rolled_back(home, None)),
        ("rollback without", lambda: _rolled_back(home, ["a"] if live else ["0"])),
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
    from ...evaluation.running.replay import Question, ask, show_replay

    question = Question(home, detector, policy="ban" if detector else None, assumed=1)
    error = ask(question).watcher.error.strip().splitlines()
    if error and error[0].startswith("Traceback"):  # the watcher stores the guard's error
        raise Forbidden(f"a guard on it fails with {error[-1]} ({' '.join(error[-4:-1])})")
    show_replay(question, out)
    if out.suffix == ".csv" and out.exists():
        no_formulas(out.read_text(encoding="utf-8"))


def _rolled_back(home: Path, without: list[str] | None) -> None:
    from ...evaluation.running.rollback import rollback

    rollback(home, without).save(home.parent / "out.safetensors")
    rollback(home, without, approximate=True)


def _suite_on(home: Path) -> None:
    from ...evaluation.suites.check import check_suite
    from ...evaluation.suites.load import load_suite

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
    from ...evaluation.running.runner import run_suite
    from ...evaluation.suites.load import load_suite

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
