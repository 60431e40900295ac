"""Krum, m-Krum and Multi-Krum against plain loops in float64 (Blanchard 2017 §4, NDSS 2021 §II-C2)."""

import numpy as np
import pytest

from fedguard import Round, make_aggregator, make_detector
from fedguard.aggregators.krum import Krum as KrumRule
from fedguard.core.errors import ParameterError, TooFewClientsError
from fedguard.judging.too_few import told


def scores_by_hand(updates, f):
    """Sum of squared distances to the n - f - 2 nearest others, one coordinate after the other."""
    n = len(updates)
    scores = []
    for i in range(n):
        distances = []
        for j in range(n):
            if j != i:
                total = 0.0
                for a, b in zip(updates[i], updates[j], strict=True):
                    total += (float(a) - float(b)) ** 2
                distances.append(total)
        scores.append(sum(sorted(distances)[: n - f - 2]))
    return scores


def multi_krum_by_hand(updates, f, m):
    """Take Krum's choice out again and again while more than 2f + 2 are left, or until m are chosen."""
    left = list(range(len(updates)))
    chosen = []
    while (len(left) > 2 * f + 2) if m is None else (len(chosen) < m and len(left) > f + 2):
        scores = scores_by_hand([updates[i] for i in left], f)
        best = scores.index(min(scores))
        chosen.append(left.pop(best))
    return chosen


def updates_of(n, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 7)) * scale
    matrix[1] *= 4
    return matrix.astype(np.float32)


CASES = [(5, 1), (9, 3), (10, 2), (12, 0), (7, 4)]


@pytest.mark.parametrize(("n", "f"), CASES)
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_scores_are_the_sums_over_the_nearest_others(n, f, scale):
    updates = updates_of(n, seed=n, scale=scale)
    scores = make_detector("krum", num_malicious=f)(updates)
    by_hand = scores_by_hand(updates, f)
    np.testing.assert_allclose(scores.values, by_hand, rtol=1e-9)
    assert np.flatnonzero(~scores.suspects).tolist() == [int(np.argmin(by_hand))]


@pytest.mark.parametrize(("n", "f"), CASES)
@pytest.mark.parametrize("m", [None, 1, 3])
def test_m_krum_keeps_the_m_lowest_in_one_shot(n, f, m):
    updates = updates_of(n, seed=10 + n)
    suspects = make_detector("krum", num_malicious=f, select="m_krum", m=m)(updates).suspects
    expected = sorted(range(n), key=scores_by_hand(updates, f).__getitem__)[: n - f if m is None else m]
    assert set(np.flatnonzero(~suspects)) == set(expected)


@pytest.mark.parametrize(("n", "f"), CASES)
@pytest.mark.parametrize("m", [None, 1, 3])
def test_multi_krum_repeats_krum_on_those_that_remain(n, f, m):
    updates = updates_of(n, seed=20 + n)
    detector = make_detector("krum", num_malicious=f, select="multi_krum", m=m)
    if n < 2 * f + 3:  # as NDSS 2021 has it, nobody would be selected
        with pytest.raises(TooFewClientsError, match=f"krum needs at least {2 * f + 3} clients"):
            detector(updates)
        return
    suspects = detector(updates).suspects
    assert set(np.flatnonzero(~suspects)) == set(multi_krum_by_hand(updates, f, m))


def test_multi_krum_is_not_m_krum():
    """The cases above can tell one from the other: somewhere the two keep different clients."""
    different = False
    for seed in range(20):
        updates = updates_of(12, seed)
        one_shot = sorted(range(12), key=scores_by_hand(updates, 3).__getitem__)[:4]
        different |= set(one_shot) != set(multi_krum_by_hand(updates, 3, 4))
    assert different


def test_a_duplicate_counts_as_a_neighbor_and_oneself_does_not():
    updates = np.array([[0.0], [0.0], [1.0], [3.0], [7.0]], dtype=np.float32)
    assert make_detector("krum", num_malicious=1)(updates).values.tolist() == [1, 1, 2, 13, 52]


def test_the_aggregation_rule_returns_the_same_choice():
    updates = updates_of(9, seed=3)
    choice = int(np.argmin(scores_by_hand(updates, 3)))
    assert KrumRule(3)(Round(updates)).tolist() == updates[choice].tolist()


@pytest.mark.parametrize("f", [2, 5])
def test_too_few_clients_for_one_neighbor(f):
    with pytest.raises(TooFewClientsError, match=f"at least {f + 3} clients"):
        make_detector("krum", num_malicious=f)(updates_of(f + 2, seed=0))


@pytest.mark.parametrize("params", [{"num_malicious": -1}, {"m": 2}, {"select": "m_krum", "m": 0}])
def test_refuses_parameters_that_make_no_sense(params):
    with pytest.raises(ParameterError, match="krum"):
        make_detector("krum", **params)


@pytest.mark.parametrize("make", [make_detector, make_aggregator])
def test_a_round_too_small_for_the_proof_is_a_warning_once_per_process(make, caplog, monkeypatch):
    """n ≥ 2f + 3; neither a guard's copies that assume fewer attackers nor the next run's Krum warn again."""
    monkeypatch.setattr("fedguard.aggregators.krum._WARNED", set())
    method = make("krum", num_malicious=2)
    method(updates_of(7, seed=0))
    assert not caplog.records
    for n in (6, 5):
        method(updates_of(n, seed=0))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.name.startswith("fedguard.")
    assert "6 clients" in record.getMessage()
    assert "at least 7" in record.getMessage()
    make("krum", num_malicious=2)(updates_of(6, seed=0))
    assert len(caplog.records) == 1, "another object does not repeat it"
    told(method, 1)(updates_of(4, seed=0))
    assert len(caplog.records) == 2, "another f is another remark"


def test_without_a_number_of_attackers_no_round_is_too_small(caplog):
    for n in range(3, 9):
        make_detector("krum", select="m_krum")(updates_of(n, seed=0))
        make_aggregator("krum")(updates_of(n, seed=0))
    assert not caplog.records


@pytest.mark.parametrize(("n", "f"), [(9, 2), (12, 3)])
def test_the_default_of_multi_krum_keeps_one_more_than_the_text(n, f):
    """NDSS 2021, §II-C2: n − c > 2f + 2 for c selected; the released code checks before it selects."""
    default = make_detector("krum", num_malicious=f, select="multi_krum")
    kept = (~default(updates_of(n, seed=n)).suspects).sum()
    assert n - kept == 2 * f + 2
    text = make_detector("krum", num_malicious=f, select="multi_krum", m=n - 2 * f - 3)
    assert n - (~text(updates_of(n, seed=n)).suspects).sum() == 2 * f + 3
