"""The ledger in a file gives the answers of the one in memory, whatever happens to them."""

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedguard import Ledger, SQLiteLedger
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack

CLIENTS = [7, "7", "a", "ü\ud800\x00'; DROP TABLE clients", -(10**30)]
clients = st.sampled_from(CLIENTS)
scores = st.sampled_from([0.0, -1.5, 1e-300, math.inf, math.nan, 3e38])
ops = st.one_of(
    st.tuples(st.just("judge"), clients, scores, st.booleans()),
    st.tuples(st.just("ban"), clients, st.one_of(st.none(), st.integers(0, 4))),
    st.tuples(st.just("unban"), clients),
)


def apply(ledger, index, op):
    what, client, *rest = op
    if what == "judge":
        ledger.judge(client, index, *rest, reason="why ü\ud800")
    elif what == "ban":
        ledger.ban(client, index, rest[0] if rest[0] is None else index + rest[0], "why")
    else:
        try:
            ledger.unban(client, "ann", "why")
        except ParameterError as error:
            return str(error)
    return None


def once_judged(batch):
    """A guard judges a client once in a round; what else happens to it may be repeated."""
    judged = {str(op[1]): op for op in batch if op[0] == "judge"}
    return list(judged.values()) + [op for op in batch if op[0] != "judge"]


@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(st.tuples(st.lists(ops, max_size=5), st.booleans()), max_size=8))
def test_both_ledgers_agree(rounds):
    with tempfile.TemporaryDirectory() as folder:
        pair = Ledger(keep=3), SQLiteLedger(Path(folder, "ledger.db"), keep=3)
        for index, (batch, fails) in enumerate(rounds):
            batch = once_judged(batch)
            replies = []
            for ledger in pair:
                try:
                    with ledger.transaction():
                        replies.append([apply(ledger, index, op) for op in batch])
                        if fails:
                            raise KeyboardInterrupt
                except KeyboardInterrupt:
                    pass
            assert replies[0] == replies[1]
            memory, file = pair
            assert memory.clients() == file.clients()
            view = file.view(CLIENTS)
            for client in CLIENTS:
                # repr: a NaN is a NaN
                assert repr(memory[client]) == repr(file[client]) == repr(view[client])
                assert memory.is_banned(client, index + 1) == file.is_banned(client, index + 1)
                assert memory.ever_banned(client) == file.ever_banned(client)


def test_a_ledger_in_memory_moves_into_a_file(tmp_path):
    memory = Ledger()
    memory.judge(7, 0, 0.5, suspect=False)
    memory.judge("c", 0, math.inf, suspect=True)
    memory.judge("c", 3, 2.0, suspect=True)
    memory.ban("c", 3, 5, "why")
    memory.judge("c", 6, 1.0, suspect=False)
    state = unpack(pack(memory.state_dict()))
    file = SQLiteLedger(tmp_path / "ledger.db")
    file.load_state_dict(state)
    assert file.clients() == memory.clients()
    assert all(file[c] == memory[c] for c in memory.clients())
    with pytest.raises(ParameterError, match="holds another"):
        file.load_state_dict(state)
    file.load_state_dict(file.state_dict())
    assert file["c"] == memory["c"]
