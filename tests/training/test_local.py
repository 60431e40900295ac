"""Local training against torch.optim.SGD written out as a loop, and clients trained side by side."""

import os
from itertools import chain

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fedguard.contracts.data import LabeledData, Share
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.core.threads import single_thread
from fedguard.simulation.datasets import load_dataset
from fedguard.simulation.models import build_model
from fedguard.training import dense
from fedguard.training.local import side_by_side, train_client, train_clients
from fedguard.training.parameters import error_and_loss, flat_parameters


@pytest.fixture(autouse=True)
def _one_thread():
    with single_thread():
        yield


def make(name="mlp", shape=(6,), samples=23, seed=0):
    draw = torch.Generator().manual_seed(seed)
    model = build_model(name, shape, 3, draw)
    inputs = torch.randn(samples, *shape, generator=draw)
    data = LabeledData(inputs, torch.randint(0, 3, (samples,), generator=draw))
    return model, flat_parameters(model), data


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


SETTINGS = [
    LocalTraining(epochs=3, batch_size=5, lr=0.1),
    LocalTraining(epochs=2, batch_size=100, lr=0.1, momentum=0.9),
    LocalTraining(epochs=2, batch_size=8, lr=0.05, weight_decay=0.1),
    LocalTraining(epochs=None, steps=7, batch_size=4, lr=0.05, momentum=0.5, weight_decay=0.01),
    LocalTraining(epochs=None, steps=13, batch_size=10, lr=0.1),
]


def reference_batches(count, settings, draw):
    """Lists of indices, epoch by epoch, until the epochs or steps are done."""
    done = []
    for _ in range(settings.epochs or settings.steps):
        order = torch.randperm(count, generator=draw).tolist()
        done += [order[i : i + settings.batch_size] for i in range(0, count, settings.batch_size)]
        if settings.steps and len(done) >= settings.steps:
            break
    return done[: settings.steps]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("name", "shape"), [("mlp", (6,)), ("lenet", (1, 16, 16))])
def test_equals_torch_optim(settings, name, shape):
    model, start, data = make(name, shape)
    reference, _, _ = make(name, shape)
    optimizer = torch.optim.SGD(
        reference.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    for batch in reference_batches(len(data.labels), settings, seeded()):
        optimizer.zero_grad()
        F.cross_entropy(reference(data.inputs[batch]), data.labels[batch]).backward()
        optimizer.step()
    update = train_client(model, start, data, settings, seeded())
    assert update.dtype == torch.float32
    torch.testing.assert_close(update, flat_parameters(reference) - start, rtol=1e-4, atol=1e-6)


def clients_of(counts, shape, seed=3):
    draw = torch.Generator().manual_seed(seed)
    return [
        LabeledData(torch.randn(count, *shape, generator=draw), torch.randint(0, 3, (count,), generator=draw))
        for count in counts
    ]


GROUPS = [range(9), (4,), (8, 4, 2), (4, 5, 6, 0), (3, 4)]


@pytest.mark.thin(2)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("name", "shape", "params"),
    [
        ("logistic_regression", (7,), {}),
        ("logistic_regression", (1, 28, 28), {}),
        ("mlp", (1, 5, 5), {"hidden": [9]}),
        ("mlp", (13,), {"hidden": [33, 6]}),
        ("lenet", (1, 16, 16), {}),
    ],
)
def test_bits_do_not_depend_on_who_is_trained_along(settings, name, shape, params, monkeypatch):
    model = build_model(name, shape, 3, seeded(), **params)
    start = flat_parameters(model)
    clients = clients_of((20, 3, 41, 8, 17, 40, 4, 23, 100), shape)

    def train(group):
        draws = [seeded(i) for i in group]
        return train_clients(model, start, [clients[i] for i in group], settings, draws)

    alone = [train_client(model, start, data, settings, seeded(i)) for i, data in enumerate(clients)]
    for floats in (dense.GROUP_FLOATS, 3000):
        monkeypatch.setattr(dense, "GROUP_FLOATS", floats)
        for group in GROUPS:
            assert all(torch.equal(u, alone[i]) for i, u in zip(group, train(group), strict=True))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("hidden", [[9], [33, 6]])
