"""GuardedStrategy on a federation in memory: who is asked, who is let through, what is told and kept."""

import gc
import json
import logging
import math
import random

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fedguard import (
    Card,
    Detector,
    Guard,
    LabeledData,
    Ledger,
    Scores,
    Server,
    make_aggregator,
    make_detector,
    make_policy,
    make_stage,
)
from fedguard.core.errors import NeedError, ParameterError, ResultsError, SecureAggregationError
from fedguard.core.state import save
from fedguard.flower import GuardedStrategy
from fedguard.testing.flower import MemoryGrid, arrays_record, reply

GLOBAL = {"a": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array([5.0], np.float32)}


def moved(step, examples=10):
    """A client whose model is the global one plus ``step``."""
    return lambda arrays, message: reply({k: a + np.float32(step) for k, a in arrays.items()}, examples)


class Shift(Detector):
    """s_i = the mean of the update; above ``limit`` is a suspect. Counts the rounds that it saw."""

    card = Card("shift", "the mean of the update", "FedGuard")

    def __init__(self, limit=10.0, weight=None):
        self.limit, self.weight = limit, weight
        self.gives_weights = weight is not None
        self.rounds = 0
        self.last = None

    def score(self, round):
        self.last = round
        values = round.updates.matrix.double().mean(1).numpy()
        weights = None if self.weight is None else np.where(values > self.limit, self.weight, 1.0)
        return Scores(values, values > self.limit, "a long way up", weights=weights)

    def commit(self, round, scores, decision=None):
        self.rounds += 1

    def state_dict(self):
        return {"rounds": self.rounds}

    def load_state_dict(self, state):
        self.rounds = state["rounds"]


def banning(strikes=1, **policy):
    return Guard(Shift(), make_policy("ban", strikes=strikes, **policy))


def fedavg(**settings):
    return FedAvg(**{"fraction_evaluate": 0.0, **settings})


def play(strategy, grid, rounds=1, start=GLOBAL):
    """Flower's own loop."""
    return strategy.start(grid, arrays_record(start), num_rounds=rounds, timeout=5)


def steps(arrays):
    """How far every number of the new model is from the old one."""
    return {k: (array.numpy() - GLOBAL[k]).ravel().round(4).tolist() for k, array in arrays.items()}


HONEST = {1: moved(1), 2: moved(2), 3: moved(3)}


# --- who counts


def test_a_suspect_is_left_out_and_the_rest_averaged():
    grid = MemoryGrid({**HONEST, 4: moved(100)})
    result = play(GuardedStrategy(fedavg(), Guard(Shift())), grid)
    assert steps(result.arrays) == {"a": [2.0] * 4, "b": [2.0]}


def test_without_suspects_the_inner_strategy_gives_the_same_bits():
    rng = np.random.default_rng(0)
    clients = {n: moved(x, 7 + n) for n, x in enumerate(rng.normal(size=6), 1)}
    random.seed(0)  # Flower samples in a random order, and sums in that order
    guarded = play(GuardedStrategy(fedavg(), Guard(Shift())), MemoryGrid(clients), 3)
    random.seed(0)
    alone = play(fedavg(), MemoryGrid(clients), 3)
    for name in GLOBAL:
        assert guarded.arrays[name].data == alone.arrays[name].data


