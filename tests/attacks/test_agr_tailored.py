"""AGR-tailored attacks against rules written out here in plain numpy, and a fine scan over γ."""

import math

import numpy as np
import pytest
import torch

from fedguard.attacks._agr import afa_keeps, best_step
from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_aggregator, make_attack
from fedguard.core.errors import ParameterError

SELECTING = ("krum", "multi_krum", "bulyan", "afa")
PERTURBATIONS = ("unit", "std", "sign")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def situation(n=16, m=3, d=12, seed=0, scale=1.0):
    """Honest updates that share a direction, so that g is no mere noise."""
    updates = scale * (0.4 * random(1, d, seed=seed) + random(n, d, seed=seed + 1))
    return updates[:m], updates[m:]


def make_view(own, benign, n=None, aggregator=None):
    return UpdateView(
        index=0,
        num_clients=len(own) + len(benign) if n is None else n,
        global_params=torch.zeros(own.shape[1]),
        initial_params=torch.zeros(own.shape[1]),
        own_updates=own,
        generator=torch.Generator().manual_seed(0),
        benign_updates=benign,
        aggregator=aggregator,
    )


# --- The rules by hand ----------------------------------------------------------------------------------


def krums_choice(table, left, f):
    """Whoever of those left has the lowest sum of squared distances to the nearest n − f − 2 others.

    At least one neighbor counts (Bulyan's last picks for f = 1); then nearest neighbors of each other are
    equal, and the one that is closer to everybody comes first.
    """
    count = min(max(1, len(left) - f - 2), len(left) - 1)
    scores = {i: sum(sorted(table[i][j] for j in left if j != i)[:count]) for i in left}
    return min(left, key=lambda i: (scores[i], sum(table[i])))


def select(rule, vectors, m):
    """Positions that a rule with f = m lets through."""
    n = len(vectors)
    left = list(range(n))
    if rule == "afa":
        return by_afa(vectors)
    table = ((vectors[:, None] - vectors[None]) ** 2).sum(2).tolist()
    if rule == "krum":
        return [krums_choice(table, left, m)]
    chosen = []
    f = m if rule == "multi_krum" else min(m, (n - 3) // 4)
    while len(left) > 2 * f + 2 if rule == "multi_krum" else len(chosen) < n - 2 * f:
        chosen.append(krums_choice(table, left, f))
        left.remove(chosen[-1])
    return chosen


def by_afa(vectors, rounds=100):
    left, xi = list(range(len(vectors))), 2.0
    for _ in range(rounds):
        mean = np.mean([vectors[i] for i in left], axis=0)
        s = {i: vectors[i] @ mean / np.linalg.norm(vectors[i]) / np.linalg.norm(mean) for i in left}
        values = list(s.values())
        middle, spread = np.median(values), np.std(values)
        if np.mean(values) < middle:
            out = [i for i in left if s[i] < middle - xi * spread]
        else:
            out = [i for i in left if s[i] > middle + xi * spread]
        if not out:
            return left
        left = [i for i in left if i not in out]
        xi += 0.5
    return left


def aggregate(rule, vectors, m):
    if rule == "median":
        return np.median(vectors, axis=0)
    return np.sort(vectors, axis=0)[m : len(vectors) - m].mean(0)


def line(benign, perturbation):
    """(mean, p, the distance of the two farthest honest updates over ‖p‖)."""
    u = benign.double().numpy()
    g = u.mean(0)
    p = {"unit": g / np.linalg.norm(g), "std": u.std(0), "sign": np.sign(g)}[perturbation]
    return g, p, max(np.linalg.norm(a - b) for a in u for b in u) / np.linalg.norm(p)


def attacked(benign, m, g, p, gamma):
    return np.concatenate([benign.double().numpy(), np.tile(g - gamma * p, (m, 1))])


def passes(rule, benign, m, g, p, gamma):
    chosen = select(rule, attacked(benign, m, g, p, gamma), m)
    return sum(i >= len(benign) for i in chosen) == min(m, len(chosen))


def taken_step(crafted, g, p):
    """γ, out of what was sent; also that all send the same."""
    assert torch.equal(crafted, crafted[:1].expand(len(crafted), -1))
    sent = crafted[0].double().numpy()
    gamma = float((g - sent) @ p / (p @ p))
    assert sent == pytest.approx(g - gamma * p, abs=1e-6 * max(1, np.abs(sent).max()))
    return gamma


# --- The search -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda x: x if x <= 5 else 0.0, 5.0),
        (lambda x: x if x <= 0.027 else 0.0, 0.027),
        (lambda x: x if 3 <= x <= 5 else 0.0, 5.0),
        (lambda x: x, 64.0),  # no bound
        (lambda x: 0.0, 0.0),
        (lambda x: x if x < 0.01 else 0.0, 0.0),  # below what the search resolves, 1/64
        (lambda x: min(x, 3.5) + 1, 4.0),  # nothing is gained after 3.5; the first γ that has it all
        (lambda x: 7.0 - x, 0.0),
        # Beyond the best of 1, 2, 4 …: 1.5 is worth more, and what is worth no more is no success.
        (lambda x: x if x <= 1.3 else 1.2 if x < 1.6 else 0.9, 1.5),
    ],
)
def test_the_search(value, expected):
    assert best_step(value, 1.0, 64.0, 1e-5) == pytest.approx(expected, rel=1e-4)
    assert best_step(lambda x: value(x / 8), 8.0, 64.0, 1e-5) == pytest.approx(8 * expected, rel=1e-4)


