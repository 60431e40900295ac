"""The pretended device refuses what a GPU refuses, and every method works on it."""

import contextlib

import numpy as np
import pytest
import torch

from fedguard import Guard
from fedguard.contracts.registry import REGISTRIES
from fedguard.core.state import pack, unpack
from fedguard.core.threads import single_thread
from fedguard.recording.recorder import Recorder
from fedguard.testing import aggregators, attacks, stages
from fedguard.testing.core import variants
from fedguard.testing.federation import federation, fresh
from fedguard.testing.pretended_device import Pretended, can_pretend, pretended_device, registered_device

pytestmark = pytest.mark.skipif(not can_pretend(), reason="this torch cannot register a device in Python")
if can_pretend():
    registered_device()  # before any test of this process calls autograd, which counts devices once

REFUSED = {
    "a sum": lambda there, here: there + here,
    "a sum in place, here": lambda there, here: here.add_(there),
    "a row of the CPU": lambda there, here: torch.cat([there, here]),
    "NumPy": lambda there, here: there.numpy(),
    "NumPy's asarray": lambda there, here: np.asarray(there),
    "a generator of the CPU": lambda there, here: torch.randn(
        3, generator=torch.Generator(), device=there.device
    ),
    "selecting by CPU indices": lambda there, here: there.index_select(0, torch.tensor([1])),
    "CPU values by indices there": lambda there, here: here[there[:, 0] > 0],
    "a product": lambda there, here: there @ here.T,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_gpu_refuses(case):
    with pretended_device() as device, pytest.raises(RuntimeError):
        REFUSED[case](torch.ones(3, 4).to(device), torch.ones(3, 4))


def test_what_a_gpu_allows():
    with pretended_device() as device:
        there = torch.arange(6.0).view(2, 3).to(device)
        assert (there.device, there.tolist()) == (device, [[0, 1, 2], [3, 4, 5]])
        assert type(there.cpu()) is torch.Tensor
        assert (there * torch.tensor(2.0)).sum().item() == 30
        assert there[torch.tensor([1])].tolist() == [[3, 4, 5]]
        there[0] = 7
        there[:, there[1] > 4] = torch.tensor(9.0)
        assert there.tolist() == [[7, 7, 9], [3, 4, 9]]
        here = torch.zeros(2, 3)
        here.copy_(there)
        assert here.tolist() == there.tolist()
        assert isinstance(torch.zeros(2, device=device), Pretended)
        assert torch.tensor([1.0, 2.0], device=device).tolist() == [1, 2]
        squeezed = torch.ones(1, 3).to(device)
        squeezed.squeeze_(0)
        assert squeezed.shape == squeezed.memory.shape == (3,)
        weight = there.clone().requires_grad_()
        assert torch.autograd.grad((weight**2).sum(), weight)[0].tolist() == (2 * there).tolist()
        plain = torch.ones(1, 1)
        assert plain.squeeze_(0).shape == (1,)


def cases(kind):
    """Every method; its other variants are slow tests."""
    registry, found = REGISTRIES[kind], []
    for name in registry.names():
        for number, params in enumerate(variants(registry.get(name))):
            with contextlib.suppress(Exception):  # a choice that needs other parameters too
                registry.get(name)(**params)
                marks = [pytest.mark.slow] if number else []
                label = f"{name} {params or ''}".strip()
                found.append(pytest.param(registry.get(name), params, id=label, marks=marks))
    return found


@pytest.mark.parametrize(("cls", "params"), cases("detectors"))
def test_detectors_score_there_as_here(cls, params):
    with single_thread(), pretended_device() as device:
        here, there = cls(**params), cls(**params)
        for round in federation():
            moved = fresh(round).to(device)
            expected, found = here(fresh(round)), there(moved)
            np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)
            here.commit(round, expected)
            there.commit(moved, found)
        there.load_state_dict(unpack(pack(there.state_dict())))  # states come back in memory
        there(moved)


@pytest.mark.parametrize(("cls", "params"), cases("aggregators"))
def test_aggregators_there_as_here(cls, params):
    with single_thread(), pretended_device() as device:
        here, there = cls(**params), cls(**params)
        for round in federation():
            moved = fresh(round).to(device)
            expected, found = (m(r, aggregators.WEIGHTS) for m, r in ((here, fresh(round)), (there, moved)))
            assert found.device == device
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)
            here.commit(round, expected)
            there.commit(moved, found)
        there.load_state_dict(unpack(pack(there.state_dict())))
        there(moved, aggregators.WEIGHTS)


@pytest.mark.parametrize(("cls", "params"), cases("stages"))
def test_stages_there_as_here(cls, params):
    case = stages.Case(cls, params)
    with single_thread(), pretended_device() as device:
        found = case.aggregate(case.round().to(device))
        torch.testing.assert_close(found.cpu(), case.aggregate(case.round()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("cls", "params"), cases("attacks"))
def test_attacks_craft_there_as_here(cls, params):
    case = attacks.Case(cls, params)
    here = case.make()
    expected = here.craft(case.view(here))
    with single_thread(), pretended_device() as device:
        there = case.make()
        view = case.view(there)
        for name in ("global_params", "previous_params", "initial_params", "own_updates"):
            setattr(view, name, getattr(view, name).to(device))
        if view._known["benign_updates"] is not None:
            view._known["benign_updates"] = view._known["benign_updates"].to(device)
        found = there.craft(view)
        assert found.device == device
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
        there.commit(view, found)
        there.load_state_dict(unpack(pack(there.state_dict())))


@pytest.mark.parametrize("policy", REGISTRIES["policies"].names())
def test_a_guard_there_records_and_judges_as_here(policy, tmp_path):
    detectors = "foolsgold" if policy == "reweight" else ["krum", "norm_bound"]
    parts = {"detectors": detectors, "stages": "norm_clipping", "aggregator": "trimmed_mean"}
    with single_thread(), pretended_device() as device, Recorder(tmp_path / "there") as recorder:
        here, there = Guard(policy=policy, **parts), Guard(policy=policy, observers=[recorder], **parts)
        for round in federation():
            expected, found = here.process(fresh(round)), there.process(fresh(round).to(device))
            assert found.aggregate.device == device
            torch.testing.assert_close(found.aggregate.cpu(), expected.aggregate)
            assert found.weights.tolist() == pytest.approx(expected.weights.tolist())
            assert found.suspects.tolist() == expected.suspects.tolist()
    assert len(list((tmp_path / "there").glob("round*"))) == 3


def test_a_guard_of_the_cpu_moves_everything_there_first():
    seen = []

    class Watching(Guard):
        def _here(self, round):
            seen.append(super()._here(round))
            return seen[-1]

    with single_thread(), pretended_device() as device:
        guard = Watching("err", aggregator="median", device="cpu")
        round = fresh(federation()[0]).to(device)
        guard.suspects(round)
        outcome = guard.process(round)
    assert outcome.aggregate.device.type == "cpu"
    for moved in seen:
        held = (moved.updates.matrix, moved.global_params, *moved.server.model.parameters())
        assert {type(tensor) for tensor in held} <= {torch.Tensor, torch.nn.Parameter}
        assert {part.device.type for part in (*held, *moved.server.validation, *moved.server.root)} == {"cpu"}
