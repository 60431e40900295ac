"""Detectors that run a model do it on one thread: float32 sums depend on how many there are."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from fedguard.contracts.registry import detectors
from fedguard.testing.federation import federation, small_model

#: These ask the model where its layers are, and do not run it.
LAYOUT_ONLY = {"adapter_products", "lora_probe", "lfighter", "fltracer"}
#: The model below has one layer more than that of the checks.
PARAMS = {"lora_probe": {"probe": {"weight": {"4.bias": [1.0, -1.0] * 5}, "bias": 0.0}}}


class Probe(nn.Module):
    """Notes under how many threads the model is run."""

    seen: ClassVar[set[int]] = set()

    def forward(self, inputs):
        self.seen.add(torch.get_num_threads())
        return inputs


@pytest.mark.parametrize("name", [n for n in detectors.names() if "model" in detectors.get(n).needs])
def test_the_model_is_run_under_one_thread(name):
    detector = detectors.make(name, **PARAMS.get(name, detectors.get(name).check_with))
    before = torch.get_num_threads()
    Probe.seen.clear()
    try:
        torch.set_num_threads(3)
        detector(federation()[0].with_server(model=nn.Sequential(Probe(), *small_model())))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert Probe.seen == (set() if name in LAYOUT_ONLY else {1})
