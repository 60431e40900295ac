"""Old module paths and names of FedGuard 0.1.0; each still works, with a DeprecationWarning.

``import fedguard.state`` gives a module that forwards every attribute to ``fedguard.core.state``.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .core.deprecation import warn

#: Old module → new module, both below ``fedguard``.
MODULES = {
    "aggregator": "contracts.aggregator",
    "attack": "contracts.attack",
    "blocks": "geometry.blocks",
    "calibration": "contracts.calibration",
    "card": "contracts.card",
    "clusters": "geometry.clusters",
    "commands.common": "cli.common",
    "commands.methods": "cli.methods",
    "commands.suites": "cli.suites",
    "console.ledger": "cli.ledger",
    "console.plain": "evaluation.terminal",
    "console.watch": "cli.watch",
    "dense": "training.dense",
    "detector": "contracts.detector",
    "eigen": "geometry.eigen",
    "errors": "core.errors",
    "evaluation.check": "evaluation.suites.check",
    "evaluation.checking": "cli.checking",
    "evaluation.checkpoint": "evaluation.running.checkpoint",
    "evaluation.code": "evaluation.results.code",
    "evaluation.compare": "evaluation.results.compare",
    "evaluation.estimate": "evaluation.running.estimate",
    "evaluation.executors": "evaluation.running.executors",
    "evaluation.export": "evaluation.results.export",
    "evaluation.follow": "evaluation.running.follow",
    "evaluation.frame": "evaluation.results.frame",
    "evaluation.given": "evaluation.suites.given",
    "evaluation.json_lines": "evaluation.running.json_lines",
    "evaluation.layout": "evaluation.results.layout",
    "evaluation.leak": "evaluation.running.leak",
    "evaluation.listing": "cli.listing",
    "evaluation.live": "evaluation.running.live",
    "evaluation.on_recording": "evaluation.suites.on_recording",
    "evaluation.plot": "evaluation.results.plot",
    "evaluation.replay": "evaluation.running.replay",
    "evaluation.report": "evaluation.results.report",
    "evaluation.report.axes": "evaluation.results.figures.axes",
    "evaluation.report.page": "evaluation.results.report.page",
    "evaluation.report.pictures": "evaluation.results.figures.picture",
    "evaluation.report.results": "evaluation.results.report.results",
    "evaluation.report.scores": "evaluation.results.report.scores",
    "evaluation.report.timeline": "evaluation.results.report.timeline",
    "evaluation.runner": "evaluation.running.runner",
    "evaluation.schema": "evaluation.suites.schema",
    "evaluation.source": "evaluation.suites.source",
    "evaluation.store": "evaluation.results.store",
    "evaluation.suite": "evaluation.suites.suite",
    "evaluation.summary": "evaluation.results.summary",
    "evaluation.tables": "evaluation.results.tables",
    "evaluation.task": "evaluation.running.task",
    "evaluation.trackers": "evaluation.running.trackers",
    "events": "observers.events",
    "extras": "core.extras",
    "history": "core.history",
    "leak": "passive",
    "leave_one_out": "aggregators._leave_one_out",
    "ledger_file": "ledger.file",
    "metrics": "evaluation.metrics",
    "model": "training.parameters",
    "nested": "contracts.nested",
    "observer": "contracts.observer",
    "outcome": "contracts.outcome",
    "params": "core.params",
    "policy": "contracts.policy",
    "prometheus": "observers.prometheus",
    "registry": "contracts.registry",
    "round": "contracts.round",
    "rules": "contracts.rules",
    "scaffold": "cli.scaffold",
    "scores": "contracts.scores",
    "seeds": "core.seeds",
    "server": "contracts.server",
    "sqlite_ledger": "ledger.sqlite",
    "stage": "contracts.stage",
    "state": "core.state",
    "streamed": "geometry.streamed",
    "threads": "core.threads",
    "trust": "aggregators._trust",
    "updates": "geometry.updates",
    "vision": "simulation.vision",
}
#: Old packages that contain such modules.
PACKAGES = frozenset({"commands", "console", "evaluation.report"})
#: Names that moved to another module or were renamed: old → new.
NAMES = {
    "attack.Samples": "contracts.data.Samples",
    "commands.suites.evaluate": "cli.evaluate.evaluate",
    "evaluation.suite.load_suite": "evaluation.suites.load.load_suite",
    "metrics.label_skew": "simulation.skew.label_skew",
    "policy.Case": "contracts.decision.PolicyInput",
    "policy.Decision": "contracts.decision.Decision",
    "policy.Sentence": "contracts.decision.Sanction",
    "policy.checked": "contracts.decision.checked",
    "round.ClientId": "core.ids.ClientId",
    "round.MAX_ID": "core.ids.MAX_ID",
    "round.by_id": "core.ids.by_id",
    "server.Labelled": "contracts.data.LabeledData",
    "server.Share": "contracts.data.Share",
    "training.LocalTraining": "contracts.local_training.LocalTraining",
}
#: Renamed attributes of ``fedguard`` itself: old → new.
ROOT = {"Case": "PolicyInput", "Labelled": "LabeledData"}


class OldNames(MetaPathFinder, Loader):
    """Finds old module paths. It precedes other finders: leftover bytecode folders look like packages."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old path; None for any other path."""
        package, _, old = fullname.partition(".")
        if package != __package__ or (old not in MODULES and old not in PACKAGES):
            return None
        return ModuleSpec(fullname, self, is_package=old in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None, for Python's default: an empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Make the module forward to the new one."""
        old = module.__name__.partition(".")[2]
        if old not in MODULES:
            return
        home = f"{__package__}.{MODULES[old]}"
        warn(module.__name__, home, 2 + 1)
        real = importlib.import_module(home)

        def get(name: str) -> Any:
            return _get(old, real, name)

        vars(module).update(__getattr__=get, __dir__=lambda: dir(real), __doc__=real.__doc__)


def _get(old: str, real: ModuleType, name: str) -> Any:
    new = NAMES.get(f"{old}.{name}")
    if new is None:
        return getattr(real, name)
    home, _, now = new.rpartition(".")
    if now != name:
        warn(f"{__package__}.{old}.{name}", f"{__package__}.{new}", 4)
    return getattr(importlib.import_module(f"{__package__}.{home}"), now)


def install() -> None:
    """Install the finder, once per process."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())
