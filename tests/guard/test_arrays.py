"""The NumPy entry point: rows from lists of arrays, bad replies as suspects, new arrays of the same kind."""

import math
import re

import numpy as np
import pytest
import torch

from fedguard import Guard, Round, make_detector, make_policy
from fedguard.arrays import Rows
from fedguard.core.errors import RoundError

RNG = np.random.default_rng(0)
MODEL = [
    RNG.normal(size=(3, 4)).astype(np.float32),
    np.array(7, dtype=np.int64),
    RNG.normal(size=5),
    np.array(0.5, dtype=np.float16),
]
D = 12 + 5 + 1


def reply(seed):
    rng = np.random.default_rng(seed)
    return [
        a + np.asarray(0.1 * rng.normal(size=a.shape), dtype=a.dtype) if a.dtype.kind == "f" else a + seed
        for a in MODEL
    ]


def honest(n=6):
    return {
        f"c{k}": [np.asarray(a, dtype=m.dtype) for a, m in zip(reply(k), MODEL, strict=True)]
        for k in range(n)
    }


def by_hand(arrays):
    """w_i − w, number by number, floating-point arrays only."""
    numbers = []
    for array, own in zip(arrays, MODEL, strict=True):
        if own.dtype.kind == "f":
            numbers += [float(a) - float(b) for a, b in zip(array.ravel(), own.ravel(), strict=True)]
    return np.array(numbers)


