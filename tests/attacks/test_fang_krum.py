"""Fang et al.'s Krum attack against the paper's pseudo-code: models, loops and whole distance matrices."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_aggregator, make_attack
from fedguard.contracts.round import Round


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def situation(n, c, d, scale=0.1, seed=0):
    """A global model far from zero, and updates that share a direction."""
    start = 3 * random(d, seed=seed)
    updates = scale * (random(n, d, seed=seed + 1) + 0.3 * random(1, d, seed=seed + 2))
    return start, updates[:c], updates[c:]


def craft(start, own, benign, seed=5, **params):
    """What is sent; the view holds the benign updates only if the attack knows them."""
    attack = make_attack("fang_krum", **params)
    view = UpdateView(
        index=0,
        num_clients=len(own) + len(benign),
        global_params=start,
        initial_params=random(len(start), seed=99),
        own_updates=own,
        generator=torch.Generator().manual_seed(seed),
        benign_updates=benign if attack.knowledge else None,
    )
    return attack.craft(view)


def models_of(start, updates):
    return [start.double().numpy() + u for u in updates.double().numpy()]


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def krum(models, f):
    """Which model Krum selects; the first one of equals."""
    count = len(models) - f - 2
    sums = []
    for i, model in enumerate(models):
        others = [distance(model, other) ** 2 for j, other in enumerate(models) if j != i]
        sums.append(sum(sorted(others)[:count]))
    return min(range(len(models)), key=sums.__getitem__)


def theorem_1(honest, received, n, c):
    """The right-hand side of Equation 3, for n clients of which c are crafted."""
    sums = []
    for i, model in enumerate(honest):
        others = [distance(model, other) ** 2 for j, other in enumerate(honest) if j != i]
        sums.append(sum(sorted(others)[: n - c - 2]))
    d = len(received)
    far = max(distance(model, received) for model in honest)
    return math.sqrt(min(sums) / (max(1, n - 2 * c - 1) * d)) + far / math.sqrt(d)


def search(honest, received, s, c, threshold):
    """Halve from the bound until Krum selects the crafted model: (λ or None, halvings)."""
    step = theorem_1(honest, received, len(honest) + c, c)
    halvings = 0
    while step >= threshold:
        crafted = [received - step * s] * c  # behind the others: a tie does not count
        if krum(honest + crafted, c) >= len(honest):
            return step, halvings
        step, halvings = step / 2, halvings + 1
    return None, halvings


def signs(change):
    return np.array([1.0 if x > 0 else -1.0 for x in change])


def full_knowledge(start, own, benign, goal="directed", threshold=1e-5):
    received, c = start.double().numpy(), len(own)
    before = models_of(start, torch.cat([own, benign]))
    s = signs(before[krum(before, c)] - received) if goal == "directed" else np.ones(len(start))
    return s, *search(before[c:], received, s, c, threshold)


def partial_knowledge(start, own, goal="directed", threshold=1e-5):
    """(s, λ, how many crafted models it took)."""
    received, before = start.double().numpy(), models_of(start, own)
    s = signs(sum(before) / len(before) - received) if goal == "directed" else np.ones(len(start))
    for crafted in range(1, 1000):
        step, _ = search(before, received, s, crafted, threshold)
        if step is not None:
            return s, step, crafted
    raise AssertionError("no λ")


def check(sent, s, step, epsilon=0.01):
    """w'_1 = w_Re − λs exactly, and different supporters within ε."""
    assert sent[0].double().numpy() == pytest.approx(-step * s, rel=1e-6)
    away = (sent[1:].double() - sent[0].double()).norm(dim=1)
    assert (away > 0).all()
    assert (away <= epsilon * (1 + 1e-4)).all()
    assert len({tuple(row) for row in sent.tolist()}) == len(sent)


CASES = [(12, 2, 30), (12, 3, 30), (21, 4, 100), (20, 5, 7), (13, 5, 40), (12, 6, 25), (9, 1, 10)]


