"""Recordings whose checksums are right and whose content is not: a typed error that names the file."""

import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fedguard import Guard, Round, make_detector
from fedguard.core.errors import FedGuardError, ResultsError
from fedguard.core.files import sha256_of
from fedguard.core.threads import single_thread
from fedguard.evaluation.running.replay import Question, ask
from fedguard.evaluation.suites.load import load_suite
from fedguard.recording import Recorder, Recording, replay
from fedguard.recording.content import load_round, load_words
from fedguard.recording.index import Index, read_index, write_index
from fedguard.simulation.datasets import load_digits
from fedguard.simulation.federation import Federation
from fedguard.simulation.recorded import recording_to, server_of
from fedguard.simulation.settings import Cell

#: Seconds, on a busy machine: what is refused takes milliseconds, what hangs takes for ever.
AT_ONCE = 5.0


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A recording of a simulation, and one of a live guard."""
    folder = tmp_path_factory.mktemp("recorded")
    cell = Cell(
        clients=6,
        malicious=1,
        rounds=2,
        model={"name": "mlp", "hidden": [4]},
        attack_label="a",
        attack={"name": "byzantine"},
        defense_label="d",
        defense={"detector": {"name": "krum"}},
        seed=0,
    )
    with single_thread():
        federation = Federation(cell)
        with recording_to(folder / "simulated", federation):
            federation.run()
    with Recorder(folder / "live") as recorder:
        guard = Guard(make_detector("norm_bound"), observers=[recorder])
        for index in range(2):
            x = np.random.default_rng(index).normal(size=(5, 4))
            guard.process(Round(x, ["a", 7, "7b", "d", "e\ud800"], index=index, global_params=np.ones(4)))
    return folder


@pytest.fixture(params=["simulated", "live"])
def folder(kept, tmp_path, request):
    shutil.copytree(kept / request.param, tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def simulated(kept, tmp_path):
    shutil.copytree(kept / "simulated", tmp_path / "r")
    return tmp_path / "r"


def use(folder):
    """Everything that reads one."""
    recording = Recording(folder)
    problems = recording.check()
    if problems:
        raise ResultsError(problems[0])
    for recorded, _ in replay(recording, Guard(make_detector("norm_bound"))):
        assert recorded.round.n == len(recorded.scores)
    answer = ask(Question(folder, detector="norm_bound", assumed=1))
    assert not answer.watcher.error, answer.watcher.error
    (folder.parent / "s.yaml").write_text(
        f"recording: {folder}\nassumed_malicious: 1\ndefenses: [norm_bound]\n"
    )
    load_suite(folder.parent / "s.yaml")


def refused(folder):
    start = time.monotonic()
    with pytest.raises(FedGuardError) as caught:
        use(folder)
    assert time.monotonic() - start < AT_ONCE
    return str(caught.value)


def signed(folder, raw=None):
    """Bring the checksums of the index into line with the first round's file."""
    index = read_index(folder / "recording.json")
    path = folder / index.rounds[0].file
    if raw is not None:
        path.write_bytes(raw)
    entry = index.rounds[0].model_copy(update={"sha256": sha256_of(path), "bytes": path.stat().st_size})
    write_index(folder, index.model_copy(update={"rounds": [entry, *index.rounds[1:]]}))


def rewritten(folder, tensors=None, words=None, metadata=None):
    """Change the first round's file; None as a tensor drops it."""
    path = folder / read_index(folder / "recording.json").rounds[0].file
    with safe_open(path, "pt") as file:
        old = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        said = json.loads(file.metadata()["fedguard"])
    new = {**old, **(tensors(old) if tensors else {})}
    said = {**said, **(words(said) if words else {})}
    text = json.dumps(said) if metadata is None else metadata
    save_file({k: v.contiguous() for k, v in new.items() if v is not None}, path, {"fedguard": text})
    signed(folder)


def test_the_tests_themselves_leave_good_recordings_readable(folder):
    use(folder)
    rewritten(folder)
    use(folder)


