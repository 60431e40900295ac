"""Mutants of Flower replies and rounds: no client ends a federation, changes its model, harms another.

A few of each here; ``make fuzz`` tries ten thousand (benchmarks/results/fuzz.md).
"""

import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedguard import Guard, make_detector
from fedguard.core.errors import RoundError
from fedguard.flower import GuardedStrategy
from fedguard.testing.flower import MemoryGrid, arrays_record, reply
from fedguard.testing.fuzzing import flower
from fedguard.testing.fuzzing.case import Forbidden
from fedguard.testing.fuzzing.driver import fuzz_here
from fedguard.testing.fuzzing.flower_replies import well_formed


@pytest.mark.parametrize(("kind", "cases"), [("flower replies", 30), ("flower rounds", 8)])
def test_hostile_clients(kind, cases):
    tally = fuzz_here(kind, cases)
    assert tally.failures == {}
    assert tally.whole >= cases / 2
    assert tally.verdicts["accepted"]
    assert tally.verdicts["refused"]


# --- what would be noticed


def test_a_strategy_that_gets_other_arrays_than_it_sent_is_noticed():
    strategy = flower._checking(FedAvg(fraction_evaluate=0.0, min_available_nodes=1))
    other = lambda arrays, message: reply({k: a.astype("f8") for k, a in arrays.items()})  # noqa: E731
    with pytest.raises(Forbidden, match="instead of"):
        strategy.start(MemoryGrid({1: other, 2: other}), arrays_record(flower.GLOBAL), num_rounds=1)


def test_a_client_that_ends_the_federation_is_noticed():
    class Fragile(GuardedStrategy):
        def aggregate_train(self, server_round, replies):
            raise RoundError("because of a client")

    grid = MemoryGrid({1: lambda arrays, message: reply(arrays)})
    with pytest.raises(Forbidden, match="ended the federation: because of a client"):
        flower.played(
            Fragile(FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1), Guard()), grid, 1
        )


def test_a_model_that_is_not_sound_is_noticed():
    for changes in ({"x": flower.GLOBAL["fc.bias"]}, {"fc.bias": flower.GLOBAL["fc.bias"][:1]}):
        with pytest.raises(Forbidden):
            flower.sound({**flower.GLOBAL, **changes})
    with pytest.raises(Forbidden, match="not finite"):
        flower.sound({**flower.GLOBAL, "fc.bias": flower.GLOBAL["fc.bias"] * float("nan")})
    flower.sound(flower.GLOBAL)


def test_an_honest_client_that_is_blamed_is_noticed():
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=0.0), Guard(make_detector("norm_bound")))
    far = lambda arrays, message: reply({k: a + a.dtype.type(99) for k, a in arrays.items()})  # noqa: E731
    near = lambda arrays, message: reply(arrays)  # noqa: E731
    grid = MemoryGrid({1: far, 2: near, 3: near, 4: near, 5: near})
    strategy.start(grid, arrays_record(flower.GLOBAL), num_rounds=1)
    with pytest.raises(Forbidden, match="honest node 1"):
        flower.unharmed(strategy)


def test_what_is_well_formed():
    content = reply(flower.GLOBAL)
    assert well_formed(content)
    assert not well_formed(reply({k: a.ravel() for k, a in flower.GLOBAL.items()}))
    assert not well_formed(reply(flower.GLOBAL, examples=-1))
    assert not well_formed(RecordDict({"arrays": ArrayRecord(), "metrics": content["metrics"]}))
