"""Round: what is refused as malformed, and what is only one client's problem."""

import numpy as np
import pytest
import torch

from fedguard import Round, Server, Updates
from fedguard.contracts.round import as_round
from fedguard.core.errors import RoundError

X = np.arange(12, dtype=np.float64).reshape(4, 3)


def test_defaults():
    round = Round(X)
    assert round.client_ids == (0, 1, 2, 3)
    assert round.num_examples.tolist() == [1, 1, 1, 1]
    assert (round.n, round.updates.d, round.index, round.server) == (4, 3, 0, None)
    assert round.usable.all()
    assert round.problems == (None,) * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"updates": np.zeros((0, 3))}, "at least one client"),
        ({"updates": np.zeros((3, 0))}, "at least one client and one parameter"),
        ({"client_ids": ["a", "b"]}, "2 client ids for 4 updates"),
        ({"client_ids": [1, 2, 3, 1]}, "'1' appears more than once"),
        ({"client_ids": [1, 2, 3, "1"]}, "'1' appears more than once"),
        ({"client_ids": [1, 2, 3, 4.5]}, "neither a string nor an integer"),
        ({"client_ids": [1, 2, 3, True]}, "neither a string nor an integer"),
        ({"client_ids": [1, 2, 3, None]}, "neither a string nor an integer"),
        ({"num_examples": [1, 2]}, "num_examples has shape"),
        ({"num_examples": [[1, 2, 3, 4]]}, "num_examples has shape"),
        ({"num_examples": ["many", 1, 1, 1]}, "not numeric"),
        ({"global_params": np.zeros(4)}, "global_params has shape"),
        ({"global_params": np.zeros((1, 3))}, "global_params has shape"),
        ({"index": -1}, "index is -1"),
        ({"index": 1.0}, "index is 1.0"),
        ({"index": "1"}, "index is '1'"),
        ({"faults": ["late", None]}, "faults must be 4 values"),
        ({"faults": ["", None, None, None]}, "faults must be 4 values"),
    ],
)
def test_malformed_rounds_are_refused(arguments, message):
    with pytest.raises(RoundError, match=message):
        Round(**{"updates": X, **arguments})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_unusable_update_is_its_senders_problem(value):
    updates = X.copy()
    updates[2, 1] = value
    round = Round(updates)
    assert round.usable.tolist() == [True, True, False, True]
    assert round.problems[2] == "non-finite update"


@pytest.mark.parametrize("count", [0, -1, np.nan, np.inf, -np.inf, None, 10**400, -(10**400)])
def test_an_absurd_count_is_its_senders_problem(count):
    round = Round(X, num_examples=[5, count, 5, 5])
    assert round.usable.tolist() == [True, False, True, True]
    assert "sample count" in round.problems[1]
    assert round.num_examples[[0, 2, 3]].tolist() == [5, 5, 5]


def test_a_fault_found_on_receipt_is_a_problem_and_stays_with_its_client():
    round = Round(
        X, client_ids=list("abcd"), num_examples=[1, 1, -1, -1], faults=[None, "late", None, "late"]
    )
    assert round.usable.tolist() == [True, False, False, False]
    assert round.problems == (None, "late", "sample count -1 is not a positive finite number", "late")
    assert round.take([3, 0]).problems == ("late", None)
    assert round.with_updates(X + 1).problems == round.problems
    assert round.with_server(seed=3).problems == round.problems


def test_numpy_ids_and_indices_become_plain_ones():
    round = Round(X, client_ids=np.arange(4), index=np.int64(7))
    assert {type(i) for i in round.client_ids} == {int}
    assert type(round.index) is int
    assert Round(X, client_ids=np.array(list("abcd"))).client_ids == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "clients", [[3, 1], (3, 1), np.array([3, 1]), torch.tensor([3, 1]), np.array([3, 1], dtype=np.uint8)]
)
def test_take_keeps_everything_aligned(clients):
    round = Round(X, client_ids=list("abcd"), num_examples=[1, 2, 3, 4], index=5, global_params=np.ones(3))
    part = round.take(clients)
    assert part.client_ids == ("d", "b")
    assert part.num_examples.tolist() == [4, 2]
    assert part.updates.matrix.tolist() == X[[3, 1]].tolist()
    assert part.index == 5
    assert part.global_params.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_take_reads_a_mask_as_a_mask(kind):
    part = Round(X, client_ids=list("abcd")).take(kind([False, True, False, True]))
    assert part.client_ids == ("b", "d")
    assert part.updates.matrix.tolist() == X[[1, 3]].tolist()


def test_take_nobody_is_refused():
    with pytest.raises(RoundError, match="at least one client"):
        Round(X).take([])


def test_with_server_replaces_a_part_and_keeps_the_rest():
    round = Round(X, server=Server(seed=3, num_classes=10))
    changed = round.with_server(num_classes=2)
    assert (changed.server.seed, changed.server.num_classes) == (3, 2)
    assert round.server.num_classes == 10
    assert changed.updates is round.updates
    assert Round(X).with_server(seed=1).server.seed == 1


def test_as_round_accepts_rounds_and_bare_updates():
    round = Round(X)
    assert as_round(round) is round
    assert as_round(X).n == 4
    updates = Updates(X)
    assert as_round(updates).updates is updates


@pytest.mark.filterwarnings("error")
def test_global_params_of_any_make():
    frozen = np.ones(3)
    frozen.setflags(write=False)
    learnable = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    for params in (frozen, learnable, [1, 1, 1]):
        kept = Round(X, global_params=params).global_params
        assert kept.dtype == torch.float32
        assert not kept.requires_grad
        assert kept.tolist() == [1, 1, 1]
