"""Every detector × policy × aggregator against every kind of hostile round, and what that has shown.

Six hundred rounds here, 2,700 with the slow ones; ``make fuzz`` drives a hundred thousand
(benchmarks/results/fuzz.md).
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given

from fedguard import Guard, Round, make_aggregator, make_detector, make_policy
from fedguard.contracts.registry import REGISTRIES
from fedguard.core import history
from fedguard.core.errors import ContractError, RoundError
from fedguard.detectors.fldetector import hessian_product
from fedguard.testing import fuzz
from fedguard.testing.hostile_rounds import CLIENTS_MAY_SEND, KINDS, draft, strategy
from fedguard.testing.soak import keeping, soak, table

#: Federations of six rounds each; the parts run side by side.
PARTS, FEDERATIONS = 30, 15
#: The parts that run by default; the others are slow.
QUICK = 5


@pytest.mark.parametrize(
    "part", [pytest.param(p, marks=pytest.mark.slow if p >= QUICK else ()) for p in range(PARTS)]
)
def test_hostile_rounds(part):
    tally = fuzz.fuzz(FEDERATIONS * fuzz.ROUNDS, first=part * FEDERATIONS)
    assert tally.failures == []
    assert tally.rounds == FEDERATIONS * fuzz.ROUNDS
    assert tally.moved > tally.rounds / 5
    assert sum(tally.refusals.values()) < tally.rounds / 2, "most rounds get past the door"


def test_the_quick_parts_have_all_kinds_and_all_methods():
    federations = range(QUICK * FEDERATIONS)
    rounds = [number * fuzz.ROUNDS + step for number in federations for step in range(fuzz.ROUNDS)]
    assert {index % len(KINDS) for index in rounds} == set(range(len(KINDS)))
    used = {method for number in federations for method in fuzz.combinations()[number]}
    for kind in ("detectors", "aggregators", "policies"):
        assert set(REGISTRIES[kind].names()) <= used


@given(strategy())
def test_a_draft_is_a_round_or_a_round_error(made):
    try:
        round = made.build()
    except RoundError:
        assert not set(made.kinds) <= CLIENTS_MAY_SEND
        return
    assert round.updates.matrix.dtype == torch.float32
    assert len(round.client_ids) == round.n == len(round.problems)


def test_a_draft_is_the_same_again():
    for kind in KINDS:
        first, second = (
            draft([kind, "duplicates to 1e-3"], seed=5, index=3, seen=["a", 7]) for _ in range(2)
        )
        assert first.kinds == second.kinds
        assert kind == "objects" or repr(first.updates) == repr(second.updates)
        assert first.client_ids is None or list(first.client_ids) == list(second.client_ids)


# --- what the driver would notice


def trial(change, kinds=("ordinary",)):
    """What ``tried`` says of a guard that does something wrong."""
    guard = Guard(make_detector("norm_bound"), make_policy("ban", strikes=2), make_aggregator("median"))
    process = guard.process

    def wrong(round, repeat=False):
        return change(guard, round, process)

    guard.process = wrong
    fuzz.tried(guard, draft(kinds, seed=3), fuzz.Tally(), again=True)


def refuse_late(guard, round, process):
    process(round)
    raise ContractError("too late")


def refuse_for_a_client(guard, round, process):
    raise ContractError("not for what a client sends")


def crash(guard, round, process):
    raise ZeroDivisionError


def by_position(guard, round, process):
    outcome = process(round)
    return dataclasses.replace(outcome, suspects=np.arange(round.n) == 0)


def other_reasons(guard, round, process):
    return dataclasses.replace(process(round), reasons=tuple(f"at {i}" for i in range(round.n)))


def not_finite(guard, round, process):
    outcome = process(round)
    outcome.aggregate[0] = math.nan
    return outcome


def trusting(guard, round, process):
    return dataclasses.replace(process(round), weights=np.ones(round.n))


def overwrite(guard, round, process):
    outcome = process(round)
    round.updates.matrix.zero_()
    return outcome


def remember_positions(guard, round, process):
    guard.ledger.ban(round.client_ids[0], 0, None, "first come")
    return process(round)


@pytest.mark.parametrize(
    ("change", "kinds", "said"),
    [
        (refuse_late, ("no ids",), "has changed the state"),
        (refuse_for_a_client, ("rows of 1e30",), "got the round refused"),
        (crash, ("ordinary",), None),
        (by_position, ("ordinary",), "suspects of client"),
        (other_reasons, ("ordinary",), "other reasons"),
        (not_finite, ("ordinary",), "no finite aggregate"),
        (trusting, ("NaN in some rows",), "unusable update has weight"),
        (overwrite, ("ordinary",), "updates were changed"),
        (remember_positions, ("ordinary",), "in another order"),
    ],
)
def test_the_driver_notices(change, kinds, said):
    with pytest.raises((AssertionError, ZeroDivisionError), match=said):
        trial(change, kinds)


def test_a_failure_names_its_federation_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(fuzz, "sound", lambda round, outcome: 1 / 0)
    tally = fuzz.fuzz(6, first=41)
    assert "federation 41, round" in tally.failures[0]
    assert "ZeroDivisionError" in tally.failures[0]
    assert "**Failures: 1.**" in fuzz.table(tally, 1.0)
    assert fuzz.main(["--federation", "41"]) == 1


# --- what it has found


@pytest.mark.parametrize(
    "updates",
    [
        torch.ones(3, 4).to_sparse(),
        torch.ones(3, 4, device="meta"),
        [torch.ones(4), torch.ones(4, device="meta")],
    ],
    ids=["sparse", "without data", "on two devices"],
)
def test_tensors_without_plain_memory_are_refused(updates):
    with pytest.raises(RoundError, match="dense"):
        Round(updates)


@pytest.mark.parametrize("client", ["x" * 1001, 2**1001, -(10**6000)], ids=["text", "number", "huge"])
def test_endless_ids_are_refused(client):
    with pytest.raises(RoundError, match="more than 1000"):
        Round(np.ones((2, 3)), ["a", client])
    Round(np.ones((2, 3)), ["x" * 1000, 2**999])


def test_a_tie_does_not_go_to_who_came_first():
    """The two clients closest to each other tie in Krum; which of them is aggregated was up to arrival."""
    x = np.array([[0.0, 1.0], [3, 3], [0, 1.5], [9, -9]], dtype=np.float32)
    ids = ["b", "c", "a", "d"]
    outcomes = []
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        guard = Guard(aggregator=make_aggregator("krum", num_malicious=1))
        outcomes.append(guard.process(Round(x[order], [ids[i] for i in order])))
    assert torch.equal(outcomes[0].aggregate, outcomes[1].aggregate)
    assert outcomes[0].aggregate.tolist() == [0, 1.5], "the smaller id"
    assert outcomes[1].client_ids == ("a", "d", "c", "b")


def test_watch_and_suspects_do_not_depend_on_the_order_either():
    rng = np.random.default_rng(0)
    x, order = rng.normal(size=(9, 5)), rng.permutation(9)
    x[2] *= 50
    ids = np.array(["c", "a", "i", "b", "h", "d", "g", "e", "f"])
    for name in ("watch", "suspects"):
        said = []
        for o in (np.arange(9), order):
            guard = Guard(make_detector("norm_bound"))
            found = getattr(guard, name)(Round(x[o], list(ids[o])))
            said.append(found if name == "suspects" else found.suspects)
        assert said[0].tolist() == [i == 2 for i in range(9)]
        assert said[1].tolist() == said[0][order].tolist()


@pytest.mark.parametrize("claim", [1e-320, 1e-300, 1e308])
def test_a_claimed_step_count_cannot_make_fednova_refuse_the_round(claim):
    x = np.random.default_rng(0).normal(size=(4, 6))
    guard = Guard(aggregator=make_aggregator("fednova"))
    outcome = guard.process(Round(x, num_steps=[5, 5, claim, 5]))
    assert outcome.aggregate.isfinite().all()


def test_claimed_examples_cannot_make_bucketing_refuse_the_round():
    from fedguard import make_stage

    x = np.random.default_rng(0).normal(size=(4, 6))
    guard = Guard(aggregator=make_aggregator("mean"), stages=make_stage("bucketing", size=4))
    claims = [1e308, 1.7e308, 1e308, 5]
    outcome = guard.process(Round(x, num_examples=claims, num_steps=claims))
    np.testing.assert_allclose(outcome.aggregate, x.mean(0), rtol=1e-5)


def test_the_largest_updates_cannot_make_irls_refuse_the_round():
    """Its line through the values left float32, and what took their place was infinite."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = np.sign(rng.normal(size=(4, 27))) * float(torch.finfo(torch.float32).max)
        x[rng.integers(4)] = rng.normal(size=27)
        outcome = Guard(aggregator=make_aggregator("irls")).process(Round(x))
        assert outcome.aggregate.isfinite().all()