def test_clients_side_by_side_are_like_the_loop(settings, hidden):
    model = build_model("mlp", (1, 5, 5), 3, seeded(), hidden=hidden)
    start, clients = flat_parameters(model), clients_of((20, 3, 41, 8), (1, 5, 5))
    found = train_clients(model, start, clients, settings, [seeded(i) for i in range(4)])
    for i, data in enumerate(clients):
        loop = train_client(model, start, data, settings, seeded(i), adjust=lambda gradients: gradients)
        torch.testing.assert_close(found[i], loop, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "shape"), [("mlp", (6,)), ("lenet", (3, 16, 16))])
def test_a_share_of_a_larger_set_trains_like_a_copy_of_it(name, shape):
    model = build_model(name, shape, 3, seeded())
    (whole,) = clients_of([50], shape)
    rows = torch.tensor([4, 40, 7, 33, 9, 0, 21])
    part = LabeledData(whole.inputs[rows], whole.labels[rows])
    settings, start = LocalTraining(epochs=2, batch_size=3), flat_parameters(model)
    expected = train_client(model, start, part, settings, seeded())
    assert torch.equal(train_client(model, start, Share(whole, rows), settings, seeded()), expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    "shape", [(6,), (1, 4, 4), (16, 1, 5)]
)  # whose batches fill whole cache lines or not
def test_shares_of_one_set_train_side_by_side_like_copies(settings, shape):
    model = build_model("mlp", shape, 3, seeded(), hidden=[9])
    (whole,) = clients_of([90], shape)
    parts = torch.split(torch.randperm(90, generator=seeded()), [20, 3, 41, 8, 18])
    copies = [LabeledData(whole.inputs[rows], whole.labels[rows]) for rows in parts]

    def train(clients):
        draws = [seeded(i) for i in range(len(parts))]
        return train_clients(model, flat_parameters(model), clients, settings, draws)

    shares = train([Share(whole, rows) for rows in parts])
    assert all(torch.equal(*pair) for pair in zip(shares, train(copies), strict=True))


def test_samples_of_the_batch_before_do_not_count():
    """A huge one would overflow with the parameters it has led to; the last batch is smaller."""
    model = build_model("logistic_regression", (1,), 3, seeded())
    inputs = torch.ones(3, 1)
    inputs[torch.randperm(3, generator=seeded())[1]] = 1e38
    data = LabeledData(inputs, torch.tensor([0, 1, 2]))
    start, settings = torch.zeros(6), LocalTraining(batch_size=2, lr=1e-2)
    update = train_client(model, start, data, settings, seeded())
    assert update.isfinite().all()
    assert update.abs().max() > 1e35


SHARED_LAYER = nn.Linear(4, 4)
DENSE = [
    (nn.Sequential(nn.Linear(4, 3)), (4,), [(3, 4)]),
    (nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (2, 2), [(5, 4), (3, 5)]),
    (nn.Sequential(nn.Linear(4, 3)), (2, 4), None),  # not flattened: one output per row
    (nn.Sequential(nn.Flatten(2), nn.Linear(4, 3)), (2, 2, 2), None),
    (nn.Sequential(nn.Linear(4, 3, bias=False)), (4,), None),
    (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), (4,), None),
    (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,), None),
    (nn.Sequential(nn.Linear(4, 5), nn.Dropout(), nn.Linear(5, 3)), (4,), None),
    (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,), None),
    (nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), (4,), None),
    (nn.Sequential(SHARED_LAYER, nn.ReLU(), SHARED_LAYER), (4,), None),
    (nn.Sequential(nn.Linear(4, 3)).double(), (4,), None),
    (nn.Linear(4, 3), (4,), None),
    (nn.Sequential(), (4,), None),
]


