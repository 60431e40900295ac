"""States that do not fit: of another guard, damaged, or prepared by somebody. The guard stays as it was."""

import contextlib
import copy
import json

import numpy as np
import pytest
import torch

from fedguard import Guard, Ledger, Round, SQLiteLedger, make_aggregator, make_policy
from fedguard.contracts.registry import detectors
from fedguard.core.errors import FedGuardError, ParameterError, ResultsError
from fedguard.core.state import pack, unpack
from fedguard.testing.federation import federation

DETECTORS = sorted(name for name in detectors.names() if name != "fedredefense")


def guard_of(name):
    cls = detectors.get(name)
    return Guard(
        cls(**cls.check_with),
        make_policy("evidence", rounds=1, rate=0.05),
        make_aggregator("centered_clipping"),
    )


def rounds(count=4):
    base = federation()[0]
    for index in range(count):
        yield Round(
            base.updates.matrix * (1 + index / 50),
            base.client_ids,
            base.num_examples,
            index,
            base.global_params * (1 + index / 10),
            base.server,
        )


@pytest.fixture(scope="module", params=DETECTORS)
def guard(request):
    guard = guard_of(request.param)
    for round in rounds():
        guard.process(round)
    return guard


def places(value, path=()):
    """Every place in a tree, with what is there."""
    yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def with_value(tree, path, value):
    if not path:
        return value
    result = copy.copy(tree)
    result[path[0]] = with_value(tree[path[0]], path[1:], value)
    return result


STRANGE = [None, "x", 7.5, [], {}, [["a"]], {"a": 1}, torch.ones(2, 3), torch.ones(0), True]


def test_one_strange_value_anywhere(guard):
    """It is refused and leaves no trace, or it can be lived with: no error without a type, then or later."""
    whole = unpack(pack(guard.state_dict()))
    found = [path for path, _ in places(whole)]
    rng = np.random.default_rng(0)
    chosen = [found[i] for i in rng.permutation(len(found))[:10]] + [p for p in found if 0 < len(p) < 4][:15]
    refused = 0
    for number, path in enumerate(chosen):
        other = Guard(*copy.deepcopy((list(guard.detectors.values()), guard.policy, guard.aggregator)))
        other.ledger = copy.deepcopy(guard.ledger)
        before = pack(other.state_dict())
        try:
            other.load_state_dict(with_value(whole, path, STRANGE[number % len(STRANGE)]))
        except FedGuardError:
            refused += 1
            assert pack(other.state_dict()) == before, path
            continue
        with contextlib.suppress(FedGuardError):
            other.process(list(rounds(5))[4])
    assert refused > 5


def test_the_states_of_this_guard_are_taken(guard):
    other = guard_of(next(iter(guard.detectors)))
    other.load_state_dict(unpack(pack(guard.state_dict())))
    assert pack(other.state_dict()) == pack(guard.state_dict())


RECORDS = [
    None,
    {},
    [1],
    [["a"]],
    [["a", {"x": 1}]],
    [["a", {"rounds": "x"}]],
    [["a", {"strikes": 5}]],
    [["a", {"strikes": ["x"]}]],
    [["a", {"banned_since": "soon"}]],
    [["a", {"banned_until": 0.5}]],
    [["a", {"ban_reason": 7}]],
    [["a", {"last_score": "high"}]],
    [[None, {}]],
    [[["a"], {}]],
    [[True, {}]],
]


@pytest.mark.parametrize("records", RECORDS, ids=lambda r: json.dumps(r)[:40])
def test_records_that_are_none(records, tmp_path):
    memory = Ledger()
    memory.ban("b", 0, None, "why")
    with pytest.raises(ParameterError, match="not hold a ledger's records"):
        memory.load_state_dict({"records": records})
    assert memory.is_banned("b", 1)
    file = SQLiteLedger(tmp_path / "ledger.db")
    with pytest.raises(ParameterError, match="not hold a ledger's records"):
        file.load_state_dict({"records": records})
    assert file.clients() == []


def test_reasons_are_cut_in_memory_too():
    """Clients have a say in them: their ids and what they claim."""
    ledger = Ledger()
    ledger.ban("a", 0, None, "x" * 10**6)
    assert len(ledger["a"].ban_reason) == 500
    again = Ledger()
    again.load_state_dict({"records": [["a", {"ban_reason": "x" * 10**6}]]})
    assert len(again["a"].ban_reason) == 500


def bytes_with(tree):
    text = json.dumps(
        {"__metadata__": {"fedguard": tree if isinstance(tree, str) else json.dumps(tree)}}
    ).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        bytes_with({"a": {"__tensor__": "0"}}),
        bytes_with({"a": {"__tensor__": [1]}}),
        bytes_with({"a": {"__tensor__": {}}}),
        bytes_with([1]),
        bytes_with("7"),
        bytes_with("null"),
        bytes_with("[" * 100_000),
        bytes_with('{"a":' * 100_000 + "1" + "}" * 100_000),
        bytes_with('{"a":' + "9" * 10_000 + "}"),
        (2**40).to_bytes(8, "little"),
        b"",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x04\0\0\0\0\0\0\0null",
    ],
)
def test_bytes_that_are_no_state(data):
    with pytest.raises(ResultsError, match="not a FedGuard state"):
        unpack(data)


@pytest.mark.parametrize("shape", [[10**9, 10**9], [2**40, 2**40], [-1], [0.5], ["x"], None])
def test_headers_that_announce_what_is_not_there(shape):
    text = json.dumps(
        {
            "__metadata__": {"fedguard": "{}"},
            "0": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]},
        }
    ).encode()
    with pytest.raises(ResultsError, match="not a FedGuard state"):
        unpack(len(text).to_bytes(8, "little") + text + bytes(4))
