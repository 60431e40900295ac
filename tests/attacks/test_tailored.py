"""What must hold for AGR-tailored attacks, IPM, Mimic, lazy workers and random labels on any round."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedguard.aggregators.bulyan import bulyan_selection
from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_aggregator, make_attack, make_detector
from fedguard.contracts.round import Round

FINITE = st.floats(-100, 100, width=32)
RULES = ["krum", "multi_krum", "bulyan", "trimmed_mean", "median", "afa"]
PERTURBATIONS = ["unit", "std", "sign"]
SEEDS = range(25)


def normal_round(seed):
    """(own, benign) of some 10 to 30 clients, up to a quarter malicious; heavy tails in every other round."""
    draw = torch.Generator().manual_seed(seed)
    n = int(torch.randint(10, 31, (1,), generator=draw))
    m = 1 + seed % max(1, n // 4)
    d = int(torch.randint(2, 60, (1,), generator=draw))
    noise = torch.randn((n, d), generator=draw)
    updates = 0.4 * torch.randn((1, d), generator=draw) + (noise**3 if seed % 2 else noise)
    return updates[:m], updates[m:]


def craft(name, own, benign, seed=0, **params):
    view = UpdateView(
        index=2,
        num_clients=len(own) + len(benign),
        global_params=torch.ones(own.shape[1]),
        previous_params=torch.zeros(own.shape[1]),
        initial_params=torch.zeros(own.shape[1]),
        own_updates=own,
        generator=torch.Generator().manual_seed(seed),
        benign_updates=benign,
    )
    return make_attack(name, **params).craft(view)


def moved(sent, benign):
    """How far from the honest mean, in units of the honest updates' size."""
    g = benign.double().mean(0)
    return float((sent[0].double() - g).norm() / (benign.double() - g).norm())


def selected(rule, sent, benign):
    """Whether a rule with f = m selects all crafted updates, or nobody else if it selects fewer."""
    m = len(sent)
    whole = torch.cat([sent, benign])
    if rule == "krum":
        chosen = make_aggregator("krum", num_malicious=m)(Round(whole))
        return bool((chosen == sent[0]).all())
    if rule == "bulyan":
        kept = np.array(bulyan_selection(Round(whole).updates.sq_distances, min(m, (len(whole) - 3) // 4)))
        return bool((kept < m).sum() == min(m, len(kept)))
    afa = rule == "afa"
    judge = make_detector("afa") if afa else make_detector("krum", num_malicious=m, select="multi_krum")
    kept = np.flatnonzero(~judge(Round(whole)).suspects)
    return len(kept) > 0 and (kept < m).sum() == min(m, len(kept))


AGNOSTIC = [("min_max", True), ("min_sum", True), ("lie", False)]
#: The search against AFA is a long one: fewer rounds.
SELECTED = [(rule, seed) for rule in ("krum", "multi_krum", "bulyan") for seed in SEEDS]
SELECTED += [("afa", seed) for seed in range(8)]


@pytest.mark.thin(10)
@pytest.mark.parametrize(("rule", "seed"), SELECTED)
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_who_moved_is_selected_and_nobody_else_farther_out(rule, perturbation, seed):
    """Where an agnostic attack is selected, the tailored one is too, and at least as far from g."""
    own, benign = normal_round(seed)
    tailored = craft("agr_tailored", own, benign, aggregator=rule, perturbation=perturbation)
    if moved(tailored, benign) > 1e-5:
        assert selected(rule, tailored, benign)
    for name, has_perturbation in AGNOSTIC:
        if not has_perturbation and perturbation != "std":
            continue
        params = {"perturbation": perturbation} if has_perturbation else {}
        other = craft(name, own, benign, **params)
        if selected(rule, other, benign):
            assert moved(tailored, benign) >= moved(other, benign) * (1 - 1e-4)


@pytest.mark.thin(5)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
def test_no_agnostic_attack_shifts_a_coordinate_wise_rule_farther(rule, perturbation, seed):
    own, benign = normal_round(seed)
    aggregator = make_aggregator(rule, **({"num_malicious": len(own)} if rule == "trimmed_mean" else {}))
    g = benign.double().mean(0)

    def shift(sent):
        return float((aggregator(Round(torch.cat([sent, benign]))).double() - g).norm())

    tailored = shift(craft("agr_tailored", own, benign, aggregator=rule, perturbation=perturbation))
    for name, has_perturbation in AGNOSTIC:
        params = {"perturbation": perturbation} if has_perturbation else {}
        if has_perturbation or perturbation == "std":
            assert tailored >= shift(craft(name, own, benign, **params)) * (1 - 1e-4)


TAILORED = [("agr_tailored", {"aggregator": rule}) for rule in RULES] + [("adaptive_dnc", {})]


@pytest.mark.thin(3)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "params"), TAILORED)
def test_order_and_units_do_not_matter(name, params, seed):
    own, benign = normal_round(seed)
    sent = craft(name, own, benign, **params)
    order = torch.randperm(len(benign), generator=torch.Generator().manual_seed(seed))
    size = float(benign.abs().max())
    assert torch.allclose(craft(name, own, benign[order], **params), sent, atol=1e-3 * size)
    assert torch.allclose(craft(name, 1024 * own, 1024 * benign, **params), 1024 * sent, atol=size)


@pytest.mark.thin(3)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "params"), [t for t in TAILORED if t[1].get("aggregator") != "afa"])
def test_shifting_all_updates_shifts_what_is_sent(name, params, seed):
    """With p = σ; but for AFA, whose cosines have an origin."""
    own, benign = normal_round(seed)
    shifted = craft(name, own + 3, benign + 3, **params)
    size = float(benign.abs().max())
    assert torch.allclose(shifted, craft(name, own, benign, **params) + 3, atol=1e-3 * size)


