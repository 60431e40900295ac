"""Language models: what clients train, and federations of adapters. Skipped without the extra ``llm``."""

import json
import sys

import pytest
import torch

from fedguard.contracts.registry import make_attack, make_detector
from fedguard.contracts.round import Round
from fedguard.core.errors import ConfigError, NeedError, ParameterError
from fedguard.core.named_code import untrusted_in
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.datasets.tokenizers import OfModel
from fedguard.simulation.federation import Federation
from fedguard.simulation.models import build_model, models
from fedguard.simulation.pool import Workers
from fedguard.simulation.settings import AttackSpec, Defense, Spec
from fedguard.simulation.setup import setup_for
from fedguard.training.parameters import flat_statistics, learned, predict

LORA = {"r": 2, "alpha": 4}
SUITE = """\
data: {name: topics, samples: 80, form: FORM}
model: {name: hf:MODEL, task: TASK, lora: {r: 2, alpha: 16}}
clients: 4
malicious: 1
rounds: 2
training: {epochs: 1, batch_size: 15, lr: 0.02}
attacks: [{name: byzantine, mode: random}]
defenses: {d: {detector: {name: krum, select: m_krum}, aggregator: {name: mean, weighting: uniform}}}
"""
KINDS = {"tiny-bert": ("classification", "label"), "tiny-gpt": ("causal", "answer")}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """torchvision comes before transformers, which imports it; here, as most processes run other tests."""
    from fedguard.simulation.vision import torchvision  # noqa: F401

    pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("peft", exc_type=ImportError)


def build(name, shape=(12,), classes=4, **params):
    return build_model(name, shape, classes, torch.Generator().manual_seed(0), **params)


def cell_of(tmp_path, model):
    task, form = KINDS[model]
    text = SUITE.replace("MODEL", model).replace("TASK", task).replace("FORM", form)
    (tmp_path / "suite.yaml").write_text(text)
    return load_suite(tmp_path / "suite.yaml", [])[0].cells()[0]


def test_clients_train_adapters_and_the_head():
    """By hand: 2 layers × (query, value) × (A and B of 2 × 64), and a head of 4 × 64 + 4."""
    model = build("hf:tiny-bert", lora=LORA)
    own = learned(model)
    assert sum(p.numel() for p in own.values()) == 2 * 2 * 2 * (2 * 64) + 4 * 64 + 4
    assert all("lora_" in name or name.startswith("base.classifier.") for name in own)
    whole = sum(p.numel() for p in build("hf:tiny-bert").parameters())
    assert len(learned(build("hf:tiny-bert"))) == len(dict(build("hf:tiny-bert").named_parameters()))
    assert sum(p.numel() for p in model.parameters()) == whole + 2 * 2 * 2 * (2 * 64)


def test_adapters_add_their_product_to_the_frozen_layer():
    """Oracle: W x + b + (alpha / r) B A x, written out."""
    layer = build("hf:tiny-gpt", task="causal", lora=LORA).base.gpt_neox.layers[0].attention.query_key_value
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.count_nonzero(b) == 0
    assert torch.count_nonzero(a) == a.numel()
    torch.nn.init.ones_(b)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    base = x @ layer.base_layer.weight.T + layer.base_layer.bias
    torch.testing.assert_close(layer(x), base + 2 * x @ a.T @ b.T)


@pytest.mark.parametrize("name", KINDS)
def test_the_generator_alone_decides_the_weights(name):
    task, _ = KINDS[name]
    first, second = (build(f"hf:{name}", task=task, lora=LORA).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert len(flat_statistics(build(f"hf:{name}", task=task))) == 0


def test_padding_changes_nothing():
    texts = torch.tensor([[1.0, 5, 6, 2]])
    longer = torch.cat([texts, torch.full((1, 3), -1.0)], 1)
    model = build("hf:tiny-bert").eval()
    torch.testing.assert_close(model(longer), model(texts))
    causal = build("hf:tiny-gpt", task="causal").eval()
    torch.testing.assert_close(causal(longer)[:, :4], causal(texts))


def test_many_texts_are_tested_in_parts():
    model = build("hf:tiny-bert").eval()
    texts = torch.randint(0, 1024, (150, 12), generator=torch.Generator().manual_seed(0)).float()
    sizes = []
    model.base.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])),
                                         with_kwargs=True)  # fmt: skip
    found = predict(model, torch.cat([p.flatten() for p in learned(model).values()]), texts)
    assert (sizes, found.shape) == ([64, 64, 22], (150, 4))


