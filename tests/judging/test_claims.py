"""How far claimed numbers of samples count: by hand, in every way to aggregate."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedguard import Card, Detector, Guard, Round, Scores, load_guard
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.judging.claims import counted

CLAIMS = [10, 20, 30, 40, 900]  # the median is 30


def test_the_largest_claim_counts_as_three_medians():
    updates = torch.eye(5)
    outcome = Guard(claim_limit=3).process(Round(updates, num_examples=CLAIMS))
    total = 10 + 20 + 30 + 40 + 90
    assert outcome.aggregate.tolist() == pytest.approx([c / total for c in (10, 20, 30, 40, 90)])
    assert outcome.counted.tolist() == pytest.approx([1, 1, 1, 1, 0.1])
    assert outcome.weights.tolist() == [1] * 5
    assert "its claimed samples count as 3 times the median" in outcome.reasons[4]
    assert "claimed" not in outcome.reasons[3]


def test_without_a_limit_all_claims_count():
    outcome = Guard().process(Round(torch.eye(5), num_examples=CLAIMS))
    assert outcome.aggregate[4] == pytest.approx(0.9)
    assert outcome.counted.tolist() == [1] * 5


def test_detectors_see_what_was_claimed():
    seen = []

    class Telling(Detector):
        card = Card("telling", "remembers claims", "a test")

        def score(self, round):
            seen.append(round.num_examples.tolist())
            return Scores(np.zeros(round.n), np.zeros(round.n, bool))

    Guard(Telling(), claim_limit=2).process(Round(torch.eye(5), num_examples=CLAIMS))
    assert seen == [CLAIMS]


def test_rules_that_ignore_claims_are_left_as_they_are():
    round = Round(torch.eye(5), num_examples=CLAIMS)
    same = Guard(aggregator="median").process(round).aggregate
    assert torch.equal(Guard(aggregator="median", claim_limit=1).process(round).aggregate, same)


def test_it_is_the_stage_if_the_guard_aggregates():
    round = Round(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), num_examples=CLAIMS)
    stage = Guard(stages="count_clipping").process(round).aggregate
    assert torch.allclose(Guard(claim_limit=3.0).process(round).aggregate, stage, rtol=1e-6)


def test_the_median_is_of_those_that_are_accepted_as_the_stage_takes_it():
    updates = torch.eye(6) + 1
    updates[4:] *= -100
    round = Round(updates, num_examples=[10, 20, 60, 100, 10**6, 10**6])
    detector = {"name": "krum", "num_malicious": 2, "select": "m_krum"}
    outcome = Guard(detector, claim_limit=1).process(round)
    assert outcome.suspects.tolist() == [False] * 4 + [True] * 2
    assert outcome.counted.tolist() == pytest.approx([1, 1, 40 / 60, 40 / 100, 1, 1])
    stage = Guard(detector, stages={"name": "count_clipping", "factor": 1}).process(round)
    assert torch.allclose(outcome.aggregate, stage.aggregate, rtol=1e-6)


def test_unusable_and_banned_clients_have_no_say_in_the_median():
    updates = torch.eye(5)
    updates[:2] = float("nan")
    outcome = Guard(claim_limit=1).process(Round(updates, num_examples=[1e9, 1e9, 10, 20, 30]))
    assert outcome.counted[2:].tolist() == pytest.approx([1, 1, 2 / 3])
    assert outcome.reasons[0] == "non-finite update"


def test_clients_keep_their_order():
    outcome = Guard(claim_limit=3).process(
        Round(torch.eye(5), client_ids=["e", "d", "c", "b", "a"], num_examples=CLAIMS[::-1])
    )
    assert outcome.counted.tolist() == pytest.approx([0.1, 1, 1, 1, 1])


@given(
    st.lists(st.floats(1, 1e12), min_size=3, max_size=9),
    st.floats(1, 10),
    st.integers(1, 4),
)
def test_a_minority_has_a_bounded_share(honest, limit, bad):
    bad = min(bad, len(honest) - 1)
    claims = np.array([*honest, *[1e15] * bad])
    kept = claims * counted(claims, limit)
    bound = limit * bad / (limit * bad + max(len(claims) / 2 - bad, 0))  # as in CountClipping
    assert kept[len(honest) :].sum() / kept.sum() <= bound + 1e-9


@pytest.mark.parametrize("limit", [0.5, -1, float("inf"), float("nan")])
def test_nonsense_is_refused(limit):
    with pytest.raises(ParameterError, match="claim_limit is"):
        Guard(claim_limit=limit)


def test_a_file_can_say_it(tmp_path):
    path = tmp_path / "guard.yaml"
    path.write_text("detectors: krum\nclaim_limit: 2\n")
    assert load_guard(path).claim_limit == 2
    path.write_text("claim_limit: many\n")
    with pytest.raises(ConfigError, match=r"guard\.yaml:1: claim_limit: 'many' is not a number"):
        load_guard(path)