def test_rows_are_the_differences_and_the_new_arrays_are_fedavg_of_the_replies():
    replies = honest()
    counts = {client: 10 + k for k, client in enumerate(replies)}
    outcome, new = Guard().process_arrays(replies, MODEL, counts)
    expected = np.average([by_hand(a) for a in replies.values()], axis=0, weights=list(counts.values()))
    np.testing.assert_allclose(outcome.aggregate.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert [(a.dtype, a.shape) for a in new] == [(a.dtype, a.shape) for a in MODEL]
    np.testing.assert_allclose(new[0], MODEL[0] + expected[:12].reshape(3, 4), rtol=1e-5)
    np.testing.assert_allclose(new[2], MODEL[2] + expected[12:17], rtol=1e-6)
    np.testing.assert_allclose(new[3], MODEL[3] + expected[17], rtol=1e-3)
    assert new[1] == 7, "counters are the server's"


def test_without_counts_everybody_counts_alike_and_deltas_are_taken_as_they_are():
    replies = honest(3)
    differences = {
        c: [np.asarray(a - m, dtype=m.dtype) for a, m in zip(arrays, MODEL, strict=True)]
        for c, arrays in replies.items()
    }
    one, _ = Guard().process_arrays(replies, MODEL)
    other, _ = Guard().process_arrays(differences, MODEL, deltas=True)
    np.testing.assert_allclose(one.aggregate, np.mean([by_hand(a) for a in replies.values()], 0), atol=1e-6)
    np.testing.assert_allclose(one.aggregate, other.aggregate, atol=1e-3)


def test_a_double_model_keeps_differences_that_float32_would_lose():
    model, tiny = [np.full(4, 1e6)], np.array([1e-3, 2e-3, -1e-3, 0.0])
    outcome, new = Guard().process_arrays({"a": [model[0] + tiny]}, model)
    np.testing.assert_allclose(outcome.aggregate, tiny, atol=1e-9)
    np.testing.assert_allclose(new[0] - model[0], tiny, atol=1e-9)


def test_half_precision_differences_do_not_overflow():
    model = [np.full(2, -60000, dtype=np.float16)]
    outcome, _ = Guard().process_arrays({"a": [np.full(2, 60000, dtype=np.float16)]}, model)
    assert outcome.aggregate.tolist() == [120000.0, 120000.0]


class Trap:
    """Whoever asks it for an array runs its code."""

    def __array__(self, *args, **kwargs):
        raise SystemExit("the stranger's code ran")


class TrapTensor(torch.Tensor):
    """Whoever computes with it runs its code."""

    @classmethod
    def __torch_function__(cls, *args, **kwargs):
        raise SystemExit("the stranger's code ran")


GOOD = honest()["c0"]
BAD = {
    "nothing": (None, 1, "it sent nothing"),
    "empty": ([], 1, "it sent 0 arrays, the model has 4"),
    "missing": (GOOD[:-1], 1, "it sent 3 arrays, the model has 4"),
    "extra": ([*GOOD, GOOD[0]], 1, "it sent 5 arrays, the model has 4"),
    "no list": ({"weights": GOOD}, 1, "it sent a dict, not a list of arrays"),
    "one array": (GOOD[0], 1, "it sent a ndarray, not a list of arrays"),
    "transposed": ([GOOD[0].T, *GOOD[1:]], 1, r"its array 0 has shape \(4, 3\), the model's has \(3, 4\)"),
    "flattened": ([GOOD[0].ravel(), *GOOD[1:]], 1, r"its array 0 has shape \(12,\)"),
    "broadcast": ([GOOD[0][:1], *GOOD[1:]], 1, r"its array 0 has shape \(1, 4\)"),
    "integers": (
        [GOOD[0].astype(np.int8), *GOOD[1:]],
        1,
        "its array 0 has dtype int8, the model's has float32",
    ),
    "truth": ([GOOD[0] > 0, *GOOD[1:]], 1, "its array 0 has dtype bool, the model's has float32"),
    "a tensor of integers": (
        [torch.ones(3, 4, dtype=torch.int8), *GOOD[1:]],
        1,
        "its array 0 has dtype torch.int8, the model's has float32",
    ),
    "a sparse tensor": (
        [torch.eye(3, 4).to_sparse(), *GOOD[1:]],
        1,
        "its array 0 is a tensor that is not dense",
    ),
    "an endless view": (
        [torch.zeros(1).expand(10**12), *GOOD[1:]],
        1,
        r"its array 0 has shape \(1000000000000,\)",
    ),
    "beyond half precision": ([*GOOD[:3], np.float64(1e6)], 1, "array 3 holds numbers beyond float16"),
    "counter": (
        [GOOD[0], np.float32(7), *GOOD[2:]],
        1,
        "its array 1 has dtype float32, the model's has int64",
    ),
    "objects": ([GOOD[0].astype(object), *GOOD[1:]], 1, "its array 0 has dtype object"),
    "complex": ([GOOD[0].astype(complex), *GOOD[1:]], 1, "its array 0 has dtype complex128"),
    "strings": ([GOOD[0].astype(str), *GOOD[1:]], 1, "its array 0 has dtype <U"),
    "flat lists": ([GOOD[0].ravel().tolist(), *GOOD[1:]], 1, "its array 0 is a list of another shape"),
    "ragged lists": ([[[0.0] * 4, [0.0] * 4, [0.0]], *GOOD[1:]], 1, "its array 0 is a list of another shape"),
    "lists of words": ([[["x"] * 4] * 3, *GOOD[1:]], 1, "its array 0 holds a str"),
    "lists of truth": ([[[True] * 4] * 3, *GOOD[1:]], 1, "its array 0 holds a bool"),
    "lists of endless integers": ([[[10**400] * 4] * 3, *GOOD[1:]], 1, "its array 0 cannot be read"),
    "code of its own": ([Trap(), *GOOD[1:]], 1, "its array 0 is a Trap, not an array, a tensor or a list"),
    "a tensor with code of its own": (
        [torch.ones(3, 4).as_subclass(TrapTensor), *GOOD[1:]],
        1,
        "its array 0 is a TrapTensor",
    ),
    "nan": ([GOOD[0] * np.nan, *GOOD[1:]], 1, "non-finite update"),
    "inf": ([*GOOD[:2], GOOD[2] + np.inf, GOOD[3]], 1, "non-finite update"),
    "beyond float32": ([*GOOD[:2], GOOD[2] + 1e300, GOOD[3]], 1, "non-finite update"),
    "no count": (GOOD, None, "its example count is missing"),
    "words": (GOOD, "many", r"its example count is not a number \(str 'many'\)"),
    "a list of counts": (GOOD, [3], r"its example count is not a number \(list\)"),
    "true": (GOOD, True, r"its example count is not a number \(bool\)"),
    "zero": (GOOD, 0, "sample count 0 is not a positive finite number"),
    "negative": (GOOD, -5, "sample count -5 is not a positive finite number"),
    "nan count": (GOOD, math.nan, "its example count is not a number"),
    "infinite": (GOOD, math.inf, "it claims inf examples, more than 1e"),
    "greedy": (GOOD, 10**12, r"it claims 1e\+12 examples, more than 1e\+09"),
    "beyond numbers": (GOOD, 10**400, "it claims inf examples"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_reply_makes_its_sender_a_suspect_and_the_round_goes_on(case):
    arrays, count, reason = BAD[case]
    replies, counts = honest(), dict.fromkeys(honest(), 20)
    fine, expected = Guard(make_detector("krum", num_malicious=1)).process_arrays(replies, MODEL, counts)
    guard = Guard(make_detector("krum", num_malicious=1))
    outcome, new = guard.process_arrays({**replies, "bad": arrays}, MODEL, {**counts, "bad": count})
    assert outcome.suspects[-1]
    assert outcome.weights[-1] == 0
    assert outcome.scores[-1] == math.inf
    assert re.search(reason, outcome.reasons[-1]), outcome.reasons[-1]
    assert outcome.scores[:-1].tolist() == fine.scores.tolist(), "the others as if it were absent"
    for one, other in zip(new, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# --- the forms in which people have their arrays

PLAIN = [RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=5).astype(np.float32)]
MOVED = {c: [a + np.float32(0.25 * (c + 1)) for a in PLAIN] for c in range(3)}
FORMS = {
    "tensors": torch.from_numpy,
    "parameters": lambda a: torch.nn.Parameter(torch.from_numpy(a)),
    "doubles": lambda a: torch.from_numpy(a).double(),
    "bfloat16": lambda a: torch.from_numpy(a).bfloat16(),
    "half": lambda a: torch.from_numpy(a).half(),
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "long doubles": lambda a: a.astype(np.longdouble),
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    "big-endian": lambda a: a.astype(">f4"),
    "a subclass": lambda a: a.view(np.matrix) if a.ndim == 2 else a,
}


@pytest.mark.parametrize("form", FORMS)
def test_replies_in_whatever_form_give_the_same_model(form):
    replies = {c: [FORMS[form](a) for a in arrays] for c, arrays in MOVED.items()}
    outcome, new = Guard().process_arrays(replies, PLAIN)
    assert not outcome.suspects.any(), outcome.reasons
    rough = 0.02 if form in ("bfloat16", "half", "float16") else 1e-6
    for array, own in zip(new, PLAIN, strict=True):
        assert (type(array), array.dtype) == (np.ndarray, np.float32)
        np.testing.assert_allclose(array, own + 0.5, atol=rough)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_model_of_tensors_comes_back_as_tensors_of_its_dtype(dtype):
    model = torch.nn.Linear(3, 2).to(dtype)
    replies = {c: iter([p + (c + 1) for p in model.parameters()]) for c in range(3)}
    _, new = Guard().process_arrays(replies, model.parameters())
    for tensor, own in zip(new, model.parameters(), strict=True):
        assert (type(tensor), tensor.dtype, tensor.requires_grad) == (torch.Tensor, dtype, False)
        torch.testing.assert_close(tensor, own.detach() + 2, atol=0.02, rtol=0.01)


def test_a_model_of_lists_comes_back_as_lists():
    _, new = Guard().process_arrays({0: [[1.0, 2], 3]}, [[0.0, 0.0], 0.0])
    assert new == [[1.0, 2.0], 3.0]


def test_a_sum_beyond_half_precision_is_its_largest_number():
    model = [np.full(2, 60000, dtype=np.float16)]
    _, new = Guard().process_arrays({0: [np.full(2, 60000, dtype=np.float16)]}, model, deltas=True)
    assert new[0].tolist() == [65504.0, 65504.0]


# --- what is nobody's fault


SHARED = {
    "state dicts": ({"w": torch.ones(2)}, "it sent a dict.*guard.process_state_dicts"),
    "one array": (GOOD[0], "it sent a ndarray, not a list of arrays"),
    "nothing": (None, "it sent nothing.*arrive in time"),
    "half of it": (GOOD[:2], "it sent 2 arrays, the model has 4"),
    "transposed": ([GOOD[0].T, *GOOD[1:]], "has shape"),
    "quantized": ([GOOD[0].astype(np.int8), *GOOD[1:]], "has dtype int8.*Send floating"),
    "diverged": ([GOOD[0] * np.nan, *GOOD[1:]], "NaN or Inf.*ower the learning rate"),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_fault_that_all_replies_share_is_no_clients(case):
    reply, message = SHARED[case]
    guard = Guard(make_detector("krum", num_malicious=1), make_policy("ban", strikes=1))
    before = guard.state_dict()
    with pytest.raises(
        RoundError, match=f"all 5 replies have the same fault, so it is no client's.*{message}"
    ):
        guard.process_arrays(dict.fromkeys("abcde", reply), MODEL)
    assert guard.state_dict() == before
    assert guard.banned("abcde", 1) == []


def test_counts_under_other_names_are_no_clients_fault():
    guard, replies = Guard(policy=make_policy("ban", strikes=1)), dict(enumerate(honest().values()))
    with pytest.raises(RoundError, match="its keys are like '0', those of the replies like 0; use the same"):
        guard.process_arrays(replies, MODEL, {str(c): 10 for c in replies})
    with pytest.raises(RoundError, match="num_examples is a list"):
        guard.process_arrays(replies, MODEL, [10] * 6)
    with pytest.raises(RoundError, match=r"sample count 0 is not a positive.*positive numbers"):
        guard.process_arrays(replies, MODEL, dict.fromkeys(replies, 0))
    assert guard.ledger.clients() == []


def test_different_faults_are_their_senders():
    guard = Guard(policy=make_policy("ban", strikes=1))
    fine = next(iter(honest().values()))
    outcome, _ = guard.process_arrays({"a": None, "b": [], "c": [1], "fine": fine}, MODEL)
    assert outcome.banned.tolist() == [True, True, True, False]
    outcome, _ = guard.process_arrays({"d": [], "fine": fine}, MODEL, index=1)
    assert outcome.banned.tolist() == [True, False], "one client alone has nobody to share it with"


def test_faults_of_everybody_earn_nobody_a_strike():
    guard = Guard(policy=make_policy("ban", strikes=1))
    outcome, _ = guard.process_arrays({"a": None, "b": [], "c": [1]}, MODEL)
    assert not outcome.banned.any()
    assert "no update can be used" in outcome.note


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"w": GOOD[0]}, "global_arrays is a dict; .*guard.process_state_dicts"),
        (torch.nn.Linear(2, 2), "global_arrays is a Linear; .*guard.process_state_dicts"),
        (GOOD[0], "global_arrays is a ndarray; give a list"),
        (torch.ones(2), "global_arrays is a Tensor; give a list"),
        ([torch.ones(2).to_sparse()], "array 0 of the global model is a tensor"),
        ([[[1.0], [1.0, 2.0]]], "array 0 of the global model is not an array"),
    ],
)
def test_a_global_model_in_no_form_says_which_form(model, message):
    with pytest.raises(RoundError, match=message):
        Guard().process_arrays({0: GOOD, 1: GOOD}, model)