def test_a_narrow_band_needs_a_denser_search():
    def value(gamma):
        return gamma if 5.0 <= gamma <= 5.2 else 0.0

    assert best_step(value, 1.0, 64.0, 1e-5) == 0
    assert best_step(value, 1.0, 64.0, 1e-5, density=64) == pytest.approx(5.2, rel=1e-4)


def test_afa_keeps_whom_it_keeps_by_hand():
    """With outliers on both sides, in some rounds one after the other: later ξ and means count."""
    again = 0
    for seed in range(40):
        vectors = random(20, 8, seed=seed) + 2 * random(1, 8, seed=100 + seed)
        vectors[0] *= -3
        vectors[1] = random(8, seed=200 + seed)
        u = vectors.double().numpy()
        kept = np.flatnonzero(afa_keeps(u @ u.T)).tolist()
        assert kept == by_afa(u)
        again += by_afa(u, rounds=1) != kept
    assert again > 5


def test_afa_of_zeros_keeps_everybody():
    assert afa_keeps(np.zeros((4, 4))).all()


# --- Rules that select clients --------------------------------------------------------------------------


@pytest.mark.thin(4)
@pytest.mark.parametrize("rule", SELECTING)
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
@pytest.mark.parametrize(
    ("n", "m", "scale"), [(16, 3, 1.0), (15, 3, 1e-3), (20, 4, 1.0), (13, 1, 1.0), (10, 3, 1.0)]
)
def test_the_largest_step_that_passes(rule, perturbation, n, m, scale):
    """A little less passes, a little more does not, and no γ of a scan that passes is larger."""
    own, benign = situation(n, m, scale=scale)
    sent = make_attack("agr_tailored", aggregator=rule, perturbation=perturbation).craft(
        make_view(own, benign)
    )
    g, p, unit = line(benign, perturbation)
    gamma = taken_step(sent, g, p)
    scan = [unit * 2.0 ** (k / 4) for k in range(-40, 41)]
    accepted = [x for x in scan if passes(rule, benign, m, g, p, x)]
    if not accepted:
        assert gamma == pytest.approx(0, abs=1e-6)
        return
    assert gamma > 0
    assert gamma >= max(accepted) * (1 - 1e-4)
    assert passes(rule, benign, m, g, p, gamma * (1 - 1e-4))
    assert gamma > 1000 * unit or not passes(rule, benign, m, g, p, gamma * (1 + 1e-4))


def test_the_scan_above_means_something():
    """Each selecting rule accepts some γ and refuses others in the situations above."""
    for rule in SELECTING:
        own, benign = situation(16, 3)
        g, p, unit = line(benign, "std")
        verdicts = {passes(rule, benign, len(own), g, p, unit * 2.0**k) for k in range(-10, 11)}
        assert verdicts == {True, False}, rule


