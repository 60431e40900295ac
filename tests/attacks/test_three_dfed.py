"""3DFed: what it trains and sends, and what it reads, against loops and definitions."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.attacks import _three_dfed_indicators as indicators
from fedguard.attacks._three_dfed_training import backdoored, decoy
from fedguard.contracts.attack import UpdateView
from fedguard.contracts.data import LabeledData, Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.local_view import LocalView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError
from fedguard.training.parameters import flat_parameters

CLASSES, SIDE, HIDDEN, COUNT = 4, 6, 40, 24


def samples(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Samples(torch.rand(COUNT, 1, SIDE, SIDE, generator=draw), torch.arange(COUNT) % CLASSES)


def network(*layers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        pixels = SIDE * SIDE
        parts = layers or (nn.Linear(pixels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
        return nn.Sequential(nn.Flatten(), *parts)


def local_view(model=None, colluders=4, batch=100, lr=0.1, seed=1, epochs=1):
    own = samples()
    return LocalView(
        index=0,
        model=network() if model is None else model,
        samples=own,
        data=LabeledData(own.pixels * 2 - 1, own.labels),
        normalize=lambda pixels: pixels * 2 - 1,
        training=LocalTraining(epochs=epochs, batch_size=batch, lr=lr, momentum=0.5),
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(seed),
        colluding=lambda: [samples()] * (colluders - 1),
    )


def update_view(params, m):
    return UpdateView(
        index=0,
        num_clients=10,
        global_params=params,
        initial_params=params,
        own_updates=torch.zeros(m, len(params)),
        generator=torch.Generator().manual_seed(2),
    )


def three_dfed(**changes):
    return make_attack("three_dfed", **{"target": 1, "patch": 2, "epochs": 2, "neurons": 3, **changes})


def sent(attack, view, m=4):
    """Prepare, craft and commit one round; the global model before it, and what was sent."""
    params = flat_parameters(view.model)
    attack.prepare(view)
    seen = update_view(params, m)
    crafted = attack.craft(seen)
    attack.commit(seen, crafted)
    return params, crafted


# --- constrained training


def test_the_backdoor_is_trained_on_both_losses_and_the_distance():
    """The distance's gradient is (w − w_g)/‖w − w_g‖, and 0 where w = w_g."""
    view, c = local_view(), 0.4
    stamped = LabeledData(view.data.inputs.flip(0), torch.full((COUNT,), 2))
    update = backdoored(view, stamped, 4, c)
    model = network()
    start, own = flat_parameters(model), list(model.parameters())
    velocity = torch.zeros_like(start)
    for _ in range(4):
        losses = [F.cross_entropy(model(inputs), labels) for inputs, labels in (view.data, stamped)]
        sums = torch.autograd.grad(0.3 * losses[0] + 0.3 * losses[1], own)
        apart = flat_parameters(model) - start
        length = math.sqrt(sum(float(x) ** 2 for x in apart))
        pull = c * apart / length if length else torch.zeros_like(apart)
        velocity = 0.5 * velocity + torch.cat([g.flatten() for g in sums]) + pull
        torch.nn.utils.vector_to_parameters(flat_parameters(model) - 0.1 * velocity, own)
    torch.testing.assert_close(update, flat_parameters(model) - start, rtol=1e-4, atol=1e-6)
    assert torch.equal(flat_parameters(view.model), start), "the global model stays"


# --- noise masks


@pytest.mark.parametrize(("neurons", "count"), [(2, 2), (9, CLASSES - 1)])
def test_masks_lie_on_other_rows_of_the_output_layer_than_the_targets(neurons, count):
    attack, view = three_dfed(neurons=neurons), local_view()
    attack.prepare(view)
    plan, weights = attack.plan, HIDDEN * CLASSES
    first = len(plan.backdoor) - CLASSES - weights
    rows = [
        {*range(first + j * HIDDEN, first + (j + 1) * HIDDEN), first + weights + j} for j in range(CLASSES)
    ]
    assert plan.groups.tolist() == [0, 0, 1, 1]
    for places in plan.places.tolist():
        touched = [j for j in range(CLASSES) if rows[j] & set(places)]
        assert (len(touched), 1 in touched) == (count, False)
        assert set(places) == set().union(*(rows[j] for j in touched))
    assert torch.equal(plan.places[0], plan.places[1])


def test_masks_are_a_fifth_and_weak_once_the_server_adds_noise():
    attack, other = three_dfed(mask_std=0.05), three_dfed(mask_std=0.01)
    attack.noisy, other.alphas = True, [0.1, 0.1]
    for one in (attack, other):
        one.prepare(local_view())
    torch.testing.assert_close(attack.plan.masks, other.plan.masks)


# --- indicators