def test_replies_without_names_are_refused():
    with pytest.raises(RoundError, match="the replies are a list; give a dictionary, client → reply"):
        Guard().process_arrays([GOOD, GOOD], MODEL)


def test_whoever_keeps_sending_rubbish_is_banned():
    guard = Guard(policy=make_policy("ban", strikes=2))
    for index in range(3):
        outcome, _ = guard.process_arrays({**honest(3), "bad": [1, 2]}, MODEL, index=index)
    assert outcome.banned.tolist() == [False, False, False, True]
    assert "it sent 2 arrays" in outcome.reasons[-1]


def test_if_nobody_sends_anything_usable_the_model_stays():
    outcome, new = Guard().process_arrays({"a": None, "b": []}, MODEL)
    assert outcome.kept_global
    for one, own in zip(new, MODEL, strict=True):
        np.testing.assert_array_equal(one, own)
        assert one is not own


def test_nothing_that_was_given_is_changed():
    model, replies = [a.copy() for a in MODEL], honest()
    _, new = Guard().process_arrays(replies, model)
    for array in new:
        array[...] = 99
    for one, own in zip(model, MODEL, strict=True):
        np.testing.assert_array_equal(one, own)
    for one, own in zip(replies["c1"], honest()["c1"], strict=True):
        np.testing.assert_array_equal(one, own)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([], "no floating-point array"),
        ([np.arange(3)], "no floating-point array"),
        ([np.array([1.0, np.nan])], "NaN or Inf"),
        ([np.array(["x"])], "dtype <U1"),
        ([np.array([1j])], "dtype complex128"),
    ],
)
def test_a_global_model_that_is_none_is_the_servers_mistake(model, message):
    with pytest.raises(RoundError, match=message):
        Guard().process_arrays({"a": model}, model)


