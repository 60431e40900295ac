"""FedREDefense's presets: the paper's by data set, the released code's, FedGuard's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ._search_settings import Settings, check_positive, check_word


@dataclass(frozen=True)
class Preset(Settings):
    """The settings of the reconstruction, the knowledge that it starts from, and its budgets.

    Raises:
        ParameterError: a value is out of range.
    """

    num_images: int = 10
    inner_lr: float = 0.1
    first_iterations: int = 5000
    later_iterations: int = 5000
    init: Literal["gaussian", "uniform", "shared"] = "uniform"
    first_labels: Literal["zeros", "bias"] = "zeros"

    def __post_init__(self) -> None:
        counts = {"num_images": self.num_images, "first_iterations": self.first_iterations}
        check_positive(counts | {"later_iterations": self.later_iterations, "inner_lr": self.inner_lr})
        check_word("init", self.init, ("gaussian", "uniform", "shared"))
        check_word("first_labels", self.first_labels, ("zeros", "bias"))
        super().__post_init__()

    def given(self, **parameters: Any) -> Preset:
        """A copy with the given values; None keeps the preset's value."""
        return replace(self, **{name: value for name, value in parameters.items() if value is not None})


#: Name → preset. The paper's settings differ by data set (§5.1 and Table 7).
PRESETS = {
    "paper": Preset(),
    "paper_cifar10": Preset(inner_lr=0.05, first_iterations=500, later_iterations=1500),
    "paper_cinic": Preset(inner_lr=0.05, first_iterations=2000, later_iterations=4000),
    "released": Preset(momentum=0.5, first_iterations=3000, later_iterations=3000, init="shared"),
    "fast": Preset(
        inner_steps=1,
        inner_lr=0.5,
        optimizer="adam",
        lr_labels=0.1,
        first_iterations=10,
        later_iterations=10,
        init="gaussian",
        first_labels="bias",
        inner_rate="matched",
    ),
}


def preset(name: str) -> Preset:
    """Look up a preset by its name.

    Raises:
        ParameterError: no preset has this name.
    """
    check_word("preset", name, tuple(PRESETS))
    return PRESETS[name]
