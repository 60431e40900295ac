"""``fedguard probe``: from recorded simulations to a probe that a suite uses."""

import json
import sys

import numpy as np
import pytest
import torch

from fedguard.cli import entry as cli
from fedguard.core.errors import ConfigError, ParameterError, ResultsError
from fedguard.core.threads import single_thread
from fedguard.evaluation.calibration.probe import train_probe
from fedguard.recording import Recorder, Recording
from fedguard.simulation.federation import Federation
from fedguard.simulation.recorded import recording_to
from fedguard.simulation.settings import Cell
from fedguard.training.parameters import split_parameters
from fedguard.training.probe import load_probe
from fedguard.training.probe_fit import fit_probe

MODEL = """
import torch
from torch import nn


class Adapted(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, 3, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(3, outputs, bias=False)})
        nn.init.zeros_(self.lora_B["default"].weight)

    def forward(self, x):
        return self.base(x) + 4 * self.lora_B["default"](self.lora_A["default"](x))


def build(input_shape, num_classes, width: int = 8, seed: int | None = 0):
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        first = Adapted(64, width)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), Adapted(width, num_classes))
"""
NAME = "1.lora_B.default.weight"


@pytest.fixture(scope="module", autouse=True)
def adapted(tmp_path_factory):
    """A module with a model with adapters on its path."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "adapted_digits.py").write_text(MODEL)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("adapted_digits", None)


def cell(attack, seed=0, **more):
    settings = {
        "clients": 10,
        "malicious": 3,
        "rounds": 5,
        "model": {"name": "adapted_digits:build"},
        "partition": {"name": "dirichlet", "beta": 100.0},
        "training": {"steps": 4, "batch_size": 32, "lr": 0.05, "optimizer": "adam"},
        "attack_label": "a",
        "attack": attack,
        "defense_label": "d",
        "defense": {},
        "seed": seed,
        **more,
    }
    return Cell(**settings)


def recorded(folder, *args, **more):
    with single_thread():
        federation = Federation(cell(*args, **more))
        with recording_to(folder, federation):
            return federation, federation.run()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two recordings of the same start; in the second, attackers wait for two rounds."""
    root = tmp_path_factory.mktemp("two")
    recorded(root / "one", {"name": "label_flip"})
    recorded(root / "two", {"name": "label_flip", "schedule": {"start": 2}}, seed=1)
    return [root / "one", root / "two"]


def by_hand(folders, labels_of):
    rows, labels = [], []
    for folder in folders:
        recording = Recording(folder)
        model = Federation(cell({"name": "label_flip"})).setup.model
        for recorded_round in recording:
            round = recorded_round.round
            for client, update in zip(round.client_ids, round.updates.matrix, strict=True):
                moved = split_parameters(model, update)[NAME].flatten().double()
                rows.append(moved / moved.norm())
                labels.append(labels_of(recording, round.index, client))
    return torch.stack(rows), torch.tensor(labels)


def attacks(recording, index, client):
    malicious = recording.index.about["malicious"]
    return client in malicious and (index >= 2 or recording.folder.name == "one")


def test_the_samples_are_the_recorded_updates_and_the_labels_who_attacked_in_the_round(two):
    found = train_probe(two, seed=3, allow_code=True)
    features, labels = by_hand(two, attacks)
    assert (len(labels), int(labels.sum())) == (100, 15 + 9)
    assert found.labels.tolist() == labels.tolist()
    fit = fit_probe(features, labels, 3)
    np.testing.assert_allclose(found.probe.weight[NAME].flatten(), fit.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found.harmful, torch.sigmoid(features @ fit.weight + fit.bias), rtol=1e-4, atol=1e-6
    )
    start = Recording(two[0]).read(0).round.global_params
    model = Federation(cell({"name": "label_flip"})).setup.model
    down = "1.lora_A.default.weight"
    assert torch.equal(found.probe.start[down].float(), split_parameters(model, start)[down])
    assert found.probe.about["malicious"] == 24


