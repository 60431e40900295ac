"""Derived seeds: the same on every machine, different for every consumer."""

import itertools

import numpy as np
import pytest
import torch

from fedguard.core.seeds import derive, generator, numpy_generator


def test_the_numbers_are_fixed_for_good():
    """SHA-256 of the JSON list, first 8 bytes, without the lowest bit: results depend on it."""
    assert derive(0, "batches") == 0x18C953F415C46DAA


def test_consumers_do_not_share_a_seed():
    consumers = [
        (s, p, *k) for s in (0, 1) for p in ("a", "b") for k in ((), (1,), ("1",), (1, 2), (12,), (None,))
    ]
    assert len({derive(*c) for c in consumers}) == len(consumers)


@pytest.mark.parametrize(
    ("one", "other"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.str_("x"), "x"), (np.bool_(True), True), ((1, 2), [1, 2])],
)
def test_equal_keys_give_equal_seeds(one, other):
    assert derive(0, "p", one) == derive(0, "p", other)


def test_a_numpy_seed_is_its_number():
    assert derive(np.int64(7), "p") == derive(7, "p")


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (generator, lambda g: torch.rand(5, generator=g).tolist()),
        (numpy_generator, lambda g: g.random(5).tolist()),
    ],
)
def test_generators_start_afresh_and_leave_global_state_alone(make, draw):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws = [draw(make(0, "p", k)) for k in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_seeds_fit_where_they_go():
    for s, k in itertools.product((0, 2**70, -1), range(50)):
        assert 0 <= derive(s, "p", k) < 2**63
