"""Local training by any optimizer and schedule, against torch.optim in a loop written out here."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.optim import lr_scheduler

from fedguard.contracts.data import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.core.threads import single_thread
from fedguard.simulation.models import build_model
from fedguard.training.check import check_takes, check_training
from fedguard.training.local import clipped, train_client, train_clients
from fedguard.training.parameters import flat_parameters


@pytest.fixture(autouse=True)
def _one_thread():
    with single_thread():
        yield


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def make(samples=23):
    model = build_model("mlp", (6,), 3, seeded(0))
    inputs = torch.randn(samples, 6, generator=seeded(1))
    return model, LabeledData(inputs, torch.randint(0, 3, (samples,), generator=seeded(2)))


def loop(optimizer_of, scheduler_of=None, per_step=False, epochs=3, size=5, clip=0.0):
    """The reference: torch's own training loop over the batches of the generator."""
    model, data = make()
    start, draw = flat_parameters(model), seeded()
    optimizer = optimizer_of(model.parameters())
    scheduler = scheduler_of(optimizer) if scheduler_of else None
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(data.labels), generator=draw), size):
            optimizer.zero_grad()
            F.cross_entropy(model(data.inputs[batch]), data.labels[batch]).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler and per_step:
                scheduler.step()
        if scheduler and not per_step:
            scheduler.step()
    return flat_parameters(model) - start


def ours(**settings):
    model, data = make()
    training = LocalTraining(epochs=3, batch_size=5, **settings)
    return train_client(model, flat_parameters(model), data, training, seeded())


OPTIMIZERS = [
    ({"optimizer": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
    (
        {"optimizer": {"name": "AdamW", "betas": [0.8, 0.95]}, "lr": 0.02},
        lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95)),
    ),
    ({"optimizer": "adamw", "weight_decay": 0.3}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3)),
    ({"optimizer": "rmsprop", "momentum": 0.5}, lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5)),
    ({"optimizer": "adagrad", "lr": 0.1}, lambda p: torch.optim.Adagrad(p, lr=0.1)),
    (
        {"optimizer": {"name": "sgd", "nesterov": True}, "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    ),
    ({"optimizer": "torch.optim:NAdam"}, lambda p: torch.optim.NAdam(p, lr=0.01)),
]


@pytest.mark.parametrize(("settings", "reference"), OPTIMIZERS)
def test_is_the_loop_over_torch_optim_to_the_bit(settings, reference):
    assert torch.equal(ours(**settings), loop(reference))


SCHEDULERS = [
    ({"name": "cosine_annealing_lr", "T_max": 3}, lambda o: lr_scheduler.CosineAnnealingLR(o, 3), False),
    ({"name": "steplr", "step_size": 4, "per": "step"}, lambda o: lr_scheduler.StepLR(o, 4), True),
    (
        {"name": "ExponentialLR", "gamma": 0.5, "per": "epoch"},
        lambda o: lr_scheduler.ExponentialLR(o, 0.5),
        False,
    ),
    (
        {"name": "cosine_annealing", "T_max": 15, "per": "step"},
        lambda o: lr_scheduler.CosineAnnealingLR(o, 15),
        True,
    ),
]


@pytest.mark.parametrize(("scheduler", "reference", "per_step"), SCHEDULERS)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_schedules_within_a_round_are_torch_s(scheduler, reference, per_step, name):
    cls = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    found = ours(optimizer=name, scheduler=scheduler, lr=0.1)
    assert torch.equal(found, loop(lambda p: cls(p, lr=0.1), reference, per_step))
    assert not torch.equal(found, loop(lambda p: cls(p, lr=0.1)))


@pytest.mark.parametrize("most", [0.05, 100.0])
def test_clipping_is_torch_s(most):
    found = ours(optimizer="adam", clip=most)
    assert torch.equal(found, loop(lambda p: torch.optim.Adam(p, lr=0.01), clip=most))
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    short = clipped(gradients, 1.0)
    assert torch.linalg.vector_norm(torch.cat([g.flatten() for g in short])) == pytest.approx(1.0, abs=1e-5)
    assert all(map(torch.equal, clipped(gradients, 6.0), gradients))


def test_clients_do_not_share_a_state():
    model, data = make()
    start, training = flat_parameters(model), LocalTraining(optimizer="adam", batch_size=5)
    both = train_clients(model, start, [data, data], training, [seeded(1), seeded()])
    assert torch.equal(both[1], train_client(model, start, data, training, seeded()))


@pytest.mark.parametrize("rounds", [1, 7])
def test_the_cosine_over_rounds_is_torch_s(rounds):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    reference = lr_scheduler.CosineAnnealingLR(optimizer, rounds, eta_min=0.02)
    training = LocalTraining(lr=0.3, lr_schedule="cosine", lr_min=0.02)
    for index in range(rounds):
        assert training.in_round(index, rounds).lr == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-12
        )
        optimizer.step()
        reference.step()