def test_the_guard_sees_updates_counts_and_the_global_model():
    guard = Guard(detector := Shift())
    play(GuardedStrategy(fedavg(), guard), MemoryGrid({1: moved(1, 5), 2: moved(2, 6)}))
    seen = dict(zip(detector.last.client_ids, detector.last.updates.matrix.tolist(), strict=True))
    assert seen == {"node-1": [1.0] * 5, "node-2": [2.0] * 5}
    counts = dict(zip(detector.last.client_ids, detector.last.num_examples.tolist(), strict=True))
    assert counts == {"node-1": 5, "node-2": 6}
    assert detector.last.global_params.tolist() == [1, 2, 3, 4, 5]
    assert detector.last.index == 0


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (lambda: fedavg(), (1 + 2 + 3 + 0.5 * 20) / 3.5),  # half the examples of the fourth
        (lambda: flower.FedMedian(fraction_evaluate=0.0), (2 + 3) / 2),  # 1, 2, 3 and half of 20
    ],
    ids=["fedavg", "median"],
)
def test_a_weight_below_one_takes_effect_in_the_way_that_the_strategy_honors(inner, expected):
    guard = Guard(Shift(weight=0.5), make_policy("reweight"))
    result = play(GuardedStrategy(inner(), guard), MemoryGrid({**HONEST, 4: moved(20)}))
    assert steps(result.arrays)["b"] == [pytest.approx(expected, abs=1e-4)]


def test_scaling_the_delta_is_a_choice_for_fedavg_as_well():
    guard = Guard(Shift(weight=0.5), make_policy("reweight"))
    strategy = GuardedStrategy(fedavg(), guard, reweight="delta")
    result = play(strategy, MemoryGrid({**HONEST, 4: moved(20)}))
    assert steps(result.arrays)["b"] == [(1 + 2 + 3 + 10) / 4]


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (lambda: fedavg(), (1 + 2 + 3 + 2 * 20) / 5),  # 20 of its 900 examples count, twice the median
        (lambda: flower.FedMedian(fraction_evaluate=0.0), (2 + 3) / 2),  # counts nobody's examples
    ],
    ids=["fedavg", "median"],
)
def test_a_claim_above_the_limit_counts_less(inner, expected):
    guard = Guard(Shift(weight=1.0), make_policy("reweight"), claim_limit=2)
    result = play(GuardedStrategy(inner(), guard), MemoryGrid({**HONEST, 4: moved(20, 900)}))
    assert steps(result.arrays)["b"] == [pytest.approx(expected, abs=1e-4)]


def test_which_strategies_honor_examples():
    from fedguard.flower.inner import honored

    class Mine(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    names = ("FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad")
    weighted = [getattr(flower, name)() for name in names] + [flower.FedProx(proximal_mu=0.1)]
    robust = [flower.FedMedian(), flower.FedTrimmedAvg(), flower.Krum(), flower.MultiKrum(), flower.Bulyan()]
    private = flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 1.0, 4)
    assert {honored(s) for s in weighted} == {"examples"}
    assert {honored(s) for s in [*robust, flower.QFedAvg(0.1), private, Mine()]} == {"delta"}


STRATEGIES = {
    "FedAvg": {},
    "FedAvgM": {},
    "FedAdam": {},
    "FedYogi": {},
    "FedAdagrad": {},
    "FedMedian": {},
    "FedTrimmedAvg": {},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "loss"},
    "FedProx": {"proximal_mu": 0.1},
}


