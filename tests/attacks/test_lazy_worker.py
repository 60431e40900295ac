"""Free riders against their definitions; what is random is checked with scipy's Kolmogorov-Smirnov test."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack
from fedguard.core.state import pack, unpack

D = 4000


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def path(index):
    """The global model of a round: it changes less and less, and not at all in the first round."""
    return sum((random(D, seed=t) / t for t in range(1, index + 1)), torch.zeros(D))


def make_view(index, previous=None, m=3, seed=0):
    return UpdateView(
        index=index,
        num_clients=10,
        global_params=path(index),
        previous_params=path(max(index - 1, 0)) if previous is None else previous,
        initial_params=path(0),
        own_updates=random(m, D, seed=100 + index),
        generator=torch.Generator().manual_seed(seed),
    )


def craft(mode, index, **params):
    return make_attack("lazy_worker", mode=mode, **params).craft(make_view(index)).double().numpy()


def is_drawn_from(sample, *distribution):
    """Every client's numbers from the distribution, no two clients' the same."""
    assert stats.kstest(sample.ravel(), *distribution).pvalue > 0.01
    assert np.abs(np.corrcoef(sample) - np.eye(len(sample))).max() < 0.06


def change(index):
    return (path(index).double() - path(index - 1).double()).numpy()


@pytest.mark.parametrize("index", [0, 3])
def test_zero_sends_the_global_model_back(index):
    sent = craft("zero", index)
    assert sent.shape == (3, D)
    assert np.abs(sent).max() == 0


@pytest.mark.parametrize("index", [1, 2, 5])
def test_previous_repeats_the_last_change_of_the_global_model(index):
    for row in craft("previous", index):
        assert row == pytest.approx(change(index), abs=1e-6)


def test_before_anything_has_changed_there_is_nothing_to_repeat():
    assert np.abs(craft("previous", 0)).max() == 0
    is_drawn_from(craft("noisy", 0), "norm", (0, 1e-3))


@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_random_weights_are_uniform(noise):
    is_drawn_from(craft("random", 4, noise=noise), "uniform", (-noise, 2 * noise))


@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_noisy_adds_noise_to_the_last_change(noise):
    is_drawn_from(craft("noisy", 4, noise=noise) - change(4), "norm", (0, noise))


@pytest.mark.parametrize(("coefficient", "decay"), [(1.0, 1.0), (3.0, 0.5), (1.0, 2.0)])
def test_the_disguise_fades_from_the_size_of_the_first_change(coefficient, decay):
    attack = make_attack("lazy_worker", mode="disguised", coefficient=coefficient, decay=decay)
    first = float(np.abs(change(1)).mean())
    for index in range(5):
        view = make_view(index)
        sent = attack.craft(view)
        size = 1e-3 if index == 0 else first
        is_drawn_from(sent.double().numpy(), "norm", (0, coefficient * size * max(index, 1) ** -decay))
        attack.commit(view, sent)


def test_who_joins_late_takes_the_first_change_it_sees():
    attack = make_attack("lazy_worker", mode="disguised")
    view = make_view(6)
    attack.commit(view, attack.craft(view))
    later = attack.craft(make_view(8)).double().numpy()
    is_drawn_from(later, "norm", (0, np.abs(change(6)).mean() / 8))


def test_a_round_without_a_change_is_not_the_first_change():
    attack = make_attack("lazy_worker", mode="disguised")
    for index in (0, 1, 2):  # the global model stayed as it was
        view = make_view(index, previous=path(index))
        attack.commit(view, attack.craft(view))
    assert attack.state_dict() == {"first_change": None}
    is_drawn_from(attack.craft(make_view(3)).double().numpy(), "norm", (0, np.abs(change(3)).mean() / 3))


def test_state_survives_packing():
    one, other = (make_attack("lazy_worker", mode="disguised") for _ in range(2))
    view = make_view(1)
    one.commit(view, one.craft(view))
    other.load_state_dict(unpack(pack(one.state_dict())))
    assert torch.equal(one.craft(make_view(4)), other.craft(make_view(4)))
    assert not torch.equal(
        make_attack("lazy_worker", mode="disguised").craft(make_view(4)), other.craft(make_view(4))
    )


@pytest.mark.parametrize("mode", ["zero", "random", "previous", "noisy", "disguised"])
def test_nobody_trains(mode):
    """What honest training would have given plays no part."""
    views = [make_view(3), make_view(3)]
    views[1].own_updates = 5 + views[1].own_updates
    sent = [make_attack("lazy_worker", mode=mode).craft(view) for view in views]
    assert torch.equal(*sent)
