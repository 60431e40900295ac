"""Replies on disk: the bits and verdicts are those of memory, one reply is in memory, nothing is left."""

import errno
import gc

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

pytest.importorskip("flwr")

from flwr.app import Array, Error, RecordDict
from flwr.serverapp import strategy as flower

from fedguard import Card, Detector, Guard, Scores, make_aggregator, make_detector, make_policy
from fedguard.core.errors import ParameterError, StreamedError
from fedguard.flower import GuardedStrategy, spill
from fedguard.flower.memory import early_collection
from fedguard.flower.spill import Spilled
from fedguard.testing.flower import MemoryGrid, arrays_record, reply

RNG = np.random.default_rng(0)
PLAIN = {
    "a": RNG.normal(size=(40, 30)).astype("f4"),
    "b": RNG.normal(size=3).astype("f4"),
    "c": np.array(1, "i8"),
}
NORMED = {**PLAIN, "bn.running_mean": np.zeros(3, "f4"), "empty": np.zeros((0, 2), "f4")}


def trains(seed, dtype=None, step=0.05):
    def answer(arrays, message):
        rng = np.random.default_rng(seed)
        new = {
            k: a + rng.normal(step, 0.01, a.shape) if a.dtype.kind == "f" else a + 1
            for k, a in arrays.items()
        }
        own = {k: a.astype(dtype or arrays[k].dtype) if a.dtype.kind == "f" else a for k, a in new.items()}
        return reply(own, examples=10 + seed)

    return answer


def clients(**others):
    return {**{n: trains(n) for n in range(1, 7)}, 7: trains(9, step=-3), **others}


def play(tmp_path, inner, folder, start=PLAIN, rounds=2, sent=None, policy=None, **options):
    detector = options.pop("detector", None) or make_detector("krum", num_malicious=1)
    policy = policy or make_policy("ban", strikes=2, rule={"name": "mad", "k": 5.0})
    guard = Guard(detector, policy, aggregator=options.pop("aggregator", None))
    options["spill"] = tmp_path / "spill" if folder else None
    strategy = GuardedStrategy(inner(fraction_evaluate=0.0), guard, **options)
    np.random.seed(0)
    torch.manual_seed(0)
    result = strategy.start(MemoryGrid(sent or clients()), arrays_record(start), num_rounds=rounds, timeout=5)
    rows = sorted((r.client, r.score, r.weight, r.banned, r.reason) for r in strategy.verdicts)
    return rows, {name: array.numpy() for name, array in result.arrays.items()}


class Halves(Detector):
    """Half a weight for the client with the longest update."""

    card = Card("halves", "half a weight for the longest", "FedGuard")
    gives_weights = True

    def score(self, round):
        norms = round.updates.norms.numpy()
        longest = norms == norms.max()
        return Scores(norms, longest, weights=np.where(longest, 0.5, 1.0))


