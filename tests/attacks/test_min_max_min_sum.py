"""Min-Max and Min-Sum against a bisection with explicit distances, in plain Python floats."""

import statistics

import pytest
import torch

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack

CASES = [(attack, p) for attack in ("min_max", "min_sum") for p in ("unit", "std", "sign")]


def make_view(own, benign):
    return UpdateView(
        index=0,
        num_clients=10,
        global_params=torch.zeros(own.shape[1]),
        initial_params=torch.zeros(own.shape[1]),
        own_updates=own,
        generator=torch.Generator().manual_seed(0),
        benign_updates=benign,
    )


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sq_distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def excess(attack, point, known):
    """How far a crafted point is beyond the attack's bound: ≤ 0 is allowed."""
    distances = [sq_distance(point, u) for u in known]
    between = [[sq_distance(u, v) for v in known] for u in known]
    if attack == "min_max":
        return max(distances) - max(map(max, between))
    return sum(distances) - max(map(sum, between))


def direction(kind, mean, known):
    if kind == "std":
        return [statistics.pstdev(c) for c in zip(*known, strict=True)]
    if kind == "sign":
        return [float((x > 0) - (x < 0)) for x in mean]
    return [x / sq_distance(mean, [0] * len(mean)) ** 0.5 for x in mean]


def moved(mean, p, gamma):
    return [g - gamma * x for g, x in zip(mean, p, strict=True)]


def bisect(attack, mean, p, known):
    """The largest γ: bracket by doubling, then halve; the last success."""
    good, bad = 0.0, 1e-6
    while excess(attack, moved(mean, p, bad), known) <= 0:
        good, bad = bad, 2 * bad
    for _ in range(80):
        middle = (good + bad) / 2
        if excess(attack, moved(mean, p, middle), known) <= 0:
            good = middle
        else:
            bad = middle
    return good


def solve(attack, kind, known):
    known = [[float(x) for x in row] for row in known]
    mean = [statistics.fmean(c) for c in zip(*known, strict=True)]
    p = direction(kind, mean, known)
    return mean, p, known, bisect(attack, mean, p, known)


@pytest.mark.parametrize(("attack", "kind"), CASES)
@pytest.mark.parametrize("knowledge", ["full", "partial"])
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_goes_as_far_as_the_bound_allows(attack, kind, knowledge, scale):
    own, benign = scale * (0.5 + random(4, 12, seed=1)), scale * (0.5 + random(7, 12, seed=2))
    view = make_view(own, benign if knowledge == "full" else None)
    crafted = make_attack(attack, perturbation=kind, knowledge=knowledge).craft(view)
    mean, p, known, gamma = solve(attack, kind, benign if knowledge == "full" else own)
    assert torch.equal(crafted, crafted[:1].expand(4, -1))
    for value, expected in zip(crafted[0].tolist(), moved(mean, p, gamma), strict=True):
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-5 * scale)
    # The step that was really taken is allowed, and 1e-4 more is not.
    taken = sum((g - x) * y for g, x, y in zip(mean, crafted[0].tolist(), p, strict=True))
    taken /= sum(y * y for y in p)
    assert excess(attack, moved(mean, p, taken * (1 - 1e-4)), known) < 0
    assert excess(attack, moved(mean, p, taken * (1 + 1e-4)), known) > 0


def test_step_far_beyond_twice_any_fixed_start():
    """Halving from a fixed γ₀ cannot exceed 2γ₀; here the answer is about 10⁶ with p of length 1."""
    benign = 1e6 * random(6, 20, seed=3)
    crafted = make_attack("min_max", perturbation="unit").craft(make_view(random(2, 20), benign))
    mean, p, _, gamma = solve("min_max", "unit", benign)
    assert gamma > 1e6
    assert crafted[0].tolist() == [pytest.approx(x, rel=1e-4, abs=1.0) for x in moved(mean, p, gamma)]


def test_min_sum_is_bounded_by_the_largest_sum():
    """Not the smallest, as some code has it: on a line at 0, 0 and 6 the sums are 36, 36 and 72."""
    benign = torch.tensor([[0.0], [0.0], [6.0]])
    crafted = make_attack("min_sum", perturbation="sign").craft(make_view(random(2, 1), benign))
    # g = 2, p = 1: Σ (2 − γ − u_i)² = 24 + 3γ² ≤ 72, so γ = 4.
    assert crafted.tolist() == [[pytest.approx(-2.0)], [pytest.approx(-2.0)]]


def test_min_max_on_a_line():
    """At 0, 0 and 6: |2 − γ − 6| ≤ 6 allows γ = 2, although 0 and 0 would allow 8."""
    benign = torch.tensor([[0.0], [0.0], [6.0]])
    crafted = make_attack("min_max", perturbation="sign").craft(make_view(random(1, 1), benign))
    assert crafted.tolist() == [[pytest.approx(0.0, abs=1e-6)]]


@pytest.mark.parametrize(("attack", "kind"), CASES)
@pytest.mark.parametrize(
    "benign",
    [random(1, 5), random(1, 5).repeat(4, 1), torch.zeros(4, 5)],
    ids=["one update", "identical updates", "zeros"],
)
def test_no_room_or_no_direction_means_no_step(attack, kind, benign):
    crafted = make_attack(attack, perturbation=kind).craft(make_view(random(3, 5, seed=9), benign))
    assert torch.allclose(crafted, benign[:1].expand(3, -1), atol=1e-6)


@pytest.mark.parametrize("attack", ["min_max", "min_sum"])
def test_a_zero_mean_gives_no_unit_direction(attack):
    benign = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    crafted = make_attack(attack, perturbation="unit").craft(make_view(random(2, 2), benign))
    assert crafted.abs().max() == 0
