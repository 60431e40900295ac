"""A detector that asks for the initial model gets it: FLDetector in a simulation."""

import torch

from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation

SUITE = """\
data: digits
model: logistic_regression
clients: 10
malicious: 2
rounds: 5
training: {algorithm: scaffold, lr: 0.05}
server: {optimizer: momentum, lr: 0.5}
attacks: [{name: byzantine, mode: random}]
defenses:
  d: {detector: {name: fldetector, start: 3, window: 2, restart: true}, policy: ban}
"""


def test_the_simulation_restarts_after_a_detection(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    cell = load_suite(path, [])[0].cells()[0]
    federation = Federation(cell)
    initial, before = federation.setup.initial, federation.state_dict()
    outcomes = [federation.advance(index).outcome for index in range(4)]
    assert [o.restart for o in outcomes] == [False, False, False, True]
    assert outcomes[-1].banned.tolist() == [c in federation.malicious for c in range(10)]
    torch.testing.assert_close(federation.params, initial, rtol=0, atol=0)
    after = federation.state_dict()
    for part in ("previous_params", "optimizer", "scaffold"):
        torch.testing.assert_close(after[part], before[part], rtol=0, atol=0)
    later = federation.advance(4)
    assert set(later.asked) == set(range(10)) - set(federation.malicious)
    assert not torch.equal(federation.params, initial)
