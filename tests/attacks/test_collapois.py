"""CollaPois: the model with a backdoor against torch.optim, the updates against the formula."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.data import LabeledData, Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.local_view import LocalView
from fedguard.contracts.registry import make_attack

CLASSES, SIDE = 3, 4


def samples(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return Samples(torch.rand(count, 1, SIDE, SIDE, generator=draw), torch.arange(count) % CLASSES)


def view(model):
    own = samples(9, 0)
    return LocalView(
        index=0,
        model=model,
        samples=own,
        data=LabeledData(own.pixels * 2, own.labels),
        normalize=lambda pixels: pixels * 2,
        training=LocalTraining(batch_size=100),
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(1),
        colluding=lambda: [samples(6, 3)],
    )


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES))


def test_one_model_is_trained_on_all_colluders_clean_and_stamped_images():
    theirs = network()
    pixels = torch.cat([samples(9, 0).pixels, samples(6, 3).pixels])
    labels = torch.cat([samples(9, 0).labels, samples(6, 3).labels])
    stamped = pixels.clone()
    stamped[:, :, -2:, -2:] = 1.0
    inputs, wanted = 2 * torch.cat([pixels, stamped]), torch.cat([labels, torch.full((15,), 2)])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):  # one batch holds everything, so the order does not matter
        optimizer.zero_grad()
        F.cross_entropy(theirs(inputs), wanted).backward()
        optimizer.step()

    attack = make_attack("collapois", target=2, patch=2, epochs=4, lr=0.1)
    attack.prepare(view(network()))
    expected = torch.cat([p.detach().flatten() for p in theirs.parameters()])
    torch.testing.assert_close(attack.backdoored, expected)

    kept = copy.deepcopy(attack.backdoored)
    attack.prepare(view(network()))
    assert torch.equal(attack.backdoored, kept)


def crafting(start, own):
    return UpdateView(
        index=3,
        num_clients=9,
        global_params=start,
        initial_params=start,
        own_updates=own,
        generator=torch.Generator().manual_seed(2),
    )


def test_every_update_points_at_the_model_with_the_backdoor():
    start, own = torch.randn(7), torch.randn(4, 7)
    attack = make_attack("collapois", low=0.2, high=0.7)
    assert torch.equal(attack.craft(crafting(start, own)), own)
    attack.load_state_dict({"backdoored": torch.arange(7.0)})
    sent = attack.craft(crafting(start, own))
    factors = sent / (torch.arange(7.0) - start)
    torch.testing.assert_close(factors, factors[:, :1].expand(4, 7))
    assert 0.2 <= factors.min() < factors.max() <= 0.7
    assert len(set(factors[:, 0].tolist())) == 4


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_bounds_out_of_range_are_refused(low, high):
    with pytest.raises(ValueError, match="collapois: low is"):
        make_attack("collapois", low=low, high=high)
