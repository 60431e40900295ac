"""FedREDefense's preset "fast" and its options against the formulas, written out in float64."""

import math
import pickle

import higher
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.core.errors import ParameterError
from fedguard.core.seeds import generator
from fedguard.core.state import pack, unpack
from fedguard.training.parameters import flat_parameters, load_parameters

SHAPE, CLASSES = (1, 8, 8), 10


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(54, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def federation():
    """A round of six clients, each with three digits."""
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, *SHAPE)
    start, rng, updates = flat_parameters(cnn()), np.random.default_rng(0), []
    for client in range(6):
        mine = torch.tensor(np.flatnonzero(np.isin(labels, rng.choice(10, 3, replace=False)))[:160])
        model = cnn()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for batch in mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(client))].split(
            32
        ):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), torch.tensor(labels)[batch]).backward()
            optimizer.step()
        updates.append(flat_parameters(model) - start)
    server = Server(model=cnn(), input_shape=SHAPE, num_classes=CLASSES, seed=3)
    return Round(torch.stack(updates), global_params=start, server=server)


def fast(**params):
    return make_detector("fedredefense", preset="fast", **params)


def kept_of(method):
    return dict(method.state_dict()["knowledge"])


def virtual_training(start, images, labels, inner_lr, steps):
    model = cnn().double()
    load_parameters(model, start)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    with higher.innerloop_ctx(model, sgd, override={"lr": [inner_lr]}) as (network, differentiable):
        for _ in range(steps):
            log_p = torch.log_softmax(network(images), dim=1)
            differentiable.step(-(torch.softmax(labels, dim=1) * log_p).mean())
        return torch.cat([p.flatten() for p in network.parameters()])


def fast_by_hand(start, g, client, iterations, *, threshold, bias=True, matched=True, adam=True, steps=1):
    """Labels from the bias; in every iteration α by least squares, then Adam or SGD; in float64 and loops."""
    start, g = start.double(), g.double()
    images = torch.randn((10, *SHAPE), generator=generator(3, "fedredefense", client)).double()
    labels = torch.zeros(10, 10).double()
    if bias:
        b = g[-10:]
        labels += (b / math.sqrt(sum((float(v) - float(b.mean())) ** 2 for v in b) / 9))[None, :]
    alpha = torch.tensor(0.5).double().requires_grad_()
    leaves = [images.requires_grad_(), labels.requires_grad_()] + ([] if matched else [alpha])
    state = [[0.0, 0.0] for _ in leaves]
    for m in range(iterations + 1):
        if matched:
            f = (virtual_training(start, images, labels, alpha, steps) - start).detach()
            c = max(float((f * g).sum()), 0.1 * float(f.norm() * g.norm())) / float((f * f).sum())
            if steps == 1:
                with torch.no_grad():
                    alpha *= c
                c = 1.0
        else:
            c = 1.0
        found = virtual_training(start, images, labels, alpha, steps) - start
        error = float(((found - g).square().sum() / g.square().sum()).detach())
        if m == iterations or error < threshold:
            break
        loss = (c * found - g).square().sum() / g.square().sum()
        for k, (leaf, d) in enumerate(zip(leaves, torch.autograd.grad(loss, leaves), strict=True)):
            with torch.no_grad():
                if not adam:
                    state[k][0] = 0.5 * state[k][0] + d
                    leaf -= (0.1, 0.1, 5e-5)[k] * state[k][0]
                    continue
                state[k][0] = 0.9 * state[k][0] + 0.1 * d
                state[k][1] = 0.999 * state[k][1] + 0.001 * d * d
                first, second = state[k][0] / (1 - 0.9 ** (m + 1)), state[k][1] / (1 - 0.999 ** (m + 1))
                leaf -= (0.1, 0.1, 5e-5)[k] * first / (second.sqrt() + 1e-8)
        with torch.no_grad():
            alpha *= c
    return error, min(m + 1, iterations), images.detach(), labels.detach(), alpha.detach()


