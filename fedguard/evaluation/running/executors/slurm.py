"""Slurm jobs through submitit."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from ....core.extras import extra_module
from ....simulation.packing import pack_given
from ..task import Task
from .base import Done, OnRound, far_job, packed, report


class Slurm:
    """Slurm jobs through submitit (``pip install "fedguard[slurm]"``), one per task.

    The results folder and the data must be reachable under the same paths from every node.

    Args:
        folder: where submitit keeps its logs.
        cluster: "slurm"; "local" runs subprocesses here, for trying out.
        settings: submitit's parameters: slurm_partition, timeout_min, mem_gb, slurm_array_parallelism …

    Raises:
        ParameterError: submitit is not installed.
    """

    def __init__(self, folder: Path, cluster: str = "slurm", settings: dict[str, Any] | None = None) -> None:
        self.submitit = extra_module("submitit", "slurm", "executor slurm")
        self.folder = folder
        self.cluster = cluster
        self.settings = {"cpus_per_task": 1, "timeout_min": 24 * 60, **(settings or {})}

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        executor = self.submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
        executor.update_parameters(**self.settings)
        table = pack_given()
        with executor.batch():
            jobs = [executor.submit(far_job, packed(task), table) for task in tasks]
        waiting = {job: p for p, job in enumerate(jobs)}
        for job in self.submitit.helpers.as_completed(jobs):
            position = waiting.pop(job)
            results = job.result()
            report(tasks[position], position, on_round)
            yield position, results
