"""Optimized ALIE and IPM, and ByzMean, against their definitions written out."""

import numpy as np
import pytest
import torch

from fedguard import Guard, Round, make_aggregator, make_attack
from fedguard.attacks._line_search import line_maximize
from fedguard.contracts.attack import UpdateView
from fedguard.core.errors import ParameterError

N, M, D = 11, 3, 6
BENIGN = np.random.default_rng(0).normal(1.0, 1.0, size=(N - M, D))


def seen(aggregator="median", detector=()):
    rule = make_aggregator(aggregator)
    return UpdateView(
        index=0,
        num_clients=N,
        global_params=torch.zeros(D),
        initial_params=torch.zeros(D),
        own_updates=torch.zeros(M, D),
        generator=torch.Generator(),
        benign_updates=torch.tensor(BENIGN, dtype=torch.float32),
        aggregator=rule,
        defense=Guard(detector, aggregator=rule),
    )


def test_the_search_takes_the_steps_of_its_description():
    """f is best at 5: 0, 1, 3, then 7 is worse; δ 4 · 0.5 back and forth around the best point."""
    tried = []
    best = line_maximize(lambda x: tried.append(x) or -abs(x - 5), 7, 0.0, 1.0, 0.5)
    assert tried == [0, 1, 3, 7, 5, 4, 4.5]
    assert best == 5


def test_the_search_never_goes_below_zero():
    tried = []
    assert line_maximize(lambda x: tried.append(x) or -x, 12, 0.0, 1.0, 0.8) == 0
    assert min(tried) >= 0
    assert len(tried) == 12


def damage(rule, attack, factor):
    """‖A(crafted, benign) − μ‖ in NumPy."""
    mean = BENIGN.mean(0)
    crafted = mean - factor * (BENIGN.std(0) if attack == "alie" else mean)
    return np.linalg.norm(rule(np.vstack([BENIGN, [crafted] * M])) - mean)


def median(rows):
    return np.median(rows, axis=0)


def trimmed(rows):
    return np.sort(rows, axis=0)[M:-M].mean(0)


@pytest.mark.parametrize("attack", ["alie", "ipm"])
@pytest.mark.parametrize(
    ("name", "rule"), [("median", median), ("trimmed_mean", trimmed), ("mean", lambda rows: rows.mean(0))]
)
def test_it_sends_the_best_factor_of_those_it_tries(attack, name, rule):
    spec = {"name": name, "num_malicious": M} if name == "trimmed_mean" else name
    built = make_aggregator(**spec) if isinstance(spec, dict) else make_aggregator(spec)
    view = seen()
    view._known["aggregator"] = built
    view._known["defense"] = Guard(aggregator=built)
    sent = make_attack("optimized", attack=attack).craft(view).double().numpy()
    best = line_maximize(lambda x: damage(rule, attack, x), 16, 0.0, 1.0, 0.8)
    assert best > 0
    mean = BENIGN.mean(0)
    expected = mean - best * (BENIGN.std(0) if attack == "alie" else mean)
    np.testing.assert_allclose(sent, [expected] * M, rtol=1e-4, atol=1e-4)
    assert damage(rule, attack, best) >= max(damage(rule, attack, x) for x in (0.5, 1.0))


def test_a_detector_keeps_the_factor_small():
    """Krum-like filtering of far updates: what is suspected does no damage, so it is not sent."""
    free = make_attack("optimized").craft(seen("mean"))
    watched_view = seen("mean", {"name": "norm_bound", "bound": 4.0})
    watched = make_attack("optimized").craft(watched_view)
    assert free[0].norm() > 100
    rows = np.vstack([watched.numpy(), BENIGN])
    assert not watched_view.defense.suspects(Round(rows))[:M].any()
    assert watched[0].norm() <= 4.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attack": "lie"}, "attack"),
        ({"evals": 0}, "evals is 0"),
        ({"start": -1.0}, "start is -1.0"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"ratio": 0.5}, "ratio is 0.5"),
    ],
)
def test_parameters_out_of_range(params, message):
    with pytest.raises(ParameterError, match=message):
        make_attack("optimized", **params)


@pytest.mark.parametrize(("share", "first"), [(0.5, 1), (0.0, 0), (0.9, 2)])
def test_the_mean_of_all_is_what_the_first_group_sends(share, first):
    sent = make_attack("byz_mean", share=share).craft(seen()).double().numpy()
    aim = BENIGN.mean(0) - 0.5 * BENIGN.std(0)
    np.testing.assert_allclose(sent[:first], np.tile(aim, (first, 1)), atol=1e-5)
    np.testing.assert_allclose(np.vstack([sent, BENIGN]).mean(0), aim, atol=1e-5)
    assert (sent[first:] == sent[-1]).all()


def test_byz_mean_makes_any_attack_the_mean():
    sent = make_attack("byz_mean", attack={"name": "ipm", "epsilon": 2.0}).craft(seen()).double().numpy()
    np.testing.assert_allclose(np.vstack([sent, BENIGN]).mean(0), -2 * BENIGN.mean(0), atol=1e-4)
    with pytest.raises(ParameterError, match=r"share is 1.0"):
        make_attack("byz_mean", share=1.0)
