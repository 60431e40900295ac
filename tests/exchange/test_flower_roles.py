"""What a client cannot do to a Flower federation: change dtypes, statistics, what is frozen."""

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Error, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fedguard import Guard, LabeledData, Server, make_aggregator, make_detector, make_policy
from fedguard.core.errors import ParameterError, RoundError
from fedguard.flower import GuardedStrategy
from fedguard.testing.flower import MemoryGrid, arrays_record, reply

RNG = np.random.default_rng(0)
PLAIN = {"a": RNG.normal(size=(40, 3)).astype("f4"), "b": RNG.normal(size=3).astype("f4")}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def arrays_of(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def trains(seed, dtype=None, **changes):
    """A client: parameters a little on, statistics its own, counters counted up; in its own dtype."""
    rng = np.random.default_rng(seed)

    def answer(arrays, message):
        out = {}
        for name, array in arrays.items():
            if array.dtype.kind != "f":
                out[name] = array + 1
            elif "running" in name:
                out[name] = (array + rng.uniform(0, 0.1, array.shape)).astype("f4")
            else:
                out[name] = (array + rng.normal(0.05, 0.01, array.shape)).astype(dtype or array.dtype)
        out |= {name: np.full_like(arrays[name], value) for name, value in changes.items()}
        return reply(out)

    return answer


def fedavg(**settings):
    return FedAvg(fraction_evaluate=0.0, **settings)


def play(strategy, clients, start, rounds=1):
    return strategy.start(MemoryGrid(clients), arrays_record(start), num_rounds=rounds, timeout=5)


class Watched(FedAvg):
    """Notes the dtypes and the arrays that it is given."""

    def __init__(self):
        super().__init__(fraction_evaluate=0.0)
        self.given = []

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for message in replies:
            (record,) = message.content.array_records.values()
            self.given.append({name: array.numpy() for name, array in record.items()})
        return super().aggregate_train(server_round, replies)


# --- dtypes


@pytest.mark.parametrize("dtype", [np.longdouble, np.float64, np.float16, np.int8, np.bool_])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_client_changes_the_models_dtype_and_gets_the_honest_banned(dtype, seed):
    first = trains(9, dtype)
    clients = {1: first, **{n: trains(100 * seed + n) for n in range(2, 8)}}
    guard = Guard(
        make_detector("dnc", num_malicious=1), make_policy("ban", strikes=1, rule={"name": "mad", "k": 20})
    )
    strategy = GuardedStrategy(inner := Watched(), guard)
    result = play(strategy, clients, PLAIN, 3)
    assert {str(array.dtype) for arrays in inner.given for array in arrays.values()} == {"float32"}
    assert {str(array.numpy().dtype) for array in result.arrays.values()} == {"float32"}
    assert not [row for row in strategy.verdicts if row.node != 1 and (row.banned or row.suspect)]
    assert np.isfinite(result.arrays["a"].numpy()).all()


@pytest.mark.parametrize(
    "inner", [FedAvg, flower.FedAdam, flower.FedMedian, flower.FedAvgM, flower.FedTrimmedAvg]
)
@pytest.mark.parametrize("aggregate", ["inner", "guard"])
def test_whatever_the_strategy_makes_of_them_dtypes_and_counters_stay(inner, aggregate):
    start = {name: a.astype("f2") if name == "0.weight" else a for name, a in arrays_of(network()).items()}
    strategy = GuardedStrategy(inner(fraction_evaluate=0.0), Guard(), aggregate=aggregate)
    result = play(strategy, {n: trains(n) for n in range(1, 6)}, start, 2)
    assert list(result.arrays) == list(start)
    for name, array in start.items():
        assert result.arrays[name].numpy().dtype == array.dtype, name
    assert result.arrays["1.num_batches_tracked"].numpy() == 0
    assert not np.array_equal(result.arrays["0.weight"].numpy(), start["0.weight"])


@pytest.mark.parametrize("change", [{"a": PLAIN["a"].T}, {"c": PLAIN["b"]}])
def test_a_strategy_that_returns_another_model_is_not_followed(change):
    class Odd(FedAvg):
        def aggregate_train(self, server_round, replies):
            return arrays_record({**PLAIN, **change}), None

    result = play(GuardedStrategy(Odd(fraction_evaluate=0.0), Guard()), {1: trains(1), 2: trains(2)}, PLAIN)
    assert {k: v.numpy().tolist() for k, v in result.arrays.items()} == {
        k: v.tolist() for k, v in PLAIN.items()
    }


# --- statistics, counters and what is frozen

WAYS = {
    "nothing said": {},
    "patterns": {"parameters": ["*", "!*running*"]},
    "a model": {"server": Server(model=network())},
    "the guard aggregates": {"aggregate": "guard"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("extreme", [1e12, -1e12, 3.4e38])
def test_one_client_cannot_move_the_statistics(way, extreme):
    start = arrays_of(network())
    clients = {**{n: trains(n) for n in range(1, 8)}, 8: trains(8, **{"1.running_var": extreme})}
    strategy = GuardedStrategy(inner := Watched(), Guard(), **WAYS[way])
    result = play(strategy, clients, start, 2)
    assert all(row.weight == 1 for row in strategy.verdicts), "nothing is wrong with its parameters"
    variance = result.arrays["1.running_var"].numpy()
    assert ((variance >= 1) & (variance <= 1.2)).all()
    assert all((given["1.running_var"] < 2).all() for given in inner.given), "the strategy does not see it"
    assert result.arrays["1.num_batches_tracked"].numpy() == 0


def test_a_detector_that_needs_the_model_does_not_let_statistics_through():
    net, start = network(), arrays_of(network())
    held = LabeledData(torch.randn(20, 4), torch.arange(20) % 2)
    server = Server(model=net, validation=held, num_classes=2, input_shape=(4,), seed=1)
    clients = {**{n: trains(n) for n in range(1, 8)}, 8: trains(8, **{"1.running_mean": 1e11})}
    guard = Guard(make_detector("lfr", num_malicious=1))
    result = play(GuardedStrategy(fedavg(), guard, server=server), clients, start, 2)
    assert (np.abs(result.arrays["1.running_mean"].numpy()) < 0.3).all()
    assert torch.equal(net[1].running_mean, torch.zeros(3)), "the server's own model is left alone"


def test_nobody_moves_what_is_frozen():
    start = {"base": PLAIN["a"], "lora": PLAIN["b"]}
    clients = {**{n: trains(n) for n in range(1, 5)}, 5: trains(5, base=1e9)}
    strategy = GuardedStrategy(inner := Watched(), Guard(), parameters="lora*")
    result = play(strategy, clients, start, 2)
    np.testing.assert_array_equal(result.arrays["base"].numpy(), start["base"])
    assert all(np.array_equal(given["base"], start["base"]) for given in inner.given)
    assert not np.array_equal(result.arrays["lora"].numpy(), start["lora"])
    model = torch.nn.ModuleDict({"base": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    model["base"].requires_grad_(False)
    start = arrays_of(model)
    clients[5] = trains(5, **{"base.weight": 1e9})
    result = play(GuardedStrategy(fedavg(), Guard(), server=Server(model=model)), clients, start)
    np.testing.assert_array_equal(result.arrays["base.weight"].numpy(), start["base.weight"])
    assert not np.array_equal(result.arrays["head.weight"].numpy(), start["head.weight"])


def test_reweighted_updates_leave_statistics_alone():
    class Half(type(make_detector("krum", num_malicious=1))):
        gives_weights = True

        def score(self, round):
            scores = super().score(round)
            return type(scores)(scores.values, scores.suspects, "half", weights=np.full(round.n, 0.5))

    start = arrays_of(network())
    for how in ("examples", "delta"):
        guard = Guard(Half(num_malicious=1), make_policy("reweight"))
        result = play(
            GuardedStrategy(fedavg(), guard, reweight=how), {n: trains(n) for n in range(1, 6)}, start
        )
        variance = result.arrays["1.running_var"].numpy()
        assert ((variance >= 1) & (variance <= 1.1)).all()
        step = (result.arrays["0.weight"].numpy() - start["0.weight"]).mean()
        assert step == pytest.approx(0.05 if how == "examples" else 0.025, abs=0.01)


def test_tied_weights_of_the_servers_model_count_once():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    start = arrays_of(model)
    strategy = GuardedStrategy(fedavg(), Guard(), server=Server(model=model))
    result = play(strategy, {n: trains(n) for n in range(1, 4)}, dict(reversed(start.items())))
    np.testing.assert_array_equal(result.arrays["0.weight"].numpy(), result.arrays["1.weight"].numpy())
    assert not np.array_equal(result.arrays["0.weight"].numpy(), start["0.weight"])


# --- whose fault it is

BROKEN = {
    "arrays are missing": lambda arrays, message: reply({"a": arrays["a"]}),
    "nan": lambda arrays, message: reply({k: a * np.nan for k, a in arrays.items()}),
    "no metrics": lambda arrays, message: RecordDict({"arrays": arrays_record(arrays)}),
    "errors": lambda arrays, message: Error(0, "the app crashed"),
    "silence": lambda arrays, message: None,
    "empty": lambda arrays, message: RecordDict(),
    "half of the numbers": lambda arrays, message: reply({k: a.ravel()[:1] for k, a in arrays.items()}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_fault_that_all_replies_share_earns_nobody_a_strike(case):
    guard = Guard(policy=make_policy("ban", strikes=1))
    strategy = GuardedStrategy(fedavg(), guard)
    grid = MemoryGrid(dict.fromkeys((1, 2, 3), BROKEN[case]))
    result = strategy.start(grid, arrays_record(PLAIN), num_rounds=2, timeout=5)
    assert result.train_metrics_clientapp[2]["guard-refused"] == 1
    assert guard.ledger.clients() == []
    assert set(grid.asked[2]) == {1, 2, 3}
    np.testing.assert_array_equal(result.arrays["a"].numpy(), PLAIN["a"])
    grid.clients[1] = trains(1)
    strategy.start(grid, arrays_record(PLAIN), num_rounds=1, timeout=5)
    assert sorted(row.node for row in strategy.verdicts if row.banned) == [2, 3], "one good reply proves it"


@pytest.mark.parametrize("case", BROKEN)
def test_the_fault_of_a_single_reply_is_its_senders(case):
    """Nobody shares it: the round is judged, not refused."""
    inner = fedavg(min_train_nodes=1, min_available_nodes=1)
    strategy = GuardedStrategy(inner, Guard(policy=make_policy("ban", strikes=1)))
    grid = MemoryGrid({1: BROKEN[case]})
    result = strategy.start(grid, arrays_record(PLAIN), num_rounds=1, timeout=5)
    assert result.train_metrics_clientapp[1]["guard-refused"] == 0
    assert [(row.node, row.suspect) for row in strategy.verdicts] == [(1, True)]
    assert strategy.verdicts[0].reason != "", "it is told why"


def test_a_shared_fault_may_end_the_run():
    silent = dict.fromkeys((1, 2), BROKEN["silence"])
    with pytest.raises(RoundError, match="all 2 replies have the same fault, so it is no client's: no reply"):
        play(GuardedStrategy(fedavg(), Guard(), on_refusal="raise"), silent, PLAIN)


def test_a_strategy_that_fails_keeps_the_global_model_unless_it_shall_end_the_run():
    class Failing(FedAvg):
        def aggregate_train(self, server_round, replies):
            raise ZeroDivisionError("too few are left")

    clients = {1: trains(1), 2: trains(2)}
    result = play(GuardedStrategy(Failing(fraction_evaluate=0.0), Guard()), clients, PLAIN, 2)
    assert result.train_metrics_clientapp[2]["guard-kept-global"] == 1
    np.testing.assert_array_equal(result.arrays["a"].numpy(), PLAIN["a"])
    with pytest.raises(ZeroDivisionError):
        play(GuardedStrategy(Failing(fraction_evaluate=0.0), Guard(), on_refusal="raise"), clients, PLAIN)


def test_secure_aggregation_is_not_believed_once_updates_were_seen():
    def masked(arrays, message):
        return RecordDict({**reply(arrays), "secaggplus_configs": ConfigRecord({"x": 1})})

    grid = MemoryGrid({1: trains(1), 2: trains(2), 3: trains(3)})
    strategy = GuardedStrategy(fedavg(), Guard())
    strategy.start(grid, arrays_record(PLAIN), num_rounds=1, timeout=5)
    grid.clients.update({1: masked, 2: masked})
    result = strategy.start(grid, arrays_record(PLAIN), num_rounds=1, timeout=5)
    assert not np.array_equal(result.arrays["a"].numpy(), PLAIN["a"])


HOSTILE = {
    "many metrics": lambda a, m: RecordDict(
        {**reply(a), "metrics": MetricRecord({str(k): 1 for k in range(9999)})}
    ),
    "a long list": lambda a, m: RecordDict(
        {**reply(a), "metrics": MetricRecord({"num-examples": 10, "loss": [0.5] * 10**4})}
    ),
    "hardly any examples": lambda a, m: reply(a, 5e-324),
    "almost infinite": lambda a, m: reply(a, 10, loss=1.7e308),
    "settings": lambda a, m: RecordDict({**reply(a), "x": ConfigRecord({"y": b"\x00" * 99})}),
    "only settings": lambda a, m: RecordDict({"x": ConfigRecord({"y": "\x1b[2J"})}),
    "names that drive terminals": lambda a, m: reply({**a, "\x1b[2J\u202e" * 50: a["b"]}),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("alone", [False, True])
def test_a_hostile_reply_ends_no_round(case, alone):
    honest = {} if alone else {n: trains(n) for n in range(1, 4)}
    strategy = GuardedStrategy(fedavg(min_train_nodes=1, min_available_nodes=1), Guard(), min_clients=1)
    result = play(strategy, {9: HOSTILE[case], **honest}, PLAIN, 2)
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())
    assert alone or all(row.weight == 1 for row in strategy.verdicts if row.node != 9)


def test_a_model_that_is_not_the_servers_is_refused():
    with pytest.raises(
        ParameterError, match=r"server: '0\.weight' of the model has no array of shape \(3, 4\)"
    ):
        play(GuardedStrategy(fedavg(), Guard(), server=Server(model=network())), {1: trains(1)}, PLAIN)


def test_the_guards_own_aggregate_keeps_roles_too():
    start = arrays_of(network())
    clients = {**{n: trains(n) for n in range(1, 6)}, 6: trains(6, **{"1.running_var": 1e12})}
    guard = Guard(aggregator=make_aggregator("median"))
    result = play(GuardedStrategy(fedavg(), guard, aggregate="guard"), clients, start)
    assert (result.arrays["1.running_var"].numpy() < 1.2).all()
