"""FLTrust as a detector against torch.optim.SGD on the root data, and what its weights amount to."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Guard, LabeledData, Round, Server, make_aggregator, make_detector, make_policy
from fedguard.contracts.local_training import LocalTraining
from fedguard.training.parameters import load_parameters


def server_with(model, **training):
    draw = torch.Generator().manual_seed(1)
    root = LabeledData(torch.randn(10, 4, generator=draw), torch.randint(0, 3, (10,), generator=draw))
    settings = {"epochs": 3, "batch_size": 10, "lr": 0.3, "momentum": 0.6, **training}
    return Server(model=model, root=root, training=LocalTraining(**settings), seed=5)


def network(norm=False):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*layers)


def trained(server, start):
    """The update of full-batch SGD from ``start``, by torch's own optimizer; parameters only."""
    model = copy.deepcopy(server.model)
    load_parameters(model, start)
    model.train()
    rates = server.training
    optimizer = torch.optim.SGD(model.parameters(), lr=rates.lr, momentum=rates.momentum)
    for _ in range(rates.epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(server.root.inputs), server.root.labels).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - start


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("norm", [False, True])
def test_trust_is_the_angle_to_a_clients_training_on_the_root_data(norm):
    """Trap: batch-norm statistics among the parameters would dominate the cosines."""
    server = server_with(network(norm))
    start = torch.randn(size(server.model), generator=torch.Generator().manual_seed(2))
    guide = trained(server, start)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, len(start))).astype(np.float32)
    x[1] += 5 * guide.numpy() / float(guide.norm())
    x[2], x[3], x[4] = 100 * guide, -1e-3 * guide, 0
    scores = make_detector("fltrust")(Round(x, global_params=start, server=server))
    expected = [cosine(row, guide) if row.any() else 0 for row in x]
    np.testing.assert_allclose(scores.values, [1 - c for c in expected], atol=1e-5)
    np.testing.assert_allclose(scores.weights, [max(0, c) for c in expected], atol=1e-5)
    assert scores.suspects.tolist() == [c <= 0 for c in expected]
    assert scores.suspects[4], "a zero update is trusted with weight 0"


def test_training_starts_from_the_rounds_model_and_leaves_the_servers_alone():
    server = server_with(network())
    before = copy.deepcopy(server.model.state_dict())
    starts = [torch.full((size(server.model),), value) for value in (0.1, -0.2)]
    x = np.random.default_rng(1).normal(size=(3, len(starts[0])))
    detector = make_detector("fltrust")
    first, other, again = (
        detector(Round(x, global_params=s, server=server)).values.tolist() for s in (*starts, starts[0])
    )
    assert first == again != other
    assert all(torch.equal(server.model.state_dict()[key], value) for key, value in before.items())


def test_minibatches_are_shuffled_anew_every_round():
    server = server_with(network(), batch_size=3)
    start = torch.zeros(size(server.model)) + 0.1
    x = np.random.default_rng(1).normal(size=(3, len(start)))
    found = [
        make_detector("fltrust")(Round(x, index=i, global_params=start, server=server)).values.tolist()
        for i in (0, 1, 0)
    ]
    assert found[0] == found[2] != found[1]


def test_reweight_weights_by_trust():
    """Σ TS_i u_i / Σ TS_i."""
    server = server_with(network())
    start = torch.randn(size(server.model), generator=torch.Generator().manual_seed(2))
    guide = trained(server, start)
    x = np.random.default_rng(3).normal(size=(6, len(start))).astype(np.float32)
    x += np.outer([2, 1, 0, -1, 0.5, -3], guide.numpy() / float(guide.norm()))
    trust = [max(0.0, cosine(row, guide)) for row in x]
    mean = make_aggregator("mean", weighting="uniform")
    guard = Guard(make_detector("fltrust"), make_policy("reweight"), mean)
    outcome = guard.process(Round(x, global_params=start, server=server))
    expected = sum(t * row.astype(float) for t, row in zip(trust, x, strict=True)) / sum(trust)
    np.testing.assert_allclose(outcome.aggregate, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["reweight", "exclude"])
@pytest.mark.parametrize("aggregator", ["mean", "fltrust"])
def test_nobody_trusted_leaves_the_global_model(policy, aggregator):
    """Trap: falling back to equal weights."""
    server = server_with(network())
    start = torch.zeros(size(server.model)) + 0.1
    guide = trained(server, start)
    guard = Guard(make_detector("fltrust"), make_policy(policy), make_aggregator(aggregator))
    outcome = guard.process(Round(torch.stack([-guide, -2 * guide]), global_params=start, server=server))
    assert outcome.suspects.all()
    assert not outcome.weights.any()
    assert not outcome.aggregate.any()


def test_root_training_that_overflows_trusts_nobody():
    server = server_with(network(), lr=3e38, momentum=0.0, epochs=1)
    far = LabeledData(100 * server.root.inputs, server.root.labels)
    server = dataclasses.replace(server, root=far)
    start = torch.zeros(size(server.model)) + 0.1
    guide = trained(server, start)
    assert guide.isinf().any()
    assert not guide.isnan().any()
    x = np.random.default_rng(1).normal(size=(3, len(start)))
    scores = make_detector("fltrust")(Round(x, global_params=start, server=server))
    assert scores.values.tolist() == [1, 1, 1]
    assert scores.suspects.all()
