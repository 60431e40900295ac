"""Replaying what a suite recorded: the same scores to the last bit, for every detector."""

import csv
import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from fedguard.cli.entry import main
from fedguard.contracts.registry import REGISTRIES
from fedguard.core.errors import ConfigError
from fedguard.core.threads import single_thread
from fedguard.evaluation.running.replay import Question, _same, ask, verdicts
from fedguard.recording import Recorder, Recording
from fedguard.simulation.federation import Federation
from fedguard.simulation.recorded import recording_to
from fedguard.simulation.settings import Cell
from fedguard.testing.federation import federation, fresh

SETTINGS = {
    "clients": 12,
    "malicious": 3,
    "rounds": 4,
    "participation": 0.9,
    "model": "logistic_regression",
    "partition": {"name": "dirichlet", "beta": 1.0},
    "training": {"steps": 2, "batch_size": 16, "lr": 0.2},
    "server": {"validation": 60, "root": 60},
    "attack_label": "noise",
    "attack": {"name": "byzantine", "mode": "random", "schedule": {"start": 1, "rejoin_after": 1}},
    "defense_label": "d",
    "seed": 3,
}


#: For the model here, another one than that of the checks.
PARAMS = {"lora_probe": {"probe": {"weight": {"1.bias": [2.0, -1.0] * 5}, "bias": 0.3}}}


def cell_with(detector, policy, **more):
    params = PARAMS.get(detector, REGISTRIES["detectors"].get(detector).check_with)
    params = {k: v for k, v in params.items() if k != "name"}
    defense = {"detector": {"name": detector, **params}, "policy": policy, **more}
    return Cell(**SETTINGS, defense=defense)


def run(cell, folder):
    """The live run, recorded: its rows by round."""
    with single_thread():
        federation = Federation(cell)
        with recording_to(folder, federation):
            return federation.run()


def said(records):
    return [
        (r.index, row.client, row.id, row.malicious, row.attacking, float(row.score).hex(), row.suspect,
         row.weight, row.banned, row.reason)
        for r in records for row in r.clients if row.participated
    ]  # fmt: skip


@pytest.mark.parametrize("detector", sorted(REGISTRIES["detectors"].names()))
def test_the_recorded_defense_says_the_same_again(detector, tmp_path):
    """Bans, parole and returning attackers included; what detectors remember is built up again."""
    cell = cell_with(detector, {"name": "ban", "strikes": 2, "duration": 1})
    live = run(cell, tmp_path)
    answer = ask(Question(tmp_path))
    assert answer.problems == []
    assert answer.watcher.error == ""
    assert said(answer.watcher.records) == said(live)
    assert answer.compared == len(said(live))
    assert answer.different == 0


def test_an_aggregator_that_remembers_is_replayed_too(tmp_path):
    """LFR measures with the aggregation rule in use, which clips about what it remembers."""
    live = run(cell_with("lfr", "exclude", aggregator={"name": "centered_clipping"}), tmp_path)
    answer = ask(Question(tmp_path))
    assert said(answer.watcher.records) == said(live)


def test_a_learnt_rule_and_a_seeded_stage_are_replayed_too(tmp_path):
    policy = {"name": "exclude", "rule": {"name": "calibrated", "rounds": 2, "rate": 0.2}}
    live = run(cell_with("dnc", policy, stages=["weak_dp"]), tmp_path)
    assert said(ask(Question(tmp_path)).watcher.records) == said(live)


def test_what_the_server_trains_follows_the_rate_of_each_round_again(tmp_path):
    training = {"steps": 2, "lr": 0.05, "optimizer": "adam", "lr_schedule": "cosine", "clip": 1.0}
    settings = {**SETTINGS, "training": training, "late": 0.2, "malicious_per_round": 2}
    live = run(Cell(**settings, defense={"detector": "fltrust"}), tmp_path)
    answer = ask(Question(tmp_path))
    assert said(answer.watcher.records) == said(live)
    first, last = (Recording(tmp_path).read(k).round.server.training for k in (0, 3))
    assert (first.optimizer, first.clip) == ("adam", 1.0)
    assert last.lr < first.lr == 0.05


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "r"
    live = run(cell_with("foolsgold", {"name": "ban", "strikes": 2, "duration": 1}), folder)
    return folder, live


