"""Recordings: what is written can be read again, and what is damaged is named."""

import dataclasses
import json
import logging
import math

import numpy as np
import pytest
import torch

from fedguard import Guard, LabeledData, Round, Server, make_detector, make_policy
from fedguard.core.errors import NeedError, ParameterError, ResultsError
from fedguard.recording import Recorder, Recording, replay
from fedguard.recording.index import round_file
from fedguard.recording.replay import seen
from fedguard.testing.federation import federation, fresh

INF = math.inf
IDS = ("a", 7, "7b", "d", "e")


def rounds(count=3, n=5, d=4, **more):
    rng = np.random.default_rng(0)
    return [
        Round(
            rng.normal(size=(n, d)).astype("float32") / 100,
            IDS[:n],
            np.arange(n) + 10,
            index=index,
            global_params=rng.normal(size=d),
            num_steps=np.arange(n) + 1,
            **more,
        )
        for index in range(count)
    ]


def record(folder, some, guard=None, **options):
    with Recorder(folder, **options) as recorder:
        guard = guard or Guard(make_detector("krum", num_malicious=1))
        guard.observers = (recorder,)
        return [guard.process(round) for round in some]


@pytest.fixture
def folder(tmp_path):
    record(tmp_path / "r", rounds())
    return tmp_path / "r"


# --- what is in it


def test_everything_comes_back_bit_by_bit(tmp_path):
    given = rounds(server=Server(seed=12, input_shape=(2, 2), num_classes=3))
    outcomes = record(tmp_path, given)
    recording = Recording(tmp_path)
    assert recording.check() == []
    assert len(recording) == 3
    for recorded, round, outcome in zip(recording, given, outcomes, strict=True):
        again = recorded.round
        assert torch.equal(again.updates.matrix, round.updates.matrix)
        assert torch.equal(again.global_params, round.global_params)
        assert again.client_ids == IDS, "strings and integers are kept apart"
        assert again.num_examples.tolist() == round.num_examples.tolist()
        assert again.num_steps.tolist() == round.num_steps.tolist()
        assert again.index == round.index
        assert (again.server.seed, again.server.input_shape, again.server.num_classes) == (12, (2, 2), 3)
        for name in ("scores", "weights", "suspects", "banned", "barred"):
            np.testing.assert_array_equal(getattr(recorded, name), getattr(outcome, name))
        np.testing.assert_array_equal(recorded.by_detector["krum"], outcome.scores)
        assert recorded.reasons == outcome.reasons


def test_no_server_and_no_global_model_come_back_as_none(tmp_path):
    record(tmp_path, [Round(np.eye(5))])
    (recorded,) = Recording(tmp_path)
    assert recorded.round.server is None
    assert recorded.round.global_params is None


def test_what_could_not_be_used_cannot_be_used_again_for_the_same_reason(tmp_path):
    matrix = np.eye(5, 6, dtype="float32")
    matrix[1, 5] = np.nan
    counts = [10, 10, -1, 10, 10]
    given = Round(matrix, IDS, counts, faults=[None, None, None, "it sent 3 arrays, the model has 4", None])
    for keep in (None, "first"):  # the NaN is not in the first layer
        place = tmp_path / str(keep)
        record(place, [given], Guard(), keep=keep, layers={"first": 4, "last": 2})
        (recorded,) = Recording(place)
        assert recorded.round.problems == given.problems
        assert recorded.suspects.tolist() == [False, True, True, True, False]
        assert recorded.scores[[1, 2, 3]].tolist() == [INF, INF, INF]


