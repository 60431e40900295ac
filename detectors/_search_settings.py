"""The settings of FedREDefense's search for a client's distilled knowledge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedguard.core.errors import ParameterError

from ._unroll import INNER_LOOPS, Average


@dataclass(frozen=True)
class Settings:
    """What is the same for all clients; :class:`FedREDefense` explains each. The defaults are the paper's.

    Raises:
        ParameterError: a value is out of range.
    """

    threshold: float = 0.6
    inner_steps: int = 5
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr_images: float = 0.1
    lr_labels: float = 0.05
    lr_inner_lr: float = 5e-5
    momentum: float = 0.0
    loss_average: Average = "classes"
    inner_loop: Literal["closed", "func", "higher"] = "closed"
    stop_early: bool = True
    inner_rate: Literal["learnt", "matched"] = "learnt"
    give_up_after: int = 0
    spectral_bound: bool = False

    def __post_init__(self) -> None:
        check_positive({"threshold": self.threshold, "inner_steps": self.inner_steps})
        check_positive({"lr_images": self.lr_images, "lr_labels": self.lr_labels})
        check_positive({"lr_inner_lr": self.lr_inner_lr})
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"fedredefense: momentum is {self.momentum}; it lies in [0, 1)")
        if self.give_up_after < 0:
            raise ParameterError(f"fedredefense: give_up_after is {self.give_up_after}; 0 never gives up")
        check_word("optimizer", self.optimizer, ("sgd", "adam"))
        check_word("inner_rate", self.inner_rate, ("learnt", "matched"))
        check_word("loss_average", self.loss_average, ("classes", "batch"))
        check_word("inner_loop", self.inner_loop, tuple(INNER_LOOPS))


def check_positive(numbers: Mapping[str, float]) -> None:
    """Raise a ParameterError unless all are positive and finite."""
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"fedredefense: {name} is {value}; use a positive number")


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise a ParameterError for an unknown choice."""
    if value not in words:
        raise ParameterError(f"fedredefense: {name} is {value!r}; use one of {', '.join(words)}")
