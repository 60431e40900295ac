"""The model contract as checks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.params import check_params
from ..core.seeds import generator
from ..simulation.models import build_from, models
from ..simulation.models.check import check_fit
from ..simulation.packing import pack, unpack
from ..training.generation import OUTPUTS
from ..training.parameters import flat_parameters, flat_statistics, learned, load_parameters, predict
from .core import Check, MethodCheck, Report, Untouched, require

#: Inputs to try, in this order, until one is accepted: images, then a series of whole numbers, as text is.
SHAPES: tuple[tuple[int, ...], ...] = ((3, 32, 32), (1, 28, 28), (20,), (20, 4))
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """What makes a model, and the data that it is checked with.

    Attributes:
        maker: a class or a function, or a module.
        name: what messages call it.
        params: its parameters.
        input_shape: of one sample.
        num_classes: the number of classes.
    """

    maker: Any
    name: str
    params: Mapping[str, Any]
    input_shape: tuple[int, ...]
    num_classes: int = CLASSES

    def make(self, seed: int = 0) -> nn.Module:
        """A fresh model, initialized from a seed."""
        draw = generator(seed, "model of the checks")
        return build_from(self.maker, self.name, self.input_shape, self.num_classes, draw, self.params)

    @property
    def outputs(self) -> int:
        """How many numbers it gives for a sample."""
        return OUTPUTS if getattr(self.maker, "generative", False) else self.num_classes

    def inputs(self, count: int = 4) -> Tensor:
        """(count, *input_shape) normal numbers, or whole numbers below the number of classes for a series."""
        draw = generator(0, "inputs of the checks")
        if len(self.input_shape) == 1:
            return torch.randint(self.num_classes, (count, *self.input_shape), generator=draw).float()
        return torch.randn((count, *self.input_shape), generator=draw)

    def accepts(self) -> bool:
        """Whether the model can be built for these inputs and takes them."""
        try:
            check_fit(self.name, self.make(), self.inputs(2), self.outputs)
        except Exception:  # a stranger's model may raise anything
            return False
        return True


def check_model(
    method: Callable[..., Any] | nn.Module | str,
    params: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int = CLASSES,
) -> Report:
    """Run all contract checks on a model.

    Args:
        method: a name as suites have it ("resnet18", "torchvision:resnet18", "my_module:Net"), a class or a
            function that makes a module, or a module.
        params: its parameters; also ``input_shape`` and ``num_classes``, which FedGuard fills in.
        input_shape: of one sample; if absent, images and series of some usual sizes are tried.
        num_classes: the number of classes.

    Raises:
        ParameterError: the name is unknown, or a shape or a number of classes is none.
    """
    found = checks(method, params, input_shape, num_classes)
    results = tuple(check.result() for check in found)
    return Report(found[0].case.name, dict(params or {}), results)


def checks(
    method: Callable[..., Any] | nn.Module | str,
    params: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int = CLASSES,
) -> list[MethodCheck]:
    """Every check of a model; see :func:`check_model`."""
    maker = models.get(method) if isinstance(method, str) else method
    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    own = dict(params or {})
    sizes = {
        "input_shape": own.pop("input_shape", input_shape),
        "num_classes": own.pop("num_classes", num_classes),
    }
    given = check_params(_sizes, sizes, f"check of model {name}")
    shapes = SHAPES if given["input_shape"] is None else (tuple(given["input_shape"]),)
    cases = [Case(maker, name, own, shape, given["num_classes"]) for shape in shapes]
    case = cases[0] if len(cases) == 1 else next((c for c in cases if c.accepts()), cases[0])
    named: Any = SimpleNamespace(card=SimpleNamespace(name=name), exempt=getattr(maker, "exempt", {}))
    return [MethodCheck(named, check, function, case) for check, function in CHECKS.items()]


def _sizes(
    input_shape: list[Annotated[int, Field(gt=0)]] | None = None,
    num_classes: Annotated[int, Field(gt=1)] = CLASSES,
) -> None:
    """What a model is checked for."""


def shapes(case: Case) -> None:
    """It gives one finite number per sample and class, with gradients.

    Take inputs of shape (N, *input_shape), and return one tensor of logits (N, num_classes). If it is
    made for one shape only, say so: fedguard check NAME input_shape=[1,28,28] num_classes=10.
    """
    model = case.make()
    check_fit(case.name, model, case.inputs(2), case.outputs)
    for count in (1, 5):
        logits = model.eval()(case.inputs(count))
        require(logits.shape == (count, case.outputs), f"for {count} samples it gave {logits.shape}")


def initialization(case: Case) -> None:
    """The same generator gives the same bits, another one others.

    Draw from torch's global generator only, which is the suite's then, and never seed it yourself.
    """
    one, same, other = case.make(), case.make(), case.make(1)
    require(_equal(one.state_dict(), same.state_dict()), "the same generator gives another model")
    if not isinstance(case.maker, nn.Module) and "weights" not in case.params:
        differ = not torch.equal(flat_parameters(one), flat_parameters(other))
        require(differ, "every generator gives the same model; do not seed it yourself")


def global_state(case: Case) -> None:
    """It leaves torch's global generator, default dtype, threads and gradient mode alone."""
    before, guard = _settings(), Untouched()
    model = case.make().eval()
    _same_settings(before, "building it")
    guard.verify()
    model(case.inputs()).sum().backward()
    guard.verify()
    with torch.random.fork_rng(devices=[]):
        model.train()(case.inputs()).sum().backward()
    _same_settings(before, "a pass")


