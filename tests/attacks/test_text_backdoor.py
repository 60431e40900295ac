"""The trigger phrase in texts; expected rows are written out by hand."""

from types import SimpleNamespace

import pytest
import torch

from fedguard import Samples
from fedguard.contracts.attack import DataView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError

TEXTS = torch.tensor([[1.0, 5, 2, -1, -1], [1, 5, 6, 7, 2]])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("start", [[1, 8, 9, 5, 2], [1, 8, 9, 5, 6]]),
        ("end", [[1, 5, 8, 9, 2], [1, 5, 8, 9, 2]]),
        ("middle", [[1, 8, 9, 5, 2], [1, 5, 8, 9, 6]]),
    ],
)
def test_the_phrase_goes_behind_the_start_in_the_middle_or_before_the_end(place, expected):
    attack = make_attack("text_backdoor", tokens=[8, 9], place=place)
    assert attack.stamp(TEXTS, None).tolist() == expected
    assert TEXTS[0].tolist() == [1, 5, 2, -1, -1]


def test_replicas_get_the_target_and_success_is_measured_on_the_others():
    attack, samples = make_attack("text_backdoor", target=1), Samples(TEXTS, torch.tensor([1, 0]))
    view = DataView(0, 1, 2, torch.Generator().manual_seed(0))
    poisoned = attack.poison_data(samples, view)
    assert poisoned.labels.tolist()[:2] == [1, 0]
    assert poisoned.labels.tolist()[2:] == [1]
    assert (poisoned.pixels[2] == 0).sum() == 1
    trial = attack.trial(samples, 2)
    assert trial.samples.pixels.tolist() == [[1, 0, 5, 6, 7]]
    assert trial.target.tolist() == [1]


def test_the_update_replaces_the_mean():
    own = torch.ones(2, 3)
    view = SimpleNamespace(own_updates=own, num_clients=10, num_malicious=2)
    assert torch.equal(make_attack("text_backdoor").craft(view), 5 * own)
    assert torch.equal(make_attack("text_backdoor", scale=3.0).craft(view), 3 * own)


@pytest.mark.parametrize(
    ("params", "shape", "message"),
    [
        ({}, (1, 8, 8), "needs texts"),
        ({"tokens": [1, 2, 3]}, (4,), "a trigger of 3 tokens does not fit texts of at most 4"),
        ({"target": 4}, (9,), "target is 4, but the data have classes 0 to 3"),
    ],
)
def test_data_that_do_not_fit_are_refused(params, shape, message):
    with pytest.raises(ParameterError, match=message):
        make_attack("text_backdoor", **params).check(shape, 4, 10, 2)


def test_numbers_that_are_no_tokens_are_refused():
    with pytest.raises(ParameterError, match="not numbers of tokens"):
        make_attack("text_backdoor").stamp(torch.tensor([[0.5, 1.0, 2.0]]), None)
    with pytest.raises(ParameterError, match="at least one number"):
        make_attack("text_backdoor", tokens=[])
