"""What must hold for attacks whatever the updates, labels and pixels are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_aggregator, make_attack
from fedguard.contracts.round import Round

FINITE = st.floats(-100, 100, width=32)
GOALS = ["directed", "deviation"]
DETERMINISTIC = [
    ("lie", {"z": 1.5}),
    ("lie", {}),
    *[(name, {"perturbation": p}) for name in ("min_max", "min_sum") for p in ("unit", "std", "sign")],
]
SHIFTABLE = [*DETERMINISTIC[:2], *[(n, {"perturbation": "std"}) for n in ("min_max", "min_sum")]]


@st.composite
def rounds(draw, max_benign=6, min_benign=1):
    """(global model, own updates, benign updates), small and full of zeros, ties and extremes."""
    m, k, d = draw(st.integers(1, 4)), draw(st.integers(min_benign, max_benign)), draw(st.integers(1, 5))
    table = draw(hnp.arrays(np.float32, (1 + m + k, d), elements=FINITE))
    matrix = torch.from_numpy(table)
    return matrix[0], matrix[1 : 1 + m], matrix[1 + m :]


def craft(attack, start, own, benign, seed=0):
    name, params = attack
    view = UpdateView(
        index=0,
        num_clients=len(own) + len(benign),
        global_params=start,
        initial_params=start,
        own_updates=own,
        generator=torch.Generator().manual_seed(seed),
        benign_updates=benign,
    )
    return make_attack(name, **params).craft(view).double()


def close(a, b, scale=1.0):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * max(scale, 1e-6))


@given(rounds(), st.sampled_from(DETERMINISTIC), st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(case, attack, shuffle):
    start, own, benign = case
    order = list(range(len(benign)))
    shuffle.shuffle(order)
    assert close(craft(attack, start, own, benign), craft(attack, start, own, benign[order]))


@given(rounds(), st.sampled_from(SHIFTABLE), FINITE)
def test_shifting_all_updates_shifts_what_is_sent(case, attack, by):
    start, own, benign = case
    shifted = craft(attack, start, own + by, benign + by)
    # Beyond float32's resolution a shift changes the updates themselves.
    assert close(craft(attack, start, own, benign) + by, shifted, scale=10.0)


@given(rounds(), st.sampled_from([*DETERMINISTIC, ("gaussian", {}), ("fang_trimmed_mean", {})]))
def test_what_is_sent_is_in_the_units_of_the_updates(case, attack):
    start, own, benign = case
    once = craft(attack, start, own, benign)
    assert close(1024 * once, craft(attack, 1024 * start, 1024 * own, 1024 * benign), scale=1024)


@given(rounds(), st.sampled_from(["unit", "std", "sign"]))
def test_min_max_never_leaves_the_ball_that_min_sum_and_itself_promise(case, perturbation):
    start, own, benign = case
    known = benign.double()
    between = (known[:, None] - known[None]).square().sum(2)
    slack = 1e-4 * (1 + float(known.square().sum()))  # what is sent is float32
    far = craft(("min_max", {"perturbation": perturbation}), start, own, benign)[0]
    assert (known - far).square().sum(1).max() <= between.max() + slack
    far = craft(("min_sum", {"perturbation": perturbation}), start, own, benign)[0]
    assert (known - far).square().sum() <= between.sum(1).max() + slack


@given(rounds(), st.sampled_from(["fang_trimmed_mean", "fang_median"]), st.sampled_from(GOALS))
def test_fang_lands_outside_all_benign_models(case, name, goal):
    start, own, benign = case
    models = start.double() + benign.double()
    crafted = start.double() + craft((name, {"goal": goal}), start, own, benign)
    slack = 1e-5 * (1 + models.abs().max())
    above, below = crafted >= models.amax(0) - slack, crafted <= models.amin(0) + slack
    assert (above.all(0) | below.all(0)).all()  # all attackers on the same side


@settings(max_examples=2 * settings.default.max_examples)
@given(rounds(max_benign=9, min_benign=4), st.sampled_from(GOALS), st.randoms(use_true_random=False))
def test_krum_selects_what_fangs_krum_attack_sends_unless_it_is_honest(case, goal, shuffle):
    start, own, benign = case
    crafted = craft(("fang_krum", {"goal": goal, "epsilon": 0}), start, own, benign).float()
    if torch.equal(crafted, own):
        return
    assert len(set(crafted.abs().flatten().tolist())) == 1  # one λ, and signs
    rows = [*crafted, *benign]
    shuffle.shuffle(rows)
    chosen = make_aggregator("krum", num_malicious=len(own))(Round(torch.stack(rows)))

    def score(update):
        far = sorted(float((update.double() - row.double()).square().sum()) for row in rows)
        return sum(far[1 : len(benign) - 1])  # without itself: n − c − 2 others

    # At the bound itself scores can be equal, up to the rounding of what is sent.
    assert torch.equal(chosen, crafted[0]) or score(crafted[0]) <= score(chosen) * (1 + 1e-5)


@given(rounds())
def test_flipping_twice_is_honest(case):
    start, own, benign = case
    once = craft(("byzantine", {"mode": "flip"}), start, own, benign)
    assert torch.equal(craft(("byzantine", {"mode": "flip"}), start, once.float(), benign), own.double())


LABELS = hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 6))


def flip(labels, **params):
    view = DataView(0, 1, 7, torch.Generator().manual_seed(0))
    samples = Samples(torch.zeros(len(labels), 2), labels)
    return make_attack("label_flip", **params).poison_data(samples, view).labels


@given(LABELS.map(torch.from_numpy), st.permutations(range(7)))
def test_label_flips_can_be_undone(labels, order):
    assert torch.equal(flip(flip(labels)), labels)
    shifted = labels
    for _ in range(7):
        shifted = flip(shifted, mode="next")
    assert torch.equal(shifted, labels)
    there = {i: j for i, j in enumerate(order) if i != j}
    if there:
        back = {j: i for i, j in there.items()}
        assert torch.equal(flip(flip(labels, mode="pairs", pairs=there), mode="pairs", pairs=back), labels)


@given(LABELS.map(torch.from_numpy), st.integers(0, 6), st.integers(1, 4), st.floats(0.01, 1))
def test_the_backdoor_adds_and_never_alters(labels, target, patch, fraction):
    pixels = torch.rand(len(labels), 2, 5, 4, generator=torch.Generator().manual_seed(0))
    attack = make_attack("scaling_backdoor", target=target, patch=patch, fraction=fraction)
    view = DataView(0, 1, 7, torch.Generator().manual_seed(0))
    poisoned = attack.poison_data(Samples(pixels, labels), view)
    n, added = len(labels), len(poisoned.labels) - len(labels)
    assert torch.equal(poisoned.pixels[:n], pixels)
    assert torch.equal(poisoned.labels[:n], labels)
    assert (poisoned.labels[n:] == target).all()
    assert added == (max(1, round(fraction * n)) if n else 0)
    assert (poisoned.pixels[n:, :, -patch:, -patch:] == 1).all()
    assert torch.isfinite(poisoned.pixels).all()
    others = int((labels != target).sum())
    trial = attack.trial(Samples(pixels, labels), 7)
    assert (trial is None) == (others == 0)
    if trial is not None:
        assert len(trial.target) == others
        assert not (trial.samples.labels == target).any()


@pytest.mark.parametrize("name", ["gaussian", "fang_trimmed_mean"])
def test_colluders_differ_where_the_paper_samples_each(name):
    own, benign = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)).split([3, 3])
    crafted = craft((name, {}), torch.ones(40), own, benign)
    assert len({tuple(row.tolist()) for row in crafted}) == 3