def test_float16_keeps_small_updates_and_big_ones(tmp_path):
    given = rounds(1)[0]
    scale = np.array([1e-7, 1e-3, 1.0, 1e6, 0.0])[:, None]
    matrix = (given.updates.matrix.numpy() * scale).astype("float32")
    record(tmp_path / "half", [given.with_updates(matrix)], Guard(), dtype="float16")
    (recorded,) = Recording(tmp_path / "half")
    again = recorded.round.updates.matrix.numpy()
    largest = np.abs(matrix).max(1, keepdims=True)
    assert (np.abs(again - matrix) <= largest * 2**-11).all()
    assert (again[4] == 0).all()
    assert recorded.round.usable.all()
    assert torch.equal(recorded.round.global_params, given.global_params), "never halved"


def test_float16_takes_half_the_space(tmp_path):
    given = rounds(1, d=20000)
    sizes = {}
    for dtype in ("float32", "float16"):
        record(tmp_path / dtype, given, Guard(), dtype=dtype)
        sizes[dtype] = Recording(tmp_path / dtype).index.rounds[0].bytes
    assert 5 * 20000 * 2 < sizes["float32"] - sizes["float16"] + 200 < 5 * 20000 * 2 + 400


def test_layers_by_name(tmp_path):
    given = fresh(federation()[0])
    size = {name: p.numel() for name, p in given.server.model.named_parameters()}
    last = size["3.weight"] + size["3.bias"]
    record(tmp_path, [given], Guard(), keep="3.*")
    (recorded,) = Recording(tmp_path)
    assert recorded.round.updates.d == last
    assert torch.equal(recorded.round.updates.matrix, given.updates.matrix[:, -last:])
    assert torch.equal(recorded.round.global_params, given.global_params[-last:])
    with pytest.raises(ResultsError, match="the recorded updates 130: it is another model, or only some"):
        list(replay(Recording(tmp_path), Guard(make_detector("lfr")), given.server))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "x"}, "the layers are unknown"),
        ({"keep": "x", "layers": {"a": 1, "b": 2}}, "the layers have 3 parameters, updates 4"),
        ({"keep": "x", "layers": {"a": 1, "b": 3}}, "no layer matches; there are a, b"),
    ],
)
def test_a_pattern_that_cannot_be_applied_costs_the_recording_and_says_so(tmp_path, caplog, options, message):
    with caplog.at_level(logging.WARNING, "fedguard"):
        outcomes = record(tmp_path, rounds(1), **options)
    assert outcomes[0].weights.any(), "not the round"
    assert message in caplog.text
    with Recorder(tmp_path, keep="x") as recorder, pytest.raises(ParameterError, match="keep is 'x'"):
        recorder.observe(rounds(1)[0], outcomes[0])


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"max_bytes": 0}])
def test_parameters_are_checked(tmp_path, options):
    with pytest.raises(ParameterError, match=f"recorder: {next(iter(options))} is"):
        Recorder(tmp_path, **options)


# --- bounded, continued, exclusive


def test_rotation_drops_the_oldest(tmp_path):
    record(tmp_path / "all", rounds(6))
    size = max(entry.bytes for entry in Recording(tmp_path / "all").index.rounds)
    record(tmp_path / "few", rounds(6), max_bytes=3 * size)
    recording = Recording(tmp_path / "few")
    assert [recorded.round.index for recorded in recording] == [3, 4, 5]
    assert recording.index.rotated == 3
    assert recording.check() == []
    assert sum(p.stat().st_size for p in recording.folder.glob("round-*")) <= 3 * size


def test_a_round_beyond_the_bound_is_missing_and_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fedguard"):
        small, big = rounds(1)[0], dataclasses.replace(rounds(1, d=90000)[0], index=1)
        after = dataclasses.replace(rounds(1)[0], index=2)
        record(tmp_path, [small, big, after], max_bytes=20000)
    assert "more than max_bytes = 20000" in caplog.text
    recording = Recording(tmp_path)
    assert [recorded.round.index for recorded in recording] == [0, 2]
    assert recording.check() == ["round 1 could not be recorded and is missing"]


def test_a_recorder_goes_on_where_another_has_stopped(folder):
    more = [dataclasses.replace(round, index=3 + round.index) for round in rounds(2)]
    record(folder, more)
    assert [recorded.round.index for recorded in Recording(folder)] == [0, 1, 2, 3, 4]