def test_the_curvature_sums_the_rows_of_the_hessian():
    model, view = network(), local_view()
    weight = model[1].weight
    halves = [(view.data.inputs[part], view.data.labels[part]) for part in (slice(0, 9), slice(9, COUNT))]
    found = indicators.curvature(
        weight, (F.cross_entropy(model(inputs), labels) for inputs, labels in halves)
    )

    def of(values):
        own = {**dict(model.named_parameters()), "1.weight": values.view_as(weight)}
        outputs = [torch.func.functional_call(model, own, inputs) for inputs, _ in halves]
        return sum(F.cross_entropy(out, labels) for out, (_, labels) in zip(outputs, halves, strict=True))

    hessian = torch.autograd.functional.hessian(of, weight.detach().flatten())
    torch.testing.assert_close(found.flatten(), hessian.sum(1).abs(), rtol=1e-4, atol=1e-6)


def test_every_colluder_scales_one_weight_that_no_other_colluder_does():
    attack, view = three_dfed(), local_view()
    attack.prepare(view)
    plan, crafted = attack.plan, attack.craft(update_view(flat_parameters(view.model), 4))
    hidden = view.model[1].weight.numel()
    assert len(set(plan.positions.tolist())) == 4
    assert int(plan.positions.max()) < hidden, "in the hidden layer"
    moved = plan.backdoor.abs() + attack._honest(local_view(), flat_parameters(view.model)).abs()
    assert float(moved[plan.positions].max()) <= float(moved[:hidden].sort().values[39]) * 1.0001
    for i, row in enumerate(crafted):
        expected, place = plan.backdoor.clone(), plan.positions[i]
        expected[plan.places[i]] += plan.masks[i]
        expected[place] = 1e5 * expected[place] if expected[place] else 0.01
        assert torch.equal(row, expected)


def test_indicators_tell_what_the_server_did():
    """The next global model is w plus the mean of ten updates, six from honest clients that move less."""
    for kept, verdicts in {
        (1.0, 1.0, 1.0, 1.0): ["accepted"] * 4,
        (1.0, 0.0, 1.0, 0.0): ["accepted", "rejected"] * 2,
        (1.0, 0.5, 0.0, 0.9): ["accepted", "clipped", "rejected", "accepted"],
        (0.0, 0.0, 0.0, 0.0): ["rejected"] * 4,
    }.items():
        attack = three_dfed()
        params, crafted = sent(attack, local_view())
        honest = 1e-9 * torch.randn(len(params), generator=torch.Generator().manual_seed(0))
        after = params + (torch.tensor(kept)[:, None] * crafted).sum(0) / 10 + 0.6 * honest
        seen = attack.sent
        feedback = (after[seen.positions] - seen.before) / seen.values
        assert indicators.read(feedback, 1e-4) == verdicts


def test_noise_ends_the_tuning_for_good():
    attack = three_dfed()
    params, crafted = sent(attack, local_view())
    assert len(attack.alphas) == 2
    for moved in (2 * crafted[0], -0.1 * crafted[0]):
        view = local_view()
        torch.nn.utils.vector_to_parameters(params + moved, view.model.parameters())
        other = three_dfed()
        other.load_state_dict(attack.state_dict())
        sent(other, view)
        assert (other.noisy, other.alphas, other.decoys) == (True, [0.1, 0.1], 0)
        assert other.plan is None
        start = other.alphas
        sent(other, view)
        assert (other.noisy, other.alphas) == (True, start)


def test_a_convolution_that_learns_holds_the_indicators():
    convolutions = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(*convolutions, *network(nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, CLASSES)))
    assert indicators.indicator_weight(model, model[-1]) is convolutions[1].weight
    convolutions[1].weight.requires_grad_(False)
    assert indicators.indicator_weight(model, model[-1]) is convolutions[0].weight
    start = indicators.coordinates(model, model[-1].weight)[0, 0]
    assert flat_parameters(model)[start] == model[-1].weight[0, 0], "frozen weights have no place in updates"


def test_other_models_are_refused():
    for model, message in (
        (network(nn.Linear(36, CLASSES)), "neither a convolution nor a hidden linear layer"),
        (network(nn.Linear(36, 9), nn.Linear(9, CLASSES + 1)), "one output per label"),
        (nn.Conv2d(1, CLASSES, SIDE), "does not end in a linear layer"),
    ):
        with pytest.raises(ParameterError, match=message):
            three_dfed().prepare(local_view(model))


# --- scaling and decoys


def test_a_backdoor_shorter_than_the_honest_update_is_scaled():
    attack = three_dfed()
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert attack._scale(long, short) == pytest.approx(2.5)
    assert attack._scale(short, long) == 1.0
    assert attack._scale(100 * long, short) == 5.0
    plain, scaled = (three_dfed(epochs=1, constraint=0.9, max_scale=most) for most in (1.0, 5.0))
    for one in (plain, scaled):
        one.prepare(local_view())
    factor = scaled._scale(plain._honest(local_view(), flat_parameters(network())), plain.plan.backdoor)
    assert factor > 1.5
    torch.testing.assert_close(scaled.plan.backdoor, factor * plain.plan.backdoor)