def test_the_command_writes_a_probe_that_a_federation_uses(two, tmp_path, monkeypatch, capsys):
    """It knows flips of the same start: on another seed, malicious clients score higher and weigh less."""
    path = tmp_path / "flips.safetensors"
    texts = []
    for _ in range(2):
        given = ["probe", *map(str, two), "--out", str(path), "--seed", "3", "--allow-code"]
        monkeypatch.setattr(sys, "argv", ["fedguard", *given])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        texts.append((capsys.readouterr().out, path.read_bytes()))
    assert texts[0] == texts[1]
    found = train_probe(two, seed=3, allow_code=True)
    flagged = found.harmful >= 0.8
    assert f"{int(flagged[found.labels].sum())} of 24 malicious updates" in texts[0][0]
    assert "trained on 100 updates of 2 recordings" in texts[0][0]
    assert load_probe(str(path)).about == found.probe.about
    defense = {"detector": {"name": "lora_probe", "probe": str(path)}, "policy": "reweight"}
    _, records = recorded(tmp_path / "defended", {"name": "label_flip"}, seed=7, defense=defense)
    rows = [row for record in records for row in record.clients]
    scores = [np.mean([row.score for row in rows if row.malicious is kind]) for kind in (True, False)]
    weights = [np.mean([row.weight for row in rows if row.malicious is kind]) for kind in (True, False)]
    assert scores[0] > scores[1] + 0.1
    assert weights[0] < weights[1]


def test_what_cannot_be_trained_on_is_refused(two, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="name at least one recording"):
        train_probe([])
    with pytest.raises(ConfigError, match=r"recording\.json: about\.cell\.model.*adapted_digits:build"):
        train_probe(two)
    live = tmp_path / "live"
    with Recorder(live):
        pass
    with pytest.raises(ResultsError, match="is a live recording: a probe needs to know who attacked"):
        train_probe([live])
    with pytest.raises(ResultsError, match="there is no folder"):
        train_probe([tmp_path / "none"])
    recorded(
        tmp_path / "wide",
        {"name": "label_flip"},
        rounds=1,
        model={"name": "adapted_digits:build", "width": 9},
    )
    with pytest.raises(ResultsError, match=r"wide is of another model than .*one: their adapters differ"):
        train_probe([two[0], tmp_path / "wide"], allow_code=True)
    recorded(
        tmp_path / "start",
        {"name": "label_flip"},
        rounds=1,
        model={"name": "adapted_digits:build", "seed": None},
    )
    with pytest.raises(
        ResultsError, match=r"start starts from other adapters than .*one: the matrices A have"
    ):
        train_probe([two[0], tmp_path / "start"], allow_code=True)
    recorded(tmp_path / "plain", {"name": "label_flip"}, rounds=1, model="logistic_regression")
    with pytest.raises(ParameterError, match="the model has no adapters"):
        train_probe([tmp_path / "plain"])
    recorded(tmp_path / "nobody", {"name": "none"}, malicious=0)
    with pytest.raises(ParameterError, match="hold 0 updates of malicious clients"):
        train_probe([tmp_path / "nobody"], allow_code=True)


def test_a_damaged_recording_and_a_wrong_name_are_named(tmp_path, monkeypatch, capsys):
    recorded(tmp_path / "r", {"name": "label_flip"}, rounds=2)
    path = tmp_path / "r" / "round-000000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ResultsError, match=r"round-000000001\.safetensors is damaged"):
        train_probe([tmp_path / "r"], allow_code=True)
    monkeypatch.setattr(sys, "argv", ["fedguard", "probe", str(tmp_path / "r"), "--out", "p.pt"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "cannot write p.pt: use a name that ends in .safetensors" in capsys.readouterr().err


def test_a_probe_for_another_start_stops_the_federation(two, tmp_path):
    path = tmp_path / "p.safetensors"
    train_probe(two, allow_code=True).probe.save(path)
    detector = {"name": "lora_probe", "probe": str(path)}
    other = {"name": "adapted_digits:build", "seed": 5}
    with pytest.raises(ParameterError, match="was trained from other adapters: the cosine"):
        Federation(cell({"name": "label_flip"}, model=other, defense={"detector": detector})).run()
    lenient = {**detector, "same_start": False}
    records = Federation(
        cell({"name": "label_flip"}, model=other, rounds=1, defense={"detector": lenient})
    ).run()
    assert abs(json.loads(json.dumps(records[0].info["lora_probe"]))["same_start"]) < 0.5