@pytest.mark.parametrize("name", KINDS)
def test_a_federation_gives_the_same_bits_after_a_resume(tmp_path, name):
    cell = cell_of(tmp_path, name)
    whole = Federation(cell)
    records = whole.run()
    assert whole.params.shape == whole.setup.initial.shape
    assert not torch.equal(whole.params, whole.setup.initial)
    first = Federation(cell)
    first.advance(0)
    second = Federation(cell)
    second.load_state_dict(first.state_dict())
    outcome = second.advance(1).outcome
    assert torch.equal(second.params, whole.params)
    assert outcome.suspects.tolist() == [client in whole.malicious for client in range(4)]
    assert 0 < records[-1].loss < 8
    assert 0 <= records[-1].tacc <= 1


@pytest.mark.slow
def test_a_federation_gives_the_same_bits_in_workers(tmp_path):
    for name in KINDS:
        cell = cell_of(tmp_path, name)
        alone = Federation(cell)
        expected = alone.run()
        with Workers(2) as workers:
            together = Federation(cell, workers.map)
            assert [r.loss for r in together.run()] == [r.loss for r in expected]
        assert torch.equal(together.params, alone.params)


@pytest.mark.parametrize(
    ("name", "shape", "params", "message"),
    [
        ("hf:tiny-brt", (9,), {}, "unknown model 'hf:tiny-brt', did you mean 'tiny-bert'"),
        ("hf:./nowhere", (9,), {}, r"there is no folder and no .gguf file .*nowhere"),
        ("hf:tiny-bert", (1, 8, 8), {}, "reads texts.*the data have shape"),
        ("hf:tiny-bert", (600,), {}, "at most 512 tokens.*up to 600; set the data's `max_length`"),
        (
            "hf:tiny-bert",
            (9,),
            {"lora": {"targets": ["qu"]}},
            "lora.targets.*its linear layers: .*query, value",
        ),
        ("hf:tiny-bert", (9,), {"lora": {"r": 0}}, "lora.r"),
        (
            "hf:tiny-bert",
            (9,),
            {"lora": {"dropuot": 0.1}},
            r"'lora.dropuot', did you mean 'dropout'\? \(known: r, al",
        ),
        ("hf:tiny-bert", (9,), {"task": "causal"}, r"reads whole texts \(bert\), so it sees the tokens"),
        ("hf:tiny-bert", (9,), {"task": "regression"}, "task"),
    ],
)
def test_mistakes_are_named(name, shape, params, message):
    with pytest.raises(ParameterError, match=message):
        build(name, shape, **params)


def test_tokens_beyond_the_vocabulary_are_named():
    with pytest.raises(ParameterError, match="the data have the token 1024, and the model knows 1024"):
        build("hf:tiny-bert")(torch.tensor([[1.0, 1024]]))


@pytest.mark.parametrize(("name", "task"), [("hf:tiny-bert", "classification"), ("hf:tiny-gpt", "causal")])
def test_texts_longer_than_the_model_reads_are_named(name, task):
    model = build(name, task=task)
    assert model(torch.ones(1, 512)).shape[0] == 1
    with pytest.raises(ParameterError, match="texts of 513 tokens, and the model reads at most 512; set"):
        model(torch.ones(1, 513))


