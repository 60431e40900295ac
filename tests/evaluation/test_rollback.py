"""``fedguard rollback``: the oracle of the exact removal is a federation of the other clients alone."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

import fedguard
from fedguard import LabeledData, Round
from fedguard.cli.entry import app
from fedguard.core.errors import ConfigError, ParameterError, ResultsError
from fedguard.core.threads import single_thread
from fedguard.recording import Recorder, Recording
from fedguard.recording.index import read_index, write_index
from fedguard.simulation.federation import Federation
from fedguard.simulation.recorded import cell_of, recording_to
from fedguard.simulation.removal import WithoutClients
from fedguard.simulation.settings import Cell

CELL = Cell(
    clients=6,
    malicious=2,
    rounds=3,
    training={"epochs": 1, "batch_size": 16, "lr": 0.1},
    attack_label="backdoor",
    attack={"name": "scaling_backdoor"},
    defense_label="none",
    defense={},
    seed=1,
)


def made(folder, cell=CELL):
    with single_thread():
        federation = Federation(cell)
        with recording_to(folder, federation):
            federation.run()
    return federation


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "r"
    return folder, made(folder)


@pytest.fixture(scope="module")
def exact(simulated):
    folder, federation = simulated
    return fedguard.rollback(folder, without=federation.malicious)


def test_a_trigger_that_changed_over_the_rounds_is_not_recorded_so_success_is_unknown(tmp_path):
    trigger = {"name": "a3fl", "patch": 3, "offset": 1, "epochs": 1, "unlearn": 1}
    federation = made(tmp_path / "r", Cell.model_validate(CELL.model_dump() | {"attack": trigger}))
    found = fedguard.rollback(tmp_path / "r", without=federation.malicious)
    assert np.isfinite(found.accuracy).all()
    assert np.isnan(found.success).all()
    assert "attack success" not in str(found)


def test_the_exact_model_is_that_of_a_federation_of_the_others(simulated, exact):
    _, federation = simulated
    others = [client for client in range(6) if client not in federation.malicious]
    with single_thread():
        alone = Federation(CELL, clients=others)
        (*_, last) = alone.run()
    assert torch.equal(exact.params, alone.params)
    assert (exact.exact, exact.entered, exact.last) == (True, 0, 2)
    assert exact.accuracy[1] == pytest.approx(last.tacc)
    assert exact.success[1] == pytest.approx(last.asr)


def test_before_is_the_recorded_run(simulated, exact):
    _, federation = simulated
    with single_thread():
        accuracy, success = 1 - federation._evaluate(False)[0], 1 - federation._evaluate(True)[0]
    assert exact.accuracy[0] == pytest.approx(accuracy)
    assert exact.success[0] == pytest.approx(success)
    assert exact.success[0] > 0.9 > 0.3 > exact.success[1], "the backdoor is gone"


def test_the_approximation_is_named_so(simulated):
    folder, federation = simulated
    found = fedguard.rollback(folder, federation.malicious, approximate=True)
    assert not found.exact
    assert found.method.startswith("approximate: the recorded updates from round 0 on")
    assert found.success[1] < 0.3
    assert found.notes == (), "the simulation's own rule explains every recorded move"


def test_nobody_returns_under_another_id():
    cell = CELL.model_copy(update={"rounds": 4})
    attack = {"name": "scaling_backdoor", "schedule": {"rejoin_after": 1}}
    cell = Cell(**{**cell.model_dump(exclude={"attack"}), "attack": attack})
    with single_thread():
        federation = WithoutClients(cell, {0, 1}, entered=1)
        who = [sorted(federation.advance(index).asked) for index in range(4)]
    assert who == [[0, 1, 2, 3, 4, 5], *[[2, 3, 4, 5]] * 3]


def test_bans_of_the_recording_are_the_default(tmp_path):
    defense = {"detector": "norm_bound", "policy": {"name": "ban", "strikes": 1}}
    cell = Cell(**{**CELL.model_dump(exclude={"defense"}), "defense": defense})
    federation = made(tmp_path / "r", cell)
    banned = [client for client in range(6) if federation.ever_banned(client)]
    assert banned
    found = fedguard.rollback(tmp_path / "r")
    assert list(found.without) == banned


def test_a_run_that_does_not_repeat_is_refused(simulated, tmp_path):
    folder, _ = simulated
    index = read_index(folder / "recording.json")
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.glob("round-*"):
        (other / file.name).write_bytes(file.read_bytes())
    about = json.loads(json.dumps(index.about))
    about["cell"]["training"]["lr"] = 0.05
    write_index(other, index.model_copy(update={"about": about}))
    with pytest.raises(ResultsError, match="round 0 is not the recorded one when it is repeated here"):
        fedguard.rollback(other, [0])
    about["cell"].update(index.about["cell"], rounds=2)
    write_index(other, index.model_copy(update={"about": about}))
    with pytest.raises(ResultsError, match="holds round 2 of a run of 2 rounds"):
        fedguard.rollback(other, [0])
    about["cell"]["attack"] = {"name": "evil_module:Mine"}
    write_index(other, index.model_copy(update={"about": about}))
    for options in ([], ["--approximate"], ["--model", "mlp"]):
        done = CliRunner().invoke(app, ["rollback", str(other), "--without", "0", *options])
        assert isinstance(done.exception, ConfigError)
        assert "evil_module:Mine is code" in str(done.exception) or "--model belongs to live" in str(
            done.exception
        )


def test_arguments_that_do_not_go_together(simulated):
    folder, _ = simulated
    with pytest.raises(ParameterError, match="aggregator goes with the approximation"):
        fedguard.rollback(folder, [0], aggregator="median")
    with pytest.raises(ParameterError, match="belong to live recordings"):
        fedguard.rollback(folder, [0], model=nn.Linear(1, 1))
    with pytest.raises(ParameterError, match="nobody is left"):
        fedguard.rollback(folder, range(6))


@pytest.fixture
def live(tmp_path):
    """Two honest clients train a linear model of two inputs; "evil" makes it give class 1."""
    model = nn.Linear(2, 2)
    params = torch.zeros(6)
    sent = [[1, -1, -1, 1, 0, 0], [1, -1, -1, 1, 0, 0], [0, 0, 0, 0, -30, 30]]
    with Recorder(tmp_path / "live") as recorder:
        guard = fedguard.Guard(observers=[recorder])
        for index in range(2):
            round = Round(sent, ["a", "b", "evil"], index=index, global_params=params)
            params = params + guard.process(round).aggregate
    test = LabeledData(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    return tmp_path / "live", model, test


def test_a_live_recording(live, tmp_path):
    folder, model, test = live
    triggered = LabeledData(test.inputs[:1], torch.tensor([1]))
    found = fedguard.rollback(folder, ["evil"], model=model, test=test, triggered=triggered)
    assert found.accuracy == (0.5, 1.0)
    assert found.success == (1.0, 0.0)
    assert "approximate" in str(found)
    found.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert file.get_tensor("weight").tolist() == [[2.0, -2.0], [-2.0, 2.0]]
        assert file.get_tensor("bias").tolist() == [0.0, 0.0]
        about = json.loads(file.metadata()["fedguard rollback"])
    assert about == {"exact": False, "without": ["evil"], "entered": 0, "last": 1}
    with pytest.raises(ResultsError, match="recorded with another model"):
        fedguard.rollback(folder, ["evil"], model=nn.Linear(3, 3))
    with pytest.raises(ParameterError, match="need the model"):
        fedguard.rollback(folder, ["evil"], test=test)


def test_the_command(live, tmp_path):
    folder, _, test = live
    np.savez(tmp_path / "test.npz", inputs=test.inputs.numpy(), labels=test.labels.numpy())
    out = tmp_path / "model.safetensors"
    options = ["--without", "evil", "--model", "logistic_regression", "--test", str(tmp_path / "test.npz")]
    done = CliRunner().invoke(app, ["rollback", str(folder), *options, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "accuracy: 50.0 % before, 100.0 % after" in done.output
    assert "approximate" in done.output
    out.unlink()
    out.symlink_to(tmp_path / "elsewhere")
    done = CliRunner().invoke(app, ["rollback", str(folder), *options, "-o", str(out)])
    assert "does not write through links" in str(done.exception)
    assert not (tmp_path / "elsewhere").exists()
    done = CliRunner().invoke(app, ["rollback", str(folder), "--without", "evil", "-o", "model.pt"])
    assert "ends in .safetensors" in str(done.exception)


def test_without_a_model_the_vector_is_written(live, tmp_path):
    folder, *_ = live
    fedguard.rollback(Recording(folder), ["evil"]).save(tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "pt") as file:
        assert file.get_tensor("parameters").tolist() == [2.0, -2.0, -2.0, 2.0, 0.0, 0.0]
    assert cell_of(Recording(folder)) is None
