"""The adaptive attack on DnC against DnC written out here with numpy's SVD, and a scan over γ."""

import math

import numpy as np
import pytest
import torch

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack, make_detector
from fedguard.contracts.round import Round


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def situation(n=16, m=3, d=30, seed=0):
    updates = 0.3 * random(1, d, seed=seed) + random(n, d, seed=seed + 1)
    return updates[:m], updates[m:]


def craft(own, benign, n=None, seed=0, **params):
    view = UpdateView(
        index=0,
        num_clients=len(own) + len(benign) if n is None else n,
        global_params=torch.zeros(own.shape[1]),
        initial_params=torch.zeros(own.shape[1]),
        own_updates=own,
        generator=torch.Generator().manual_seed(seed),
        benign_updates=benign,
    )
    return make_attack("adaptive_dnc", **params).craft(view)


def passes(benign, m, g, p, gamma, removed, coordinates=slice(None)):
    """Whether the m copies of g − γp are among those that one iteration keeps."""
    rows = np.concatenate([benign.double().numpy(), np.tile(g - gamma * p, (m, 1))])[:, coordinates]
    centerd = rows - rows.mean(0)
    scores = (centerd @ np.linalg.svd(centerd)[2][0]) ** 2
    gone = np.argsort(scores)[len(rows) - removed :]
    return len(gone) == 0 or gone.max() < len(benign)


def line(benign, perturbation):
    u = benign.double().numpy()
    g = u.mean(0)
    p = {"unit": g / np.linalg.norm(g), "std": u.std(0), "sign": np.sign(g)}[perturbation]
    return g, p, max(np.linalg.norm(a - b) for a in u for b in u) / np.linalg.norm(p)


@pytest.mark.parametrize("perturbation", ["unit", "std", "sign"])
@pytest.mark.parametrize(("n", "m", "c"), [(16, 3, 1.0), (20, 4, 1.5), (12, 1, 1.0), (20, 4, 0.5)])
def test_the_largest_step_that_dnc_keeps(perturbation, n, m, c):
    own, benign = situation(n, m)
    sent = craft(own, benign, perturbation=perturbation, filter_fraction=c)
    g, p, unit = line(benign, perturbation)
    gamma = float((g - sent[0].double().numpy()) @ p / (p @ p))
    for row in sent.double().numpy():
        assert row == pytest.approx(g - gamma * p, abs=1e-6)
    removed = math.ceil(c * m)
    accepted = [x for k in range(-40, 41) if passes(benign, m, g, p, x := unit * 2.0 ** (k / 4), removed)]
    assert 0 < max(accepted) < 500 * unit
    assert gamma >= max(accepted) * (1 - 1e-4)
    assert passes(benign, m, g, p, gamma * (1 - 1e-4), removed)
    assert not passes(benign, m, g, p, gamma * (1 + 1e-4), removed)


def test_every_one_of_the_samples_must_pass():
    """Drawing b of d coordinates from the view's generator, as the docstring says: niters times, in order."""
    own, benign = situation()
    sent = craft(own, benign, coordinates=10, niters=4, seed=7)
    draw = torch.Generator().manual_seed(7)
    samples = [torch.randperm(30, generator=draw)[:10].numpy() for _ in range(4)]
    g, p, _ = line(benign, "std")
    gamma = float((g - sent[0].double().numpy()) @ p / (p @ p))
    near, far = (
        [passes(benign, 3, g, p, gamma * scale, 3, sample) for sample in samples]
        for scale in (1 - 1e-4, 1 + 1e-4)
    )
    assert all(near)
    assert not all(far)
    assert any(far)  # the strictest sample decides
    alone = craft(own, benign, coordinates=10, niters=1, seed=7)
    assert not torch.allclose(alone, sent)


def test_whoever_runs_the_detector_keeps_the_crafted_updates():
    """With all coordinates the attacker's DnC is the server's: the detector as an independent judge."""
    own, benign = situation()
    sent = craft(own, benign)
    g = benign.double().mean(0).numpy()
    judge = make_detector("dnc", num_malicious=3)
    assert not judge(Round(torch.cat([benign, sent]))).suspects[-3:].any()
    farther = torch.from_numpy(g - 1.001 * (g - sent.double().numpy())).float()
    assert judge(Round(torch.cat([benign, farther]))).suspects[-3:].any()


def test_partial_knowledge_keeps_the_proportion():
    """10 of 50: the 10 own updates stand for 40 benign ones, and 3 attackers among them."""
    own = situation(10, 10)[0]
    partial = craft(own, None, n=50, knowledge="partial")
    assert torch.equal(partial[:1], craft(own[:3], own)[:1])
    assert partial.shape == own.shape


def test_more_to_remove_than_honest_updates_leaves_no_step():
    own, benign = situation(9, 6)
    assert torch.allclose(craft(own, benign)[0], benign.mean(0), atol=1e-6)


@pytest.mark.parametrize("benign", [random(1, 5).repeat(6, 1), torch.zeros(6, 5), random(1, 5)])
def test_no_spread_means_no_step(benign):
    assert torch.allclose(craft(random(2, 5, seed=9), benign), benign[:1].expand(2, -1), atol=1e-6)