def test_no_client_at_all_is_refused():
    with pytest.raises(RoundError, match="at least one client"):
        Guard().process_arrays({}, MODEL)


def test_rows_are_written_in_place_and_a_late_reply_can_be_left_out():
    rows = Rows(MODEL, 4)
    buffer = rows.matrix.data_ptr()
    for client, arrays in honest(2).items():
        assert rows.add(client, arrays, 5, 3) is None
    rows.fail("late", "it did not answer within 60 s")
    round = rows.round(index=4)
    assert round.updates.matrix.data_ptr() == buffer, "no second copy"
    assert (round.n, round.updates.d, round.index) == (3, D, 4)
    assert round.num_steps[:2].tolist() == [3, 3]
    assert round.problems == (None, None, "it did not answer within 60 s")
    assert torch.equal(round.global_params, torch.from_numpy(by_hand_model()))
    rows.add("c9", honest()["c1"])
    with pytest.raises(RoundError, match="room for 4 clients"):
        rows.add("c10", honest()["c1"])


def by_hand_model():
    return np.array([float(x) for a in MODEL if a.dtype.kind == "f" for x in a.ravel()], dtype=np.float32)


def test_the_same_client_twice_is_the_engines_mistake():
    rows = Rows(MODEL, 2)
    rows.add("a", GOOD)
    rows.add("a", GOOD)
    with pytest.raises(RoundError, match="appears more than once"):
        rows.round()


def test_a_fault_stays_with_its_client_when_a_round_is_cut():
    round = Round(np.ones((3, 2)), ["a", "b", "c"], faults=[None, "torn", None])
    assert round.take([2, 1]).problems == (None, "torn")
    assert round.with_updates(np.zeros((3, 2))).problems == (None, "torn", None)
    with pytest.raises(RoundError, match="faults must be 3 values"):
        Round(np.ones((3, 2)), faults=[None, None])


@pytest.mark.parametrize(("own", "sent"), [(np.float64, np.float32), (np.float32, np.float16)])
def test_an_idle_client_of_a_narrower_precision_changes_nothing(own, sent):
    """It rounds the model and sends it back; its update is zero, which earns no strike."""
    model = [np.linspace(0.1, 0.9, 6).astype(own)]
    assert (model[0].astype(sent) != model[0]).any()
    rows = Rows(model, 2)
    rows.add("idle", [model[0].astype(sent)])
    rows.add("other", [(model[0] + 1).astype(sent)])
    assert rows.round().updates.matrix.count_nonzero(1).tolist() == [0, 6]