NAN = float("nan")
TENSORS = {
    "no updates": lambda t: {"updates": None},
    "no scores": lambda t: {"scores": None},
    "updates of one axis": lambda t: {"updates": t["updates"].flatten()},
    "updates of three": lambda t: {"updates": t["updates"][None]},
    "one update less": lambda t: {"updates": t["updates"][1:]},
    "no parameter": lambda t: {"updates": t["updates"][:, :0]},
    "updates in float64": lambda t: {"updates": t["updates"].double()},
    "updates of integers": lambda t: {"updates": t["updates"].long()},
    "complex updates": lambda t: {"updates": t["updates"].to(torch.complex64)},
    "a scale too long": lambda t: {"scale": torch.ones(99)},
    "a scale of two axes": lambda t: {"scale": torch.ones(len(t["updates"]), 1)},
    "a global model too small": lambda t: {"global_params": torch.ones(3)},
    "a global model of two axes": lambda t: {"global_params": t["updates"].clone()},
    "barred too short": lambda t: {"barred": t["barred"][1:]},
    "barred as numbers": lambda t: {"barred": t["barred"].double()},
    "suspects too long": lambda t: {"suspects": torch.cat([t["suspects"], t["suspects"]])},
    "scores of two axes": lambda t: {"scores": t["scores"][:, None]},
    "weights in bfloat16": lambda t: {"weights": t["weights"].bfloat16()},
    "a weight that is NaN": lambda t: {"weights": t["weights"] * NAN},
    "a weight below 0": lambda t: {"weights": t["weights"] - 2},
    "claims that count more than in full": lambda t: {"counted": t["weights"] + 2},
    "claims that do not count": lambda t: {"counted": t["weights"] * 0},
    "an infinite weight": lambda t: {"weights": t["weights"] + float("inf")},
    "counts too few": lambda t: {"num_examples": t["num_examples"][1:]},
    "counts that are flags": lambda t: {"num_steps": t["num_steps"] > 0},
    "a detector's scores too short": lambda t: {"scores/x": torch.ones(2, dtype=torch.float64)},
    "one more tensor": lambda t: {"x": torch.ones(2)},
}
DEEP = "[" * 100_000 + "]" * 100_000
WORDS = {
    "ids that are a text": lambda w: {"client_ids": "abcdef"[: len(w["client_ids"])]},
    "ids that are a mapping": lambda w: {"client_ids": {str(i): i for i in w["client_ids"]}},
    "an id that is a list": lambda w: {"client_ids": [[1], *w["client_ids"][1:]]},
    "an id that is a number": lambda w: {"client_ids": [0.5, *w["client_ids"][1:]]},
    "an id that is true": lambda w: {"client_ids": [True, *w["client_ids"][1:]]},
    "an id that is endless": lambda w: {"client_ids": ["x" * 10**6, *w["client_ids"][1:]]},
    "an id twice": lambda w: {"client_ids": [w["client_ids"][1], *w["client_ids"][1:]]},
    "nobody": lambda w: {"client_ids": [], "problems": [], "reasons": []},
    "one reason less": lambda w: {"reasons": w["reasons"][1:]},
    "a reason that is a number": lambda w: {"reasons": [1, *w["reasons"][1:]]},
    "problems too many": lambda w: {"problems": [*w["problems"], None]},
    "a problem that is a mapping": lambda w: {"problems": [{}, *w["problems"][1:]]},
    "another round": lambda w: {"index": 7},
    "a round below 0": lambda w: {"index": -1},
    "a round that is a text": lambda w: {"index": "0"},
    "a round that is endless": lambda w: {"index": 10**4000},
    "a note that is a list": lambda w: {"note": []},
    "a seed that is a text": lambda w: {"seed": "x"},
    "a shape below 0": lambda w: {"seed": 1, "input_shape": [-1, 2]},
    "a shape of many axes": lambda w: {"seed": 1, "input_shape": [1] * 1000},
    "labels below 0": lambda w: {"seed": 1, "num_classes": -3},
    "training that is a list": lambda w: {"seed": 1, "training": [1]},
    "training of other names": lambda w: {"seed": 1, "training": {"x": 1}},
    "training of texts": lambda w: {"seed": 1, "training": {**TRAINING, "epochs": "x"}},
    "training for ever": lambda w: {"seed": 1, "training": {**TRAINING, "lr": NAN}},
    "remarks that are a list": lambda w: {"remarks": [1]},
    "numbers too few": lambda w: {"remarks": {"clients": [0]}},
    "a number twice": lambda w: {"remarks": {"clients": [0] * len(w["client_ids"])}},
    "numbers that are lists": lambda w: {"remarks": {"clients": [[0]] * len(w["client_ids"])}},
    "attackers that are texts": lambda w: {"remarks": {"attacking": ["x"]}},
}
TRAINING = {
    "epochs": 1,
    "steps": None,
    "batch_size": 1,
    "lr": 0.1,
    **dict.fromkeys(("momentum", "weight_decay", "proximal", "wbc"), 0),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_do_not_fit(what, folder):
    rewritten(folder, tensors=TENSORS[what])
    assert "round-000000000.safetensors" in refused(folder)


@pytest.mark.parametrize("what", WORDS)
def test_words_that_do_not_fit(what, folder):
    rewritten(folder, words=WORDS[what])
    assert "round-000000000.safetensors" in refused(folder)


@pytest.mark.parametrize("text", ["", "x", "[]", "null", "{}", DEEP, '{"index":' + "9" * 10_000 + "}"])
def test_metadata_that_are_no_words(text, folder):
    rewritten(folder, metadata=text)
    assert "round-000000000.safetensors" in refused(folder)


def header(announced, length=None):
    text = json.dumps(announced).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 8,
        header({}, 2**40),
        header({"updates": {"dtype": "F32", "shape": [10**9, 10**6], "data_offsets": [0, 4 * 10**15]}}),
        header({"updates": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}),
        header({"updates": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}}) + bytes(4),
        header({"updates": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
        header({f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(50_000)}),
        header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}) + bytes(36),
    ],
    ids=["empty", "ones", "length", "huge", "overflow", "axes", "type", "many", "others"],
)
def test_headers_that_announce_what_is_not_there(raw, folder):
    signed(folder, raw)
    assert "round-000000000.safetensors" in refused(folder)


