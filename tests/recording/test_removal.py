"""Removing clients from a recording: who, from when on, and the updates applied again; sums by hand."""

import dataclasses

import numpy as np
import pytest
import torch

import fedguard
from fedguard import Guard, Round, ServerOptimizer
from fedguard.aggregators.median import Median
from fedguard.core.errors import ConfigError, ParameterError, ResultsError
from fedguard.ledger.memory import Ledger
from fedguard.recording import Recorder, Recording
from fedguard.recording.removal import applied_again, banned_in, entry_of, known_among

IDS = ("a", 7, "evil")
#: (rounds, clients, d): what was sent. In round 0 the last client is absent.
SENT = np.array(
    [
        [[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]],
        [[1.0, 1.0], [1.0, 3.0], [0.0, 30.0]],
        [[2.0, 0.0], [0.0, 0.0], [9.0, -9.0]],
    ]
)


def recorded(
    folder, guard=None, moves=lambda params, outcome: params + outcome.aggregate, claims=None, **options
):
    """Three rounds of a live server; every client claims as many samples as the others, unless told."""
    params = torch.tensor([10.0, 20.0])
    with Recorder(folder, **options) as recorder:
        guard = guard or Guard()
        guard.observers = (recorder,)
        for index, sent in enumerate(SENT):
            n = 3 if index else 2
            own = None if claims is None else claims[:n]
            round = Round(sent[:n], IDS[:n], index=index, global_params=params, num_examples=own)
            params = moves(params, guard.process(round))
    return Recording(folder), params


def test_updates_are_applied_again_without_theirs(tmp_path):
    recording, final = recorded(tmp_path)
    found = applied_again(recording, ["evil"])
    # by hand: [10, 20] + [2, 0] is the model of round 1; + mean([1,1],[1,3]) + mean([2,0],[0,0])
    assert found.params.tolist() == [14.0, 22.0]
    assert found.entered == 1
    assert torch.equal(found.before, final)
    assert found.deviation == pytest.approx(0, abs=1e-6)


def test_recorded_weights_count(tmp_path):
    """A client that the guard excluded stays excluded: here 7, in all rounds."""
    ledger = Ledger()
    ledger.ban(7, 1, None, "by hand")
    recording, _ = recorded(tmp_path, Guard(ledger=ledger))
    # [10, 20] + [1, 0] + [1, 1] + [2, 0]
    assert applied_again(recording, ["evil"]).params.tolist() == [14.0, 21.0]


def test_claims_count_as_they_did(tmp_path):
    """The third claims 100 times the median, which counted as twice."""
    recording, final = recorded(tmp_path, Guard(claim_limit=2), claims=[1, 1, 100])
    found = applied_again(recording, ["evil"])
    assert torch.equal(found.before, final)
    assert found.deviation == pytest.approx(0, abs=1e-6)
    assert [part.counted.tolist() for part in recording] == [[1, 1], [1, 1, 0.02], [1, 1, 0.02]]


def test_a_servers_own_rule_and_optimizer(tmp_path):
    optimizer = ServerOptimizer("momentum", lr=0.5, beta1=0.5)
    guard = Guard(aggregator=Median())
    recording, final = recorded(tmp_path, guard, lambda p, outcome: optimizer.step(p, outcome.aggregate))
    right = applied_again(recording, ["evil"], Median(), ServerOptimizer("momentum", lr=0.5, beta1=0.5))
    # momenta by hand (medians of two are means): [2, 0], [2, 2], [2, 1]; θ = [11, 20] after round 0
    assert right.params.tolist() == [13.0, 21.5]
    assert torch.equal(right.before, final)
    assert right.deviation == 0
    assert applied_again(recording, ["evil"]).deviation > 0.5, "the mean is not what this server did"
    said = str(fedguard.rollback(recording, ["evil"]))
    assert "another rule than assumed" in said


def test_what_missing_rounds_did_remains(tmp_path):
    recorded(tmp_path / "whole")
    whole = list(Recording(tmp_path / "whole"))
    with Recorder(tmp_path / "part") as recorder:
        for one in (whole[0], whole[2]):  # round 1 is missing
            outcome = Guard().watch(dataclasses.replace(one.round, index=one.round.index))
            recorder.observe(one.round, outcome)
    found = applied_again(Recording(tmp_path / "part"), ["a"])
    # from [10, 20]: 7 alone [3, 0]; round 1 moved by [2/3, 34/3]; then mean of [0,0] and [9,-9]
    assert found.params.tolist() == pytest.approx([10 + 3 + 2 / 3 + 4.5, 20 + 34 / 3 - 4.5])


def test_whose_last_verdict_is_a_ban(tmp_path):
    """A ban that has ended removes nobody, a client banned and not seen again is removed."""
    ledger = Ledger()
    ledger.ban(7, 1, 2, "for one round")
    ledger.ban("evil", 1, None, "for good")
    recording, _ = recorded(tmp_path, Guard(ledger=ledger))
    assert banned_in(recording) == ["evil"]
    assert fedguard.rollback(recording).without == ("evil",)


def test_ids_are_known_by_their_text(tmp_path):
    recording, _ = recorded(tmp_path)
    assert known_among(recording, ["7", "a", 7]) == [7, "a"]
    assert entry_of(recording, ["evil"]) == 1
    with pytest.raises(ParameterError, match="client evli is in no recorded round, did you mean 'evil'"):
        fedguard.rollback(recording, ["evli"])
    with pytest.raises(ParameterError, match="none of these"):
        entry_of(recording, ["b"])


def test_recordings_that_no_model_can_be_made_of(tmp_path):
    with pytest.raises(ConfigError, match="nobody is banned at its end"):
        fedguard.rollback(recorded(tmp_path / "clean")[0])
    layers, _ = recorded(tmp_path / "part", keep="x", layers={"x": 1, "y": 1})
    with pytest.raises(ResultsError, match="only the layers 'x'"):
        fedguard.rollback(layers, ["a"])
    with Recorder(tmp_path / "bare") as recorder:
        Guard(observers=[recorder]).process(Round(SENT[1], IDS))
    with pytest.raises(ResultsError, match="round 0 holds no global model"):
        fedguard.rollback(tmp_path / "bare", ["a"])
    with Recorder(tmp_path / "grown") as recorder:
        for index, d in enumerate((2, 3)):
            sent = Round(np.ones((3, d)), IDS, index=index, global_params=np.zeros(d))
            recorder.observe(sent, Guard().watch(sent))
    with pytest.raises(ResultsError, match="round 1 has 3 parameters, the round before it 2"):
        fedguard.rollback(tmp_path / "grown", ["a"])
    damaged, _ = recorded(tmp_path / "damaged")
    file = damaged.folder / damaged.index.rounds[1].file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ResultsError, match="is damaged"):
        fedguard.rollback(damaged.folder, ["a"])


def test_rotation_and_halves_are_said(tmp_path):
    size = max(entry.bytes for entry in recorded(tmp_path / "all", dtype="float16")[0].index.rounds)
    few, _ = recorded(tmp_path / "few", dtype="float16", max_bytes=2 * size)
    notes = fedguard.rollback(few, ["a"]).notes
    assert notes[0].startswith("1 older rounds were dropped")
    assert notes[1] == "the updates were recorded with 11 significant bits"