@pytest.mark.parametrize(
    ("params", "case"),
    [
        ({}, {}),
        ({"threshold": 0.02, "first_iterations": 1}, {}),
        ({"threshold": 0.02, "first_iterations": 6}, {}),
        ({"threshold": 0.02, "first_iterations": 4, "first_labels": "zeros"}, {"bias": False}),
        ({"threshold": 0.02, "first_iterations": 4, "inner_rate": "learnt"}, {"matched": False}),
        ({"threshold": 0.02, "first_iterations": 4, "inner_steps": 3}, {"steps": 3}),
        ({"threshold": 0.02, "first_iterations": 4, "optimizer": "sgd", "momentum": 0.5}, {"adam": False}),
    ],
)
def test_every_option_of_fast_by_hand(federation, params, case):
    method = fast(**params)
    scores = method(federation)
    method.commit(federation, scores)
    kept, used = kept_of(method), []
    for i, client in enumerate(federation.client_ids):
        error, iterations, *knowledge = fast_by_hand(
            federation.global_params,
            federation.updates.matrix[i],
            client,
            params.get("first_iterations", 10),
            threshold=params.get("threshold", 0.6),
            **case,
        )
        used.append(iterations)
        assert scores.values[i] == pytest.approx(error, rel=2e-3)
        # Adam's first steps go by the sign even of gradients that are rounding errors: some differ.
        for name, expected in zip(("images", "labels", "inner_lr"), knowledge, strict=True):
            far = (kept[client][name].double() - expected).abs() > 2e-3
            assert far.double().mean() < 0.02, name
    assert scores.info == {"aoi": np.mean(used), "iterations_max": max(used)}


def test_a_preset_is_its_parameters_and_what_is_given_counts(federation):
    spelt = {
        "inner_steps": 1,
        "inner_lr": 0.5,
        "optimizer": "adam",
        "lr_images": 0.1,
        "lr_labels": 0.1,
        "first_iterations": 10,
        "later_iterations": 10,
        "init": "gaussian",
        "first_labels": "bias",
        "inner_rate": "matched",
    }
    expected = fast()(federation).values.tolist()
    assert make_detector("fedredefense", preset="paper", **spelt)(federation).values.tolist() == expected
    paper = {
        "inner_steps": 5,
        "inner_lr": 0.1,
        "optimizer": "sgd",
        "lr_images": 0.1,
        "lr_labels": 0.05,
        "init": "uniform",
        "first_labels": "zeros",
        "inner_rate": "learnt",
        "first_iterations": 3,
    }
    expected = make_detector("fedredefense", first_iterations=3)(federation).values.tolist()
    assert fast(**paper)(federation).values.tolist() == expected


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("paper", (0.6, 10, 5, 0.1, 0.1, 0.05, 5e-5, 5000, 5000, 0.0, "uniform")),
        ("paper_cifar10", (0.6, 10, 5, 0.05, 0.1, 0.05, 5e-5, 500, 1500, 0.0, "uniform")),
        ("paper_cinic", (0.6, 10, 5, 0.05, 0.1, 0.05, 5e-5, 2000, 4000, 0.0, "uniform")),
        ("released", (0.6, 10, 5, 0.1, 0.1, 0.05, 5e-5, 3000, 3000, 0.5, "shared")),
    ],
)
def test_presets_are_section_5_1_and_table_7_and_the_released_scripts(preset, expected):
    use = make_detector("fedredefense", preset=preset).settings
    names = ("threshold", "num_images", "inner_steps", "inner_lr", "lr_images", "lr_labels", "lr_inner_lr")
    names += ("first_iterations", "later_iterations", "momentum", "init")
    assert tuple(getattr(use, name) for name in names) == expected


def test_fast_tells_training_from_crafting_within_its_budget(federation):
    trained = federation.updates.matrix
    noise = torch.randn(trained.shape[1], generator=torch.Generator().manual_seed(1))
    crafted = torch.stack(
        [trained.mean(0) - 3 * trained.std(0), noise * trained.norm() / noise.norm(), -trained.std(0).sqrt()]
    )
    scores = fast()(federation.with_updates(trained).take(range(6)))
    assert not scores.suspects.any()
    wild = Round(crafted, global_params=federation.global_params, server=federation.server)
    scores = fast()(wild)
    assert scores.suspects.all()
    assert scores.values.min() > 0.7


def test_genuine_updates_pass_even_if_they_are_scaled_or_flipped(federation):
    """What the method cannot see, by design."""
    for factor in (3.0, 0.1, -1.0):
        assert not fast()(federation.with_updates(factor * federation.updates.matrix)).suspects.any()


def test_the_rate_is_matched_again_in_a_round_of_shorter_updates(federation):
    """Updates a hundred times as long as those the knowledge was made for: no false alarm."""
    method = fast()
    method.commit(federation, method(federation))
    shorter = Round(
        federation.updates.matrix / 100,
        index=1,
        global_params=federation.global_params,
        server=federation.server,
    )
    assert not method(shorter).suspects.any()
    given = fast(inner_rate="learnt")
    given.commit(federation, given(federation))
    assert given(shorter).suspects.all()