# --- the index


def retold(folder, **about):
    index = read_index(folder / "recording.json")
    write_index(folder, index.model_copy(update={"about": {**index.about, **about}}))


def with_cell(folder, **changes):
    retold(folder, cell={**read_index(folder / "recording.json").about["cell"], **changes})


CELLS = {
    "a billion clients": {"clients": 10**9},
    "clients without end": {"clients": 10**30},
    "a client too few": {"clients": 2, "malicious": 1},
    "a billion hidden units": {"model": {"name": "mlp", "hidden": [10**9]}},
    "hidden units beyond integers": {"model": {"name": "mlp", "hidden": [2**62]}},
    "many layers": {"model": {"name": "mlp", "hidden": [1] * 50_000}},
    "another model": {"model": {"name": "mlp", "hidden": [5]}},
    "no such model": {"model": {"name": "gpt"}},
    "no such data": {"data": {"name": "../../etc/passwd"}},
    "no such detector": {"defense": {"detector": [{"name": "magic"}]}, "attack": {"name": "magic"}},
    "no such attack": {"attack": {"name": "magic"}},
    "a billion samples for the server": {"server": {"validation": 10**9}},
    "settings of another kind": {"rounds": "many"},
    "settings beyond": {"nothing": 1},
    "no seed": {"seed": None},
    "several guards": {"defense": {"detector": [{"name": "krum"}], "flcert": {"groups": 2}}},
}


@pytest.mark.parametrize("what", CELLS)
def test_settings_that_cannot_be(what, simulated):
    with_cell(simulated, **CELLS[what])
    refused(simulated)


@pytest.mark.parametrize(
    "malicious",
    [7, "abc", {}, [[]], [10**9], [-1], [0.5], [True], [10**400]],
    ids=lambda value: str(value)[:9],
)
def test_malicious_clients_that_there_are_not(malicious, folder):
    retold(folder, malicious=malicious)
    assert "about.malicious" in refused(folder)


def test_a_client_that_there_is_not(simulated):
    rewritten(simulated, words=lambda w: {"remarks": {**w["remarks"], "clients": [10**9, *range(1, 6)]}})
    assert "client 1000000000, but there are only 6" in refused(simulated)


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": 10**30},
        {"index": 1},
        {"clients": 0},
        {"clients": 10**9},
        {"clients": 10**30},
        {"bytes": -1},
        {"bytes": 10**18},
        {"bytes": 10**30},
        {"sha256": "x"},
        {"file": "../round-000000000.safetensors"},
        {"file": "/etc/passwd"},
    ],
    ids=str,
)
def test_entries_that_cannot_be(change, folder):
    index = read_index(folder / "recording.json")
    first = index.rounds[0].model_copy(update=change)
    write_index(folder, index.model_copy(update={"rounds": [first, *index.rounds[1:]]}))
    (folder / "recording.old.json").unlink()
    assert str(folder) in refused(folder)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", DEEP, '{"recording": 1, "sha256": 1}', "9" * 10_000, "\0"],
    ids=lambda text: text[:9],
)
def test_an_index_that_is_none(text, folder):
    (folder / "recording.json").write_text(text)
    (folder / "recording.old.json").unlink()
    assert "recording.json" in refused(folder)


def test_an_index_of_many_megabytes(folder, monkeypatch):
    monkeypatch.setattr(sys.modules[Index.__module__], "MAX_BYTES", 100)
    (folder / "recording.old.json").unlink()
    assert "that is no index" in refused(folder)


def test_a_round_twice(folder):
    index = read_index(folder / "recording.json")
    write_index(folder, index.model_copy(update={"rounds": [index.rounds[0], *index.rounds]}))
    (folder / "recording.old.json").unlink()
    assert "not in ascending order" in refused(folder)


def test_a_round_whose_place_a_pipe_takes_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "round.safetensors")
    for load in (load_words, load_round):
        with pytest.raises(ResultsError, match="is no file of a recording"):
            load(tmp_path / "round.safetensors")


def test_an_index_that_never_ends_is_refused_at_once(tmp_path):
    (tmp_path / "recording.json").symlink_to("/dev/zero")
    with pytest.raises(ResultsError, match="is not a file"):
        Recording(tmp_path)


def test_a_folder_with_an_impossible_name_is_refused():
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(ResultsError, match="there is no folder"):
            Recording(name)


def test_data_that_have_changed_since_the_recording(simulated):
    """An older version did not write the fingerprint; its recordings are read as they were."""
    folder = simulated
    about = read_index(folder / "recording.json").about
    assert about["data"] == load_digits().fingerprint
    assert server_of(Recording(folder)) is not None
    retold(folder, data="0" * 64)
    with pytest.raises(ResultsError, match="was recorded on other data: digits has changed since"):
        server_of(Recording(folder))
    retold(folder, data=None)
    assert server_of(Recording(folder)) is not None
