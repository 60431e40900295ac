"""Optimizers and schedules of local training by name: ``torch.optim``, imported only if a suite uses it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..contracts.local_training import LocalTraining, named
from ..core.errors import ConfigError, ParameterError
from ..core.named_code import load_code
from ..core.params import check_params, nearest
from .early_stop import held_out

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Steps:
    """Steps of a ``torch.optim`` optimizer along given gradients, with its schedule.

    The optimizer is new for every client and round: clients keep no state.

    Args:
        parameters: what it moves.
        settings: the optimizer, the scheduler, η, momentum and weight decay.
        per_epoch: steps per pass over the client's data; a scheduler "per: epoch" moves after each.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: LocalTraining, per_epoch: int) -> None:
        self._parameters = list(parameters)
        self._optimizer = build_optimizer(self._parameters, settings)
        self._scheduler, self._per_step = build_scheduler(self._optimizer, settings)
        self._per_epoch = per_epoch
        self._done = 0

    def __call__(self, gradients: Iterable[Tensor]) -> None:
        """Do one step."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None
        self._done += 1
        if self._scheduler is not None and (self._per_step or self._done % self._per_epoch == 0):
            self._scheduler.step()


def build_optimizer(parameters: Sequence[nn.Parameter], settings: LocalTraining) -> Optimizer:
    """The optimizer of some settings, with ``lr``, and ``momentum`` and ``weight_decay`` unless they are 0.

    Its other parameters are checked against its signature; ``lr`` is set by the settings alone.

    Raises:
        ParameterError: the name or a parameter is unknown, or it does not take the settings' momentum.
    """
    name, params = named(settings.optimizer)
    cls: Any = _optimizer_class(name)
    taken = _parameters_of(cls)
    given = {"lr": settings.lr} if "lr" in taken else {}
    for key in ("momentum", "weight_decay"):
        value = getattr(settings, key)
        if value and key not in taken:
            raise ParameterError(f"optimizer {name} has no {key}; leave training.{key} out")
        if value:
            given[key] = value
    checked = check_params(cls, params, f"optimizer {name}", frozenset({"params", "lr"}))
    return _made(cls, f"optimizer {name}", parameters, {**given, **checked})  # type: ignore[no-any-return]


def build_scheduler(optimizer: Optimizer, settings: LocalTraining) -> tuple[LRScheduler | None, bool]:
    """The schedule of the learning rate within a round, and whether it moves per step.

    Raises:
        ParameterError: the name or a parameter is unknown, or ``per`` is neither "step" nor "epoch".
    """
    if settings.scheduler is None:
        return None, False
    name, params = named(settings.scheduler)
    per = params.pop("per", "epoch")
    if per not in ("step", "epoch"):
        raise ParameterError(f"scheduler {name}: per is {per!r}; use 'step' or 'epoch'")
    cls = _scheduler_class(name)
    checked = check_params(cls, params, f"scheduler {name}", frozenset({"optimizer"}))
    return _made(cls, f"scheduler {name}", optimizer, checked), per == "step"


def check_optimizer(settings: LocalTraining) -> None:
    """Build the optimizer and the scheduler, and do one step of a single weight.

    Raises:
        ParameterError: a name or a parameter is wrong, or it needs more than gradients (LBFGS, plateaus).
    """
    weight = nn.Parameter(torch.zeros(2, 2))
    steps = Steps([weight], settings, 1)
    try:
        steps([torch.ones_like(weight)])
    except Exception as error:
        what = " and ".join(named(x)[0] for x in (settings.optimizer, settings.scheduler) if x is not None)
        raise ParameterError(
            f"training: {what} cannot do a step on gradients alone ({error}); choose another"
        ) from error


def check_scheduler(settings: LocalTraining, counts: Collection[int]) -> None:
    """Move the scheduler as often as the one with the most steps does in a round: some have an end.

    Args:
        settings: with the scheduler.
        counts: how many samples those who train have.

    Raises:
        ParameterError: it ends before (OneCycleLR after its ``total_steps``).
    """
    if settings.scheduler is None or not counts:
        return
    optimizer = build_optimizer([nn.Parameter(torch.zeros(2, 2))], settings)
    scheduler, per_step = build_scheduler(optimizer, settings)
    assert scheduler is not None  # noqa: S101 - the settings have one
    optimizer.step()
    moves, count = max((_moves(settings, count, per_step), count) for count in counts)
    for done in range(moves):
        try:
            scheduler.step()
        except ValueError as error:
            raise ParameterError(
                f"scheduler {named(settings.scheduler)[0]} ends after {done} moves, and with {count} samples "
                f"training makes {moves} in a round; let it last for {moves} ({error})"
            ) from error


def _moves(settings: LocalTraining, count: int, per_step: bool) -> int:
    """How often training on so many samples moves the scheduler."""
    count -= held_out(count, settings) if settings.patience else 0
    steps = settings.steps_for(count)
    return steps if per_step else steps // -(-count // settings.batch_size)


def _made(cls: Callable[..., Any], what: str, first: Any, params: Mapping[str, Any]) -> Any:
    try:
        return cls(first, **params)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{what}: {error}") from error


@functools.lru_cache(maxsize=64)
def _parameters_of(cls: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(cls).parameters)


def _optimizer_class(name: str) -> type[Optimizer]:
    import torch.optim  # takes a second per worker

    return _class(name, torch.optim, torch.optim.Optimizer, "optimizer")


def _scheduler_class(name: str) -> type[LRScheduler]:
    from torch.optim import lr_scheduler

    return _class(name, lr_scheduler, lr_scheduler.LRScheduler, "scheduler", "lr")


def _class(name: str, module: Any, base: Any, kind: str, ending: str = "") -> type[Any]:
    """The class of a module with this name, in any case, with or without underscores and the ending."""
    if ":" in name:
        try:
            found = load_code(name, kind)
        except ConfigError as error:
            raise ParameterError(f"training.{kind}: {error}") from error
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise ParameterError(f"{kind} {name} is not a class below torch's {base.__name__}")
        return found
    known = _known(module, base)
    word = name.lower().replace("_", "")
    found = known.get(word) or known.get(word + ending)
    if found is None:
        raise ParameterError(
            f"unknown {kind} {name!r}{nearest(word, known)} (known: {', '.join(sorted(known))})"
        )
    return found


@functools.lru_cache(maxsize=4)
def _known(module: Any, base: Any) -> dict[str, type[Any]]:
    """The public classes of a module below ``base``, by their names in lower case."""
    public = {k: v for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base)}
    return {k.lower(): v for k, v in public.items() if v is not base and not k.startswith("_")}