def test_afa_is_passed_in_a_narrow_band_where_the_mean_is_not():
    """Many coordinates: g is far more like the aggregate than any client is, and so are small steps."""
    own, benign = situation(20, 4, d=2000)
    sent = make_attack("agr_tailored", aggregator="afa", perturbation="sign").craft(make_view(own, benign))
    g, p, unit = line(benign, "sign")
    assert not any(passes("afa", benign, 4, g, p, x) for x in [0.0, *(unit * 2.0**k for k in range(-10, 11))])
    gamma = taken_step(sent, g, p)
    assert gamma > 0
    assert passes("afa", benign, 4, g, p, gamma * (1 - 1e-4))
    assert not passes("afa", benign, 4, g, p, gamma * (1 + 1e-4))


def test_krum_on_a_line():
    """Honest −3, −1, 1, 3 and one attacker at −x. Beyond 3 the client at −3 has the better neighbors.

    f = 1, two neighbors count. For 1 < x < 3 the attacker's score (x − 3)² + (x − 1)² is below that of
    −3, (x − 3)² + 4, and of −1, (x − 1)² + 4; at x = 3 it is no longer.
    """
    benign = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    sent = make_attack("agr_tailored").craft(make_view(torch.zeros(1, 1), benign))
    assert sent.item() == pytest.approx(-3, abs=1e-4)


def test_a_step_far_beyond_twice_any_fixed_start():
    own, benign = situation(scale=1e6)
    near = make_attack("agr_tailored", perturbation="unit").craft(make_view(own / 1e6, benign / 1e6))
    far = make_attack("agr_tailored", perturbation="unit").craft(make_view(own, benign))
    assert (far[0] - benign.mean(0)).norm() > 1e6
    assert torch.allclose(far, 1e6 * near, rtol=1e-3, atol=1e3)


def test_multi_krum_that_keeps_fewer_than_m():
    """n = 10, m = 3: two are selected; both are to be the attacker's."""
    own, benign = situation(10, 3)
    sent = make_attack("agr_tailored", aggregator="multi_krum").craft(make_view(own, benign))
    vectors = np.concatenate([benign.double().numpy(), sent.double().numpy()])
    chosen = select("multi_krum", vectors, 3)
    assert len(chosen) == 2
    assert min(chosen) >= 7
    assert (sent[0] - benign.mean(0)).norm() > 0.1


@pytest.mark.parametrize("reach", [8.0, 1000.0])
def test_who_outnumbers_krum_goes_as_far_as_the_search(reach):
    """n = 5, m = 3, f = 2: the only neighbor that counts is another attacker, at distance 0."""
    own, benign = situation(5, 3)
    sent = make_attack("agr_tailored", reach=reach).craft(make_view(own, benign))
    g, p, unit = line(benign, "std")
    assert taken_step(sent, g, p) == pytest.approx(unit * 2 ** math.ceil(math.log2(reach)), rel=1e-4)


def test_where_nothing_passes_the_mean_is_sent():
    """Nine close together at (0, 1), one at (10, 1): on the line from g = (1, 1) to 0 nothing is as close."""
    close = 0.001 * random(9, 2) + torch.tensor([0.0, 1.0])
    benign = torch.cat([close, torch.tensor([[10.0, 1.0]])])
    sent = make_attack("agr_tailored", perturbation="unit").craft(make_view(torch.zeros(1, 2), benign))
    assert torch.allclose(sent[0], benign.mean(0), atol=1e-6)


# --- Rules that work on coordinates ---------------------------------------------------------------------


@pytest.mark.thin(3)
@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
@pytest.mark.parametrize(("n", "m"), [(16, 3), (15, 4), (9, 4), (12, 1), (13, 6)])
def test_the_greatest_shift_of_the_aggregate(rule, perturbation, n, m):
    own, benign = situation(n, m)
    sent = make_attack("agr_tailored", aggregator=rule, perturbation=perturbation).craft(
        make_view(own, benign)
    )
    g, p, unit = line(benign, perturbation)

    def shift(gamma):
        return np.linalg.norm(aggregate(rule, attacked(benign, m, g, p, gamma), m) - g)

    gamma = taken_step(sent, g, p)
    scan = [unit * 2.0 ** (k / 4) for k in range(-40, 41)]
    best = max(map(shift, [0.0, *scan]))
    assert shift(gamma) >= best * (1 - 3e-5)
    assert best > 1.05 * shift(0.0)
    assert shift(gamma / 4) < best * (1 - 1e-5)  # it goes no farther than it needs


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
def test_who_holds_the_middle_goes_as_far_as_the_search(rule):
    """5 of 9: every coordinate's median is theirs."""
    own, benign = situation(9, 5)
    sent = make_attack("agr_tailored", aggregator=rule).craft(make_view(own, benign))
    g, p, unit = line(benign, "std")
    assert taken_step(sent, g, p) == pytest.approx(1024 * unit, rel=1e-4)


