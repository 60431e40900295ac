"""AFA against a dictionary-and-loops version of its Algorithm 1, and reputations from binomial sums."""

import math

import numpy as np
import pytest

from fedguard import Guard, Round, make_aggregator, make_detector, make_policy
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack


def cosine(a, b):
    norms = math.sqrt((a**2).sum() * (b**2).sum())
    return float(a @ b) / norms if norms else 0.0


def below_half(a, b):
    """P(Beta(a, b) < ½) for integers: at least a heads in a + b − 1 throws."""
    throws = a + b - 1
    return sum(math.comb(throws, k) for k in range(a, throws + 1)) / 2**throws


def by_hand(updates, counts, p, blocked, xi=2.0, step=0.5):
    """(iteration of removal by client, 0 if blocked; number of iterations; last cosines of all)."""
    good = [i for i in updates if i not in blocked]
    left, iteration = dict.fromkeys(blocked, 0), 0
    while True:
        iteration += 1
        aggregate = sum(p[i] * counts[i] * updates[i] for i in good) if good else 0 * updates[blocked[0]]
        s = {i: cosine(updates[i], aggregate) for i in updates}
        inside = sorted(s[i] for i in good)
        if not inside:
            return left, iteration, s, 0.0
        n = len(inside)
        mean, median = sum(inside) / n, (inside[(n - 1) // 2] + inside[n // 2]) / 2
        std = math.sqrt(sum((v - mean) ** 2 for v in inside) / n)
        if mean < median:
            out = [i for i in good if s[i] < median - xi * std]
        else:
            out = [i for i in good if s[i] > median + xi * std]
        if not out:
            return left, iteration, s, median
        left.update(dict.fromkeys(out, iteration))
        good = [i for i in good if i not in out]
        xi += step


@pytest.mark.parametrize("reputation", [True, False])
@pytest.mark.parametrize("block", [0.95, 0.6, None])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_afa_over_many_rounds(seed, block, reputation):
    rng = np.random.default_rng(seed)
    detector = make_detector("afa", block=block, reputation=reputation)
    ab, was_blocked, iterations = {}, set(), set()
    base = rng.normal(size=15)
    for t in range(12):
        ids = [int(i) for i in rng.permutation(14) if i in (1, 5) or rng.random() < 0.9]
        x = (base + 0.6 * rng.normal(size=(len(ids), 15))).astype(np.float32)
        x[ids.index(1)] = -5 * base
        x[ids.index(5)] = 0.3 * base if t % 2 else rng.normal(size=15)
        counts = rng.integers(5, 60, len(ids)).astype(float)
        alpha = {i: ab.get(i, (3, 3))[0] for i in ids}
        beta = {i: ab.get(i, (3, 3))[1] for i in ids}
        p = {i: alpha[i] / (alpha[i] + beta[i]) if reputation else 1 for i in ids}
        blocked = [i for i in ids if block is not None and below_half(alpha[i], beta[i]) > block]
        updates = {i: row.astype(float) for i, row in zip(ids, x, strict=True)}
        left, last, s, median = by_hand(updates, dict(zip(ids, counts, strict=True)), p, blocked)

        scores = detector(round_ := Round(x, ids, counts, index=t))
        assert [i for i, bad in zip(ids, scores.suspects, strict=True) if bad] == [
            i for i in ids if i in left
        ]
        assert scores.info == {"iterations": last, "blocked": len(blocked)}
        expected = [(1 + last - left[i] if i in left else 0) + abs(s[i] - median) / 4 for i in ids]
        np.testing.assert_allclose(scores.values, expected, rtol=1e-6, atol=1e-9)
        assert [bool(why) for why in scores.reasons] == [i in blocked for i in ids]
        detector.commit(round_, scores)
        detector.load_state_dict(unpack(pack(detector.state_dict())))
        for i in ids:
            ab[i] = (alpha[i] + (i not in left), beta[i] + (i in left))
        was_blocked |= set(blocked)
        iterations.add(last)
    assert (1 in was_blocked) == (block is not None)
    assert max(iterations) > 2


def test_when_a_client_is_blocked():
    """Beta(3, 3 + 6) is the first posterior with 95 % below one half."""
    assert below_half(3, 8) < 0.95 < below_half(3, 9)
    rng = np.random.default_rng(0)
    detector, base, blocked = make_detector("afa"), rng.normal(size=20), []
    for t in range(9):
        x = (base + 0.1 * rng.normal(size=(10, 20))).astype(np.float32)
        x[2] = base if t == 8 else -base
        scores = detector(round_ := Round(x, index=t))
        blocked.append(scores.reasons[2] != "")
        assert scores.suspects[2], "for good, even when it behaves"
        detector.commit(round_, scores)
    assert blocked == [False] * 6 + [True] * 3


def test_outliers_above_are_removed_when_the_mean_is_above_the_median():
    """Trap: removing on the lower side only. Copies of the aggregate's own direction stand out upwards."""
    x = np.eye(12) + 0.15
    x[7] = x.sum(0)
    scores = make_detector("afa")(x.astype(np.float32))
    assert np.flatnonzero(scores.suspects).tolist() == [7]


def test_the_aggregate_is_that_of_the_good_clients():
    """Trap: cosines to the mean of everybody. The long one hides the others until it is gone."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=30)
    x = base + 0.2 * rng.normal(size=(15, 30))
    x[0], x[1] = 300 * np.roll(base, 7), -base
    scores = make_detector("afa")(x.astype(np.float32))
    counts = dict.fromkeys(range(15), 1.0)
    left, *_ = by_hand(dict(enumerate(x.astype(np.float32).astype(float))), counts, counts, [])
    assert set(np.flatnonzero(scores.suspects)) == set(left)


def test_everybody_blocked_is_a_round_without_anybody():
    detector = make_detector("afa", block=0.5, alpha=1.0, beta=5.0)
    round_ = Round(np.random.default_rng(0).normal(size=(4, 6)))
    scores = detector(round_)
    assert scores.suspects.all()
    assert np.isfinite(scores.values).all()
    guard = Guard(detector, make_policy("exclude"), make_aggregator("mean"))
    assert guard.process(round_).kept_global


@pytest.mark.parametrize(
    "params",
    [{"xi": math.inf}, {"delta_xi": math.nan}, {"beta": 0.0}, {"block": 1.0}, {"block": 0.2}],
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(ParameterError, match=f"afa: {next(iter(params))} is"):
        make_detector("afa", **params)
