"""Guard.recommended: built by name, bans with a reason, leaves clean rounds alone."""

import numpy as np
import pytest
import torch

from fedguard import Guard, Round
from fedguard.core.errors import ParameterError


def rounds(count, n=12, d=40, bad=()):
    center = torch.randn(d, generator=torch.Generator().manual_seed(0))
    for t in range(count):
        draw = torch.Generator().manual_seed(t + 1)
        matrix = center + 1.5 * torch.randn(n, d, generator=draw)
        for i in bad:
            matrix[i] = -2 * center
        yield Round(matrix, index=t, client_ids=[f"client {i}" for i in range(n)])


def test_it_is_what_it_says():
    guard = Guard.recommended(rounds=4, alpha=0.02, clients=7)
    assert list(guard.detectors) == ["recommended"]
    assert (guard.policy.name, guard.policy.rounds, guard.policy.alpha) == ("evidence", 4, 0.02)
    assert (guard.policy.clients, guard.policy.rate) == (7, 0.05)
    assert guard.aggregator.name == "mean"
    assert guard.claim_limit == 3


def test_attackers_are_excluded_at_once_and_banned_in_the_third_round():
    guard = Guard.recommended()
    for t, round in enumerate(rounds(5, bad=(2, 7))):
        outcome = guard.process(round)
        assert np.flatnonzero(outcome.suspects).tolist() == [2, 7]
        assert outcome.weights[[2, 7]].tolist() == [0, 0]
        assert outcome.banned.any() == (t >= 2)
    record = guard.ledger["client 2"]
    assert "copies" in record.ban_reason
    assert "evidence" in record.ban_reason


def test_clean_rounds_are_plain_fedavg():
    guard, fedavg = Guard.recommended(), Guard()
    for round in rounds(10):
        outcome = guard.process(round)
        assert not outcome.suspects.any()
        assert torch.equal(outcome.aggregate, fedavg.process(round).aggregate)


def test_nobody_is_banned_while_it_learns():
    guard = Guard.recommended(rounds=3)
    for round in rounds(3, bad=(2,)):
        outcome = guard.process(round)
        assert outcome.suspects[2]
        assert not outcome.banned.any()


def test_nonsense_is_refused():
    with pytest.raises(ParameterError, match="alpha is 2"):
        Guard.recommended(alpha=2)