@pytest.mark.parametrize(("model", "shape", "expected"), DENSE)
def test_which_models_are_plain_dense_networks(model, shape, expected):
    assert dense.dense_shapes(model, torch.zeros(1, *shape)) == expected


@pytest.mark.parametrize("special", [{"proximal": 0.1}, {"wbc": 0.1}])
def test_proximal_term_and_wbc_are_trained_one_by_one(special):
    model, start, data = make()
    settings = LocalTraining(**special)
    assert side_by_side(model, data.inputs, LocalTraining())
    assert side_by_side(model, data.inputs, settings) is None
    both = train_clients(model, start, [data, data], settings, [seeded(), seeded(1)])
    assert torch.equal(both[1], train_client(model, start, data, settings, seeded(1)))
    assert not torch.equal(both[1], train_client(model, start, data, LocalTraining(), seeded(1)))


def batches_seen(settings, samples=23):
    """The indices of the samples in every forward pass."""
    model, start, _ = make("logistic_regression", (1,))
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 0].int().tolist()))
    labels = torch.zeros(samples, dtype=torch.int64)
    train_client(
        model, start, LabeledData(torch.arange(samples).float()[:, None], labels), settings, seeded()
    )
    return seen


def test_every_epoch_sees_every_sample_once_in_a_new_order():
    seen = batches_seen(LocalTraining(epochs=2, batch_size=5))
    assert [len(batch) for batch in seen] == [5, 5, 5, 5, 3] * 2
    first, second = list(chain(*seen[:5])), list(chain(*seen[5:]))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second


@pytest.mark.parametrize("steps", [1, 5, 6, 11])
def test_steps_are_batches_of_as_many_epochs_as_it_takes(steps):
    seen = batches_seen(LocalTraining(epochs=None, steps=steps, batch_size=5))
    assert seen == batches_seen(LocalTraining(epochs=3, batch_size=5))[:steps]


def test_depends_on_nothing_but_its_arguments():
    model, start, data = make()
    settings = LocalTraining(epochs=2, momentum=0.9)
    before = start.clone()
    first = train_client(model, start, data, settings, seeded())
    state = torch.random.get_rng_state()
    again = train_client(model, start, data, settings, seeded())  # the model still holds the first result
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(start, before)
    assert not torch.equal(first, train_client(model, start, data, settings, seeded(6)))


def test_learns():
    data = load_dataset("digits")
    model = build_model("mlp", data.input_shape, 10, seeded())
    start = flat_parameters(model)
    settings = LocalTraining(epochs=5, lr=0.1)
    update = train_client(model, start, data.labeled(data.train), settings, seeded())
    assert error_and_loss(model, start + update, data.labeled(data.test))[0] < 0.07


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 3}, "epochs is 1 and steps is 3"),
        ({"epochs": None}, "epochs is None and steps is None"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": None, "steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0}, "lr is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1}, "momentum is 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
    ],
)
def test_settings_out_of_range(params, message):
    with pytest.raises(ParameterError, match=message):
        LocalTraining(**params)


def test_a_client_without_samples_is_refused():
    model, start, data = make()
    with pytest.raises(ParameterError, match="no samples"):
        train_client(model, start, LabeledData(data.inputs[:0], data.labels[:0]), LocalTraining(), seeded())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FEDGUARD_DATA"), reason="FEDGUARD_DATA is not set")
@pytest.mark.parametrize(("name", "accuracy"), [("mnist", 0.915), ("fashion_mnist", 0.83), ("cifar10", 0.35)])
def test_logistic_regression_on_real_data(name, accuracy):
    data = load_dataset(name)
    model = build_model("logistic_regression", data.input_shape, 10, seeded())
    start = flat_parameters(model)
    settings = LocalTraining(epochs=3, lr=0.001 if name == "cifar10" else 0.01)
    update = train_client(model, start, data.labeled(data.train), settings, seeded())
    assert 1 - error_and_loss(model, start + update, data.labeled(data.test))[0] > accuracy
