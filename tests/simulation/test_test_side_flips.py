"""FedSecurity's label flips on the malicious clients' test data: a share m / N of the test set."""

import pytest
import torch

from fedguard import make_attack
from fedguard.contracts.data import Samples
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.client_data import evaluation_batches
from fedguard.simulation.federation import Federation
from fedguard.simulation.keys import CellKey

PAIRS = "mode: pairs, pairs: {3: 9, 2: 1}"


def cell(attack):
    changes = [f"attacks=[{attack}]", "rounds=2", "defenses={d: {}}", "clients=20", "malicious=5"]
    return load_suite("quickstart", changes)[0].cells()[0]


def labels(cell, targeted=False):
    return torch.cat([part.labels for part in evaluation_batches(CellKey.of(cell), targeted)])


@pytest.mark.parametrize(("mode", "flip"), [("reverse", lambda x: 9 - x), ("next", lambda x: (x + 1) % 10)])
def test_a_quarter_of_the_test_labels_is_flipped(mode, flip):
    clean, flipped = (
        labels(cell(f"{{name: label_flip, mode: {mode}, test_side: {on}}}")) for on in ("false", "true")
    )
    changed = clean != flipped
    assert int(changed.sum()) == round(len(clean) * 5 / 20)
    assert torch.equal(flipped[changed], flip(clean[changed]))


def test_pairs_flip_their_classes_only_and_leave_the_trial():
    one, other = (cell(f"{{name: label_flip, {PAIRS}, test_side: {on}}}") for on in ("false", "true"))
    clean, flipped = labels(one), labels(other)
    changed = (clean != flipped).nonzero().flatten()
    assert 0 < len(changed) < len(clean) / 4
    assert {(int(clean[i]), int(flipped[i])) for i in changed} == {(3, 9), (2, 1)}
    assert torch.equal(labels(one, True), labels(other, True))


def test_the_draw_is_by_sample_and_the_input_stays():
    test = Samples(torch.zeros(40, 1, 2, 2), torch.full((40,), 3))
    attack = make_attack("label_flip", mode="pairs", pairs={3: 9}, test_side=True)
    found = attack.poison_test(test, 0.3, 10, torch.Generator().manual_seed(0))
    assert (found.labels == 9).sum() == 12
    assert (test.labels == 3).all()
    assert make_attack("label_flip").poison_test(test, 0.3, 10, torch.Generator()) is test


def test_accuracy_is_measured_on_the_flipped_labels():
    """The same model: its accuracy differs by what the flipped labels make of its predictions."""
    plain, flipped = (cell(f"{{name: label_flip, mode: next, test_side: {on}}}") for on in ("false", "true"))
    runs = [Federation(c) for c in (plain, flipped)]
    one, other = (run.run()[-1].tacc for run in runs)
    torch.testing.assert_close(runs[0].params, runs[1].params, rtol=0, atol=0)
    assert other < one
