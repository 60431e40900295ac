"""Which arrays are adapters: the oracle is what peft trains. Skipped without the extra ``llm``."""

import numpy as np
import pytest
import torch

from fedguard import Guard
from fedguard.core.errors import ParameterError
from fedguard.exchange.adapters import adapter_names
from fedguard.simulation.models import build_model
from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers, which imports it
from fedguard.training.parameters import learned

KINDS = {
    "lora": {"target_modules": ["query", "value"]},
    "head": {"target_modules": ["query"], "task_type": "SEQ_CLS"},
    "embedding": {"target_modules": ["query", "word_embeddings"], "task_type": "SEQ_CLS"},
    "dora": {"target_modules": ["query"], "use_dora": True, "task_type": "SEQ_CLS"},
    "own head": {"target_modules": ["query"], "modules_to_save": ["pooler"]},
    "bias": {"target_modules": ["query"], "lora_bias": True},
}


def adapted(**settings):
    peft = pytest.importorskip("peft", exc_type=ImportError)
    base = build_model("hf:tiny-bert", (12,), 4, torch.Generator().manual_seed(0)).base
    return peft, peft.get_peft_model(base, peft.LoraConfig(r=2, **settings))


# A warning of peft's own class makes pytest-xdist import peft, before torchvision's operators are declared.
@pytest.mark.filterwarnings("ignore:Adapter 'default'")
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_what_peft_trains_and_saves(kind):
    peft, model = adapted(**KINDS[kind])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(adapter_names(model.state_dict())) == sorted(trained)
    saved = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    assert adapter_names(saved) == list(saved)


@pytest.mark.parametrize("name", ["hf:tiny-bert", "hf:tiny-gpt"])
def test_adapters_are_what_fedguards_models_train(name):
    pytest.importorskip("peft", exc_type=ImportError)
    task = "causal" if name == "hf:tiny-gpt" else "classification"
    generator = torch.Generator().manual_seed(0)
    model = build_model(name, (12,), 4, generator, task=task, lora={"r": 2, "alpha": 4})
    assert sorted(adapter_names(model.state_dict())) == sorted(learned(model))
    bare = [key.removeprefix("base.") for key in model.state_dict()]
    assert sorted(adapter_names(bare)) == sorted(key.removeprefix("base.") for key in learned(model))


def test_a_frozen_layer_beside_adapters_of_another_make_is_none():
    assert adapter_names(["q.weight", "q.lora_A", "q.lora_B"]) == ["q.lora_A", "q.lora_B"]


STATE = {
    "base.q.base_layer.weight": torch.ones(2, 2),
    "base.q.lora_A.default.weight": torch.zeros(1, 2),
    "base.norm.running_mean": torch.zeros(2),
    "base.score.weight": torch.zeros(2),
}


def test_a_round_of_state_dicts_moves_adapters_and_the_head_alone():
    sent = {client: {name: tensor + client for name, tensor in STATE.items()} for client in (1, 2, 3)}
    outcome, new = Guard().process_state_dicts(sent, STATE, roles="adapters")
    assert outcome.aggregate.tolist() == [2, 2, 2, 2]
    assert new["base.q.lora_A.default.weight"].tolist() == [[2, 2]]
    assert new["base.score.weight"].tolist() == [2, 2]
    assert torch.equal(new["base.q.base_layer.weight"], STATE["base.q.base_layer.weight"])


def test_a_model_without_adapters_is_the_integrators_mistake():
    plain = {"fc.weight": torch.zeros(2)}
    guard = Guard()
    with pytest.raises(ParameterError, match="no array of the global model is named like a LoRA adapter"):
        guard.process_state_dicts({1: plain, 2: plain}, plain, roles="adapters")
    with pytest.raises(ParameterError, match="for arrays without names a list of roles"):
        guard.process_arrays({1: [np.zeros(2)]}, [np.zeros(2)], roles="adapters")
    assert guard.ledger.clients() == []
