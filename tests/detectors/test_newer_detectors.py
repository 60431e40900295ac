"""AlignIns, LFighter, MESAS, FLTracer and AGSD in a federation, from training to metrics."""

import numpy as np
import pytest

from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite

#: An attack that each must see, and the lowest AUROC. MESAS compares sizes above all, and a reversed update
#: has the usual one. A backdoor of three rounds has little of the bias that AGSD looks for.
SEES = {
    "alignins": ("flip", 0.9),
    "lfighter": ("flip", 0.9),
    "fltracer": ("flip", 0.9),
    "mesas": ("scaled", 0.9),
    "agsd": ("scaled", 0.6),
}


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    suite = Suite(
        name="newer",
        data="digits",
        model="logistic_regression",
        clients=10,
        malicious=3,
        rounds=3,
        training={"steps": 10, "batch_size": 16, "lr": 0.1},
        partition={"name": "dirichlet", "beta": 100.0},
        server={"validation": 50},
        mode="shadow",
        attacks={"flip": {"name": "byzantine", "mode": "flip"}, "scaled": {"name": "scaling_backdoor"}},
        defenses={name: {"detector": name} for name in SEES},
    )
    folder = tmp_path_factory.mktemp("newer")
    run_suite(suite, folder, workers=1)
    return read_results(folder)


@pytest.mark.parametrize("name", SEES)
def test_attackers_rank_above_honest_clients(frame, name):
    """Near-IID data and a crude attack: the easiest case that there is."""
    attack, lowest = SEES[name]
    row = frame[(frame["defense"] == name) & (frame["attack"] == attack)].iloc[0]
    assert row["auroc"] > lowest
    assert 0 <= row["fpr"] <= 1
    assert np.isfinite(row["dacc"])