def evaluation(case: Case) -> None:
    """In evaluation mode, the same samples give the same bits. Draw numbers only `if self.training`."""
    model = case.make().eval()
    with torch.no_grad():
        require(torch.equal(model(case.inputs()), model(case.inputs())), "two passes give other logits")


def modes(case: Case) -> None:
    """It trains nothing without `.train()`, and no pass changes its parameters.

    Update buffers only `if self.training`, and leave `train` and `eval` as nn.Module has them.
    """
    model = case.make()
    inner = [part for part in model.train().modules() if not part.training]
    require(not inner, f"after .train(), {len(inner)} of its modules are in evaluation mode")
    require(not any(part.training for part in model.eval().modules()), ".eval() leaves training mode on")
    before = copy.deepcopy(model.state_dict())
    model(case.inputs()).square().sum().backward()
    require(_equal(model.state_dict(), before), "a pass in evaluation mode changes its state")
    parameters = flat_parameters(model)
    with torch.random.fork_rng(devices=[]):
        model.train()(case.inputs()).square().sum().backward()
    require(torch.equal(flat_parameters(model), parameters), "a pass in training mode moves its parameters")


def found(case: Case) -> None:
    """`.parameters()` finds every parameter. Keep layers in nn.ModuleList, parameters in nn.Parameter."""
    model = case.make()
    own = {id(parameter) for parameter in model.parameters()}
    hidden = [name for name, tensor in _tensors(model) if id(tensor) not in own]
    require(not hidden, f".parameters() does not find what is in {', '.join(sorted(set(hidden)))}")
    require(learned(model), "it has no parameters")


def vectors(case: Case) -> None:
    """Other parameters give what a model with them gives. Use `self.weight` in every pass, cache nothing."""
    model, other = case.make(), case.make()
    generator_ = generator(2, "parameters of the checks")
    start = flat_parameters(model)
    moved = start + 0.01 * torch.randn(start.shape, generator=generator_)
    load_parameters(other, moved)
    with torch.no_grad():
        expected = other.eval()(case.inputs())
    require(
        torch.allclose(predict(model, moved, case.inputs()), expected, rtol=1e-3, atol=1e-4),
        "with other parameters (torch.func.functional_call) it gives other logits than a model of these",
    )
    require(torch.equal(flat_parameters(model), start), "it does not keep its own parameters")


def state_dict(case: Case) -> None:
    """`load_state_dict` of its `state_dict` makes the same model. Register every buffer."""
    model, other = case.make(), case.make(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model.train()(case.inputs())  # moves running statistics
    other.load_state_dict(model.state_dict())
    require(torch.equal(flat_statistics(model), flat_statistics(other)), "buffers get lost")
    _alike(case, model, other, "after load_state_dict")


def copies(case: Case) -> None:
    """`copy.deepcopy` and pickling make the same model, on its own memory.

    Keep what cannot be copied out of the module; define the class in a module.
    """
    model = case.make()
    before = flat_parameters(model)
    for way, twin in (("copy.deepcopy", copy.deepcopy(model)), ("pickling", unpack(pack(model)))):
        _alike(case, model, twin, f"after {way}")
        load_parameters(twin, torch.zeros_like(before))
        require(torch.equal(flat_parameters(model), before), f"{way} shares memory with the model")


def _alike(case: Case, one: nn.Module, other: nn.Module, when: str) -> None:
    with torch.no_grad():
        same = torch.equal(one.eval()(case.inputs()), other.eval()(case.inputs()))
    require(same, f"{when} it gives other logits")


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two states hold the same tensors."""
    same = one.keys() == other.keys()
    return same and all(torch.equal(value, other[name]) for name, value in one.items() if _is_tensor(value))


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _settings() -> dict[str, Any]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "the number of threads": torch.get_num_threads(),
        "the gradient mode": torch.is_grad_enabled(),
        "the deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "cuDNN's benchmark mode": torch.backends.cudnn.benchmark,
    }


def _same_settings(before: Mapping[str, Any], what: str) -> None:
    changed = [name for name, value in _settings().items() if value != before[name]]
    require(not changed, f"{what} changes {', '.join(changed)}")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Trained tensors in the modules' own attributes, and those of modules in plain containers."""
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield from ((f"{prefix}.{name}".strip("."), tensor) for tensor in _inside(value))


def _inside(value: object) -> Iterator[Tensor]:
    if isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _inside(item)


CHECKS: dict[str, Check] = {
    "logits of every sample": shapes,
    "the same generator": initialization,
    "no global state": global_state,
    "evaluation repeats itself": evaluation,
    "no training without .train()": modes,
    "parameters are found": found,
    "other parameters": vectors,
    "state_dict round trip": state_dict,
    "copies": copies,
}