def test_the_decay_over_rounds():
    training = LocalTraining(lr=0.5, lr_decay=0.9)
    assert [training.in_round(t, 3).lr for t in range(3)] == pytest.approx([0.5, 0.45, 0.405])
    assert training.in_round(0, 3) is training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm', did you mean 'adam'"),
        ({"optimizer": {"name": "adam", "beta": 1}}, "unknown parameter 'beta', did you mean 'betas'"),
        ({"optimizer": {"name": "adam", "betas": [0.9, 2.0]}}, "optimizer adam: Invalid beta"),
        ({"optimizer": {"name": "adam", "betas": "many"}}, "parameter 'betas"),
        ({"optimizer": {"name": "adam", "lr": 1.0}}, "unknown parameter 'lr'"),
        ({"optimizer": "adam", "momentum": 0.9}, "adam has no momentum"),
        ({"optimizer": "lbfgs"}, "cannot do a step on gradients alone"),
        ({"optimizer": "collections:OrderedDict"}, "is not a class below torch's Optimizer"),
        ({"optimizer": "no_such_module:Best"}, "training.optimizer: cannot load"),
        ({"scheduler": "cosine"}, "unknown scheduler 'cosine'"),
        ({"scheduler": {"name": "steplr"}}, "scheduler steplr"),
        ({"scheduler": {"name": "steplr", "step_size": 1, "per": "round"}}, "per is 'round'"),
        ({"scheduler": "reduce_lr_on_plateau"}, "cannot do a step on gradients alone"),
        ({"optimizer": {"betas": [1, 2]}}, "write a name, or a mapping with a name"),
        ({"lr_schedule": "linear"}, "lr_schedule is 'linear'"),
        ({"lr_decay": 1.5}, "lr_decay is 1.5"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"wbc": 0.1, "optimizer": "adam"}, "wbc is defined for sgd"),
    ],
)
def test_mistakes_are_found_before_training(settings, message):
    with pytest.raises(ParameterError, match=message):
        check_training(LocalTraining(**settings), "classification", (6,), 3)


def test_an_optimizer_that_refuses_the_parameters_of_the_model_is_found_before_training():
    settings = LocalTraining(optimizer="muon")
    check_takes(settings, nn.Linear(3, 2, bias=False))
    with pytest.raises(ParameterError, match="optimizer muon: Muon only supports 2D parameters") as refused:
        check_takes(settings, nn.Linear(3, 2))
    assert refused.value.key == "optimizer"
    check_takes(LocalTraining(), nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("settings", "count", "moves"),
    [
        ({"epochs": 2, "batch_size": 4}, 9, 6),  # three batches twice
        ({"epochs": 2, "batch_size": 4, "patience": 1, "holdout": 0.2}, 9, 4),  # two held out, seven left
        ({"epochs": None, "steps": 5}, 9, 5),
    ],
)
def test_a_scheduler_that_ends_too_early_is_found_before_training(settings, count, moves):
    """By hand: how often it moves for the larger of two clients."""
    one_cycle = {"name": "onecycle", "max_lr": 0.1, "per": "step"}

    def check(total):
        scheduler = {**one_cycle, "total_steps": total}
        check_training(LocalTraining(**settings, scheduler=scheduler), "classification", (6,), 3, [1, count])

    check(moves)
    with pytest.raises(ParameterError, match=f"ends after {moves - 1} moves.* {moves} in a round") as refused:
        check(moves - 1)
    assert refused.value.key == "scheduler"
    if settings["epochs"]:
        per_epoch = {**one_cycle, "per": "epoch", "total_steps": 2}
        settings = LocalTraining(**settings, scheduler=per_epoch)
        check_training(settings, "classification", (6,), 3, [1, count])
