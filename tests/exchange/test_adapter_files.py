"""peft's folders in and out: the round trip goes through peft itself. Skipped without the extra ``llm``."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedguard import Guard
from fedguard.core.errors import DataError, ParameterError
from fedguard.exchange.adapter_files import load_adapters, save_adapters
from fedguard.exchange.adapters import adapter_names
from fedguard.simulation.models import build_model
from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers, which imports it

peft = pytest.importorskip("peft", exc_type=ImportError)
KINDS = {
    "lora": {"target_modules": ["query", "value"]},
    "head": {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
    "dora": {"target_modules": ["query"], "use_dora": True, "task_type": "SEQ_CLS"},
    "embedding": {"target_modules": ["query", "word_embeddings"]},
}


def base():
    return build_model("hf:tiny-bert", (12,), 4, torch.Generator().manual_seed(0)).base


def adapted(kind="head", r=2, seed=0, **settings):
    torch.manual_seed(seed)
    model = peft.get_peft_model(base(), peft.LoraConfig(**{"r": r, **KINDS[kind], **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # B is zero at first
                parameter.add_(torch.randn_like(parameter) / 10)
    return model


def saved(model):
    return peft.get_peft_model_state_dict(model, save_embedding_layers=False)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 13)[None]).logits


@pytest.fixture
def folder(tmp_path):
    adapted().save_pretrained(tmp_path / "in")
    return tmp_path / "in"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["saved", "whole"])
def test_a_guarded_round_of_a_folder_is_a_folder_that_peft_opens(tmp_path, kind, form):
    """Two clients train; the mean of their models, computed here, is what peft loads at the end."""
    first, second = adapted(kind, seed=1), adapted(kind, seed=2)
    adapted(kind).save_pretrained(tmp_path / "in", save_embedding_layers=False)
    states = [saved(m) if form == "saved" else m.state_dict() for m in (first, second)]
    start = load_adapters(tmp_path / "in", None if form == "saved" else adapted(kind, seed=3).state_dict())
    assert set(start) == set(states[0])
    _, new = Guard().process_state_dicts(dict(enumerate(states)), start, roles="adapters")
    save_adapters(tmp_path / "out", new, like=tmp_path / "in")
    assert (tmp_path / "out/adapter_config.json").read_bytes() == (
        tmp_path / "in/adapter_config.json"
    ).read_bytes()
    opened = saved(peft.PeftModel.from_pretrained(base(), tmp_path / "out"))
    expected = {name: (tensor + saved(second)[name]) / 2 for name, tensor in saved(first).items()}
    assert set(opened) == set(expected)
    for name, tensor in opened.items():
        torch.testing.assert_close(tensor, expected[name])


def test_fedguards_own_model_takes_a_folder_and_gives_it_back(tmp_path, folder):
    lora = {"r": 2, "alpha": 8, "targets": ["query", "value"]}  # peft's default alpha
    own = build_model("hf:tiny-bert", (12,), 4, torch.Generator().manual_seed(0), lora=lora)
    state = load_adapters(folder, own.state_dict())
    own.load_state_dict(state)
    theirs = peft.PeftModel.from_pretrained(base(), folder)
    torch.testing.assert_close(logits(own.base), logits(theirs))
    save_adapters(tmp_path / "out", own.state_dict(), like=folder)
    before, after = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_bfloat16_comes_as_float32_and_is_written_back(tmp_path, folder):
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    arrays = load_adapters(folder)
    assert {tensor.dtype for tensor in arrays.values()} == {torch.float32}
    save_adapters(tmp_path / "out", {name: t.numpy() for name, t in arrays.items()}, like=folder)
    found = load_file(tmp_path / "out/adapter_model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in load_file(path).items())


def test_a_configuration_alone_is_enough_to_write(tmp_path, folder):
    (folder / "adapter_model.safetensors").unlink()
    model = adapted(seed=1)
    save_adapters(tmp_path / "out", model.state_dict(), like=folder)
    torch.testing.assert_close(
        logits(peft.PeftModel.from_pretrained(base(), tmp_path / "out")), logits(model)
    )


# --- mistakes, each in one line


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"r": 4}, r"has shape \(2, 64\), the federation's model has \(4, 64\); .* rank"),
        (
            {"target_modules": ["query", "key"]},
            r"lacks .*key\.lora_A\.weight.*\(4 missing, 4 more\).*target layers",
        ),
        ({"task_type": None}, r"has base_model\.model\.classifier\.bias, contrary to the federation's model"),
    ],
)
def test_adapters_of_another_rank_or_target_list_are_named(folder, other, message):
    with pytest.raises(ParameterError, match=message) as caught:
        load_adapters(folder, adapted(**other).state_dict())
    assert "\n" not in str(caught.value)
    with pytest.raises(ParameterError, match="the global model"):
        save_adapters(folder / "out", adapted(**other).state_dict(), like=folder)
    assert not (folder / "out").exists()


def test_adapters_of_another_base_are_named(folder):
    causal = build_model("hf:tiny-gpt", (12,), 4, torch.Generator(), task="causal", lora={"r": 2, "alpha": 4})
    with pytest.raises(ParameterError, match="both need the same base model"):
        load_adapters(folder, causal.state_dict())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_config.json", None, "adapter_config.json cannot be read: No such file"),
        ("adapter_config.json", b"[", "is not a configuration of peft"),
        (
            "adapter_config.json",
            json.dumps({"peft_type": "IA3"}).encode(),
            "peft_type is 'IA3'; FedGuard reads",
        ),
        ("adapter_model.safetensors", None, "adapter_model.safetensors does not exist"),
        ("adapter_model.safetensors", b"nothing", "adapter_model.safetensors cannot be read"),
    ],
)
def test_broken_folders_are_named(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises((DataError, ParameterError), match=message):
        load_adapters(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(DataError, match="is a pickle, which can run code"):
        load_adapters(folder)


def test_a_model_without_adapters_has_nothing_to_save(tmp_path, folder):
    assert adapter_names(base().state_dict()) == []
    with pytest.raises(ParameterError, match="is named like a LoRA adapter"):
        save_adapters(tmp_path / "out", base().state_dict(), like=folder)
