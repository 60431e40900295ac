"""FedGuard: score every client update, decide who may contribute, and only then aggregate.

``import fedguard`` is light: the names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._deprecated import ROOT, install
from .core.deprecation import warn

if TYPE_CHECKING:
    from .contracts.aggregator import Aggregator as Aggregator
    from .contracts.attack import Attack as Attack
    from .contracts.attack import DataView as DataView
    from .contracts.attack import Trial as Trial
    from .contracts.attack import UpdateView as UpdateView
    from .contracts.card import Card as Card
    from .contracts.data import LabeledData as LabeledData
    from .contracts.data import Samples as Samples
    from .contracts.decision import Decision as Decision
    from .contracts.decision import PolicyInput as PolicyInput
    from .contracts.detector import Detector as Detector
    from .contracts.observer import Observer as Observer
    from .contracts.outcome import Outcome as Outcome
    from .contracts.policy import Policy as Policy
    from .contracts.registry import make_aggregator as make_aggregator
    from .contracts.registry import make_attack as make_attack
    from .contracts.registry import make_detector as make_detector
    from .contracts.registry import make_policy as make_policy
    from .contracts.registry import make_stage as make_stage
    from .contracts.round import Round as Round
    from .contracts.scores import Scores as Scores
    from .contracts.server import Server as Server
    from .contracts.stage import Stage as Stage
    from .core import errors as errors
    from .core import history as history
    from .core import state as state
    from .core.errors import FedGuardError as FedGuardError
    from .core.version import __version__ as __version__
    from .evaluation import metrics as metrics
    from .evaluation.api.evaluate import evaluate as evaluate
    from .evaluation.api.results import Results as Results
    from .evaluation.api.results import load as load
    from .evaluation.running.rollback import rollback as rollback
    from .evaluation.tuning.search import tune as tune
    from .geometry.sharded import ShardedUpdates as ShardedUpdates
    from .geometry.streamed import StreamedUpdates as StreamedUpdates
    from .geometry.updates import Updates as Updates
    from .guard import Guard as Guard
    from .guard_file import load_guard as load_guard
    from .ledger.memory import Ledger as Ledger
    from .ledger.sqlite import SQLiteLedger as SQLiteLedger
    from .observers.events import EventLog as EventLog
    from .training.server_optimizer import ServerOptimizer as ServerOptimizer

install()

_HOME = {
    "__version__": "core.version",
    "Aggregator": "contracts.aggregator",
    "Attack": "contracts.attack",
    "DataView": "contracts.attack",
    "Samples": "contracts.data",
    "Trial": "contracts.attack",
    "UpdateView": "contracts.attack",
    "Card": "contracts.card",
    "Detector": "contracts.detector",
    "FedGuardError": "core.errors",
    "Guard": "guard",
    "Outcome": "contracts.outcome",
    "evaluate": "evaluation.api.evaluate",
    "load": "evaluation.api.results",
    "load_guard": "guard_file",
    "Results": "evaluation.api.results",
    "rollback": "evaluation.running.rollback",
    "EventLog": "observers.events",
    "Ledger": "ledger.memory",
    "Observer": "contracts.observer",
    "PolicyInput": "contracts.decision",
    "Decision": "contracts.decision",
    "Policy": "contracts.policy",
    "make_aggregator": "contracts.registry",
    "make_attack": "contracts.registry",
    "make_detector": "contracts.registry",
    "make_policy": "contracts.registry",
    "make_stage": "contracts.registry",
    "Round": "contracts.round",
    "Scores": "contracts.scores",
    "LabeledData": "contracts.data",
    "Server": "contracts.server",
    "SQLiteLedger": "ledger.sqlite",
    "ServerOptimizer": "training.server_optimizer",
    "Stage": "contracts.stage",
    "ShardedUpdates": "geometry.sharded",
    "StreamedUpdates": "geometry.streamed",
    "tune": "evaluation.tuning.search",
    "Updates": "geometry.updates",
}

#: Modules that are attributes of the package: ``fedguard.state.save(path, state)``.
_MODULES = {
    "errors": "core.errors",
    "history": "core.history",
    "metrics": "evaluation.metrics",
    "state": "core.state",
}

__all__ = [*_MODULES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name in ROOT:
        warn(f"{__name__}.{name}", f"{__name__}.{ROOT[name]}")
        name = ROOT[name]
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