@pytest.fixture(scope="module")
def frozen_heap():
    """QFedAvg and Bulyan collect garbage for every reply: not among all that other tests have left behind."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_strategy_goes_on_for_rounds_with_bans_and_nonsense(name):
    inner = getattr(flower, name)(fraction_evaluate=0.0, **STRATEGIES[name])
    nonsense = lambda arrays, message: reply({"a": arrays["a"]})  # noqa: E731
    clients = {n: moved(n / 10) for n in range(1, 7)}
    grid = MemoryGrid({**clients, 7: moved(100), 8: nonsense})
    result = play(GuardedStrategy(inner, banning()), grid, 3)
    assert grid.asked[0] != grid.asked[2]
    assert set(grid.asked[2]) == set(clients)
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())
    assert all(abs(step) < 10 for step in steps(result.arrays)["a"])


def test_a_strategy_that_asks_a_node_twice_is_refused():
    class Twice(FedAvg):
        def configure_train(self, *args):
            messages = list(super().configure_train(*args))
            return [*messages, messages[0]]

    with pytest.raises(ParameterError, match="asks a node twice in a round"):
        play(GuardedStrategy(Twice(fraction_evaluate=0.0), banning()), MemoryGrid(HONEST))


def test_replies_to_nothing_are_the_callers_mistake():
    with pytest.raises(ParameterError, match="no messages were sent; call configure_train first"):
        GuardedStrategy(fedavg(), banning()).aggregate_train(1, [])


def test_a_round_in_which_the_strategy_does_not_train_is_no_round_of_the_guard():
    class EveryOther(FedAvg):
        def configure_train(self, server_round, *args):
            return super().configure_train(server_round, *args) if server_round % 2 else []

    guard = banning()
    strategy = GuardedStrategy(EveryOther(fraction_evaluate=0.0), guard)
    result = play(strategy, grid := MemoryGrid(HONEST), 3)
    assert [sorted(asked) for asked in grid.asked if asked] == [sorted(HONEST)] * 2
    assert guard.detectors["shift"].rounds == 2
    assert list(result.train_metrics_clientapp) == [1, 3]


def test_a_global_model_that_cannot_be_read_is_named():
    broken = arrays_record(GLOBAL)
    broken["b"].data = broken["b"].data[:-1]
    with pytest.raises(ParameterError, match="the global model cannot be guarded: an array of it"):
        GuardedStrategy(fedavg(), banning()).start(MemoryGrid(HONEST), broken, num_rounds=1, timeout=5)


# --- bans


def test_banned_clients_are_not_asked_again_until_their_ban_ends():
    grid = MemoryGrid({**HONEST, 4: moved(100)})
    play(GuardedStrategy(fedavg(), banning(duration=2)), grid, 4)
    assert [4 in asked for asked in grid.asked if asked] == [True, False, True, False]


def test_bans_are_by_public_key_where_there_is_one(caplog):
    head = b"-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYF"
    keys = {n: head + bytes([64 + n]) for n in (1, 2, 3, 4)}
    grid = MemoryGrid({**HONEST, 4: moved(100)}, keys)
    strategy = GuardedStrategy(fedavg(), banning())
    play(strategy, grid, 1)
    assert len({row.client for row in strategy.verdicts}) == 4, "all keys begin alike"
    grid.clients[14], grid.keys[14] = grid.clients.pop(4), keys[4]  # another node id, the same key
    play(strategy, grid, 1)
    assert set(grid.asked[-2]) == {1, 2, 3}
    grid.keys[14] = head + b"new"  # a new key: nobody knows this client
    monitor = logging.getLogger("flwr")
    monitor.propagate = True
    with caplog.at_level(logging.INFO, "flwr"):
        play(strategy, grid, 1)
    assert 14 in grid.asked[-2]
    strangers = [r.message for r in caplog.records if "for the first time" in r.message]
    assert len(strangers) == 1


def test_two_nodes_with_one_key_are_one_client():
    keys = {1: b"one", 2: b"two", 3: b"one"}
    strategy = GuardedStrategy(fedavg(), banning(), identity="key")
    play(strategy, grid := MemoryGrid(HONEST, keys))
    assert set(grid.asked[0]) == {1, 2}
    assert len(strategy.verdicts) == 2


def test_a_simulations_random_bytes_are_no_key(caplog):
    grid = MemoryGrid(HONEST, {n: bytes([n]) * 32 for n in HONEST})
    strategy = GuardedStrategy(fedavg(), banning())
    with caplog.at_level(logging.WARNING, "flwr"):
        logging.getLogger("flwr").propagate = True
        play(strategy, grid, 2)
    assert {row.client for row in strategy.verdicts} == {"node-1", "node-2", "node-3"}
    assert [r.message for r in caplog.records if "come back under another name" in r.message] != []
    assert sum("come back under another name" in r.message for r in caplog.records) == 1, "once is enough"


def test_who_has_to_have_a_key_and_has_none_is_not_asked():
    grid = MemoryGrid(HONEST, {1: b"one", 2: b"two"})
    play(GuardedStrategy(fedavg(), banning(), identity="key"), grid)
    assert set(grid.asked[0]) == {1, 2}


def test_a_strategy_that_remembers_nodes_cannot_ask_banned_ones():
    class Stubborn(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            config["server-round"] = server_round
            record = RecordDict({"arrays": arrays, "config": config})
            return self._construct_messages(record, [1, 2, 3, 4, 77], "train")

    keys = {n: b"-----BEGIN KEY " + bytes([64 + n]) for n in (1, 2, 3, 4)}
    grid = MemoryGrid({**HONEST, 4: moved(100)}, keys)
    strategy = GuardedStrategy(Stubborn(fraction_evaluate=0.0), banning())
    play(strategy, grid, 2)
    assert [asked for asked in grid.asked if asked] == [[1, 2, 3, 4], [1, 2, 3]], "and 77 is nobody"
    assert all(row.client.startswith("key-") for row in strategy.verdicts)


@pytest.mark.parametrize("evaluate", [0.0, 1.0])
def test_bans_lower_what_the_strategy_waits_for(evaluate):
    grid = MemoryGrid({**HONEST, 4: moved(100)})
    inner = FedAvg(fraction_evaluate=evaluate, min_train_nodes=4, min_available_nodes=4, min_evaluate_nodes=4)
    play(GuardedStrategy(inner, banning(), patience=2), grid, 2)
    assert set(grid.asked[2]) == {1, 2, 3}
    assert (inner.min_train_nodes, inner.min_available_nodes, inner.min_evaluate_nodes)[:2] == (4, 4)


def test_too_few_left_skips_the_round_and_never_hangs(monkeypatch):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr("fedguard.flower.nodes.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    grid = MemoryGrid({1: moved(1), 2: moved(100), 3: moved(100)})
    strategy = GuardedStrategy(fedavg(), banning(max_share=1), patience=30)
    result = play(strategy, grid, 3)
    assert [sorted(asked) for asked in grid.asked[::2]] == [[1, 2, 3], [], []]
    assert steps(result.arrays)["b"] == [1.0], "the model of the first round stays"
    assert result.train_metrics_clientapp[2]["guard-kept-global"] == 1
    assert strategy.index == 3


def test_nodes_without_keys_are_not_waited_for_forever(monkeypatch, caplog):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr("fedguard.flower.nodes.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    grid = MemoryGrid(HONEST, {1: b"one"})
    strategy = GuardedStrategy(fedavg(), banning(), patience=30, identity="key")
    result = play(strategy, grid, 1)
    assert grid.asked[0] == []
    assert result.train_metrics_clientapp[1]["guard-kept-global"] == 1
    assert "2 nodes have no public key" in caplog.text


# --- what is told


def test_metrics_and_verdicts(tmp_path):
    grid = MemoryGrid({**HONEST, 4: moved(100), 5: lambda arrays, message: None})
    strategy = GuardedStrategy(fedavg(), banning(strikes=2), state=tmp_path / "state")
    numbers = play(strategy, grid, 2).train_metrics_clientapp
    assert numbers[1]["loss"] == 0.5, "the inner strategy's metrics are kept"
    assert (numbers[1]["guard-clients"], numbers[1]["guard-suspects"]) == (5, 2)
    assert (numbers[1]["guard-excluded"], numbers[1]["guard-banned"], numbers[2]["guard-banned"]) == (2, 0, 2)
    by_node = dict(zip(numbers[1]["guard-nodes"], numbers[1]["guard-scores"], strict=True))
    assert (by_node[3], by_node[4], by_node[5]) == (3.0, 100.0, math.inf)
    rows = [json.loads(line) for line in (tmp_path / "state" / "verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    last = {row["client"]: row for row in rows[5:]}
    assert last["node-4"]["reason"] == "banned for good: shift score 100: a long way up"
    assert last["node-5"]["reason"] == "banned for good: no reply in time"
    assert (last["node-5"]["score"], last["node-1"]["weight"], last["node-1"]["round"]) == ("inf", 1.0, 1)


def test_the_list_of_clients_can_be_left_out_of_flowers_metrics():
    numbers = play(GuardedStrategy(fedavg(), banning(), per_client=False), MemoryGrid(HONEST))
    assert "guard-nodes" not in numbers.train_metrics_clientapp[1]


# --- what is kept


def test_a_restarted_server_goes_on_where_it_was(tmp_path):
    clients = {**HONEST, 4: moved(100)}
    first = GuardedStrategy(fedavg(), banning(duration=4), state=tmp_path)
    play(first, MemoryGrid(clients), 2)
    second = GuardedStrategy(fedavg(), guard := banning(duration=4), state=tmp_path)
    assert second.index == 2
    assert guard.detectors["shift"].rounds == 2
    play(second, grid := MemoryGrid(clients), 3)
    assert [4 in asked for asked in grid.asked[::2]] == [False, False, True]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    play(GuardedStrategy(fedavg(), banning(), state=tmp_path), MemoryGrid(HONEST))
    with pytest.raises(ParameterError, match="identity is 'key', but the bans"):
        GuardedStrategy(fedavg(), banning(), state=tmp_path, identity="key")
    with pytest.raises(ParameterError, match="a guard with detectors"):
        GuardedStrategy(fedavg(), Guard(), state=tmp_path)
    (tmp_path / "guard.state").write_bytes(b"rubbish")
    with pytest.raises(ResultsError, match="no whole state"):
        GuardedStrategy(fedavg(), banning(), state=tmp_path)


@pytest.mark.parametrize("change", [{"index": "x"}, {"index": None}, {"index": -5}, {"index": 1.5}, None])
def test_a_state_of_something_else_is_refused(change, tmp_path):
    own = banning().state_dict()
    whole = {"identity": "auto", "index": 1, "guard": own}
    save(tmp_path / "guard.state", own if change is None else {**whole, **change})
    guard = banning()
    with pytest.raises(ParameterError, match=r"state: it has no 'guard'|where a count belongs"):
        GuardedStrategy(fedavg(), guard, state=tmp_path)
    assert guard.next_index == 0


def test_a_ledger_that_keeps_itself_is_not_put_back(tmp_path):
    class Kept(Ledger):
        pass

    play(GuardedStrategy(fedavg(), banning(), state=tmp_path), MemoryGrid({**HONEST, 4: moved(100)}))
    guard = Guard(Shift(), make_policy("ban"), ledger=Kept())
    GuardedStrategy(fedavg(), guard, state=tmp_path)
    assert not guard.ledger.is_banned("node-4", 5), "an operator may have lifted the ban since"
    assert guard.detectors["shift"].rounds == 1


def test_a_state_that_cannot_be_written_does_not_end_the_federation(tmp_path):
    (tmp_path / "taken").write_text("a file")
    strategy = GuardedStrategy(fedavg(), banning(), state=tmp_path / "other" / "state")
    (tmp_path / "other").write_text("a file")
    assert steps(play(strategy, MemoryGrid(HONEST)).arrays)["b"] == [2.0]


# --- when the guard refuses


class Picky(Shift):
    """Wants four clients, and fails in a way of its own if told to."""

    card = Card("picky", "four clients at least", "FedGuard")
    bug = False

    def min_clients(self):
        return 4

    def score(self, round):
        if self.bug:
            raise ZeroDivisionError("a bug")
        return super().score(round)


@pytest.mark.parametrize("bug", [False, True])
def test_a_refused_round_keeps_the_global_model_and_says_so(bug):
    detector = Picky()
    detector.bug = bug
    strategy = GuardedStrategy(fedavg(), Guard(detector))
    result = play(strategy, MemoryGrid({**HONEST, **({4: moved(4)} if bug else {})}))
    assert steps(result.arrays)["b"] == [0.0]
    assert result.train_metrics_clientapp[1]["guard-refused"] == 1
    assert "picky needs at least 4" in strategy.verdicts[0].reason or bug
    assert "the global model stays as it is" in strategy.verdicts[0].reason


def test_a_refused_round_may_be_passed_on_but_for_what_cannot_be_used():
    broken = lambda arrays, message: reply({"a": arrays["a"] * np.nan, "b": arrays["b"]})  # noqa: E731
    strategy = GuardedStrategy(fedavg(), Guard(Picky(), on_too_few="error"), on_refusal="pass")
    result = play(strategy, MemoryGrid({1: moved(1), 2: moved(2), 3: broken}))
    assert steps(result.arrays)["b"] == [1.5]


def test_a_refused_round_may_end_the_federation():
    with pytest.raises(Exception, match="picky needs at least 4"):
        play(GuardedStrategy(fedavg(), Guard(Picky()), on_refusal="raise"), MemoryGrid(HONEST))


def test_those_who_send_nonsense_cannot_keep_the_guard_from_judging():
    broken = lambda arrays, message: reply({"a": arrays["a"] * np.nan, "b": arrays["b"]})  # noqa: E731
    guard = Guard(Picky(), make_policy("ban", strikes=2))
    grid = MemoryGrid({**HONEST, **dict.fromkeys((5, 6, 7), broken)})
    play(GuardedStrategy(fedavg(), guard), grid, 3)
    assert set(grid.asked[-2]) == {1, 2, 3}


def test_nobody_left_keeps_the_global_model():
    result = play(GuardedStrategy(fedavg(), Guard(Shift())), MemoryGrid({1: moved(50), 2: moved(60)}))
    assert steps(result.arrays)["b"] == [0.0]
    assert result.train_metrics_clientapp[1]["guard-kept-global"] == 1


def test_an_inner_strategy_that_makes_nan_is_not_followed():
    class Broken(FedAvg):
        def aggregate_train(self, server_round, replies):
            return arrays_record({k: a * np.nan for k, a in GLOBAL.items()}), None

    result = play(GuardedStrategy(Broken(fraction_evaluate=0.0), Guard(Shift())), MemoryGrid(HONEST), 2)
    assert steps(result.arrays)["b"] == [0.0]


# --- who aggregates


@pytest.mark.parametrize("inner", [FedAvg, flower.FedMedian, flower.MultiKrum])
def test_the_guard_may_aggregate_itself(inner):
    guard = Guard(aggregator=make_aggregator("median"))
    strategy = GuardedStrategy(inner(fraction_evaluate=0.0), guard, aggregate="guard")
    result = play(strategy, MemoryGrid({1: moved(1), 2: moved(2), 3: moved(900)}))
    assert steps(result.arrays) == {"a": [2.0] * 4, "b": [2.0]}


def test_what_the_guard_would_aggregate_with_is_not_left_out_silently():
    with pytest.raises(ParameterError, match="the guard has the aggregator 'median'"):
        GuardedStrategy(fedavg(), Guard(aggregator=make_aggregator("median")))
    GuardedStrategy(fedavg(), Guard(aggregator=make_aggregator("median")), aggregate="inner")
    guard = Guard(stages=make_stage("norm_clipping", bound=1.0))
    with pytest.raises(ParameterError, match="stages"):
        GuardedStrategy(fedavg(), guard, aggregate="inner")


# --- which arrays


@pytest.mark.parametrize(
    ("patterns", "scored"),
    [("b", [5.0]), (["?"], [1, 2, 3, 4, 5.0]), ("!b", [1, 2, 3, 4.0]), (["*", "!a"], [5.0])],
)
def test_selected_arrays_only(patterns, scored):
    guard = Guard(detector := Shift())
    strategy = GuardedStrategy(fedavg(), guard, parameters=patterns)
    result = play(strategy, MemoryGrid(HONEST))
    assert detector.last.global_params.tolist() == scored
    learned = {"a": [2.0] * 4 if 1.0 in scored else [0.0] * 4, "b": [2.0 if 5.0 in scored else 0.0]}
    assert steps(result.arrays) == learned, "the server's others stay"


def test_a_pattern_that_selects_nothing_is_refused():
    with pytest.raises(ParameterError, match=r"parameters is \['lora\*'\]"):
        play(GuardedStrategy(fedavg(), Guard(Shift()), parameters="lora*"), MemoryGrid(HONEST))


def test_counters_are_not_scored_and_stay_the_servers():
    start = {**GLOBAL, "steps": np.array(3, np.int64)}
    guard = Guard(detector := Shift())
    grid = MemoryGrid({n: lambda arrays, message: reply({**arrays, "steps": np.array(4)}) for n in (1, 2)})
    result = play(GuardedStrategy(fedavg(), guard), grid, 2, start)
    assert detector.last.updates.d == 5
    assert result.arrays["steps"].numpy() == 3
    assert result.arrays["steps"].numpy().dtype == np.int64


def test_a_method_that_needs_the_model_scores_its_parameters_in_its_order():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    data = LabeledData(torch.randn(8, 2), torch.arange(8) % 2)
    server = Server(model=model, validation=data, num_classes=2, input_shape=(2,))

    def step(x):
        return lambda arrays, message: reply({k: a + np.asarray(x, a.dtype) for k, a in arrays.items()})

    grid = MemoryGrid({n: step(n / 10) for n in range(1, 6)})
    seen = []

    class Peek(Shift):
        card = Card("peek", "looks at the model", "FedGuard")
        needs = frozenset({"model"})

        def score(self, round):
            seen.append(round)
            return super().score(round)

    guard = Guard([make_detector("lfr", num_malicious=1), Peek()])
    shuffled = dict(sorted(state.items(), reverse=True))
    play(GuardedStrategy(fedavg(), guard, server=server), grid, 1, shuffled)
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(seen[0].global_params, expected)


def test_what_a_detector_needs_is_asked_for_at_once():
    with pytest.raises(NeedError, match="lfr needs model"):
        GuardedStrategy(fedavg(), Guard(make_detector("lfr", num_malicious=1)))


# --- what is refused


def test_what_cannot_be_guarded():
    class SecAggPlusWorkflow:
        pass

    with pytest.raises(SecureAggregationError, match="shows the server nothing but the sum"):
        GuardedStrategy(SecAggPlusWorkflow(), Guard())
    with pytest.raises(ParameterError, match="inner is a str"):
        GuardedStrategy("FedAvg", Guard())
    with pytest.raises(ParameterError, match="trees"):
        GuardedStrategy(flower.FedXgbBagging(), Guard())

    class Odd(flower.Strategy):
        configure_train = aggregate_train = configure_evaluate = aggregate_evaluate = summary = None

    with pytest.raises(ParameterError, match="does not count examples"):
        GuardedStrategy(Odd(), Guard(), reweight="examples")
    for settings in ({"identity": "name"}, {"on_refusal": "x"}, {"patience": -1}, {"max_examples": math.nan}):
        with pytest.raises(ParameterError, match=next(iter(settings))):
            GuardedStrategy(fedavg(), Guard(), **settings)


def test_secure_aggregation_is_refused_by_its_messages():
    class Masked(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            for message in messages:
                message.content["secaggplus_configs"] = ConfigRecord({"stage": "setup"})
            return messages

    with pytest.raises(SecureAggregationError):
        play(GuardedStrategy(Masked(fraction_evaluate=0.0), Guard(Shift())), MemoryGrid(HONEST))


def test_a_global_model_that_is_not_finite_is_nobodys_fault():
    start = {**GLOBAL, "b": np.array([np.nan], np.float32)}
    with pytest.raises(ParameterError, match="array 'b' of the global model holds NaN or Inf"):
        play(GuardedStrategy(fedavg(), banning()), MemoryGrid(HONEST), 1, start)
