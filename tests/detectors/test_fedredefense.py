"""FedREDefense against the published algorithm written out with ``higher`` in float64 (Algorithms 1, 2)."""

import math
import pickle

import higher
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.seeds import generator
from fedguard.training.parameters import flat_parameters, load_parameters

SHAPE, CLASSES = (1, 8, 8), 10


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The oracle's matrices are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def federation():
    """A round of three clients, each with three digits, that train as in the paper but faster."""
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, *SHAPE)
    model = mlp()
    start = flat_parameters(model)
    rng = np.random.default_rng(0)
    updates = []
    for client in range(3):
        mine = torch.tensor(np.flatnonzero(np.isin(labels, rng.choice(10, 3, replace=False)))[:160])
        load_parameters(model, start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        order = torch.randperm(len(mine), generator=torch.Generator().manual_seed(client))
        for batch in mine[order].split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), torch.tensor(labels)[batch]).backward()
            optimizer.step()
        updates.append(flat_parameters(model) - start)
    server = Server(model=mlp(), input_shape=SHAPE, num_classes=CLASSES, seed=3)
    return Round(torch.stack(updates), client_ids=[4, "x", 0], global_params=start, server=server)


QUICK = {"inner_lr": 1.0, "lr_images": 1.0, "lr_labels": 0.5, "lr_inner_lr": 1e-3}


def detector(**params):
    return make_detector("fedredefense", **{**QUICK, **params})


def virtual_training(start, images, labels, inner_lr, inner_steps, per_class):
    """ŵ_N as a flat vector, on the graph of the knowledge."""
    model = mlp().double()
    load_parameters(model, start)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    with higher.innerloop_ctx(model, sgd, override={"lr": [inner_lr]}) as (network, steps):
        for _ in range(inner_steps):
            log_p = torch.log_softmax(network(images), dim=1)
            terms = -torch.softmax(labels, dim=1) * log_p
            steps.step(terms.sum() / (len(images) * (CLASSES if per_class else 1)))
        return torch.cat([p.flatten() for p in network.parameters()])


def reconstruct_by_hand(start, g, knowledge, iterations, params):
    """Algorithm 2 with dynamic stopping; returns (error, iterations, images, labels, inner rate)."""
    start, g = start.double(), g.double()
    leaves = [k.double().clone().requires_grad_() for k in knowledge]
    buffers = [None] * 3
    rates = (params["lr_images"], params["lr_labels"], params["lr_inner_lr"])
    used = iterations
    for m in range(iterations):
        end = virtual_training(start, *leaves, params["inner_steps"], params["per_class"])
        loss = (end - start - g).square().sum() / g.square().sum()
        if loss < params["threshold"]:
            used = m + 1
            break
        gradients = torch.autograd.grad(loss, leaves)
        with torch.no_grad():
            for k in range(3):
                buffers[k] = gradients[k] + (params["momentum"] * buffers[k] if buffers[k] is not None else 0)
                leaves[k] -= rates[k] * buffers[k]
    end = virtual_training(start, *leaves, params["inner_steps"], params["per_class"])
    error = float(((end - start - g).square().sum() / g.square().sum()).detach())
    return error, used, *(leaf.detach() for leaf in leaves)


def noise(client, seed, num_images, init):
    draw = generator(seed, "fedredefense", *(() if init == "shared" else (client,)))
    make = torch.rand if init == "uniform" else torch.randn
    return make((num_images, *SHAPE), generator=draw), torch.zeros(num_images, CLASSES), torch.tensor(1.0)


def kept_of(method):
    return dict(method.state_dict()["knowledge"])


