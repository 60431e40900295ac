"""What clients claim to have: inflated by attackers, bounded by a stage."""

import numpy as np
import pytest

from fedguard import Guard, Round
from fedguard.contracts.registry import make_aggregator, make_attack, make_policy, make_stage
from fedguard.core.errors import ParameterError
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """
clients: 10
malicious: 1
rounds: 3
model: logistic_regression
training: {epochs: 1, lr: 0.1}
attacks:
  - {label: honest_counts, name: label_flip}
  - {label: inflated, name: inflated_counts, factor: 1000}
defenses:
  fedavg: {}
  clipped: {stages: {name: count_clipping, factor: 1}}
"""


def test_claims_are_the_truth_unless_an_attack_lies():
    counts, everybody = np.array([3.0, 5.0]), np.array([3.0, 4.0, 5.0])
    assert make_attack("lie").claim(counts, everybody) is counts
    assert make_attack("inflated_counts", factor=10).claim(counts, everybody).tolist() == [30, 50]
    nested = {"name": "inflated_counts", "factor": 10}
    twice = make_attack("inflated_counts", attack=nested, factor=2)
    assert twice.claim(counts, everybody).tolist() == [60, 100]
    assert make_attack("adaptive", attack=nested).claim(counts, everybody).tolist() == [30, 50]
    for factor in (1.0, float("inf"), -3):
        with pytest.raises(ParameterError, match="factor is"):
            make_attack("inflated_counts", factor=factor)


def test_the_stage_by_hand():
    updates = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]], dtype=np.float32)
    counts = [10, 20, 30, 40, 1e9]
    guard = Guard([], make_policy("observe"), make_aggregator("mean"), stages=[make_stage("count_clipping")])
    expected = (10 * 1 + 20 * 2 + 30 * 3 + 40 * 4 + 90 * 100) / (10 + 20 + 30 + 40 + 90)
    assert guard.process(Round(updates, num_examples=counts)).aggregate.item() == pytest.approx(expected)
    assert guard.process(Round(updates, index=1)).aggregate.item() == pytest.approx(22)
    with pytest.raises(ParameterError, match=r"factor is 0\.5"):
        make_stage("count_clipping", factor=0.5)


def test_one_client_that_claims_a_thousandfold_owns_the_model_unless_claims_are_bounded(tmp_path):
    (tmp_path / "s.yaml").write_text(SUITE)
    suite, source = load_suite(tmp_path / "s.yaml")
    check_suite(suite, source)
    store = run_suite(suite, tmp_path / "out", workers=1)
    tacc = store.table("runs").set_index(["attack", "defense"])["tacc"]
    assert tacc["honest_counts", "fedavg"] > 0.6
    assert tacc["inflated", "fedavg"] < 0.3, "one of ten clients rules"
    assert tacc["inflated", "clipped"] > 0.6


def test_only_attackers_of_this_round_lie(tmp_path, monkeypatch):
    from fedguard.simulation.federation import Federation

    (tmp_path / "s.yaml").write_text(SUITE.replace("factor: 1000}", "factor: 1000, schedule: {start: 2}}"))
    suite, _ = load_suite(tmp_path / "s.yaml", ["clients=6", "malicious=2"])
    cell = next(c for c in suite.cells() if c.attack_label == "inflated" and c.defense_label == "fedavg")
    federation, rounds = Federation(cell), []
    process = Guard.process
    monkeypatch.setattr(Guard, "process", lambda self, r: rounds.append(r.num_examples) or process(self, r))
    federation.run()
    truth = np.array([len(federation.setup.samples[c]) for c in range(6)], dtype=float)
    assert np.array_equal(rounds[0], truth)
    assert np.array_equal(rounds[1], truth)
    factors = np.ones(6)
    factors[federation.malicious] = 1000
    assert np.array_equal(rounds[2], truth * factors)
