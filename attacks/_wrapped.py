"""The base of attacks that modify another attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.attack import Adjust, Attack, DataView, TrainView, Trial, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.local_view import LocalView
from fedguard.contracts.nested import AttackSpec, make
from fedguard.core.errors import ParameterError
from fedguard.core.state import State


class Wrapped(Attack):
    """Delegates everything to ``self.attack``, and has its knowledge and goal.

    Args:
        attack: the inner attack: a name, or a mapping with name and parameters.

    Raises:
        ParameterError: the attack cannot be built, or sends nothing.
    """

    kind = "model"

    def __init__(self, attack: AttackSpec) -> None:
        self.attack: Attack = make(attack, "attacks", f"{self.name}: attack")
        if self.attack.kind in ("none", "passive"):
            raise ParameterError(
                f"{self.name}: attack is {self.attack.name}, which sends no updates; use another"
            )
        self.knowledge = self.attack.knowledge
        self.goal = self.attack.goal

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Run the inner attack's check."""
        self.attack.check(input_shape, num_classes, n, m)

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """Delegate to the inner attack."""
        return self.attack.poison_data(samples, view)

    def poison_test(
        self, test: Samples, share: float, num_classes: int, generator: torch.Generator
    ) -> Samples:
        """Delegate to the inner attack."""
        return self.attack.poison_test(test, share, num_classes, generator)

    def local_training(self, settings: LocalTraining) -> LocalTraining:
        """Delegate to the inner attack."""
        return self.attack.local_training(settings)

    def adjust(self, view: TrainView) -> Adjust | None:
        """Delegate to the inner attack."""
        return self.attack.adjust(view)

    def prepare(self, view: LocalView) -> None:
        """Delegate to the inner attack."""
        self.attack.prepare(view)

    def train(self, view: LocalView) -> None:
        """Delegate to the inner attack."""
        self.attack.train(view)

    def craft(self, view: UpdateView) -> Tensor:
        """The inner attack's updates."""
        return self.attack.craft(view).clone()

    def claim(self, num_examples: NDArray[np.float64], everybody: NDArray[np.float64]) -> NDArray[Any]:
        """The inner attack's claims."""
        return self.attack.claim(num_examples, everybody)

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Commit the inner attack."""
        self.attack.commit(view, crafted)

    def state_dict(self) -> State:
        """The inner attack's state."""
        return self.attack.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore the inner attack's state."""
        self.attack.load_state_dict(state)

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The inner attack's trial."""
        return self.attack.trial(test, num_classes)