@pytest.mark.thin(2)
@pytest.mark.parametrize("inner_loop", ["closed", "func", "higher"])
@pytest.mark.parametrize(
    ("case", "stops"),
    [
        ({"first_iterations": 12, "threshold": 0.1}, False),
        ({"first_iterations": 60, "threshold": 0.8}, True),
        (
            {"first_iterations": 10, "num_images": 4, "inner_steps": 2, "init": "gaussian", "threshold": 0.2},
            False,
        ),
        ({"first_iterations": 12, "momentum": 0.5, "init": "shared"}, False),
        ({"first_iterations": 40, "loss_average": "batch", "inner_lr": 0.1, "threshold": 0.9}, True),
    ],
)
def test_agrees_with_the_published_algorithm(federation, case, stops, inner_loop):
    method = detector(**case, inner_loop=inner_loop)
    params = {"inner_steps": 5, "threshold": 0.6, "momentum": 0.0, "init": "uniform", **QUICK, **case}
    params["per_class"] = params.get("loss_average", "classes") == "classes"
    scores = method(federation)
    method.commit(federation, scores)
    kept, used = kept_of(method), []
    for i, client in enumerate(federation.client_ids):
        images, labels, _ = noise(client, 3, params.get("num_images", 10), params["init"])
        first = (images, labels, torch.tensor(params["inner_lr"]))
        update = federation.updates.matrix[i]
        error, iterations, *knowledge = reconstruct_by_hand(
            federation.global_params, update, first, params["first_iterations"], params
        )
        assert scores.values[i] == pytest.approx(error, rel=1e-4)
        for name, expected in zip(("images", "labels", "inner_lr"), knowledge, strict=True):
            torch.testing.assert_close(kept[client][name].double(), expected, rtol=1e-3, atol=2e-4)
        used.append(iterations)
    assert scores.info == {"aoi": np.mean(used), "iterations_max": max(used)}
    assert (max(used) < params["first_iterations"]) == stops
    assert scores.suspects.tolist() == (scores.values > params["threshold"]).tolist()


def test_knowledge_is_refined_in_later_rounds_with_fresh_momentum(federation):
    method = detector(first_iterations=5, later_iterations=3, momentum=0.5, init="gaussian")
    method.commit(federation, method(federation))
    before = kept_of(method)
    scores = method(federation)
    assert scores.info["iterations_max"] == 3
    method.commit(federation, scores)
    params = {"inner_steps": 5, "threshold": 0.6, "per_class": True, "momentum": 0.5, **QUICK}
    for i, client in enumerate(federation.client_ids):
        start = [before[client][name] for name in ("images", "labels", "inner_lr")]
        update = federation.updates.matrix[i]
        error, _, images, *_ = reconstruct_by_hand(federation.global_params, update, start, 3, params)
        assert scores.values[i] == pytest.approx(error, rel=1e-4)
        torch.testing.assert_close(kept_of(method)[client]["images"].double(), images, rtol=1e-3, atol=1e-4)


def test_training_reconstructs_and_crafting_does_not(federation):
    """Within 200 iterations all three trained updates fall below γ; none of the crafted ones does."""
    trained = federation.updates.matrix
    mean, std = trained.mean(0), trained.std(0)
    noise_ = torch.randn(trained.shape[1], generator=torch.Generator().manual_seed(1))
    crafted = [mean - 3 * std, noise_ * trained.norm() / noise_.norm(), -std.sqrt()]
    updates = torch.cat([trained, torch.stack(crafted)])
    scores = detector(first_iterations=200, momentum=0.5, init="gaussian")(
        Round(updates, global_params=federation.global_params, server=federation.server)
    )
    assert scores.suspects.tolist() == [False] * 3 + [True] * 3
    assert scores.values[:3].max() < 0.6 < 0.7 < scores.values[3:].min()


def test_a_client_is_reconstructed_alike_alone_or_in_company_in_any_order(federation):
    method = detector(first_iterations=4)
    together = method(federation).values
    assert method(federation.take([2, 0, 1])).values.tolist() == together[[2, 0, 1]].tolist()
    assert method(federation.take([1])).values.tolist() == together[[1]].tolist()


def test_jobs_travel_to_other_processes_small_and_give_the_same_bits(federation):
    sizes = []

    def through_bytes(function, jobs):
        calls = [pickle.dumps((function, job)) for job in jobs]
        sizes.extend(len(call) for call in calls)
        return [pickle.loads(pickle.dumps(f(job))) for f, job in map(pickle.loads, calls)]  # noqa: S301

    method = detector(first_iterations=3)
    sequential = method(federation)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        parallel = method(federation.with_server(map=through_bytes))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert parallel.values.tolist() == sequential.values.tolist()
    assert all(
        torch.equal(parallel.memory[c].knowledge.images, sequential.memory[c].knowledge.images)
        for c in federation.client_ids
    )
    n, d = federation.updates.n, federation.updates.d
    assert max(sizes) < 4 * (2 * d + n * (d + 10 * (64 + 10))) + 15_000  # model, start, updates, knowledge