@pytest.mark.parametrize(("n", "c", "d"), CASES)
@pytest.mark.parametrize("goal", ["directed", "deviation"])
def test_full_knowledge(n, c, d, goal):
    start, own, benign = situation(n, c, d)
    s, step, _ = full_knowledge(start, own, benign, goal)
    check(craft(start, own, benign, goal=goal), s, step)


def test_the_cases_are_no_special_ones():
    """They need different numbers of halvings; Krum's choice has other signs than the mean."""
    halvings, mean_is_wrong = set(), 0
    for n, c, d in CASES:
        start, own, benign = situation(n, c, d)
        s, step, count = full_knowledge(start, own, benign)
        assert step is not None
        halvings.add(count)
        mean_is_wrong += (s != signs(torch.cat([own, benign]).mean(0).tolist())).sum()
    assert len(halvings) >= 3
    assert mean_is_wrong > 30


@pytest.mark.parametrize("goal", ["directed", "deviation"])
@pytest.mark.parametrize(
    ("c", "d", "shift"), [(3, 12, 0), (4, 30, 0), (8, 50, 0), (8, 50, 0.5), (6, 9, 0.05)]
)
def test_partial_knowledge(c, d, shift, goal):
    start, own, _ = situation(c, c, d)
    s, step, _ = partial_knowledge(start, own + shift, goal)
    check(craft(start, own + shift, own[:0], goal=goal, knowledge="partial"), s, step)


def test_partial_knowledge_needs_more_crafted_models_the_closer_the_own_ones_are():
    start, own, _ = situation(8, 8, 50)
    needed = [partial_knowledge(start, own + shift)[2] for shift in (0, 0.1, 0.5)]
    assert needed[0] < needed[1] < needed[2] == 7  # c − 1 copies always win


def test_the_bound_of_theorem_1():
    """A threshold above the bound lets the attack send w_Re − bound · s."""
    for n, c, d in CASES:
        start, own, benign = situation(n, c, d, seed=n)
        sent = craft(start, own, benign, threshold=1e6, otherwise="smallest")
        bound = theorem_1(models_of(start, benign), start.double().numpy(), n, c)
        assert sent[0].abs().double().numpy() == pytest.approx(np.full(d, bound), rel=1e-5)


def test_the_bound_by_hand():
    """Benign at 1, 2, 4, 8 on a line, c = 1: the 2 nearest of 2 make 1 + 4, √(5/2) + 8."""
    benign = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    sent = craft(torch.tensor([7.0]), torch.tensor([[3.0]]), benign, threshold=1e6, otherwise="smallest")
    assert sent.tolist() == [[pytest.approx(-math.sqrt(2.5) - 8)]]
    # Twice on the diagonal of a plane: distances grow by √2, and so does √d.
    sent = craft(
        random(2), torch.tensor([[3.0, 3.0]]), benign.repeat(1, 2), threshold=1e6, otherwise="smallest"
    )
    assert sent[0].tolist() == [pytest.approx(-math.sqrt(2.5) - 8)] * 2


@pytest.mark.parametrize(("n", "c", "d"), [case for case in CASES if case[0] - 2 * case[1] >= 2])
def test_nothing_above_the_bound_is_selected(n, c, d):
    """What the theorem says."""
    start, _, benign = situation(n, c, d)
    honest, received = models_of(start, benign), start.double().numpy()
    bound = theorem_1(honest, received, n, c)
    for seed in range(5):
        s = np.sign(random(d, seed=seed).numpy())
        for factor in (1 + 1e-9, 1.3, 2, 10):
            assert krum([received - factor * bound * s] * c + honest, c) >= c  # nor is there a tie


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("goal", ["directed", "deviation"])
def test_the_servers_krum_selects_a_crafted_update(goal, scale):
    """The whole round with all supporters, in any order."""
    for seed in range(5):
        start, own, benign = situation(20, 4, 400, scale, seed=10 * seed)
        sent = craft(start, own, benign, goal=goal, epsilon=0.1 * scale)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
        updates = torch.cat([sent, benign])[order]
        chosen = make_aggregator("krum", num_malicious=4)(Round(updates))
        assert min((chosen - row).abs().max() for row in sent) == 0


