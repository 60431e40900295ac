"""The task: a model with LoRA adapters, texts, training, a test. Put your own model and texts here.

The model is tiny and random and the texts are made up, so that nothing is downloaded.
"""

from __future__ import annotations

import peft
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.simulation.datasets import load_dataset
from fedguard.simulation.models import build_model

#: Token numbers, padded with −1, and classes.
Data = tuple[Tensor, Tensor]
#: Tokens per text.
LENGTH = 24


def make_model(seed: int = 0) -> peft.PeftModel:
    """A BERT of two layers with adapters; the same first weights for everybody.

    With a real one: ``AutoModelForSequenceClassification.from_pretrained(…)``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = build_model("hf:tiny-bert", (LENGTH,), 4, torch.Generator().manual_seed(seed)).base
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=4, lora_alpha=32, target_modules=["query", "value"], inference_mode=False
        )
        return peft.get_peft_model(base, config)


def adapters(model: peft.PeftModel) -> dict[str, Tensor]:
    """What silos send: the adapters and the new head, by peft's names."""
    found: dict[str, Tensor] = peft.get_peft_model_state_dict(model)
    return found


def server_data() -> Data:
    """The texts that the server keeps."""
    test = load_dataset("topics", max_length=LENGTH).test
    return test.pixels.long(), test.labels


def silo_data(silo: int, silos: int) -> Data:
    """The texts of one silo: an equal share."""
    train = load_dataset("topics", max_length=LENGTH).train
    return train.pixels[silo::silos].long(), train.labels[silo::silos]


def logits(model: peft.PeftModel, texts: Tensor) -> Tensor:
    """(N, 4) one output for each class."""
    mask = (texts >= 0).long()
    found: Tensor = model(input_ids=texts.clamp(min=0), attention_mask=mask).logits
    return found


def train(model: peft.PeftModel, data: Data, epochs: int, lr: float) -> float:
    """Adam in batches of 16; returns the mean loss of the last epoch."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    losses: list[float] = []
    model.train()
    for _ in range(epochs):
        losses = []
        for texts, labels in zip(data[0].split(16), data[1].split(16), strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(model, texts), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


@torch.no_grad()
def test(model: peft.PeftModel, data: Data) -> tuple[float, float]:
    """Mean loss and accuracy."""
    found = logits(model.eval(), data[0])
    return float(F.cross_entropy(found, data[1])), float((found.argmax(1) == data[1]).float().mean())