@pytest.mark.parametrize(("name", "task"), [("hf:tiny-bert", "classification"), ("hf:tiny-gpt", "causal")])
def test_a_folder_without_a_tokenizer_is_named(tmp_path, name, task):
    """transformers would make one up that knows nothing but special tokens."""
    build(name, task=task).base.save_pretrained(tmp_path)
    with pytest.raises(
        ParameterError, match="has no tokenizer, only special tokens; save it beside the weights"
    ):
        OfModel(str(tmp_path))
    library, tokenizers = (pytest.importorskip(name) for name in ("transformers", "tokenizers"))
    unknown = "[UNK]"
    words = tokenizers.models.WordLevel({unknown: 0, "hot": 1, "cold": 2}, unk_token=unknown)
    own = library.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words), unk_token=unknown)
    own.save_pretrained(tmp_path)
    assert OfModel(str(tmp_path)).encode(["cold"]) == [[2]]


def test_a_folder_holds_weights_and_a_tokenizer(tmp_path):
    """A folder as transformers writes it gives the weights back; without weights it is refused."""
    base = build("hf:tiny-gpt", task="causal").base
    base.save_pretrained(tmp_path)
    found = build(f"hf:{tmp_path}", task="causal", lora=LORA)
    mine = dict(base.named_parameters())
    frozen = {n: p for n, p in found.base.named_parameters() if "lora_" not in n}
    assert all(torch.equal(p, mine[name.replace("base_layer.", "")]) for name, p in frozen.items())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ParameterError, match="Give the path of a folder with config"):
        build(f"hf:{tmp_path}", task="causal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 4}, r"layer.2.*the file of weights lacks it \(32 such tensors\); config.json"),
        ({"intermediate_size": 96}, r"has shape \(128,\), its config.json says \(96,\) \(6 such tensors\)"),
    ],
)
def test_a_folder_whose_weights_are_of_another_model_is_refused(tmp_path, change, message):
    """transformers would draw the layers that are not there at random, and only warn."""
    build("hf:tiny-bert").base.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ParameterError, match=message):
        build(f"hf:{tmp_path}", lora=LORA)


def test_a_folder_with_a_head_for_other_classes_gets_a_new_one(tmp_path):
    base = build("hf:tiny-bert").base
    base.save_pretrained(tmp_path)
    same, other = build(f"hf:{tmp_path}"), build(f"hf:{tmp_path}", classes=7)
    assert torch.equal(same.base.classifier.weight, base.classifier.weight)
    assert other.base.classifier.weight.shape == (7, 64)
    assert torch.equal(other.base.bert.pooler.dense.weight, base.bert.pooler.dense.weight)


def test_a_base_that_is_not_finite_is_refused(tmp_path):
    base = build("hf:tiny-bert").base
    torch.nn.init.constant_(base.bert.pooler.dense.bias, float("nan"))
    base.save_pretrained(tmp_path)
    with pytest.raises(ParameterError, match="its weights are not finite"):
        build(f"hf:{tmp_path}", lora=LORA)


@pytest.mark.parametrize(
    "defense",
    ["detector: fedredefense", "detector: deepsight", "detector: agsd", "detector: backdoor_indicator",
     "detector: {name: ensemble, members: [krum, deepsight]}", "stages: indicator_task"],
)  # fmt: skip
def test_methods_that_make_images_refuse_texts(tmp_path, defense):
    cell_of(tmp_path, "tiny-bert")
    more = [f"defenses={{d: {{{defense}}}}}", "server.validation=20", "attacks=[none]"]
    suite, source = load_suite(tmp_path / "suite.yaml", more)
    with pytest.raises(
        ConfigError, match=r"makes inputs of real numbers.*but this model reads token numbers"
    ):
        check_suite(suite, source)


def test_a_detector_that_makes_images_refuses_a_live_round_of_texts(tmp_path):
    federation = Federation(cell_of(tmp_path, "tiny-bert"))
    server, params = federation.setup.server(), federation.params
    round_ = Round(torch.zeros(4, len(params)), global_params=params, server=server)
    with pytest.raises(NeedError, match="deepsight makes inputs of real numbers"):
        make_detector("deepsight")(round_)