def test_a_round_that_does_not_follow_is_refused_unless_it_is_to_be_replaced(folder, caplog):
    before = Recording(folder).index
    with caplog.at_level(logging.WARNING, "fedguard"):
        record(folder, rounds(1))
    assert "already holds round 2, so round 0 does not follow" in caplog.text
    assert Recording(folder).index.rounds == before.rounds
    again = dataclasses.replace(rounds(1)[0], index=1)
    record(folder, [again], rewind=True)
    recording = Recording(folder)
    assert [recorded.round.index for recorded in recording] == [0, 1]
    assert recording.check() == []
    assert torch.equal(recording.read(1).round.updates.matrix, again.updates.matrix)


def test_one_recorder_at_a_time(folder):
    with Recorder(folder), pytest.raises(ResultsError, match="another recorder is writing"):
        Recorder(folder)
    Recorder(folder).close()


def test_a_closed_recorder_says_so(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.close()
    with pytest.raises(ResultsError, match="closed"):
        recorder.observe(rounds(1)[0], Guard().process(rounds(1)[0]))


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"keep": "a"}, {"about": {"site": "B"}}])
def test_another_recording_is_not_continued(tmp_path, change):
    Recorder(tmp_path, about={"site": "A"}).close()
    with pytest.raises(ResultsError, match="already holds a recording"):
        Recorder(tmp_path, **{"about": {"site": "A"}, **change})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ResultsError, match=r"holds thesis.tex and no recording.json"):
        Recorder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "thesis.tex"]


# --- damage


def test_a_torn_file_is_named_and_what_came_before_is_good(folder):
    path = folder / round_file(1)
    data = path.read_bytes()
    for torn, why in (
        (data[:-1], "bytes, .* were recorded"),
        (b"", "0 bytes"),
        (data[:100] + bytes([data[100] ^ 1]) + data[101:], "checksum does not match"),
    ):
        path.write_bytes(torn)
        recording = Recording(folder)
        with pytest.raises(ResultsError, match=rf"{path.name} is damaged: .*{why}"):
            recording.read(1)
        (problem,) = recording.check()
        assert path.name in problem
        assert [recorded.round.index for recorded in recording] == [0], "not 2 either: history is missing"
    path.unlink()
    assert "is missing" in Recording(folder).check()[0]


def test_files_of_others_are_named(folder):
    (folder / round_file(9)).write_bytes(b"?")
    (folder / "notes.txt").write_text("hm")
    problems = Recording(folder).check()
    assert [p for p in problems if "round-000000009" in p and "not in the index" in p]
    assert [p for p in problems if "notes.txt is not in the index" in p]
    assert len(Recording(folder)) == 3


def test_a_file_in_the_place_of_another_is_noticed(folder):
    """Even with the right checksum: the index was made to fit."""
    path = folder / "recording.json"
    whole = json.loads(path.read_text())
    body = whole["recording"]
    one, two = body["rounds"][:2]
    (folder / two["file"]).write_bytes((folder / one["file"]).read_bytes())
    body["rounds"][1] = {**one, "index": 1, "file": two["file"]}
    sign(path, body)
    with pytest.raises(ResultsError, match="is not round 1 of this recording"):
        Recording(folder).read(1)


def sign(path, body):
    import hashlib

    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "recording": body}))


@pytest.mark.parametrize(
    "where", ["../secret.safetensors", "/etc/passwd", "round-000000001.safetensors", "a/b"]
)
def test_no_path_of_an_index_leads_out_of_the_folder(folder, where):
    for name in ("recording.json", "recording.old.json"):
        path = folder / name
        body = json.loads(path.read_text())["recording"]
        body["rounds"][0]["file"] = where
        sign(path, body)
    with pytest.raises(ResultsError, match=r"recording.json is no index of a recording: .*round 0 is in"):
        Recording(folder)


