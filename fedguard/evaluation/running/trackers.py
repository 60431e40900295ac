"""Experiment trackers: every run's settings, its curves by round, and its detection metrics at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.params import nearest
from ..results.store import CellResult
from ..suites.suite import Suite
from .follow import Follower


class TensorBoard(Follower):
    """Event files in the results folder: ``tensorboard --logdir results/<suite>/tensorboard``."""

    def __init__(self) -> None:
        extra_module("tensorboard", "tensorboard", "tracker tensorboard")
        self.writer = extra_module(
            "torch.utils.tensorboard", "tensorboard", "tracker tensorboard"
        ).SummaryWriter

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Open the folder of the event files."""
        self.folder = folder / "tensorboard"

    def run_done(self, result: CellResult) -> None:
        """Write one TensorBoard run per cell."""
        with self.writer(self.folder / _name(result)) as writer:
            for index, numbers in curves(result):
                for name, value in numbers.items():
                    writer.add_scalar(f"rounds/{name}", value, index)
            for name, value in final(result).items():
                writer.add_scalar(f"run/{name}", value, 0)
            writer.add_text("settings", f"```json\n{result.cell.model_dump_json(indent=2)}\n```")


class MLflow(Follower):
    """One MLflow run per cell, in an experiment named after the suite.

    Runs go to the environment variable MLFLOW_TRACKING_URI, or to ``mlflow.db`` in the results folder.
    """

    def __init__(self) -> None:
        self.mlflow = extra_module("mlflow", "mlflow", "tracker mlflow")

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Open the experiment; without a server, its artifacts lie in the results folder too."""
        import os

        if os.environ.get("MLFLOW_TRACKING_URI"):
            self.mlflow.set_experiment(suite.name)
            return
        self.mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').absolute()}")
        if self.mlflow.get_experiment_by_name(suite.name) is None:
            self.mlflow.create_experiment(suite.name, (folder / "mlartifacts").absolute().as_uri())
        self.mlflow.set_experiment(suite.name)

    def run_done(self, result: CellResult) -> None:
        """Log it."""
        with self.mlflow.start_run(run_name=_name(result)):
            self.mlflow.log_params(_labels(result))
            self.mlflow.log_dict(result.cell.model_dump(mode="json"), "settings.json")
            for index, numbers in curves(result):
                self.mlflow.log_metrics(numbers, step=index)
            self.mlflow.log_metrics({f"run/{name}": value for name, value in final(result).items()})


class WandB(Follower):
    """One Weights & Biases run per cell, in a project named after the suite; WANDB_MODE=offline works."""

    def __init__(self) -> None:
        self.wandb = extra_module("wandb", "wandb", "tracker wandb")

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Set the project's name."""
        self.suite, self.folder = suite.name, folder

    def run_done(self, result: CellResult) -> None:
        """Log it."""
        run = self.wandb.init(
            project=self.suite,
            name=_name(result),
            dir=str(self.folder),
            config={**_labels(result), "settings": result.cell.model_dump(mode="json")},
            reinit="finish_previous",
        )
        for index, numbers in curves(result):
            run.log(numbers, step=index)
        run.summary.update(final(result))
        run.finish(exit_code=int(bool(result.error)))


TRACKERS: dict[str, Callable[[], Follower]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def make_tracker(name: str) -> Follower:
    """A tracker by name.

    Raises:
        ParameterError: there is none of that name, or its extra is not installed.
    """
    if name not in TRACKERS:
        raise ParameterError(f"no tracker {name!r}{nearest(name, TRACKERS)} (known: {', '.join(TRACKERS)})")
    return TRACKERS[name]()


def curves(result: CellResult) -> Iterator[tuple[int, dict[str, float]]]:
    """The numbers of each round: accuracy, loss, attack success, suspects, malicious suspects."""
    for record in result.rounds:
        suspects = [row for row in record.clients if row.participated and row.suspect]
        caught = sum(bool(row.malicious) for row in suspects)
        numbers = {"tacc": record.tacc, "loss": record.loss, "asr": record.asr}
        counts = {"suspects": float(len(suspects)), "caught": float(caught)}
        yield record.index, _finite({**numbers, **counts})


def final(result: CellResult) -> dict[str, float]:
    """The numbers of a run in the table ``runs``, its seconds by part and its peak of memory."""
    numbers = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    seconds = {f"seconds_{part}": s for part, s in result.seconds.items()}
    return _finite({**numbers, **seconds, "peak_memory": result.peak_memory})


def _finite(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _labels(result: CellResult) -> dict[str, Any]:
    cell = result.cell
    labels = {
        "attack": cell.attack_label,
        "defense": cell.defense_label,
        "mode": cell.mode,
        "seed": cell.seed,
    }
    return {**labels, **{path.replace(".", "/"): value for path, value in cell.point.items()}}


def _name(result: CellResult) -> str:
    """A name that is safe as a file name; labels may hold any character."""
    words = "-".join(f"{key}_{value}" if key not in ("attack", "defense", "mode") else str(value)
                     for key, value in _labels(result).items())  # fmt: skip
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in words)
