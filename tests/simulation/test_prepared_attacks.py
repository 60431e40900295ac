"""Attacks that prepare rounds, inside a federation."""

import pytest
import torch

from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.flcert import FLCert
from fedguard.training.parameters import predict

A3FL = {"name": "a3fl", "epochs": 2, "unlearn": 1}


def cell_of(attack, rounds=2):
    changes = [f"rounds={rounds}", "clients=5", "malicious=2", "server.validation=0"]
    suite, _ = load_suite("quickstart", changes)
    cell = next(c for c in suite.cells() if c.attack_label == "none" and c.defense_label == "no_defense")
    return cell.model_copy(update={"attack": type(cell.attack)(**attack)})


def test_every_round_has_its_own_trigger_and_success_is_measured_with_it():
    federation = Federation(cell_of(A3FL))
    triggers = []
    for index in range(2):
        record = federation.step(index)
        triggers.append(federation.attack.trigger)
        trial = federation.attack.trial(federation.setup.dataset.test, 10)
        inputs = federation.setup.dataset.normalize(trial.samples.pixels)
        hits = predict(federation.setup.model, federation.params, inputs).argmax(1) == trial.target
        assert record.asr == pytest.approx(float(hits.float().mean()))
    assert not torch.equal(*triggers)


@pytest.mark.parametrize(
    "attack",
    [
        A3FL,
        {"name": "chameleon", "encoder_epochs": 1},
        {"name": "iba"},
        {"name": "dpot", "steps": 3},
        {"name": "collapois", "epochs": 2},
        {"name": "three_dfed", "epochs": 2},
    ],
)
def test_a_resumed_federation_goes_on_as_if_nothing_had_happened(attack):
    cell = cell_of(attack)
    whole = Federation(cell)
    first = whole.step(0)
    state = unpack(pack(whole.state_dict()))
    second = whole.step(1)
    resumed = Federation(cell)
    resumed.load_state_dict(state)
    again = resumed.step(1)
    assert (again.tacc, again.asr) == (second.tacc, second.asr)
    assert torch.equal(resumed.params, whole.params)
    assert any(row.attacking for row in first.clients)


def test_a_wrapped_attack_prepares_and_trains_as_if_it_were_alone():
    for inner in (A3FL, {"name": "chameleon", "encoder_epochs": 1}):
        wrapped = {"name": "inflated_counts", "attack": inner}
        alone, outer = (Federation(cell_of(attack, 1)).advance(0).round for attack in (inner, wrapped))
        assert torch.equal(alone.updates.matrix, outer.updates.matrix)


def test_flcert_refuses_a_trigger_that_changes():
    cell = cell_of(A3FL)
    certified = type(cell.defense)(flcert={"groups": 2})
    with pytest.raises(ParameterError, match=r"defense\.flcert cannot run the attack a3fl"):
        FLCert(cell.model_copy(update={"defense": certified}))