@st.composite
def rounds(draw):
    """(own, benign): small, full of zeros, ties and extremes."""
    m, k, d = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 5))
    matrix = torch.from_numpy(draw(hnp.arrays(np.float32, (m + k, d), elements=FINITE)))
    return matrix[:m], matrix[m:]


@given(rounds(), st.sampled_from(TAILORED), st.sampled_from(PERTURBATIONS), st.sampled_from([3.0, 1e6]))
def test_tailored_attacks_stay_on_their_line_within_reach(case, attack, perturbation, reach):
    own, benign = case
    name, params = attack
    sent = craft(name, own, benign, perturbation=perturbation, reach=reach, **params).double()
    assert torch.isfinite(sent).all()
    assert torch.equal(sent, sent[:1].expand(len(own), -1))
    known = benign.double()
    g, spread = known.mean(0), torch.cdist(known, known).max()
    slack = 1e-5 * (1 + known.abs().max())
    assert (sent[0] - g).norm() <= 2 * reach * spread * (1 + 1e-5) + slack
    if perturbation == "std":
        assert (sent[0] <= g + slack).all()


@given(rounds(), st.floats(0.01, 100))
def test_ipm_has_a_negative_inner_product_with_the_mean(case, epsilon):
    own, benign = case
    g = benign.double().mean(0)
    for row in craft("ipm", own, benign, epsilon=epsilon).double():
        assert float(row @ g) == pytest.approx(-epsilon * float(g @ g), rel=1e-4, abs=1e-4)


@given(rounds(), st.integers(1, 3), st.sampled_from(["fixed", "each_round"]))
def test_mimic_copies_one_benign_update(case, warmup, target):
    own, benign = case
    sent = craft("mimic", own, benign, warmup=warmup, target=target)
    assert sent.shape == own.shape
    assert any(torch.equal(sent, row.expand(len(own), -1)) for row in benign)


@given(rounds(), st.sampled_from(["zero", "random", "previous", "noisy", "disguised"]), st.floats(1e-4, 1))
def test_lazy_workers_stay_near_the_global_models_path(case, mode, noise):
    own, benign = case
    sent = craft("lazy_worker", own, benign, mode=mode, noise=noise)
    assert sent.shape == own.shape
    base = 1.0 if mode in ("previous", "noisy") else 0.0
    width = {"zero": 0, "previous": 0, "random": noise, "noisy": 6 * noise, "disguised": 3}[mode]
    assert (sent - base).abs().max() <= width + 1e-6


@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 6)), st.floats(0.01, 1))
def test_random_labels_change_no_more_than_they_say(labels, fraction):
    samples = Samples(torch.zeros(len(labels), 2), torch.from_numpy(labels))
    view = DataView(0, 1, 7, torch.Generator().manual_seed(0))
    poisoned = make_attack("random_labels", fraction=fraction).poison_data(samples, view)
    assert poisoned.labels.shape == samples.labels.shape
    assert poisoned.labels.dtype == samples.labels.dtype
    changed = int((poisoned.labels != samples.labels).sum())
    assert changed <= max(1, round(fraction * len(labels)))
    assert len(labels) == 0 or 0 <= poisoned.labels.min() <= poisoned.labels.max() < 7
