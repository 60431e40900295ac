"""FedGuard: score every client update, decide who may contribute, and only then aggregate.

``import fedguard`` is light: the names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors as errors
    from . import history as history
    from . import metrics as metrics
    from . import state as state
    from .aggregator import Aggregator as Aggregator
    from .attack import Attack as Attack
    from .attack import DataView as DataView
    from .attack import Samples as Samples
    from .attack import Trial as Trial
    from .attack import UpdateView as UpdateView
    from .card import Card as Card
    from .detector import Detector as Detector
    from .errors import FedGuardError as FedGuardError
    from .events import EventLog as EventLog
    from .guard import Guard as Guard
    from .guard import Outcome as Outcome
    from .ledger import Ledger as Ledger
    from .observer import Observer as Observer
    from .policy import Case as Case
    from .policy import Decision as Decision
    from .policy import Policy as Policy
    from .registry import make_aggregator as make_aggregator
    from .registry import make_attack as make_attack
    from .registry import make_detector as make_detector
    from .registry import make_policy as make_policy
    from .registry import make_stage as make_stage
    from .round import Round as Round
    from .scores import Scores as Scores
    from .server import Labelled as Labelled
    from .server import Server as Server
    from .sqlite_ledger import SQLiteLedger as SQLiteLedger
    from .stage import Stage as Stage
    from .streamed import StreamedUpdates as StreamedUpdates
    from .updates import Updates as Updates

__version__ = "0.1.0"

_HOME = {
    "Aggregator": "aggregator",
    "Attack": "attack",
    "DataView": "attack",
    "Samples": "attack",
    "Trial": "attack",
    "UpdateView": "attack",
    "Card": "card",
    "Detector": "detector",
    "FedGuardError": "errors",
    "Guard": "guard",
    "Outcome": "guard",
    "EventLog": "events",
    "Ledger": "ledger",
    "Observer": "observer",
    "Case": "policy",
    "Decision": "policy",
    "Policy": "policy",
    "make_aggregator": "registry",
    "make_attack": "registry",
    "make_detector": "registry",
    "make_policy": "registry",
    "make_stage": "registry",
    "Round": "round",
    "Scores": "scores",
    "Labelled": "server",
    "Server": "server",
    "SQLiteLedger": "sqlite_ledger",
    "Stage": "stage",
    "StreamedUpdates": "streamed",
    "Updates": "updates",
}

#: Modules that are named in full: ``fedguard.state.save(path, state)``.
_MODULES = ("errors", "history", "metrics", "state")

__all__ = ["__version__", *_MODULES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
