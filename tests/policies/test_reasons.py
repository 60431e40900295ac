"""Reasons per client: checked, spread over unusable updates, quoted in verdicts."""

import numpy as np
import pytest

from fedguard import Card, Detector, Ledger, PolicyInput, Round, Scores, make_policy
from fedguard.core.errors import DetectorError


class Telling(Detector):
    """The first two clients are suspects; the reasons are as given."""

    card = Card("telling", "for tests", "FedGuard")

    def __init__(self, reasons):
        self.reasons = reasons

    def score(self, round):
        return Scores(np.zeros(round.n), np.arange(round.n) < 2, "the usual", reasons=self.reasons)


X = np.ones((3, 2), dtype=np.float32)


def quoted(scores, rule="native"):
    case = PolicyInput(0, tuple(range(len(scores.values))), {"telling": scores}, Ledger())
    return [
        text.removeprefix("telling score 0") for text in make_policy("observe", rule=rule).suspects(case)[1]
    ]


def test_a_suspects_own_reason_takes_the_place_of_the_usual_one():
    assert quoted(Telling(("mine", "", "unheard"))(X)) == [": mine", ": the usual", ""]
    assert quoted(Telling(None)(X)) == [": the usual", ": the usual", ""]


def test_under_another_rule_the_rule_gives_the_reason():
    said = quoted(Telling(("mine", "", "unheard"))(X), {"name": "top", "count": 3})
    assert said == [": among the 3 highest scores"] * 3


def test_clients_that_were_not_scored_have_a_reason_as_well():
    bad = X.copy()
    bad[1] = np.nan
    scores = Telling(("mine", "yours"))(Round(bad))
    assert scores.reasons == ("mine", "its update cannot be used", "yours")
    assert Telling(None)(Round(bad)).reasons is None


def test_there_is_a_reason_for_every_client_or_for_none():
    with pytest.raises(DetectorError, match="telling returned 2 reasons for 3 clients"):
        Telling(("mine", "yours"))(X)
