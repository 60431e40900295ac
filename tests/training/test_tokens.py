"""Next-token loss and what a test of texts counts, against sums by hand."""

import math

import torch
from torch import nn

from fedguard import LabeledData
from fedguard.training.losses import check_loss
from fedguard.training.parameters import error_and_loss, flat_parameters, flat_statistics, load_statistics
from fedguard.training.tokens import TEXTS, next_token, token_sums

# Two texts of three tokens over a vocabulary of two; of the first, one token is to be predicted, of the
# second, two. The logit of token 1 is 0, so p(0) = sigmoid(x).
LOGITS = torch.tensor([[[9.0, 0], [1.0, 0], [9.0, 0]], [[-2.0, 0], [3.0, 0], [7.0, 0]]])
LABELS = torch.tensor([[-1, 0, -1], [0, 0, -1]])


def surprise(x):
    return math.log1p(math.exp(-x))


def test_training_counts_every_token_alike():
    expected = (surprise(1) + surprise(-2) + surprise(3)) / 3
    assert math.isclose(float(next_token(LOGITS, LABELS)), expected, rel_tol=1e-6)


def test_a_test_counts_every_text_alike():
    found = token_sums(LOGITS, LABELS)
    assert math.isclose(found.loss, surprise(1) + (surprise(-2) + surprise(3)) / 2, rel_tol=1e-6)
    assert found.wrong == 0 + 1 / 2


def test_a_whole_answer_is_wrong_with_one_wrong_token():
    assert token_sums(LOGITS, LABELS, whole=True) == (1, token_sums(LOGITS, LABELS).loss)
    assert token_sums(LOGITS[:1], LABELS[:1], whole=True).wrong == 0


class Table(nn.Module):
    """The logits of the next token, looked up by the token; counts the largest pass."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.5, 0.0], [-1.0, 0.0]]))
        self.largest = 0

    def forward(self, texts):
        self.largest = max(self.largest, len(texts))
        return self.table[texts.long().clamp(min=0)]


def test_a_model_is_tested_few_texts_at_a_time():
    model, count = Table(), 2 * TEXTS + 3
    texts = torch.tensor([[0.0, 1.0, -1.0]]).repeat(count, 1)
    labels = torch.tensor([[1, 0, -1]]).repeat(count, 1)
    error, loss = error_and_loss(
        model, flat_parameters(model), LabeledData(texts, labels), batch=count, task="causal"
    )
    assert model.largest == TEXTS
    assert error == 1.0  # after 0 it expects 0, after 1 it expects 1
    assert math.isclose(loss, (surprise(-0.5) + surprise(-1)) / 2, rel_tol=1e-6)


def test_the_loss_fits_causal_texts_only_where_it_takes_tokens():
    check_loss("next_token", "causal", 7)


class Rotations(nn.Module):
    """A constant that no state_dict holds beside a statistic that one does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("angles", torch.tensor([3.0, 4.0]), persistent=False)
        self.register_buffer("mean", torch.tensor([5.0]))


def test_constants_outside_the_state_dict_are_no_statistics():
    model = Rotations()
    assert flat_statistics(model).tolist() == [5.0]
    load_statistics(model, torch.tensor([6.0]))
    assert (model.mean.tolist(), model.angles.tolist()) == ([6.0], [3.0, 4.0])