def test_partial_knowledge_wins_over_a_krum_of_many_clients_that_are_alike():
    for seed in range(5):
        start, own, benign = situation(40, 8, 400, seed=10 * seed)
        sent = craft(start, own, benign, knowledge="partial")
        chosen = make_aggregator("krum", num_malicious=8)(Round(torch.cat([benign, sent])))
        assert min((chosen - row).abs().max() for row in sent) == 0


def test_the_selected_update_goes_against_the_one_selected_before():
    """sᵀ(w − w') > λd: the directed deviation goal, in a round of the server's Krum."""
    start, own, benign = situation(20, 4, 400)
    rule = make_aggregator("krum", num_malicious=4)
    before = rule(Round(torch.cat([own, benign])))
    sent = craft(start, own, benign)
    after = rule(Round(torch.cat([sent, benign])))
    s = torch.where(before > 0, 1.0, -1.0)
    step = float(sent[0].abs().mean())
    assert float((s * (before - after)).sum()) > 0.999 * step * 400
    assert torch.equal(sent[0].sign(), -s)


def test_transfer_to_bulyan():
    """Appendix A: the same attack; Bulyan averages crafted updates in, against the direction of training."""
    rule = make_aggregator("bulyan", num_malicious=4)
    for seed in range(5):
        start, own, benign = situation(24, 4, 400, seed=10 * seed)
        before = rule(Round(torch.cat([own, benign])))
        sent = craft(start, own, benign)
        after = rule(Round(torch.cat([sent, benign])))
        alone = rule(Round(benign))  # as if the attackers had stayed away
        s = -sent[0].sign()
        assert (s * (before - after)).sum() > 2 * (s * (before - alone)).sum().abs()


def test_the_direction_is_that_of_the_update_and_not_of_the_model():
    """All parameters are positive and all shrink: the attack raises them."""
    updates = -0.1 * random(12, 30).abs() ** 3
    sent = craft(torch.full((30,), 5.0), updates[:3], updates[3:])
    assert (sent > 0).all()
    assert (craft(torch.full((30,), 5.0), updates[:4], updates[4:], knowledge="partial") > 0).all()


@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_where_nothing_changes_the_direction_counts_as_minus_one(knowledge):
    start, own, benign = situation(20, 5, 60)
    own[:, :10] = benign[:, :10] = 0.0
    assert (craft(start, own, benign, knowledge=knowledge, epsilon=0)[:, :10] > 0).all()


def test_the_direction_of_the_mean_of_all():
    """By request, in the place of that of Krum's choice; λ is searched for as ever."""
    start, own, benign = situation(21, 4, 100)
    received, before = start.double().numpy(), models_of(start, torch.cat([own, benign]))
    s = signs(sum(before) / len(before) - received)
    assert (s != full_knowledge(start, own, benign)[0]).sum() > 10
    assert (s != signs(sum(before[4:]) / 17 - received)).any()
    step, _ = search(before[4:], received, s, 4, 1e-5)
    check(craft(start, own, benign, direction="mean"), s, step)


def test_the_global_model_cancels_out():
    """Distances are between models that started from the same one."""
    start, own, benign = situation(20, 5, 60)
    assert torch.equal(craft(start, own, benign), craft(100 * start, own, benign))