def test_the_noise_on_the_largest_updates_is_finite():
    from fedguard import make_stage

    x = np.full((5, 400), float(torch.finfo(torch.float32).max))
    guard = Guard(aggregator=make_aggregator("median"), stages=make_stage("clip_and_noise", noise=0.1))
    assert guard.process(Round(x)).aggregate.isfinite().all()


def test_a_diverged_global_model_leaves_fldetector_and_three_sigma_usable():
    rng = np.random.default_rng(0)
    for name, params in (("fldetector", {"start": 0, "window": 3}), ("three_sigma", {})):
        guard = Guard(make_detector(name, **params), make_policy("observe"))
        for index in range(9):
            start = rng.normal(size=7).astype(np.float32)
            if index in (2, 3):
                start[1] = math.nan if index == 2 else 3e38
            guard.process(Round(rng.normal(size=(6, 7)), index=index, global_params=start))
        last = guard.process(Round(rng.normal(size=(6, 7)), index=9, global_params=start))
        assert np.isfinite(last.scores).all()


def test_curvature_that_is_no_number_says_nothing():
    steps = torch.tensor([[1.0, math.nan], [1.0, 2.0]])
    assert hessian_product(steps, steps, steps[1]).tolist() == [0, 0]


@pytest.mark.parametrize("kind", sorted(CLIENTS_MAY_SEND))
def test_no_client_gets_a_round_of_the_default_guard_refused(kind):
    guard = Guard(make_detector("krum"), make_policy("ban"), make_aggregator("median"))
    for seed in range(4):
        made = draft([kind], seed=seed, index=seed)
        if made.updates.shape[0] >= 4:
            assert guard.process(made.build()).index == seed, "even if hardly anybody's update is usable"


# --- memory


@pytest.mark.parametrize("name", keeping())
def test_what_is_kept_stops_growing(name, monkeypatch):
    monkeypatch.setattr(history, "MAX_CLIENTS", 25)
    grown = soak(name, 60)
    assert grown.bounded, grown
    assert grown.ids == 181


def test_growth_would_be_noticed(monkeypatch):
    monkeypatch.setattr(history, "MAX_CLIENTS", 10**6)
    assert not soak("afa", 60).bounded
    assert "| afa | 60 | 181 |" in table([soak("afa", 60)])
