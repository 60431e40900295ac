"""Language models, ``hf:NAME``: of the Hugging Face Hub, of a local folder, or tiny random ones.

Needs the extra ``llm``. Weights are read from safetensors or GGUF files, so that no stranger's code runs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.params import nearest
from ...core.seeds import generator
from ..base import Model
from ..parts import Maker
from .base import Shape
from .language_modules import NextToken, TextClassifier

#: What a model does with texts: give each one class, or predict each next token.
LanguageTask = Literal["classification", "causal"]
#: The most tokens of the vocabulary of a tiny model, and of a text.
TINY_VOCABULARY, TINY_LENGTH = 1024, 512
_WIDTHS = {
    "vocab_size": TINY_VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": TINY_LENGTH,
}
#: Tiny architectures that are initialized at random: name → class of the configuration.
TINY = {"tiny-bert": "BertConfig", "tiny-gpt": "GPTNeoXConfig"}


class Lora(Model):
    """Low-rank adapters: W x becomes W x + (alpha / r) B A x, with A random and B zero at first.

    Attributes:
        r: the rank, the number of rows of A.
        alpha: the scale of the product.
        targets: the ends of the names of the layers that get adapters; by default those that peft names for
            the architecture: the projections of queries and values.
        dropout: of the adapters' inputs, in training.
    """

    r: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    targets: list[str] | None = None
    dropout: float = Field(0.0, ge=0, lt=1)


@functools.cache
def language_model(name: str) -> Maker:
    """The maker of a language model: ``tiny-bert``, ``tiny-gpt``, a local folder, or a name on the Hub."""

    def make(
        input_shape: Shape,
        num_classes: int,
        task: LanguageTask = "classification",
        lora: Lora | None = None,
        revision: str | None = None,
        seed: int | None = None,
    ) -> nn.Module:
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.random.set_rng_state(generator(seed, "language model").get_state())
                return make(input_shape, num_classes, task, lora, revision)
        if len(input_shape) != 1:
            raise ParameterError(
                f"model hf:{name} reads texts, as the data sets text, instructions and topics give them; "
                f"the data have shape {tuple(input_shape)}"
            )
        base = _base(name, task, num_classes, revision)
        if task == "causal" and torch.get_default_device().type != "meta":
            _check_causal(name, base)
        longest = getattr(base.config, "max_position_embeddings", None)
        if longest is not None and input_shape[0] > longest:
            raise ParameterError(
                f"model hf:{name} reads at most {longest} tokens, and the data's texts have up to "
                f"{input_shape[0]}; set the data's `max_length` to {longest}"
            )
        if lora is not None:
            _adapt(name, base, lora)
        return TextClassifier(base) if task == "classification" else NextToken(base)

    make.__doc__ = f"""The language model ``{name}``, for texts as token numbers.

    Args:
        task: "classification" puts a new layer for the data's classes on it, unless the weights have one for
            as many classes; "causal" predicts each next token. As the data are.
        lora: adapters to train instead of the model itself, which then is frozen; the layer for the classes
            is trained, too.
        revision: a commit or tag of a model on the Hub; give one, since names can be moved.
        seed: of what is drawn at random: adapters, the layer for the classes, and all of a tiny model; by
            default that of the run, so that each of a suite's seeds has its own.
    """
    return make


def _base(name: str, task: LanguageTask, num_classes: int, revision: str | None) -> Any:
    """The model of transformers, with weights unless it is tiny or only measured."""
    from .. import vision  # noqa: F401 - transformers imports torchvision, which may need its operators

    library = extra_module("transformers", "llm", f"model hf:{name}")
    kind = "SequenceClassification" if task == "classification" else "CausalLM"
    auto = getattr(library, f"AutoModelFor{kind}")
    extra = {"num_labels": num_classes} if task == "classification" else {}
    try:
        if name in TINY:
            config = getattr(library, TINY[name])(**_WIDTHS, **extra)
            return auto.from_config(_padded(config))
        where, options = located(name, revision)
        config = _padded(library.AutoConfig.from_pretrained(where, **options, **extra))
        if torch.get_default_device().type == "meta":  # only its size is wanted
            return auto.from_config(config)
        with _quiet(library):
            base, found = auto.from_pretrained(
                where,
                **options,
                config=config,
                dtype=torch.float32,
                use_safetensors="gguf_file" not in options,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        _check_loaded(name, base, found)
        return base
    except ParameterError:
        raise
    except Exception as error:  # the library and the network raise many kinds
        known = ", ".join(f"hf:{tiny}" for tiny in TINY)
        raise ParameterError(
            f"model hf:{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]} Give the path of "
            f"a folder with config.json and model.safetensors, a name on the Hub, or one of {known}"
        ) from error


def _check_loaded(name: str, base: Any, found: dict[str, Any]) -> None:
    """Refuse a base whose weights are not all there: transformers draws the others at random.

    New heads, which lie beside the base, and a pooler, which encoders are often saved without, may be drawn.
    """
    lacks = [(key, "lacks it") for key in found["missing_keys"]]
    lacks += [
        (key, f"has shape {tuple(there)}, its config.json says {tuple(own)}")
        for key, there, own in found["mismatched_keys"]
    ]
    inside = f"{base.base_model_prefix}."
    wrong = sorted(lack for lack in lacks if lack[0].startswith(inside) and ".pooler." not in lack[0])
    if wrong:
        key, problem = wrong[0]
        raise ParameterError(
            f"model hf:{name}: {key}: the file of weights {problem} ({len(wrong)} such tensors); "
            "config.json and the weights are of different models"
        )
    if not all(torch.isfinite(p).all() for p in base.parameters()):
        raise ParameterError(
            f"model hf:{name}: its weights are not finite (NaN or infinity); download it again"
        )


def _check_causal(name: str, base: Any) -> None:
    """Refuse a model whose output at a token depends on later ones, as BERT's does: it would see answers."""
    texts = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]])
    training = base.training
    with torch.no_grad():
        first, second = base.eval()(input_ids=texts, use_cache=False).logits[:, :3]
    base.train(training)
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max())):
        raise ParameterError(
            f"model hf:{name} reads whole texts ({base.config.model_type}), so it sees the tokens that task: "
            "causal has to predict; use task: classification, or a causal model such as hf:tiny-gpt"
        )


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Do not print that the layer for the classes is new: every process would, and it always is."""
    log = library.utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


def _padded(config: Any) -> Any:
    """A configuration that names a token for padding, which some classifiers look up; it is masked."""
    if getattr(config, "pad_token_id", None) is None:
        end = getattr(config, "eos_token_id", None)
        config.pad_token_id = end[0] if isinstance(end, list) else end or 0
    return config


def located(name: str, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """Where transformers finds a model or tokenizer, and how: a folder, a GGUF file, or the Hub.

    Never with code that lies beside the weights: left unsaid, transformers asks at a terminal.

    Raises:
        ParameterError: it looks like a path, and nothing is there.
    """
    if name.startswith("tiny-") and "/" not in name:
        raise ParameterError(f"unknown model 'hf:{name}'{nearest(name, TINY)} (tiny ones: {', '.join(TINY)})")
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(path.parent), {"gguf_file": path.name, "trust_remote_code": False}
    if path.is_dir():
        return str(path), {"local_files_only": True, "trust_remote_code": False}
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ParameterError(
            f"hf:{name}: there is no folder and no .gguf file {path.absolute()}; a relative path counts from "
            "the folder where FedGuard runs"
        )
    return name, {"revision": revision, "trust_remote_code": False}


def _adapt(name: str, base: Any, lora: Lora) -> None:
    """Put adapters into a model, and freeze everything but them and the head for the classes."""
    peft = extra_module("peft", "llm", f"model hf:{name} with lora")
    heads = {part for part in ("classifier", "score") if hasattr(base, part)}
    config = peft.LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets
    )
    if lora.targets is None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

        known = DEFAULTS.get(base.config.model_type)
        if known is None:
            raise ParameterError(
                f"model hf:{name}: peft names no layers for the architecture {base.config.model_type}; list "
                "them in lora.targets"
            )
        config.target_modules = set(known)
    try:
        peft.inject_adapter_in_model(config, base)
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in base.named_modules() if isinstance(m, nn.Linear)})
        raise ParameterError(
            f"model hf:{name}: lora.targets {lora.targets}: {str(error).splitlines()[0]} (its linear layers: "
            f"{', '.join(linear)})"
        ) from error
    for key, parameter in base.named_parameters():
        parameter.requires_grad_("lora_" in key or key.partition(".")[0] in heads)
