"""BackdoorIndicator, the stage and the detector, against its steps written out."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Guard, LabeledData, Round, Server, make_detector, make_stage
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.core.seeds import generator
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite
from fedguard.testing.federation import CLASSES, SHAPE, digits
from fedguard.training.indicator import PlantedTask, planted
from fedguard.training.local import train_client
from fedguard.training.parameters import flat_parameters

SAMPLES = {"samples": 320}
STAGE = {**SAMPLES, "epochs": 40, "lr": 0.05}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, CLASSES)
    )


def server_of(model, **more):
    return Server(model=model, input_shape=SHAPE, num_classes=CLASSES, seed=7, **more)


def test_the_stage_adds_what_planting_changes():
    model = net()
    start, server = flat_parameters(model), server_of(model)
    updates = 0.01 * torch.randn(4, len(start), generator=torch.Generator().manual_seed(0))
    stage = make_stage("indicator_task", samples=64, epochs=3, lr=0.01, mu=0.2)
    round = Round(updates, index=2, global_params=start, server=server)
    data = PlantedTask(64, "noise", standardize=True).data(server)
    draw = server.generator("indicator_task", 2)
    wanted = planted(model, start + updates.mean(0), data, 3, 0.01, 0.2, draw)
    assert torch.allclose(start + stage.after(round, updates.mean(0)), wanted, atol=1e-6)


def test_when_the_stage_plants():
    model = net()
    start = flat_parameters(model)
    update = torch.zeros_like(start)

    def changed(index, rounds=None, **params):
        stage = make_stage("indicator_task", samples=10, epochs=3, **params)
        server = server_of(model, rounds=rounds)
        round = Round(update[None], index=index, global_params=start, server=server)
        return not torch.equal(stage.after(round, update), update)

    assert changed(0)
    assert [changed(index, start=3) for index in range(4)] == [False, False, True, True]
    assert [changed(index, rounds=3) for index in range(3)] == [True, True, False]
    assert not changed(0, lr=1e30), "a diverged model must not be sent"


def by_hand(model, base, updates, data):
    """(n,) the best accuracy of a label, with the statistics of the planted samples."""
    own = copy.deepcopy(model)

    def load(vector):
        at = 0
        for p in own.parameters():
            p.data = vector[at : at + p.numel()].view(p.shape).clone()
            at += p.numel()

    load(base)
    with torch.no_grad():
        maps = own[0](data.inputs)
    mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=True)
    found = []
    for update in updates:
        load(base + update)
        own[1].running_mean, own[1].running_var = mean.clone(), var.clone()
        own.eval()
        right = [[] for _ in range(CLASSES)]
        with torch.no_grad():
            for x, y in zip(data.inputs, data.labels.tolist(), strict=True):
                right[y].append(int(own(x[None]).argmax()) == y)
        found.append(max(sum(r) / len(r) for r in right))
    return found


def two_rounds(guard, model):
    """Six clients train on digits; in the second round client 5 sends nearly nothing and keeps the task."""
    pixels, labels = digits()
    training = LocalTraining(epochs=6, batch_size=16, lr=0.1)
    params, outcomes, rounds = flat_parameters(model), [], []
    for index in range(2):
        updates = []
        for client in range(6):
            mine = slice(100 * client, 100 * client + 100)
            data = LabeledData(pixels[mine], labels[mine])
            updates.append(train_client(model, params, data, training, generator(client, "test", index)))
        if index == 1:
            updates[5] = 0.001 * updates[5]
        rounds.append(Round(torch.stack(updates), index=index, global_params=params, server=server_of(model)))
        outcomes.append(guard.process(rounds[-1]))
        params = params + outcomes[-1].aggregate
    return rounds, outcomes


def test_who_keeps_the_task_is_a_suspect():
    model = net()
    detector = make_detector("backdoor_indicator", **SAMPLES)
    guard = Guard(detector, stages=make_stage("indicator_task", **STAGE))
    rounds, (first, second) = two_rounds(guard, model)
    assert not first.suspects.any()
    assert first.scores.tolist() == [0.0] * 6
    assert first.info["backdoor_indicator"]["planted"] < 0.5
    assert second.info["backdoor_indicator"]["planted"] > 0.9
    data = PlantedTask(320, "noise", standardize=True).data(server_of(model))
    wanted = by_hand(model, rounds[1].global_params, rounds[1].updates.matrix, data)
    np.testing.assert_allclose(second.scores, wanted, atol=1e-6)
    assert second.suspects.tolist() == [value >= 0.95 for value in wanted]
    assert second.suspects[5]
    assert not second.suspects.all(), "honest training must forget the task in this example"
    assert "for label" in second.reasons[5]


def test_without_the_stage_nobody_is_judged():
    rounds, (_, second) = two_rounds(Guard(make_detector("backdoor_indicator", **SAMPLES)), net())
    assert not second.suspects.any()
    assert second.scores.tolist() == [0.0] * 6
    judged = make_detector("backdoor_indicator", **SAMPLES, planted=0.0)(rounds[1])
    assert judged.values.max() > 0


def test_a_model_that_predicts_nothing_finite_is_a_suspect():
    model = net()
    updates = torch.zeros(3, len(flat_parameters(model)))
    updates[1] = 3e38
    round = Round(updates, global_params=flat_parameters(model), server=server_of(model))
    scores = make_detector("backdoor_indicator", **SAMPLES, planted=0.0)(round)
    assert np.isinf(scores.values).tolist() == [False, True, False]
    assert scores.suspects[1]
    assert scores.reasons[1] == "its model's predictions are not finite"


def test_batch_norm_statistics_stay_the_clients():
    """The stage changes parameters only, for a live guard, too."""
    model = net()
    states = {}
    for client in range(3):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        state["1.running_mean"] += client
        states[client] = state
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guard = Guard(stages=make_stage("indicator_task", samples=64, epochs=2))
    _, after = guard.process_state_dicts(states, before, server=server_of(model))
    assert torch.equal(after["1.running_mean"], before["1.running_mean"] + 1)
    assert torch.equal(after["1.running_var"], before["1.running_var"])
    assert not torch.equal(after["0.weight"], before["0.weight"])


def test_in_a_suite(tmp_path):
    suite = Suite(
        name="indicator",
        data="digits",
        model={"name": "mlp", "hidden": [32]},
        clients=6,
        malicious=1,
        rounds=3,
        training={"epochs": 1, "batch_size": 32, "lr": 0.1},
        attacks={"scaled": {"name": "scaling_backdoor", "scale": 1.0}},
        defenses={
            "indicator": {
                "detector": {"name": "backdoor_indicator", **SAMPLES},
                "stages": {"name": "indicator_task", **STAGE, "lr": 0.005},
            }
        },
    )
    run_suite(suite, tmp_path, workers=1)
    row = read_results(tmp_path).iloc[0]
    assert np.isfinite([row["tacc"], row["dacc"], row["auroc"]]).all()
    assert row["tacc"] > 0.3, "the last model is sent without the task"


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("stage", {"epochs": 0}, "epochs is 0"),
        ("stage", {"lr": 0.0}, "lr is 0"),
        ("stage", {"mu": -1.0}, "mu is -1"),
        ("stage", {"start": 0}, "start is 0"),
        ("stage", {"samples": 1}, "samples is 1"),
        ("detector", {"threshold": 0.0}, "threshold is 0"),
        ("detector", {"planted": 1.5}, r"planted is 1\.5"),
    ],
)
def test_wrong_parameters(kind, params, message):
    make = {"stage": make_stage, "detector": make_detector}[kind]
    name = {"stage": "indicator_task", "detector": "backdoor_indicator"}[kind]
    with pytest.raises(ParameterError, match=message):
        make(name, **params)
