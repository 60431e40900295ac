"""The JSON metadata of a round's file, validated before anything is built from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, model_validator

#: The largest accepted integer.
LARGEST = 2**63 - 1

Whole = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _id(value: Any) -> Any:
    if type(value) not in (str, int):
        raise ValueError("is neither a text nor an integer")
    return value


#: Client ids need not be valid Unicode, which pydantic's ``str`` requires.
Text = Annotated[Any, AfterValidator(_text)]
Id = Annotated[Any, AfterValidator(_id)]


class _Named(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Text


Named = Text | _Named


class Training(BaseModel):
    """The fields of :class:`fedguard.contracts.local_training.LocalTraining`; the new ones may be absent."""

    model_config = ConfigDict(extra="forbid")
    epochs: Positive | None
    steps: Positive | None
    batch_size: Positive
    lr: Number
    momentum: Number
    weight_decay: Number
    proximal: Number
    wbc: Number
    optimizer: Named = "sgd"
    scheduler: Named | None = None
    lr_schedule: Text = "constant"
    lr_decay: Number = 1.0
    lr_min: Number = 0.0
    loss: Named = "cross_entropy"
    clip: Number = 0.0
    patience: Whole = 0
    holdout: Number = 0.1
    augment: list[Named] = Field(default_factory=list, max_length=100)


class Remarks(BaseModel):
    """The remarks that readers of a simulation's recording rely on; a recorder may add others.

    Attributes:
        clients: the number of each client in the federation.
        attacking: the numbers of the attacking clients.
    """

    model_config = ConfigDict(extra="allow")
    clients: list[Whole] | None = None
    attacking: list[Whole] = Field(default_factory=list)


class Words(BaseModel):
    """Everything in a round's file except its tensors."""

    index: Whole
    client_ids: list[Id] = Field(min_length=1)
    problems: list[Text | None]
    reasons: list[Text]
    note: Text
    seed: StrictInt | None
    input_shape: list[Positive] | None = Field(max_length=8)
    num_classes: Positive | None
    training: Training | None
    remarks: Remarks

    @model_validator(mode="after")
    def _one_for_each(self) -> Words:
        n, numbers = len(self.client_ids), self.remarks.clients
        if len({str(name) for name in self.client_ids}) < n:
            raise ValueError("a client appears twice")
        for name in ("problems", "reasons"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{len(getattr(self, name))} {name} for {n} clients")
        if numbers is not None and (len(numbers) != n or len(set(numbers)) < n):
            raise ValueError(f"the numbers of its {n} clients are not {n} different ones")
        return self

    def plain(self) -> dict[str, Any]:
        """Return plain values, the recorder's remarks unchanged."""
        return self.model_dump(exclude_unset=True)