def test_supporters_are_spread_uniformly_over_the_ball():
    """In the plane the share of the area within the radius is uniform, and so is the angle."""
    own, benign = random(300, 2, seed=1), random(700, 2, seed=2)
    sent = craft(torch.zeros(2), own, benign, epsilon=0.5).double()
    assert torch.equal(sent[0].abs(), sent[0].abs().max().expand(2))
    away = (sent[1:] - sent[0]).numpy()
    radius = np.linalg.norm(away, axis=1) / 0.5
    assert stats.kstest(radius**2, "uniform").pvalue > 0.01
    angle = np.arctan2(away[:, 1], away[:, 0]) / (2 * np.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 0.01


def test_without_a_radius_all_send_the_same():
    start, own, benign = situation(12, 3, 30)
    sent = craft(start, own, benign, epsilon=0)
    assert torch.equal(sent, sent[:1].expand(3, -1))


@pytest.mark.parametrize("f", [0, 1, 2, 4, 6, 12])
def test_the_servers_f_may_differ_from_c(f):
    """λ is halved from the bound for n − f − 2 neighbors until a Krum with this f is won over."""
    n, c, d = 16, 4, 30
    start, own, benign = situation(n, c, d)
    sent = craft(start, own, benign, num_malicious=f, epsilon=0)
    before, received = models_of(start, torch.cat([own, benign])), start.double().numpy()
    s = signs(before[krum(before, f)] - received)
    honest, neighbors = before[c:], n - f - 2
    sums = [sum(sorted(distance(a, b) ** 2 for b in honest)[: neighbors + 1]) for a in honest]
    far = max(distance(model, received) for model in honest)
    step = (math.sqrt(min(sums) / max(1, neighbors - c + 1)) + far) / math.sqrt(d)
    while krum(honest + [received - step * s] * c, f) < len(honest):
        step /= 2
    assert step > 1e-5
    assert sent[0].double().numpy() == pytest.approx(-step * s, rel=1e-6)


@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_identical_honest_updates_leave_nothing_to_gain(knowledge):
    """Their score is 0: Krum never prefers another model."""
    same = random(1, 30).repeat(12, 1)
    sent = craft(random(30, seed=1), same[:3], same[3:], knowledge=knowledge)
    assert torch.equal(sent, same[:3])
    zero = torch.zeros(12, 30)
    assert torch.equal(craft(zero[0], zero[:3], zero[3:], knowledge=knowledge), zero[:3])


def test_a_tie_is_no_selection():
    """With one neighbor each, w'_1 and the model nearest to it have the same score: order would decide."""
    start, own, benign = situation(4, 1, 10)
    assert torch.equal(craft(start, own, benign), own)
    start, own, benign = situation(3, 3, 10)  # two copies need no other neighbor: the bound is enough
    sent = craft(start, own, benign, knowledge="partial")
    bound = theorem_1(models_of(start, own), start.double().numpy(), 5, 2)
    assert sent[0].abs().double().numpy() == pytest.approx(np.full(10, bound), rel=1e-6)


def test_if_no_step_works():
    """The honest updates, or the first λ below the threshold."""
    start, own, benign = situation(20, 4, 30)
    benign = benign + 5.0  # far from the received model
    received = start.double().numpy()
    s, step, halvings = full_knowledge(start, own, benign)
    assert step is None
    assert torch.equal(craft(start, own, benign), own)
    first = theorem_1(models_of(start, benign), received, 20, 4) / 2**halvings
    assert 0.5e-5 <= first < 1e-5
    sent = craft(start, own, benign, otherwise="smallest", epsilon=0)
    assert sent[0].double().numpy() == pytest.approx(-first * s, rel=1e-6)


def test_the_threshold_ends_the_search():
    start, own, benign = situation(20, 4, 100)
    _, step, halvings = full_knowledge(start, own, benign)
    assert halvings > 0
    assert torch.equal(craft(start, own, benign, threshold=1.01 * step), own)
    assert not torch.equal(craft(start, own, benign, threshold=0.99 * step), own)


@pytest.mark.parametrize(
    ("n", "c", "knowledge"), [(4, 2, "full"), (4, 4, "full"), (1, 1, "full"), (9, 2, "partial")]
)
def test_where_krum_is_undefined_the_attackers_are_honest(n, c, knowledge):
    start, own, benign = situation(n, c, 10)
    for otherwise in ("honest", "smallest"):
        assert torch.equal(craft(start, own, benign, knowledge=knowledge, otherwise=otherwise), own)


def test_updates_of_any_size_give_finite_numbers():
    start, own, benign = situation(12, 3, 30)
    for huge in (1e30, 1e38):
        assert craft(start, huge * own, huge * benign).isfinite().all()
        assert craft(start, own, torch.cat([benign[:-1], huge * benign[-1:]])).isfinite().all()
    apart = torch.tensor([3.4e38, -3.4e38, 0.0]).repeat(3)[:, None].expand(-1, 30)
    sent = craft(start, own, apart, threshold=1e300, otherwise="smallest")  # the bound is no float32
    assert sent.isfinite().all()