def test_a_rate_is_never_matched_to_zero_or_below(federation):
    start, kept = federation.global_params.double(), []
    for sign in (1, -1):
        flipped = federation.with_updates(sign * federation.updates.matrix)
        # The search ends at once, with the first images.
        easy = fast(first_labels="zeros", threshold=10.0)
        kept.append([m.knowledge.inner_lr for m in easy(flipped).memory.values()])
    for i, update in enumerate(federation.updates.matrix.double()):
        images = torch.randn((10, *SHAPE), generator=generator(3, "fedredefense", i)).double()
        f = virtual_training(start, images, torch.zeros(10, 10).double(), torch.tensor(0.5), 1) - start
        cosine = float(f @ update / (f.norm() * update.norm()))
        for rates, c in ((kept[0], cosine), (kept[1], -cosine)):
            expected = 0.5 * max(c, 0.1) * float(update.norm() / f.norm())
            assert float(rates[i]) == pytest.approx(expected, rel=1e-4)


def curve(federation, iterations, **params):
    """e before the first step, by hand, and after 1, 2, … of them, from searches that never stop early."""
    start, first = federation.global_params.double(), []
    for i, g in enumerate(federation.updates.matrix.double()):
        images = torch.randn((10, *SHAPE), generator=generator(3, "fedredefense", i)).double()
        end = virtual_training(start, images, torch.zeros(10, 10).double(), torch.tensor(1.0), 5)
        first.append(float((end - start - g).square().sum() / g.square().sum()))
    runs = [
        make_detector("fedredefense", first_iterations=m, schedule="continuous", **params)(federation).values
        for m in range(1, iterations + 1)
    ]
    return np.array([first, *runs]).T


def test_giving_up_follows_the_pace_of_the_last_iterations(federation):
    params = {"inner_lr": 1.0, "lr_images": 1.0, "lr_labels": 0.5, "lr_inner_lr": 1e-3}
    params |= {"momentum": 0.5, "init": "gaussian"}
    cap, window, threshold = 8, 2, 0.3
    errors, used, stopped = curve(federation, cap, **params), [], 0
    method = make_detector(
        "fedredefense", first_iterations=cap, give_up_after=window, threshold=threshold, **params
    )
    for i in range(6):
        expected, last = cap, cap
        for step in range(cap):
            e = errors[i, step]
            hopeless = step >= window and (
                e - (errors[i, step - window] - e) / window * (cap - step) >= threshold
            )
            if e < threshold or hopeless:
                stopped += hopeless
                expected, last = step + 1, step
                break
        scores = method(federation.take([i]))
        used.append((scores.info["aoi"], expected))
        assert scores.values[0] == pytest.approx(errors[i, last], rel=1e-4)
    assert [a for a, _ in used] == [b for _, b in used]
    assert len({b for _, b in used}) > 1
    assert 0 < stopped < 6, used


def rank_bound(update, rank):
    """What is left of the dense layers of ``cnn`` beyond a rank, by numpy's SVD."""
    parts = [p.shape for p in cnn().parameters()]
    sizes = [math.prod(shape) for shape in parts]
    beyond = 0.0
    for part, shape in zip(np.split(update, np.cumsum(sizes)[:-1]), parts, strict=True):
        if len(shape) == 2:
            beyond += (np.linalg.svd(part.reshape(shape), compute_uv=False)[rank:] ** 2).sum()
    return beyond / (update**2).sum()


def test_the_spectral_bound_is_the_energy_beyond_the_rank(federation):
    draw = torch.Generator().manual_seed(0)
    d = federation.updates.d
    matrix = torch.cat([federation.updates.matrix[:2], torch.randn(2, d, generator=draw)])
    round_ = Round(matrix, global_params=federation.global_params, server=federation.server)
    params = {"spectral_bound": True, "threshold": 0.3, "num_images": 2}
    scores = fast(**params)(round_)
    bounds = [rank_bound(row, 2) for row in matrix.double().numpy()]
    assert max(bounds[:2]) < 0.3 < min(bounds[2:])
    np.testing.assert_allclose(scores.values[2:], bounds[2:], rtol=1e-6)
    assert scores.suspects[2:].all()
    assert list(scores.memory) == [0, 1]
    searched = fast(**{**params, "spectral_bound": False})(round_)
    assert scores.values[:2].tolist() == searched.values[:2].tolist()
    assert (searched.values[2:] >= bounds[2:]).all()
    assert scores.info["aoi"] < searched.info["aoi"]
    two_steps = fast(**params, inner_steps=2)(round_)
    np.testing.assert_array_less(two_steps.values[2:], 1.1)
    assert all(rank_bound(row, 4) < b for row, b in zip(matrix.double().numpy()[2:], bounds[2:], strict=True))


