"""Federations of LoRA adapters: what is scored, whose fault what is, and what clients cannot reach."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.serverapp.strategy import FedAvg

from fedguard import Guard, make_policy
from fedguard.core.errors import ParameterError
from fedguard.flower import GuardedStrategy
from fedguard.testing.flower import MemoryGrid, arrays_record, reply

LAYER = "base_model.model.encoder.query"
#: As peft saves it: rank 2 of a layer of 4 × 4, and a new head.
SAVED = {
    f"{LAYER}.lora_A.weight": np.ones((2, 4), "f4"),
    f"{LAYER}.lora_B.weight": np.zeros((4, 2), "f4"),
    "base_model.model.classifier.weight": np.ones((3, 4), "f4"),
}
#: The whole state of the model.
WHOLE = {
    f"{LAYER}.base_layer.weight": np.ones((4, 4), "f4"),
    f"{LAYER}.lora_A.default.weight": np.ones((2, 4), "f4"),
    f"{LAYER}.lora_B.default.weight": np.zeros((4, 2), "f4"),
    "base_model.model.classifier.original_module.weight": np.ones((3, 4), "f4"),
    "base_model.model.classifier.modules_to_save.default.weight": np.ones((3, 4), "f4"),
}


def moved(step):
    return lambda arrays, message: reply({k: a + np.asarray(step, a.dtype) for k, a in arrays.items()})


def play(clients, start, guard=None, parameters="adapters"):
    guard = guard or Guard("krum", make_policy("ban", strikes=1, rule={"name": "mad", "k": 5.0}))
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=0.0), guard, parameters=parameters)
    result = strategy.start(MemoryGrid(clients), arrays_record(start), num_rounds=1, timeout=5)
    return strategy, {name: array.numpy() for name, array in result.arrays.items()}


HONEST = {n: moved(0.1 + 0.01 * n) for n in range(1, 6)}


def faults(strategy):
    return {row.node: row.reason for row in strategy.verdicts if row.score == np.inf}


@pytest.mark.parametrize(("start", "scored"), [(SAVED, 28), (WHOLE, 28)])
def test_adapters_and_the_head_are_scored_and_all_else_is_the_servers(start, scored):
    seen = []

    class Spy(Guard):
        def watch(self, round, repeat=False):
            seen.append(round.updates.d)
            return super().watch(round, repeat)

    guard = Spy("krum", make_policy("ban", strikes=1, rule={"name": "mad", "k": 5.0}))
    strategy, new = play({**HONEST, 6: moved(9)}, start, guard)
    assert seen == [scored]
    assert [row.node for row in strategy.verdicts if row.banned] == [6]
    for name, array in new.items():
        still = "base_layer" in name or "original_module" in name
        assert np.allclose(array - start[name], 0 if still else 0.13), name


def test_the_word_combines_with_patterns():
    _, new = play(HONEST, WHOLE, parameters=["adapters", "!*classifier*"])
    changed = {name for name, array in new.items() if not np.array_equal(array, WHOLE[name])}
    assert changed == {f"{LAYER}.lora_A.default.weight", f"{LAYER}.lora_B.default.weight"}


def test_a_federation_without_adapters_is_the_integrators_mistake():
    with pytest.raises(ParameterError, match=r"but no array .* LoRA adapter; its arrays are fc\.weight"):
        play(HONEST, {"fc.weight": np.zeros(3, "f4")})


def test_replies_that_all_lack_their_adapters_blame_nobody():
    def head_only(arrays, message):
        return reply({k: a for k, a in arrays.items() if "lora" not in k})

    strategy, new = play(dict.fromkeys(range(1, 5), head_only), SAVED)
    assert not any(row.banned for row in strategy.verdicts)
    assert all(
        "so it is no client's" in row.reason or "is missing" in row.reason for row in strategy.verdicts
    )
    assert all(np.array_equal(array, SAVED[name]) for name, array in new.items())
