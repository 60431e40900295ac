"""Federations of LoRA adapters: what is scored, whose fault what is, and what clients cannot reach."""

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.serverapp.strategy import FedAvg

from fedguard import Guard, Server, make_detector, make_policy
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


# --- bad input: the sender's fault, or the integrator's mistake, in one line


def other(arrays, message, **changes):
    """A reply whose arrays are changed by their ends."""
    sent = {}
    for name, array in arrays.items():
        key = next((key for key in changes if name.endswith(f"{key}.weight")), None)
        sent[name] = array if key is None else changes[key](array)
    return reply(sent)


SENT = {
    "another rank": (
        lambda arrays, message: other(arrays, message, lora_A=lambda a: np.ones((4, 4), "f4"),
                                      lora_B=lambda a: np.ones((4, 4), "f4")),
        "lora_A.weight' has shape (4, 4), not (2, 4)",
    ),
    "another base": (
        lambda arrays, message: other(arrays, message, lora_A=lambda a: np.ones((2, 8), "f4")),
        "lora_A.weight' has shape (2, 8), not (2, 4)",
    ),
    "fewer targets": (
        lambda arrays, message: reply({k: a for k, a in arrays.items() if "lora" not in k}),
        "lora_A.weight' is missing (2 are)",
    ),
    "more targets": (
        lambda arrays, message: reply({**arrays, "base_model.model.key.lora_A.weight": np.ones(1, "f4")}),
        "array 'base_model.model.key.lora_A.weight' does not belong to the model",
    ),
    "quantized": (
        lambda arrays, message: other(arrays, message, lora_A=lambda a: a.astype("i1")),
        "lora_A.weight' has dtype int8, not float32",
    ),
    "diverged": (
        lambda arrays, message: other(arrays, message, lora_A=lambda a: a * np.nan),
        "lora_A.weight' holds NaN or Inf",
    ),
    "a loss that is not finite": (
        lambda arrays, message: reply(arrays, loss=np.nan),
        "metric 'loss' is not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SENT)
def test_one_clients_bad_adapters_are_its_fault(what):
    client, message = SENT[what]
    strategy, new = play({**HONEST, 6: client}, SAVED)
    found = faults(strategy)
    assert list(found) == [6]
    assert message in found[6]
    assert "\n" not in found[6]
    assert all(np.allclose(array - SAVED[name], 0.13) for name, array in new.items())


@pytest.mark.parametrize("what", SENT)
def test_everybodys_bad_adapters_are_the_integrators_mistake(what, caplog):
    client, message = SENT[what]
    strategy, new = play(dict.fromkeys(range(1, 5), client), SAVED)
    assert "all 4 replies have the same fault, so it is no client's: " in caplog.text
    assert message in caplog.text
    assert not any(row.banned for row in strategy.verdicts)
    assert all(np.array_equal(array, SAVED[name]) for name, array in new.items())


#: As bitsandbytes stores a layer: integers and their scales; and two tied layers.
FROZEN = {
    "base.q.base_layer.weight": np.ones((4, 2), "i1"),
    "base.q.base_layer.SCB": np.ones(4, "f4"),
    "base.embed.weight": np.ones((3, 4), "f4"),
    "base.lm_head.weight": np.ones((3, 4), "f4"),
}


def test_a_quantized_base_and_tied_weights_stay_the_servers():
    start = {**FROZEN, "base.q.lora_A.default.weight": np.zeros((2, 4), "f4")}
    _, new = play({n: moved(n) for n in (1, 2, 3)}, start, Guard())
    assert all(np.array_equal(new[name], array) for name, array in FROZEN.items())
    assert np.allclose(new["base.q.lora_A.default.weight"], 2)


def test_tied_tensors_of_a_state_dict_stay_tied():
    tied = torch.ones(3, 4)
    start = {name: torch.from_numpy(array) for name, array in FROZEN.items()}
    start |= {
        "base.embed.weight": tied,
        "base.lm_head.weight": tied,
        "base.q.lora_A.default.weight": tied[:2] * 0,
    }
    sent = {n: {name: tensor + n for name, tensor in start.items()} for n in (1, 2, 3)}
    _, new = Guard().process_state_dicts(sent, start, roles="adapters")
    assert all(torch.equal(new[name], start[name]) for name in FROZEN)
    assert torch.allclose(new["base.q.lora_A.default.weight"], torch.tensor(2.0))


def test_quantized_adapters_of_the_server_are_the_integrators_mistake():
    quantized = {name: array.astype("i1") for name, array in SAVED.items()}
    with pytest.raises(
        ParameterError, match=r"no array is scored: parameters is \['adapters'\], .* arrays are none"
    ):
        play(HONEST, quantized)


def test_adapters_of_the_server_that_are_not_finite_are_the_integrators_mistake():
    with pytest.raises(ParameterError, match=r"lora_A.weight' of the global model holds NaN or Inf"):
        play(HONEST, {name: array * np.inf if "lora_A" in name else array for name, array in SAVED.items()})


def whole_model():
    """A module with the names and the frozen layers of a PeftModel."""
    model = torch.nn.Module()
    for name, value in WHOLE.items():
        *path, last = name.split(".")
        part = model
        for step in path:
            if not hasattr(part, step):
                part.add_module(step, torch.nn.Module())
            part = getattr(part, step)
        frozen = "base_layer" in name or "original_module" in name
        part.register_parameter(last, torch.nn.Parameter(torch.tensor(value), requires_grad=not frozen))
    return model


@pytest.mark.parametrize(("start", "parameters"), [(SAVED, "adapters"), (SAVED, None), (WHOLE, "adapters")])
def test_products_of_adapters_are_scored_also_where_only_adapters_travel(start, parameters):
    """Oracle: the scores where the whole state travels."""

    def scores(start, parameters):
        detector = make_detector("adapter_products", detector={"name": "dnc", "num_malicious": 1})
        guard = Guard(detector, make_policy("ban", strikes=1, rule={"name": "mad", "k": 5.0}))
        strategy = GuardedStrategy(
            FedAvg(fraction_evaluate=0.0), guard, parameters=parameters, server=Server(model=whole_model())
        )
        clients = MemoryGrid({**HONEST, 6: moved(9)})
        result = strategy.start(clients, arrays_record(start), num_rounds=1, timeout=5)
        assert set(result.arrays) == set(start)
        return {row.node: (row.score, row.banned) for row in strategy.verdicts}

    found, expected = scores(start, parameters), scores(WHOLE, None)
    assert [node for node, (_, banned) in found.items() if banned] == [6]
    assert {n: s for n, (s, _) in found.items()} == pytest.approx({n: s for n, (s, _) in expected.items()})


def test_a_method_that_needs_the_model_takes_no_part_of_what_it_learns():
    guard = Guard(make_detector("adapter_products"))
    strategy = GuardedStrategy(
        FedAvg(fraction_evaluate=0.0), guard, parameters=["*lora*"], server=Server(model=whole_model())
    )
    with pytest.raises(ParameterError, match="a method of this guard needs the whole model"):
        strategy.start(MemoryGrid(HONEST), arrays_record(SAVED), num_rounds=1, timeout=5)