@pytest.mark.parametrize(("row", "why"), [(0.0, "zero"), (3e38, "overflow")])
def test_an_undefined_error_is_infinite_and_spoils_no_knowledge(federation, row, why):
    method = detector(first_iterations=3)
    method.commit(federation, method(federation))
    before = kept_of(method)["x"]["images"].clone()
    matrix = federation.updates.matrix.clone()
    matrix[1:] = row
    ids = [4, "x", "never seen"]
    round_ = Round(matrix, ids, global_params=federation.global_params, server=federation.server)
    scores = method(round_)
    assert np.isfinite(scores.values).tolist() == [True, False, False], why
    assert scores.suspects[1:].all()
    method.commit(round_, scores)
    assert torch.equal(kept_of(method)["x"]["images"], before)
    assert "never seen" not in kept_of(method)


def test_an_optimization_that_diverges_is_infinite(federation):
    scores = detector(first_iterations=30, lr_images=1e30)(federation)
    assert scores.values.tolist() == [math.inf] * 3
    assert scores.memory == {}
    assert scores.info["iterations_max"] < 30


@pytest.mark.parametrize(
    ("schedule", "iterations"),
    [("dynamic", [1, 1, 1, 1]), ("continuous", [6, 2, 2, 2]), ("intermittent", [6, 0, 0, 2])],
)
def test_schedules_of_appendix_b3(federation, schedule, iterations):
    """With γ = 10 every error is small enough at once: only the schedule says how long to go on."""
    method = detector(schedule=schedule, interval=3, threshold=10.0, first_iterations=6, later_iterations=2)
    used = []
    for t in range(4):
        round_ = Round(
            federation.updates, index=t, global_params=federation.global_params, server=federation.server
        )
        scores = method(round_)
        method.commit(round_, scores)
        used.append(scores.info["aoi"])
    assert used == iterations


def test_norms_and_dropout_neither_leak_state_nor_chance():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(108, 10),
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = flat_parameters(model)
    round_ = Round(
        0.01 * torch.randn(2, len(start)),
        global_params=start,
        server=Server(model=model, input_shape=SHAPE, num_classes=CLASSES),
    )

    def errors_by(loop):
        return detector(first_iterations=3, inner_loop=loop)(round_).values

    errors = [errors_by(loop) for loop in ("func", "closed", "higher")]
    assert errors[0].tolist() == errors[1].tolist()
    np.testing.assert_allclose(errors[0], errors[2], rtol=1e-5)
    assert np.isfinite(errors[0]).all()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model[1].running_mean += 100  # the batch normalizes, as in training
    model[2].running_var *= 9
    assert errors_by("func").tolist() == errors[0].tolist()


def test_works_where_gradients_are_off(federation):
    with torch.no_grad():
        off = detector(first_iterations=2)(federation).values
    assert off.tolist() == detector(first_iterations=2)(federation).values.tolist()


@pytest.mark.parametrize("missing", ["input_shape", "num_classes"])
def test_needs_to_know_what_an_image_looks_like(federation, missing):
    with pytest.raises(NeedError, match=missing):
        detector()(federation.with_server(**{missing: None}))


@pytest.mark.parametrize(
    "params",
    [
        {"threshold": 0.0},
        {"num_images": 0},
        {"inner_steps": -1},
        {"lr_images": math.inf},
        {"lr_labels": -0.1},
        {"lr_inner_lr": 0},
        {"inner_lr": math.nan},
        {"momentum": 1.0},
        {"first_iterations": 0},
        {"interval": 0},
        {"schedule": "weekly"},
    ],
)
def test_refuses_parameters_that_make_no_sense(params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make_detector("fedredefense", **params)
