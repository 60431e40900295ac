"""Detectors on the products of adapters, against the formed matrices of a real model with peft's adapters."""

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.core.errors import NeedError, ParameterError
from fedguard.detectors.adapter_products import adapter_gram
from fedguard.training.parameters import flat_parameters, learned, split_parameters


class Layer(nn.Module):
    """W x + s B A x, as peft has it."""

    def __init__(self, inputs, outputs, rank, scale):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, outputs, bias=False)})
        self.scaling = {"default": scale}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(Layer(9, 7, 2, 8.0), Layer(7, 6, 3, 0.5), nn.Linear(6, 4))


@pytest.fixture(scope="module")
def round(model):
    start = flat_parameters(model)
    updates = 0.3 * torch.randn((8, len(start)), generator=torch.Generator().manual_seed(1))
    updates[3] *= 4
    return Round(updates, global_params=start, server=Server(model=model))


def formed(model, round, layers=2):
    """ΔW of the last so many layers and the update of the head, as one row per client."""
    rows = []
    for update in [torch.zeros_like(round.global_params), *round.updates.matrix]:
        part = {k: v.double() for k, v in split_parameters(model, round.global_params + update).items()}
        products = [
            model[i].scaling["default"]
            * part[f"{i}.lora_B.default.weight"]
            @ part[f"{i}.lora_A.default.weight"]
            for i in (0, 1)[-layers:]
        ]
        rows.append(torch.cat([p.flatten() for p in (*products, part["2.weight"], part["2.bias"])]))
    return torch.stack(rows[1:]) - rows[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_inner_products_are_those_of_the_formed_matrices(model, round, layers):
    expected = formed(model, round, layers)
    found = adapter_gram(round, layers)
    torch.testing.assert_close(found, expected @ expected.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(adapter_gram(round), adapter_gram(round, 2), rtol=0, atol=0)


@pytest.mark.parametrize(
    "inner",
    [
        {"name": "krum", "select": "m_krum", "num_malicious": 2},
        {"name": "norm_bound"},
        {"name": "dnc", "num_malicious": 1},
        {"name": "foolsgold", "memory": False},
    ],
    ids=lambda spec: spec["name"],
)
def test_scores_are_those_of_the_formed_matrices(model, round, inner):
    found = make_detector("adapter_products", detector=inner)(round)
    expected = make_detector(inner["name"], **{k: v for k, v in inner.items() if k != "name"})(
        formed(model, round).float()
    )
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4)
    assert found.suspects.tolist() == expected.suspects.tolist()


def test_other_factors_of_the_same_product_are_no_change(model):
    """B R⁻¹ and R A: far away as factors, nothing as a product; the plain distance is fooled."""
    start = flat_parameters(model)
    parts = split_parameters(model, start.clone())
    turn = torch.tensor([[4.0, 1.0], [0.0, 0.25]])
    parts["0.lora_A.default.weight"].copy_(turn @ parts["0.lora_A.default.weight"])
    parts["0.lora_B.default.weight"].copy_(parts["0.lora_B.default.weight"] @ turn.inverse())
    moved = torch.cat([part.flatten() for part in parts.values()]) - start
    updates = torch.stack([torch.zeros_like(start), moved])
    gram = adapter_gram(Round(updates, global_params=start, server=Server(model=model)))
    assert updates[1].norm() > 1
    assert float(gram[1, 1]) < 1e-9


def test_what_does_not_fit_is_refused(model, round):
    with pytest.raises(ParameterError, match="recommended uses more than the inner products"):
        make_detector("adapter_products", detector="recommended")
    with pytest.raises(ParameterError, match="foolsgold uses more"):
        make_detector("adapter_products", detector="foolsgold")
    with pytest.raises(ParameterError, match="layers is 0"):
        make_detector("adapter_products", layers=0)
    with pytest.raises(NeedError, match="needs global_params"):
        make_detector("adapter_products")(round.updates.matrix)
    plain = nn.Linear(3, 2)
    bare = Round(torch.zeros(5, 8), global_params=flat_parameters(plain), server=Server(model=plain))
    with pytest.raises(NeedError, match="a model with adapters"):
        make_detector("adapter_products", layers=1)(bare)
    np.testing.assert_allclose(adapter_gram(bare), np.zeros((5, 5)))


def test_adapters_of_peft_are_found():
    from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers, which imports it

    pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("peft", exc_type=ImportError)
    from fedguard.simulation.models import build_model

    own = build_model("hf:tiny-bert", (12,), 4, torch.Generator().manual_seed(0), lora={"r": 2, "alpha": 6})
    start = flat_parameters(own)
    updates = 0.1 * torch.randn((3, len(start)), generator=torch.Generator().manual_seed(0))
    gram = adapter_gram(Round(updates, global_params=start, server=Server(model=own)))
    names = [name for name in learned(own) if "lora_A" in name]
    expected = torch.zeros(3, 3, dtype=torch.float64)
    before = split_parameters(own, start)
    after = [split_parameters(own, start + update) for update in updates]
    for name in learned(own):
        if name in names:
            up = name.replace("lora_A", "lora_B")
            rows = [
                3 * (w[up].double() @ w[name].double() - before[up].double() @ before[name].double())
                for w in after
            ]
        elif "lora_" not in name:
            rows = [w[name].double() - before[name].double() for w in after]
        else:
            continue
        flat = torch.stack([row.flatten() for row in rows])
        expected += flat @ flat.T
    assert len(names) == 4
    torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-6)