def test_another_process_says_the_same(recorded, tmp_path, python):
    folder, live = recorded
    out = tmp_path / "v.csv"
    done = python("-m", "fedguard", "replay", folder, "--out", out).wait()
    assert done.returncode == 0, done.stderr
    assert "the same to the last bit" in done.stdout
    assert "DACC" in done.stdout
    rows = list(csv.DictReader(out.open()))
    assert [float(r["score"]).hex() for r in rows] == [line[5] for line in said(live)]
    assert [r["reason"] for r in rows] == [line[9] for line in said(live)]


def test_a_difference_would_show(recorded):
    """The comparison compares."""
    folder, _ = recorded
    one, other = np.array([1.0, np.nan, 2.0, np.inf]), np.array([1.0, np.nan, 2.0 + 1e-15, np.inf])
    assert _same(one, other).tolist() == [True, True, False, True]
    changed = ask(Question(folder, detector="krum"))
    assert changed.compared == 0, "another detector's scores are not compared"


def test_another_detector_is_told_what_the_suite_told_and_has_its_server(recorded):
    folder, live = recorded
    answer = ask(Question(folder, "lfr"))
    (detector,) = answer.watcher.guard.detectors.values()
    assert detector.num_malicious == 3
    assert answer.watcher.guard.policy.name == "exclude"
    assert [r[:5] for r in said(answer.watcher.records)] == [r[:5] for r in said(live)], "the same clients"
    assert ask(Question(folder, "lfr", assumed=2)).cell.assumed_malicious == 2


def test_the_labels_are_those_of_the_simulation(recorded):
    folder, live = recorded
    truth = {row.client for row in live[0].clients if row.malicious}
    rows = verdicts(ask(Question(folder)))
    assert {row["client"] for row in rows if row["malicious"]} == truth
    assert {row["round"] for row in rows if row["attacking"]} == {1, 2, 3}


def test_out_as_json(recorded, tmp_path, monkeypatch, capsys):
    folder, live = recorded
    out = tmp_path / "v.json"
    monkeypatch.setattr(sys, "argv", ["fedguard", "replay", str(folder), "--detector", "dnc", "-o", str(out)])
    with pytest.raises(SystemExit, match="0"):
        main()
    rows = json.loads(out.read_text())
    assert len(rows) == len(said(live))
    assert {"round", "client", "id", "malicious", "score", "suspect", "weight", "banned", "reason"} <= set(
        rows[0]
    )
    assert "dnc with policy exclude on 4 recorded rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"detector": "krm"}, "did you mean 'krum'"),
        ({"detector": "krum", "params": {"selct": 1}}, "did you mean 'select'"),
        ({"params": {"a": 1}}, "--param goes with --detector"),
        ({"policy": "bann"}, "did you mean 'ban'"),
    ],
)
def test_mistakes_are_named(recorded, question, message):
    from fedguard.core.errors import FedGuardError

    with pytest.raises(FedGuardError, match=message):
        ask(Question(recorded[0], **question))


def test_damage_is_reported_and_what_comes_before_is_replayed(recorded, tmp_path, monkeypatch, capsys):
    import shutil

    folder = tmp_path / "torn"
    shutil.copytree(recorded[0], folder)
    path = sorted(folder.glob("round-*"))[2]
    path.write_bytes(path.read_bytes()[:-7])
    monkeypatch.setattr(sys, "argv", ["fedguard", "replay", str(folder), "--detector", "krum"])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr()
    assert "on 2 recorded rounds" in said.out
    assert f"{path.name} is damaged" in "".join(said.err.split("\n"))


# --- live recordings


@pytest.fixture
def live(tmp_path):
    from fedguard import Guard

    with Recorder(tmp_path / "live") as recorder:
        guard = Guard(observers=[recorder])
        for round in federation():
            guard.process(dataclasses.replace(fresh(round), server=None))
    return tmp_path / "live"


