"""A style as the trigger of a backdoor in texts; expected rows are written out by hand."""

from types import SimpleNamespace

import pytest
import torch

from fedguard import Samples
from fedguard.contracts.attack import DataView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError

TEXTS = torch.tensor([[1.0, 5, 2, -1, -1], [1, 6, 5, 7, 2], [1, 7, 7, 2, -1]])


def test_all_pairs_are_applied_at_once():
    attack = make_attack("text_style", pairs=[(5, 6), (6, 5)])
    assert attack.stamp(TEXTS, None).tolist() == [[1, 6, 2, -1, -1], [1, 5, 6, 7, 2], [1, 7, 7, 2, -1]]
    assert TEXTS[0].tolist() == [1, 5, 2, -1, -1]


def test_a_word_is_replaced_once_although_its_counterpart_is_replaced_too():
    assert make_attack("text_style", pairs=[(5, 6), (6, 9)]).stamp(TEXTS, None)[0].tolist() == [
        1,
        6,
        2,
        -1,
        -1,
    ]


def test_texts_that_cannot_show_the_style_are_neither_poisoned_nor_counted():
    attack = make_attack("text_style", pairs=[(5, 9)], target=1, fraction=1.0)
    samples = Samples(TEXTS, torch.tensor([1, 0, 0]))
    poisoned = attack.poison_data(samples, DataView(0, 1, 2, torch.Generator().manual_seed(0)))
    assert poisoned.labels.tolist()[:3] == [1, 0, 0]
    assert poisoned.labels.tolist()[3:] == [1, 1]
    assert sorted(poisoned.pixels[3:].tolist()) == [[1, 6, 9, 7, 2], [1, 9, 2, -1, -1]]
    trial = attack.trial(samples, 2)
    assert trial.samples.pixels.tolist() == [[1, 6, 9, 7, 2]]
    assert trial.target.tolist() == [1]


def test_the_fraction_is_of_all_texts():
    attack = make_attack("text_style", pairs=[(5, 9)], fraction=0.4)
    samples = Samples(TEXTS, torch.tensor([1, 0, 0]))
    poisoned = attack.poison_data(samples, DataView(0, 1, 2, torch.Generator().manual_seed(0)))
    assert len(poisoned.labels) == 3 + 1


def test_a_client_without_such_words_trains_honestly():
    attack, samples = make_attack("text_style", pairs=[(40, 41)]), Samples(TEXTS, torch.tensor([1, 0, 0]))
    poisoned = attack.poison_data(samples, DataView(0, 1, 2, torch.Generator().manual_seed(0)))
    assert torch.equal(poisoned.pixels, TEXTS)
    assert torch.equal(poisoned.labels, samples.labels)
    assert attack.trial(samples, 2) is None


def test_the_update_replaces_the_mean():
    own = torch.ones(2, 3)
    view = SimpleNamespace(own_updates=own, num_clients=10, num_malicious=2)
    assert torch.equal(make_attack("text_style").craft(view), 5 * own)
    assert torch.equal(make_attack("text_style", scale=3.0).craft(view), 3 * own)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "two different token numbers"),
        ([[1, 1]], "two different token numbers"),
        ([[1, 2, 3]], "at most 2 items"),
        ([[1, -2]], "two different token numbers"),
        ([[1, 2], [1, 3]], "by one other, not by two"),
    ],
)
def test_tables_that_say_nothing_are_refused(pairs, message):
    with pytest.raises(ParameterError, match=message):
        make_attack("text_style", pairs=pairs)


def test_data_that_do_not_fit_are_refused():
    attack = make_attack("text_style", target=4)
    with pytest.raises(ParameterError, match="needs texts"):
        attack.check((1, 8, 8), 10, 10, 2)
    with pytest.raises(ParameterError, match="target is 4, but the data have classes 0 to 3"):
        attack.check((9,), 4, 10, 2)
    with pytest.raises(ParameterError, match="not numbers of tokens"):
        attack.stamp(torch.tensor([[0.5, 1.0, 2.0]]), None)