def test_a_decoy_leaves_the_honest_model_in_one_weight_where_the_backdoor_does_not():
    attack, view = three_dfed(), local_view(lr=0.5, batch=6)
    attack.decoys = 2
    attack.prepare(view)
    plan, honest = attack.plan, attack._honest(local_view(lr=0.5, batch=6), flat_parameters(view.model))
    assert (len(plan.decoys), plan.groups.tolist()) == (2, [0, 0])
    offset, size = len(honest) - CLASSES - HIDDEN * CLASSES, HIDDEN * CLASSES
    apart = (plan.backdoor - honest)[offset : offset + size].abs()
    chosen = sorted(range(size), key=lambda i: float(apart[i]))[:2]
    for i, place in enumerate(chosen):
        decoy = (plan.decoys[i] - honest)[offset : offset + size].abs()
        assert int(decoy.argmax()) == place
        assert decoy[place] > 5
    crafted = attack.craft(update_view(flat_parameters(view.model), 4))
    changed = crafted[2:] != plan.decoys
    assert changed.sum(1).tolist() == [1, 1], "and its indicator"


def test_a_decoy_is_trained_on_clean_data_and_pushed_until_it_is_ten_away():
    view, place, start = local_view(lr=1.0, epochs=4), (2, 7), flat_parameters(network())
    model, position = network(), len(start) - CLASSES - HIDDEN * CLASSES + 2 * HIDDEN + 7
    honest = float(start[position]) - 0.1
    update = decoy(view, view.model[3].weight, place, honest)
    velocity, own, pushes = torch.zeros_like(start), list(model.parameters()), []
    for _ in range(4):
        loss = F.cross_entropy(model(view.data.inputs), view.data.labels)
        gradient = 0.5 * torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])
        gap = float(flat_parameters(model)[position]) - honest
        pushes.append(abs(gap) <= 10)
        gradient[position] -= 5 * math.copysign(1, gap) * pushes[-1]
        velocity = 0.5 * velocity + gradient
        torch.nn.utils.vector_to_parameters(flat_parameters(model) - velocity, own)
    torch.testing.assert_close(update, flat_parameters(model) - start, rtol=1e-4, atol=1e-5)
    assert pushes[0]
    assert not pushes[-1]


def test_decoys_take_over_the_first_principal_component():
    attack, view = three_dfed(), local_view(lr=0.5, batch=6)
    attack.decoys = 1
    attack.prepare(view)
    attack_rows = attack.plan.updates(4, 1.0)
    draw = torch.Generator().manual_seed(0)
    honest = attack._honest(local_view(lr=0.5, batch=6), flat_parameters(view.model))
    others = honest + 0.02 * torch.randn(8, len(honest), generator=draw)

    def gap(rows):
        """How far the backdoor lies from the honest mean on the first component, in its deviations."""
        whole = np.concatenate([others.numpy(), rows.numpy()]).astype(float)
        direction = np.linalg.svd(whole - whole.mean(0), full_matrices=False)[2][0]
        values = whole @ direction
        return abs(values[8] - values[:8].mean()) / np.ptp(values)

    assert gap(attack_rows[:1]) > 0.9
    assert gap(attack_rows[[0, 3]]) < 0.2


def test_at_most_half_of_the_colluders_are_decoys():
    attack = three_dfed()
    attack.decoys = 9
    _, crafted = sent(attack, local_view(colluders=3), 3)
    assert attack.decoys == 1
    assert len(crafted) == 3


def test_more_or_fewer_colluders_than_were_prepared_for():
    attack, view = three_dfed(), local_view()
    attack.prepare(view)
    params = flat_parameters(view.model)
    whole = attack.craft(update_view(params, 4))
    assert torch.equal(attack.craft(update_view(params, 2)), whole[:2])
    more = attack.craft(update_view(params, 6))
    assert torch.equal(more[:4], whole)
    assert torch.equal(more[4:], attack.plan.backdoor.repeat(2, 1))
    seen = update_view(params, 1)
    attack.commit(seen, attack.craft(seen))
    assert len(attack.sent.positions) == 1


# --- tuning


def test_feedback_tunes_the_next_round():
    attack = three_dfed()
    params, crafted = sent(attack, local_view())
    attack.alphas = [0.5, 0.3]
    for kept, k, (low, high) in (([], 1, (0.0, 1.0)), ([0, 1], 0, (0.5, 0.6)), ([0, 1, 2, 3], 0, (0.3, 0.5))):
        other, view = three_dfed(), local_view(seed=7)
        other.load_state_dict(attack.state_dict())
        after = params + crafted[kept].sum(0) / 10
        torch.nn.utils.vector_to_parameters(after, view.model.parameters())
        other.prepare(view)
        assert other.decoys == k
        assert all(low <= alpha <= high for alpha in other.alphas)
        assert other.alphas != [0.5, 0.3]
