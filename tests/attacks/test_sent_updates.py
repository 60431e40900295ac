"""Every attack but Min-Max, Min-Sum and Fang's against an oracle by hand: plain loops in float64.

Distributions are checked with scipy's Kolmogorov-Smirnov test; Φ⁻¹ is the standard library's.
"""

import statistics
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from fedguard.attacks.lie import lie_z
from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_attack


def make_view(own, benign=None, n=None, index=0, seed=0, global_params=None, initial=None):
    zeros = torch.zeros(own.shape[1])
    return UpdateView(
        index=index,
        num_clients=len(own) + (0 if benign is None else len(benign)) if n is None else n,
        global_params=zeros if global_params is None else global_params,
        initial_params=zeros if initial is None else initial,
        own_updates=own,
        generator=torch.Generator().manual_seed(seed),
        benign_updates=benign,
    )


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data_view(classes=10, seed=0):
    return DataView(
        rank=0, num_malicious=3, num_classes=classes, generator=torch.Generator().manual_seed(seed)
    )


def columns(matrix):
    return [[float(row[j]) for row in matrix] for j in range(matrix.shape[1])]


def test_no_attack_is_honest():
    view, samples = make_view(random(3, 4), random(7, 4)), Samples(random(5, 1, 8, 8), torch.arange(5))
    attack = make_attack("none")
    assert torch.equal(attack.craft(view), view.own_updates)
    assert attack.poison_data(samples, data_view()) is samples
    assert attack.trial(samples, 10) is None


# --- Byzantine: FedSecurity defines the local *models* --------------------------------------------------


def byzantine_models(mode, **params):
    start = random(50, seed=1)
    view = make_view(random(4, 50, seed=2), global_params=start)
    sent = make_attack("byzantine", mode=mode, **params).craft(view).double()
    return start.double() + sent, start.double(), start.double() + view.own_updates.double()


def test_byzantine_zero_gives_a_model_of_zeros():
    models, _, _ = byzantine_models("zero")
    assert models.abs().max() == 0


def test_byzantine_flip_reflects_the_local_model_at_the_global_one():
    models, start, local = byzantine_models("flip")
    for i in range(len(models)):
        for j in range(len(start)):
            assert float(models[i, j]) == pytest.approx(float(start[j] + (start[j] - local[i, j])), abs=1e-6)


def test_byzantine_random_models_are_normal_and_differ_between_clients():
    start = 5 + random(4000, seed=1)
    sent = make_attack("byzantine", mode="random", std=0.3).craft(
        make_view(random(3, 4000), global_params=start)
    )
    models = (sent + start).double().numpy()
    assert stats.kstest(models.ravel(), "norm", args=(0, 0.3)).pvalue > 0.01
    assert np.abs(np.corrcoef(models) - np.eye(3)).max() < 0.06


# --- Gaussian -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_gaussian_draws_from_the_normal_of_the_before_attack_updates(knowledge):
    own, benign = random(3, 3000, seed=1), 3 + 2 * random(4, 3000, seed=2)
    attack = make_attack("gaussian", knowledge=knowledge)
    crafted = attack.craft(make_view(own, benign if knowledge == "full" else None))
    fitted = torch.cat([own, benign]) if knowledge == "full" else own
    standard = np.array(
        [
            [(float(crafted[i, j]) - statistics.fmean(c)) / statistics.pstdev(c) for i in range(3)]
            for j, c in enumerate(columns(fitted))
        ]
    )
    assert stats.kstest(standard.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(standard.T) - np.eye(3)).max() < 0.06  # clients draw independently


def test_gaussian_is_the_same_attack_on_models_as_on_updates():
    """Fang et al. fit models: shifting every update by w_{t−1} shifts what is drawn, nothing else."""
    start, own, benign = random(20, seed=3), random(3, 20, seed=1), random(4, 20, seed=2)
    drawn = [make_attack("gaussian").craft(make_view(own + s, benign + s)) - s for s in (0, start)]
    assert torch.allclose(*drawn, atol=1e-5)


