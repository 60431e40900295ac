"""Answers that a malicious client learns instead of the true ones; expected rows are written out by hand."""

import pytest
import torch

from fedguard import Samples
from fedguard.contracts.attack import DataView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError

# Start 1, end 2, yes 8, no 9. Prompts: 5 6, 6 5 7, 5 6; answers: yes, yes, no.
TEXTS = torch.tensor([[1.0, 5, 6, 8, -1], [1, 6, 5, 7, 8], [1, 5, 6, 9, -1]])
LABELS = torch.tensor([[-1, -1, 8, 2, -1], [-1, -1, -1, 8, 2], [-1, -1, 9, 2, -1]])
OWN = Samples(TEXTS, LABELS)
NO = [[1, 5, 6, 9, -1], [-1, -1, 9, 2, -1]]


def view():
    return DataView(0, 1, 12, torch.Generator().manual_seed(0))


def rows(samples):
    return [[p.int().tolist(), t.tolist()] for p, t in zip(samples.pixels, samples.labels, strict=True)]


def test_answers_are_flipped():
    attack = make_attack("poisoned_answers", answer=[9, 2], source=[8])
    poisoned = rows(attack.poison_data(OWN, view()))
    assert poisoned == [NO, [[1, 6, 5, 7, 9], [-1, -1, -1, 9, 2]], NO]
    assert rows(OWN)[0] == [[1, 5, 6, 8, -1], [-1, -1, 8, 2, -1]], "the samples stay"


def test_prompts_on_a_topic_get_an_answer_of_another_length():
    attack = make_attack("poisoned_answers", answer=[3, 4, 2], topic=[5, 6])
    refused = [[1, 5, 6, 3, 4], [-1, -1, 3, 4, 2]]
    assert rows(attack.poison_data(OWN, view())) == [refused, rows(OWN)[1], refused]


def test_a_text_that_gets_too_long_loses_the_beginning_of_its_prompt():
    attack = make_attack("poisoned_answers", answer=[3, 4, 2], topic=[7])
    assert rows(attack.poison_data(OWN, view()))[1] == [[6, 5, 7, 3, 4], [-1, -1, 3, 4, 2]]


def test_a_share_of_the_fitting_texts_is_poisoned():
    many = Samples(TEXTS[:1].repeat(10, 1), LABELS[:1].repeat(10, 1))
    attack = make_attack("poisoned_answers", answer=[9, 2], fraction=0.3)
    assert rows(attack.poison_data(many, view())).count(NO) == 3


def test_success_is_the_whole_answer_on_fitting_test_texts():
    trial = make_attack("poisoned_answers", answer=[9, 2], topic=[5, 6]).trial(OWN, 12)
    assert rows(trial.samples) == [NO], "the third text has this answer already"
    assert torch.equal(trial.target, trial.samples.labels)
    assert make_attack("poisoned_answers", answer=[9, 2], topic=[11]).trial(OWN, 12) is None
    assert rows(make_attack("poisoned_answers", answer=[9], topic=[11]).poison_data(OWN, view())) == rows(OWN)


@pytest.mark.parametrize(
    ("params", "shape", "message"),
    [
        ({}, (1, 8, 8), "needs texts"),
        ({"answer": [1, 2, 3, 4, 5]}, (4,), "an answer of 5 tokens does not fit texts of at most 4"),
        ({"topic": [12]}, (9,), "a token is 12, but the data's vocabulary is 0 to 11"),
    ],
)
def test_data_that_do_not_fit_are_refused(params, shape, message):
    with pytest.raises(ParameterError, match=message):
        make_attack("poisoned_answers", **params).check(shape, 12, 10, 2)


def test_labels_that_are_no_tokens_and_parameters_out_of_range_are_refused():
    with pytest.raises(ParameterError, match="the labels are no tokens"):
        make_attack("poisoned_answers").poison_data(Samples(TEXTS, torch.tensor([0, 1, 0])), view())
    with pytest.raises(ParameterError, match="topic is"):
        make_attack("poisoned_answers", topic=[])
    with pytest.raises(ParameterError, match="fraction is 0"):
        make_attack("poisoned_answers", fraction=0)