# --- What the attacker knows ----------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "copies"), [(4, 1), (5, 1), (8, 2), (10, 3), (12, 4)])
def test_partial_knowledge_imagines_as_many_as_the_released_code(m, copies):
    """Of n = 50. The attack then is the full attack on m honest updates with so many attackers."""
    own = situation(m, m, seed=5)[0]
    partial = make_attack("agr_tailored", knowledge="partial")
    full = make_attack("agr_tailored")
    sent = partial.craft(make_view(own, None, n=50))
    assert sent.shape == own.shape
    assert torch.equal(sent[:1], full.craft(make_view(own[:copies], own))[:1])
    for other in {copies - 1, copies + 1} - {0}:
        assert not torch.allclose(sent[:1], full.craft(make_view(own[:other], own))[:1], rtol=1e-3)


@pytest.mark.parametrize("name", ["krum", "trimmed_mean", "median"])
def test_the_rule_in_use_can_be_tried_out(name):
    """The same step as by name, where a selecting rule's shift grows with γ until it refuses."""
    own, benign = situation(16, 3)
    params = {} if name == "median" else {"num_malicious": 3}
    seen = make_attack("agr_tailored", aggregator=None).craft(
        make_view(own, benign, aggregator=make_aggregator(name, **params))
    )
    named = make_attack("agr_tailored", aggregator=name).craft(make_view(own, benign))
    g, p, _ = line(benign, "std")
    if name == "krum":
        assert torch.allclose(seen, named, rtol=1e-4)
        return
    shifts = [
        (g - aggregate(name, np.concatenate([benign.double().numpy(), sent.double().numpy()]), 3)) @ p
        for sent in (seen, named)
    ]
    assert shifts[0] == pytest.approx(shifts[1], rel=1e-4)


def test_the_mean_sets_no_bound():
    own, benign = situation(16, 3)
    sent = make_attack("agr_tailored", aggregator=None, reach=64.0).craft(
        make_view(own, benign, aggregator=make_aggregator("mean"))
    )
    g, p, unit = line(benign, "std")
    assert taken_step(sent, g, p) == pytest.approx(64 * unit, rel=1e-4)


def test_a_rule_with_data_of_its_own_cannot_be_tried_out():
    class Guarded(type(make_aggregator("mean"))):
        needs = frozenset({"root"})

    own, benign = situation()
    with pytest.raises(ParameterError, match="needs root, which the attacker does not have"):
        make_attack("agr_tailored", aggregator=None).craft(make_view(own, benign, aggregator=Guarded()))


@pytest.mark.parametrize("rule", [*SELECTING, "trimmed_mean", "median"])
@pytest.mark.parametrize(
    "benign",
    [random(1, 5).repeat(6, 1), torch.zeros(6, 5), random(1, 5), torch.full((6, 5), 3e38)],
    ids=["identical", "zeros", "one", "huge"],
)
def test_no_spread_means_no_step(rule, benign):
    sent = make_attack("agr_tailored", aggregator=rule).craft(make_view(random(2, 5, seed=9), benign))
    assert torch.allclose(sent, benign[:1].expand(2, -1), atol=1e-6)


@pytest.mark.parametrize("rule", [*SELECTING, "trimmed_mean", "median"])
def test_one_huge_honest_update_gives_finite_updates(rule):
    own, benign = situation()
    benign = torch.cat([benign, torch.full((1, benign.shape[1]), 1e30)])
    assert torch.isfinite(make_attack("agr_tailored", aggregator=rule).craft(make_view(own, benign))).all()