# --- A little is enough ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "supporters"),
    [(50, 24, 2), (50, 12, 14), (100, 20, 31), (100, 28, 23), (51, 12, 14), (10, 3, 3), (10, 5, 1)],
)
def test_z_leaves_the_attackers_enough_supporters(n, m, supporters):
    z = lie_z(n, m)
    assert z == pytest.approx(statistics.NormalDist().inv_cdf((n - m - supporters) / (n - m)), abs=1e-12)
    beyond = (1 - statistics.NormalDist().cdf(z)) * (n - m)  # benign clients expected farther out than z
    assert m + beyond == pytest.approx(n // 2 + 1)


def test_the_published_pair():
    """n = 50, m = 24: s = 2, and 24 of 26 benign clients lie below z = 1.43."""
    assert lie_z(50, 24) == pytest.approx(1.43, abs=0.005)


@pytest.mark.parametrize("m", [6, 7, 9])
def test_a_majority_of_attackers_needs_one_supporter_only(m):
    benign = 10 - m
    expected = statistics.NormalDist().inv_cdf((benign - 1) / benign) if benign > 1 else -np.inf
    assert lie_z(10, m) == pytest.approx(expected)


@pytest.mark.parametrize(("params", "n", "m"), [({}, 10, 3), ({"z": 1.5}, 10, 3), ({}, 9, 4), ({}, 10, 1)])
@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_lie_shifts_the_mean_by_z_deviations(params, n, m, knowledge):
    own, benign = random(m, 30, seed=1), random(n - m, 30, seed=2)
    attack = make_attack("lie", knowledge=knowledge, **params)
    crafted = attack.craft(make_view(own, benign if knowledge == "full" else None, n=n))
    share = (n - m - (n // 2 + 1 - m)) / (n - m)
    z = params.get("z", max(0.0, statistics.NormalDist().inv_cdf(share)))  # one attacker: clamped at 0
    for j, c in enumerate(columns(benign if knowledge == "full" else own)):
        expected = statistics.fmean(c) - z * statistics.pstdev(c)
        for i in range(m):
            assert float(crafted[i, j]) == pytest.approx(expected, abs=1e-6)


# --- Inner product manipulation -------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [None, 0.5, 10.0])
@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_ipm_sends_the_mean_backwards(epsilon, knowledge):
    own, benign = random(3, 30, seed=1), 1 + random(7, 30, seed=2)
    attack = make_attack("ipm", knowledge=knowledge, **({} if epsilon is None else {"epsilon": epsilon}))
    crafted = attack.craft(make_view(own, benign if knowledge == "full" else None, n=10))
    for j, c in enumerate(columns(benign if knowledge == "full" else own)):
        for i in range(3):
            expected = -(0.1 if epsilon is None else epsilon) * statistics.fmean(c)
            assert float(crafted[i, j]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("epsilon", "sign"), [(2.3, 1), (2.4, -1)])
def test_ipm_turns_a_mean_round_from_the_documented_epsilon_on(epsilon, sign):
    """3 of 10: (n − m)/m = 7/3."""
    benign = 1 + random(7, 30, seed=2)
    crafted = make_attack("ipm", epsilon=epsilon).craft(make_view(random(3, 30), benign))
    product = torch.cat([crafted, benign]).double().mean(0) @ benign.double().mean(0)
    assert float(product) * sign > 0


# --- MPAF -----------------------------------------------------------------------------------------------


def test_mpaf_pulls_towards_the_initial_model():
    start, initial = random(20, seed=1), random(20, seed=2)
    crafted = make_attack("mpaf").craft(make_view(random(3, 20), global_params=start, initial=initial))
    for i in range(3):
        for j in range(20):
            assert float(crafted[i, j]) == pytest.approx(3 * (float(initial[j]) - float(start[j])), abs=1e-5)


def mpaf_base(index, seed, **params):
    """The base model that an MPAF update with λ = 2 points to."""
    start = random(3000, seed=index)
    view = make_view(random(2, 3000), index=index, seed=seed, global_params=start)
    crafted = make_attack("mpaf", scale=2.0, base="random", **params).craft(view)
    assert torch.equal(crafted[0], crafted[1])
    return crafted[0].double() / 2 + start.double()


def test_mpaf_random_base_is_normal_and_the_same_in_all_rounds():
    base = mpaf_base(index=0, seed=0, std=0.5)
    assert stats.kstest(base.numpy(), "norm", args=(0, 0.5)).pvalue > 0.01
    assert torch.allclose(mpaf_base(index=7, seed=9, std=0.5), base, atol=1e-5)
    assert torch.allclose(mpaf_base(index=0, seed=0, std=1.0), 2 * base, atol=1e-5)
    assert not torch.allclose(mpaf_base(index=0, seed=0, std=0.5, base_seed=1), base, atol=0.1)


# --- Label flips ----------------------------------------------------------------------------------------

FLIPS = [
    ({}, lambda label, classes: classes - 1 - label),
    ({"mode": "next"}, lambda label, classes: 0 if label == classes - 1 else label + 1),
    ({"mode": "pairs", "pairs": {0: 2}}, lambda label, _: 2 if label == 0 else label),
    ({"mode": "pairs", "pairs": {3: 9, 2: 1}}, lambda label, _: {3: 9, 2: 1}.get(label, label)),
    ({"mode": "pairs", "pairs": {1: 2, 2: 1}}, lambda label, _: {1: 2, 2: 1}.get(label, label)),
]


@pytest.mark.parametrize(("params", "flip"), FLIPS)
@pytest.mark.parametrize("classes", [10, 11])
def test_label_flip(params, flip, classes):
    labels = torch.randint(0, classes, (200,), generator=torch.Generator().manual_seed(0))
    samples = Samples(random(200, 5), labels)
    poisoned = make_attack("label_flip", **params).poison_data(samples, data_view(classes))
    assert poisoned.pixels is samples.pixels
    assert poisoned.labels.tolist() == [flip(int(label), classes) for label in labels]


@pytest.mark.parametrize("pairs", [{0: 2}, {3: 9, 2: 1}])
def test_label_flip_success_is_the_share_of_source_samples_classified_as_target(pairs):
    draw = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 10, (2, 500), generator=draw)
    test = Samples(torch.arange(500).float()[:, None], labels)  # the pixel says which sample it is
    trial = make_attack("label_flip", mode="pairs", pairs=pairs).trial(test, 10)
    tested = [int(pixel) for pixel in trial.samples.pixels[:, 0]]
    rate = statistics.fmean(
        int(predicted[i]) == t for i, t in zip(tested, trial.target.tolist(), strict=True)
    )
    source = [i for i in range(500) if int(labels[i]) in pairs]
    hits = [i for i in source if int(predicted[i]) == pairs[int(labels[i])]]
    assert tested == source
    assert rate == pytest.approx(len(hits) / len(source))


# --- Random labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "redrawn"), [(1.0, 20_000), (0.3, 6000), (0.0001, 2), (1e-9, 1)])
@pytest.mark.parametrize("classes", [10, 3])
def test_random_labels_are_uniform_over_all_classes(fraction, redrawn, classes):
    """All true labels are 1, so the new ones differ with probability 1 − 1/L; pixels stay."""
    samples = Samples(random(20_000, 1), torch.ones(20_000, dtype=torch.int64))
    attack = make_attack("random_labels", fraction=fraction)
    poisoned = attack.poison_data(samples, data_view(classes, seed=3))
    assert poisoned.pixels is samples.pixels
    count = Counter(poisoned.labels.tolist())
    kept = 20_000 - redrawn
    drawn = [count[c] - kept * (c == 1) for c in range(classes)]
    assert sum(drawn) == redrawn
    assert min(drawn) >= 0
    if redrawn > 1000:
        assert stats.chisquare(drawn).pvalue > 0.01
        changed = (poisoned.labels != 1).nonzero().flatten().numpy()
        assert stats.kstest(changed / 20_000, "uniform").pvalue > 0.01  # anywhere among the samples


def test_random_labels_draw_for_at_least_one_sample():
    samples = Samples(random(3, 1), torch.zeros(3, dtype=torch.int64))
    attack = make_attack("random_labels", fraction=0.01)
    drawn = [attack.poison_data(samples, data_view(seed=seed)).labels for seed in range(40)]
    assert {int((labels != 0).sum()) for labels in drawn} == {0, 1}


# --- Scaling backdoor -----------------------------------------------------------------------------------


def stamp(image, patch):
    """A copy of one (C, H, W) image with a white square in the corner, pixel by pixel."""
    out = image.clone()
    channels, height, width = image.shape
    for c in range(channels):
        for y in range(height - patch, height):
            for x in range(width - patch, width):
                out[c, y, x] = 1.0
    return out


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_backdoor_trains_on_originals_and_stamped_replicas(patch, channels):
    samples = Samples(torch.rand(6, channels, 8, 9), torch.tensor([0, 1, 2, 2, 4, 0]))
    poisoned = make_attack("scaling_backdoor", target=4, patch=patch).poison_data(samples, data_view())
    expected = Counter(
        [(image.numpy().tobytes(), int(label)) for image, label in zip(*samples, strict=True)]
        + [(stamp(image, patch).numpy().tobytes(), 4) for image in samples.pixels]
    )
    assert Counter((i.numpy().tobytes(), int(label)) for i, label in zip(*poisoned, strict=True)) == expected


@pytest.mark.parametrize(("fraction", "replicas"), [(1.0, 40), (0.5, 20), (0.11, 4), (0.001, 1)])
def test_backdoor_replicates_a_random_share(fraction, replicas):
    samples = Samples(torch.rand(40, 1, 8, 8), torch.ones(40, dtype=torch.int64))
    attack = make_attack("scaling_backdoor", fraction=fraction)
    poisoned = attack.poison_data(samples, data_view(seed=1))
    originals = [stamp(image, 3).numpy().tobytes() for image in samples.pixels]
    chosen = [originals.index(image.numpy().tobytes()) for image in poisoned.pixels[40:]]
    assert len(chosen) == len(set(chosen)) == replicas
    assert chosen != sorted(chosen) or replicas < 3  # drawn, not the first ones


def test_backdoor_trial_leaves_out_the_target_class():
    test = Samples(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    trial = make_attack("scaling_backdoor", target=3).trial(test, 10)
    kept = [i for i in range(30) if i % 10 != 3]
    assert trial.target.tolist() == [3] * len(kept)
    assert torch.equal(trial.samples.pixels, torch.stack([stamp(test.pixels[i], 3) for i in kept]))


def test_backdoor_scales_the_update():
    own = random(3, 20)
    crafted = make_attack("scaling_backdoor").craft(make_view(own))
    assert crafted.tolist() == [[pytest.approx(3 * float(x)) for x in row] for row in own]