def test_a_link_is_not_followed(folder, tmp_path):
    path = folder / round_file(0)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultsError, match="is a link"):
        Recording(folder).read(0)


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"[]", b"null", b'{"recording": {}, "sha256": "0"}', b"\xff\xfe", b"[" * 9999]
)
def test_a_damaged_index_is_named_and_the_one_before_used(folder, bad):
    (folder / "recording.json").write_bytes(bad)
    recording = Recording(folder)
    assert "recording.json is" in recording.problems[0]
    assert recording.problems[0].endswith("the index before it is used")
    assert [recorded.round.index for recorded in recording] == [0, 1], "the last good state"
    assert any("round-000000002" in problem for problem in recording.check())
    with pytest.raises(ResultsError, match=r"recording.json is"):
        Recorder(folder)
    (folder / "recording.old.json").write_bytes(bad)
    with pytest.raises(ResultsError, match=r"recording.json is"):
        Recording(folder)


def test_a_changed_digit_in_the_index_is_noticed(folder):
    path = folder / "recording.json"
    path.write_text(path.read_text().replace('"clients": 5', '"clients": 6', 1))
    assert "checksum does not match" in Recording(folder).problems[0]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ResultsError, match="there is no folder"):
        Recording(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match=r"recording.json cannot be read"):
        Recording(tmp_path)


def test_a_full_disk_costs_the_rounds_not_the_guard(folder, monkeypatch, caplog):
    import fedguard.recording.recorder as module

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_round", full)
    with caplog.at_level(logging.WARNING, "fedguard"):
        outcomes = record(folder, [dataclasses.replace(rounds(1)[0], index=3)])
    assert outcomes[0].weights.any()
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    record(folder, [dataclasses.replace(rounds(1)[0], index=4)])
    assert not list(folder.glob("*.new"))


# --- replay


def test_a_detector_sees_whom_it_saw_then(tmp_path):
    """Clients that were banned, and those with unusable updates, are invisible."""
    some = rounds(3)
    for round in some:
        round.updates.matrix[4] = 100.0
        round.updates.matrix[2, 0] = np.nan
    record(tmp_path, some, Guard(make_detector("norm_bound", bound=1.0), make_policy("ban", strikes=2)))
    recording = Recording(tmp_path)
    assert [recorded.barred.tolist() for recorded in recording][2] == [False, False, True, False, True]
    sizes = []

    class Counts(type(make_detector("norm_bound"))):
        def score(self, round):
            sizes.append(round.n)
            return super().score(round)

    said = [outcome for _, outcome in replay(recording, Guard(Counts(), make_policy("observe")))]
    assert sizes == [4, 4, 3]
    assert said[2].client_ids == ("a", 7, "d")
    sizes.clear()
    list(replay(recording, Guard(Counts(), make_policy("observe")), banned=True))
    assert sizes == [4, 4, 4]


def test_a_live_recording_lacks_what_the_server_owned_and_takes_it_from_outside(tmp_path):
    given = [fresh(round) for round in federation()]
    server = given[0].server
    live = record(tmp_path, given, Guard(make_detector("lfr")))
    recording = Recording(tmp_path)
    with pytest.raises(NeedError, match="lfr needs model"):
        list(replay(recording, Guard(make_detector("lfr"))))
    mine = Server(model=server.model, validation=server.validation, seed=99)
    for (recorded, outcome), before in zip(
        replay(recording, Guard(make_detector("lfr")), mine), live, strict=True
    ):
        assert outcome.scores.tolist() == before.scores.tolist()
        assert seen(recorded, mine).server.seed == server.seed != mine.seed
    other = Server(model=torch.nn.Linear(3, 2), validation=LabeledData(torch.zeros(1, 3), torch.zeros(1)))
    with pytest.raises(ResultsError, match="the model has 8 parameters, the recorded updates 910"):
        list(replay(recording, Guard(make_detector("lfr")), other))