def test_code_beside_the_weights_never_runs(tmp_path, monkeypatch):
    """Not even after a yes at a terminal, which transformers asks for by itself."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    parts = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Net",
        "AutoTokenizer": ["evil.T", None],
    }
    about = {"model_type": "evil", "auto_map": parts, "tokenizer_class": "T"}
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(about))
    with pytest.raises(ParameterError, match="contains custom code"):
        build(f"hf:{tmp_path}", task="causal")
    with pytest.raises(ParameterError):
        OfModel(str(tmp_path))
    assert not ran.exists()


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ParameterError, match=r'hf:tiny-gpt needs an extra: pip install "fedguard\[llm\]"'):
        build("hf:tiny-gpt", task="causal")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ParameterError, match=r'hf:tiny-bert with lora needs an extra: pip install "fedguard'):
        build("hf:tiny-bert", lora=LORA)
    assert "tiny-bert" in models.summary("hf:tiny-bert")


def test_strangers_choose_no_model_but_the_tiny_ones():
    named = {"model": {"name": "hf:a/b"}, "data": {"tokenizer": "hf:./c"}, "other": "hf:tiny-bert"}
    assert [name for _, name in untrusted_in(named)] == ["hf:a/b", "hf:./c"]


def test_success_of_a_poisoned_answer_is_that_of_greedy_decoding(tmp_path):
    """Oracle: the tokens of the answer are decoded one by one behind the prompt."""
    cell = cell_of(tmp_path, "tiny-gpt")
    numbers = setup_for(cell).dataset.test.labels[0]
    said = numbers[numbers >= 0].tolist()
    attack = AttackSpec(name="poisoned_answers", answer=said)
    training = cell.training.model_copy(update={"lr": 0.005, "epochs": 3, "optimizer": Spec(name="adam")})
    whole = Spec(name="hf:tiny-gpt", task="causal")  # adapters of a random model learn too little
    changes = {"attack": attack, "defense": Defense(), "training": training, "model": whole}
    cell = cell.model_copy(update=changes | {"malicious": 3})
    federation = Federation(cell)
    record = federation.step(0)
    trial = make_attack("poisoned_answers", answer=said).trial(federation.setup.dataset.test, 10**6)
    model, hits = federation.setup.model, 0
    for text, labels in zip(trial.samples.pixels, trial.target, strict=True):
        tokens = text[: int((labels >= 0).nonzero()[0]) + 1].tolist()
        for _ in said:
            logits = predict(model, federation.params, torch.tensor([tokens]))
            tokens.append(float(logits[0, -1].argmax()))
        hits += tokens[-len(said) :] == said
    assert len(trial.target) > 0
    assert record.asr == hits / len(trial.target)
    assert hits, "the attack succeeds somewhere, else this compares zeros"


def test_labels_of_a_pair_of_classes_of_texts_are_flipped(tmp_path):
    cell = cell_of(tmp_path, "tiny-bert")
    attack = AttackSpec(name="label_flip", mode="pairs", pairs={0: 2})
    federation = Federation(cell.model_copy(update={"attack": attack}))
    record, test = federation.step(0), federation.setup.dataset.test
    found = predict(federation.setup.model, federation.params, test.pixels).argmax(1)
    assert record.asr == float((found[test.labels == 0] == 2).float().mean())
    assert any(row.attacking for row in record.clients)


def test_a_seed_of_its_own_makes_the_start_the_same_in_every_run():
    """Without it, the adapters and the new layer are the run's; torch's global generator stays as it is."""

    def start(run, **params):
        made = build_model("hf:tiny-bert", (12,), 4, torch.Generator().manual_seed(run), lora=LORA, **params)
        return {name: p.detach() for name, p in made.named_parameters()}

    before = torch.get_rng_state()
    own, same, other = start(0, seed=5), start(1, seed=5), start(0, seed=6)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(own[name], same[name]) for name in own)
    down = "base.bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    for name in (down, "base.classifier.weight"):
        assert not torch.equal(own[name], other[name])
        assert not torch.equal(start(0)[name], start(1)[name])
