"""Which arrays of a model are LoRA adapters or its new head, by the names that peft and FedGuard give.

Three forms of names are known, here for one adapter, A of the layer ``query``:

- saved: ``base_model.model.….query.lora_A.weight``, as ``peft.get_peft_model_state_dict`` returns it and
  ``adapter_model.safetensors`` holds it. It contains nothing but what is trained.
- whole: ``base_model.model.….query.lora_A.default.weight``, as in the ``state_dict()`` of a ``PeftModel``.
  New heads are below ``modules_to_save``.
- injected: ``base.….query.lora_A.default.weight``, as in FedGuard's ``hf:`` models, or without ``base.`` as
  after ``peft.inject_adapter_in_model``. The head is a module at the top.
"""

from __future__ import annotations

from collections.abc import Iterable

#: The word for adapters and the new head among name patterns and instead of roles.
ADAPTERS = "adapters"
#: What names of a PeftModel begin with, and those of FedGuard's models.
PEFT, OWN = "base_model.model.", "base."
#: The modules at the top that peft trains with the adapters of a classifier.
HEADS = ("classifier", "score", "qa_outputs")
#: What only the state of a whole model has: the layer below an adapter, the head that was there before.
_BELOW = {"base_layer", "original_module"}


def adapter_names(names: Iterable[str]) -> list[str]:
    """Those of a model's array names that are LoRA adapters (also DoRA's magnitudes) or the new head.

    Without any adapter there is no new head either: the result is empty.

    Args:
        names: the names of all arrays that are exchanged, in one of the three forms.

    Example:
        >>> adapter_names(["base.q.base_layer.weight", "base.q.lora_A.default.weight", "base.score.weight"])
        ['base.q.lora_A.default.weight', 'base.score.weight']
        >>> adapter_names(["base.q.weight", "base.score.weight"])
        []
    """
    every = list(names)
    if not any(map(is_lora, every)):
        return []
    if is_saved(every):
        return every
    return [name for name in every if is_lora(name) or _is_head(name)]


def saved_name(name: str) -> str:
    """The name in ``adapter_model.safetensors`` of an adapter or a new head: without the adapter's own name.

    Example:
        >>> saved_name("base.bert.query.lora_A.default.weight")
        'base_model.model.bert.query.lora_A.weight'
        >>> saved_name("base_model.model.score.modules_to_save.default.weight")
        'base_model.model.score.weight'
    """
    parts = name.removeprefix(PEFT).removeprefix(OWN).split(".")
    if "modules_to_save" in parts:
        at = parts.index("modules_to_save")
        return PEFT + ".".join([*parts[:at], *parts[at + 2 :]])
    at = next((k for k, part in enumerate(parts) if part.startswith("lora_")), len(parts))
    tail = parts[at + 1 :]
    if tail and tail[0] not in ("weight", "bias"):
        tail = tail[1:]  # the adapter's own name
    if parts[at : at + 1] == ["lora_magnitude_vector"]:
        tail = []  # peft saves the number itself, not the module around it
    return PEFT + ".".join([*parts[: at + 1], *tail])


def is_lora(name: str) -> bool:
    """Whether a part of the name is ``lora_…``: A, B, those of embeddings, DoRA's magnitudes."""
    return any(part.startswith("lora_") for part in name.split("."))


def is_saved(names: Iterable[str]) -> bool:
    """Whether the names are in the saved form, in which every array is trained."""
    return all(name.startswith(PEFT) and not _BELOW & set(name.split(".")) for name in names)


def _is_head(name: str) -> bool:
    if name.startswith(PEFT):
        return "modules_to_save" in name.split(".")
    parts = name.removeprefix(OWN).split(".")
    return "original_module" not in parts and (parts[0] in HEADS or "modules_to_save" in parts)