def test_the_spectral_bound_holds_for_any_knowledge(federation):
    """Honest training on two images for two steps: rank four at most, and the bound says so."""
    model, start = cnn(), federation.global_params
    load_parameters(model, start)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        sgd.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([3, 5])).backward()
        sgd.step()
    update = (flat_parameters(model) - start)[None]
    round_ = Round(update, global_params=start, server=federation.server)
    tight = {"spectral_bound": True, "num_images": 2, "threshold": 1e-6, "first_iterations": 1}
    assert rank_bound(update[0].double().numpy(), 2) > 1e-6
    assert fast(**tight, inner_steps=1)(round_).info["aoi"] == 0
    assert fast(**tight, inner_steps=2)(round_).info["aoi"] == 1


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10, bias=False)),
    ],
)
def test_without_a_last_bias_labels_start_from_zero(model):
    start = flat_parameters(model)
    update = 0.01 * torch.randn(2, len(start), generator=torch.Generator().manual_seed(0))
    server = Server(model=model, input_shape=SHAPE, num_classes=CLASSES)
    round_ = Round(update, global_params=start, server=server)
    by_bias, by_zeros = (fast(first_labels=word)(round_).values for word in ("bias", "zeros"))
    assert by_bias.tolist() == by_zeros.tolist()


@pytest.mark.parametrize("row", [0.0, 3e38, -1e-30])
def test_degenerate_updates_have_a_defined_outcome(federation, row):
    matrix = federation.updates.matrix.clone()
    matrix[0] = row
    scores = fast()(federation.with_updates(matrix))
    assert scores.suspects.tolist() == [True] + [False] * 5
    assert not np.isnan(scores.values).any()


def many(federation, n):
    """More clients than pieces: the six, scaled."""
    matrix = torch.cat([federation.updates.matrix * (1 + k / 10) for k in range(n // 6)])
    return Round(matrix, global_params=federation.global_params, server=federation.server)


def test_clients_travel_in_pieces_and_nobody_notices(federation):
    round_, sizes = many(federation, 36), []

    def through_bytes(function, jobs):
        calls = [pickle.dumps((function, job)) for job in jobs]
        sizes.extend(len(job.tasks) for job in jobs)
        return [pickle.loads(pickle.dumps(f(job))) for f, job in map(pickle.loads, calls)]  # noqa: S301

    together = fast(threshold=0.5)(round_)
    elsewhere = fast(threshold=0.5)(round_.with_server(map=through_bytes))
    alone = [fast(threshold=0.5)(round_.take([i])).values[0] for i in (0, 5, 35)]
    assert sizes == [2] * 18
    assert elsewhere.values.tolist() == together.values.tolist()
    assert together.values[[0, 5, 35]].tolist() == alone
    turned = np.roll(np.arange(36), 7)
    assert fast(threshold=0.5)(round_.take(turned)).values.tolist() == together.values[turned].tolist()
    uneven = fast(threshold=0.5)(round_.take(range(33)))
    assert uneven.values.tolist() == together.values[:33].tolist()


def test_a_resumed_detector_goes_on_in_the_same_bits(federation):
    method, later = fast(threshold=0.2), federation.with_updates(federation.updates.matrix * 1.1 + 1e-4)
    method.commit(federation, method(federation))
    resumed = fast(threshold=0.2)
    resumed.load_state_dict(unpack(pack(method.state_dict())))
    assert resumed(later).values.tolist() == method(later).values.tolist()
    fresh = fast(threshold=0.2)(later)
    assert method(later).info["aoi"] < fresh.info["aoi"]


@pytest.mark.parametrize(
    "params",
    [
        {"preset": "quick"},
        {"optimizer": "lbfgs"},
        {"first_labels": "ones"},
        {"inner_rate": "best"},
        {"give_up_after": -1},
        {"inner_loop": "jax"},
    ],
)
def test_refuses_options_that_make_no_sense(params):
    with pytest.raises(ParameterError, match=next(iter(params))):
        make_detector("fedredefense", **params)