CASES = {
    "FedAvg": {"inner": flower.FedAvg},
    "statistics": {"inner": flower.FedAvg, "start": NORMED},
    "half": {
        "inner": flower.FedAvg,
        "start": {k: v.astype("f2") if k == "a" else v for k, v in PLAIN.items()},
    },
    "double": {"inner": flower.FedAvg, "start": {k: v.astype("f8") for k, v in PLAIN.items()}},
    "narrower": {"inner": flower.FedAvg, "sent": {n: trains(n, "f2") for n in range(1, 7)}},
    "parts": {"inner": flower.FedAvg, "parameters": "!a"},
    "fortran": {"inner": flower.FedAvg, "start": {k: np.asfortranarray(v) for k, v in PLAIN.items()}},
    "smaller steps": {"inner": flower.FedMedian, "detector": Halves(), "policy": make_policy("reweight")},
    "the guard": {"inner": flower.FedAvg, "aggregate": "guard", "aggregator": make_aggregator("median")},
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_verdicts_and_bits_as_in_memory(tmp_path, case, monkeypatch):
    monkeypatch.setattr(
        "flwr.serverapp.strategy.strategy_utils.random.sample", lambda nodes, k: sorted(nodes)[:k]
    )
    options = dict(CASES[case])
    (rows, arrays), (kept, spilled) = (play(tmp_path, folder=on, **options) for on in (False, True))
    assert kept == rows
    for name, array in arrays.items():
        assert spilled[name].dtype == array.dtype
        np.testing.assert_array_equal(spilled[name], array)
    assert list((tmp_path / "spill").iterdir()) == [], "nothing is left over"


def test_one_reply_is_in_memory_at_a_time_and_the_others_are_safetensors(tmp_path):
    seen, sent = [], []

    class Watching(MemoryGrid):
        def _answer(self, message):
            lazy = [
                type(a) is Spilled for m in sent for r in m.content.array_records.values() for a in r.values()
            ]
            seen.append((len(lazy), all(lazy), len(list(tmp_path.rglob("*.safetensors")))))
            sent.append(super()._answer(message))
            return sent[-1]

    start = {k: a for k, a in PLAIN.items() if k != "c"}
    grid = Watching({n: trains(n) for n in range(1, 6)})
    guard = Guard(make_detector("krum", num_malicious=1))
    files = {}

    class Looking(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            files.update({path.name: load_file(path) for path in tmp_path.rglob("*.safetensors")})
            return super().aggregate_train(server_round, replies)

    strategy = GuardedStrategy(Looking(fraction_evaluate=0.0), guard, spill=tmp_path)
    strategy.start(grid, arrays_record(start), num_rounds=1, timeout=5)
    assert seen[:5] == [(2 * n, True, n) for n in range(5)]
    assert len(files) == 5
    expected = [trains(n)(start, None)["arrays"]["a"].numpy() for n in range(1, 6)]
    assert all(any(np.array_equal(own["a"], a) for a in expected) for own in files.values())


def changed(**changes):
    return lambda arrays, message: reply({k: changes.get(k, lambda a: a)(a) for k, a in arrays.items()})


def cut(arrays, message):
    content = reply(arrays)
    array = content["arrays"]["a"]
    content["arrays"]["a"] = Array(array.dtype, array.shape, array.stype, array.data[:-1])
    return content


FAULTS = {
    "another shape": changed(a=lambda a: a[:1]),
    "another dtype": changed(a=lambda a: a.astype("i4")),
    "NaN": changed(b=lambda b: b * np.nan),
    "statistics": changed(**{"bn.running_mean": lambda m: m + np.inf}),
    "a counter of another shape": changed(c=lambda c: np.zeros(2, "i8")),
    "missing": lambda arrays, message: reply({"a": arrays["a"]}),
    "extra": lambda arrays, message: reply({**arrays, "d": arrays["b"]}),
    "cut": cut,
    "two records": lambda arrays, message: RecordDict({**reply(arrays), "more": arrays_record(arrays)}),
    "no arrays": lambda arrays, message: RecordDict({"metrics": reply(arrays)["metrics"]}),
    "an error": lambda arrays, message: Error(1, "out of memory"),
    "silent": lambda arrays, message: None,
    "metrics": lambda arrays, message: reply(arrays, loss=np.nan),
    "another record": lambda arrays, message: RecordDict(
        {"other": arrays_record(arrays), "metrics": reply(arrays)["metrics"]}
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_have_the_same_reasons_as_in_memory(tmp_path, fault, monkeypatch):
    monkeypatch.setattr(
        "flwr.serverapp.strategy.strategy_utils.random.sample", lambda nodes, k: sorted(nodes)[:k]
    )
    monkeypatch.setattr("fedguard.flower.nodes.PAUSE", 0.01)
    sent = clients() | {8: FAULTS[fault]}
    start = {k: a for k, a in NORMED.items() if k != "empty"}

    def play_(on):
        guard = Guard(make_detector("krum", num_malicious=1))
        strategy = GuardedStrategy(
            flower.FedAvg(fraction_evaluate=0.0), guard, spill=tmp_path if on else None
        )
        result = strategy.start(MemoryGrid(sent), arrays_record(start), num_rounds=1, timeout=0.1)
        return [(v.client, v.weight, v.reason) for v in strategy.verdicts], result.arrays["a"].data

    assert play_(True) == play_(False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_nobodys_fault(tmp_path, monkeypatch):
    append, written = spill._append, []

    def full(file, *rest):
        written.append(file.name)
        if len(set(written)) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(file, *rest)

    monkeypatch.setattr(spill, "_append", full)
    rows, arrays = play(tmp_path, flower.FedAvg, True, rounds=1)
    assert len(rows) == 6
    assert not any(score == np.inf for _, score, *_ in rows)
    assert not np.array_equal(arrays["a"], PLAIN["a"])


def test_a_method_that_needs_all_updates_at_once_ends_the_run(tmp_path):
    guard = Guard(make_detector("foolsgold"))
    strategy = GuardedStrategy(flower.FedAvg(fraction_evaluate=0.0), guard, spill=tmp_path)
    with pytest.raises(StreamedError, match="streamed from disk, but a method needs all of them at once"):
        strategy.start(MemoryGrid(clients()), arrays_record(PLAIN), num_rounds=1, timeout=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_garbage_is_collected_as_before_after_a_round(frozen):
    before, count = gc.get_threshold(), gc.get_freeze_count()
    try:
        if frozen:
            gc.freeze()
        else:
            gc.unfreeze()
        with early_collection():
            assert gc.get_threshold() != before
            assert gc.get_freeze_count() > 0
        # Not the exact count: frozen objects still die when nothing refers to them.
        assert (gc.get_threshold(), gc.get_freeze_count() > 0) == (before, frozen)
    finally:
        if count and not frozen:
            gc.freeze()


def test_mistakes_of_the_integrator_are_named(tmp_path):
    with pytest.raises(ParameterError, match="spill: the model has arrays of float128; use float16"):
        play(tmp_path, flower.FedAvg, True, {"a": np.zeros(3, np.longdouble)})
    (tmp_path / "spill").write_text("a file")
    with pytest.raises(ParameterError, match="spill cannot be used: File exists"):
        play(tmp_path, flower.FedAvg, True)


def test_a_strategy_that_returns_a_clients_arrays_gets_them_into_memory(tmp_path):
    class First(flower.FedAvg):
        def aggregate_train(self, server_round, replies):
            (record,) = next(iter(replies)).content.array_records.values()
            return record, None

    _, arrays = play(tmp_path, First, True, rounds=1)
    assert any(
        np.array_equal(arrays["a"], trains(n)(PLAIN, None)["arrays"]["a"].numpy()) for n in range(1, 7)
    )