def test_a_live_recording_asks_for_what_nobody_recorded(live):
    with pytest.raises(ConfigError, match="choose one with --detector"):
        ask(Question(live))
    with pytest.raises(ConfigError, match="set with --assumed"):
        ask(Question(live, "krum"))
    answer = ask(Question(live, "krum", assumed=2))
    assert not answer.labeled
    assert {row["malicious"] for row in verdicts(answer)} == {None}
    assert "lfr needs model" in ask(Question(live, "lfr", assumed=2)).watcher.error


def test_rounds_that_made_way_are_mentioned(tmp_path, monkeypatch, capsys):
    from fedguard import Guard

    with Recorder(tmp_path / "few", max_bytes=80_000) as recorder:  # two rounds
        guard = Guard(observers=[recorder])
        for round in federation():
            guard.process(fresh(round))
    arguments = ["fedguard", "replay", str(tmp_path / "few"), "--detector", "krum", "--assumed", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "the 1 oldest rounds were dropped" in capsys.readouterr().out


def test_a_model_and_validation_data_from_outside(live, tmp_path):
    server = federation()[0].server
    path = tmp_path / "validation.npz"
    np.savez(path, inputs=server.validation.inputs.numpy(), labels=server.validation.labels.numpy())
    question = Question(
        live, "lfr", assumed=2, model="fedguard.testing.federation:small_model", validation=path
    )
    with single_thread():
        from fedguard import make_detector

        detector = make_detector("lfr", num_malicious=2)
        expected = [detector(fresh(round)).values.tolist() for round in federation()]
    records = ask(question).watcher.records
    assert [[row.score for row in record.clients] for record in records] == expected


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("v.npz", {"inputs": np.zeros((2, 3))}, "has no labels"),
        ("v.npz", {"inputs": np.zeros((2, 3)), "labels": np.zeros(3)}, "2 inputs, but labels of shape"),
        ("v.npz", {"inputs": np.array([None]), "labels": np.zeros(1)}, "cannot be read"),
        ("v.csv", {}, "use a .npz or .safetensors file"),
        ("v.safetensors", None, "cannot be read"),
    ],
)
def test_files_that_hold_something_else_are_named(live, tmp_path, name, arrays, message):
    path = tmp_path / name
    if not arrays:
        path.write_bytes(b"?")
    elif name.endswith(".npz"):
        np.savez(path, **arrays)
    with pytest.raises(ConfigError, match=message):
        ask(Question(live, "lfr", assumed=1, validation=path))


def test_a_model_that_is_none_is_named(live):
    for model, message in (
        ("nowhere:at_all", "No module named 'nowhere'"),
        ("fedguard.testing.federation:digits", "not a torch.nn.Module"),
        ("mlpp", "did you mean 'mlp'"),
        ("mlp", "the input size is unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            ask(Question(live, "lfr", assumed=1, model=model))


def test_replay_leaves_the_recording_as_it_is(recorded):
    folder, _ = recorded
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    ask(Question(folder, "fldetector"))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert torch.equal(
        Recording(folder).read(0).round.updates.matrix, Recording(folder).read(0).round.updates.matrix
    )


def test_names_of_clients_do_not_drive_the_terminal(tmp_path, monkeypatch, capsys):
    """Neither rich's markup nor escape sequences; ids are what clients call themselves."""
    from fedguard import Guard, Round

    names = ["[/b]", "\x1b[2J", "[red]c", "d", "e", "f"]
    with Recorder(tmp_path) as recorder:
        updates = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
        Guard(observers=[recorder]).process(Round(updates, client_ids=names, index=0))
    arguments = ["replay", str(tmp_path), "--detector", "norm_bound", "--assumed", "1"]
    monkeypatch.setattr(sys, "argv", ["fedguard", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert not stop.value.code, said.err
    assert "[/b]" in said.out
    assert "[red]c" in said.out
    assert "\x1b" not in said.out
    assert "\\x1b[2J" in said.out
