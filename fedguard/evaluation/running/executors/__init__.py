"""Where the tasks of a suite run: worker processes here, Ray, Slurm, or Flower. Results are bit-identical,
except with Flower, whose clients send models instead of updates: there they agree to rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....core.errors import ParameterError
from .base import Done, Executor, OnRound
from .flower import Flower
from .pool import Pool
from .ray import Ray
from .slurm import Slurm

__all__ = ["Done", "Executor", "Flower", "OnRound", "Pool", "Ray", "Slurm", "make_executor"]

#: The names of executors.
NAMES = ("pool", "ray", "slurm", "flower")


def make_executor(
    name: str,
    workers: int,
    parallel: str,
    address: str | None,
    folder: Path,
    slurm: dict[str, Any],
    ray: dict[str, Any] | None = None,
) -> Executor:
    """An executor by name.

    Args:
        name: pool, ray, slurm or flower.
        workers: processes, or CPUs of a Ray cluster that is started here.
        parallel: "cells" or "clients", see :class:`Pool`.
        address: of a Ray cluster.
        folder: the results folder.
        slurm: submitit's parameters.
        ray: what one piece of work takes of a Ray cluster (or a client of Flower's simulation): num_cpus,
            num_gpus.

    Raises:
        ParameterError: an unknown name, settings of another executor, or a missing extra.
    """
    if name not in NAMES:
        raise ParameterError(f"unknown executor {name!r}; use {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    for option, given, owners in (
        ("--address", address, ["ray"]),
        ("--ray", ray, ["ray", "flower"]),
        ("--slurm", slurm, ["slurm"]),
    ):
        if given and name not in owners:
            raise ParameterError(f"{option} goes with --executor {' or '.join(owners)}, not {name}")
    if name == "flower":
        return Flower(workers, **ray_options(ray or {}))
    if name == "ray":
        return Ray(address, workers, parallel, **ray_options(ray or {}))
    if name == "slurm":
        cluster = slurm.pop("cluster", "slurm")
        return Slurm(folder / "slurm", cluster, slurm)
    return Pool(workers, parallel)


def ray_options(given: dict[str, Any]) -> dict[str, float]:
    """Check the options of ``--ray``.

    Raises:
        ParameterError: an unknown option, or a value that is not a number from 0.
    """
    for name, value in given.items():
        if name not in ("num_cpus", "num_gpus"):
            raise ParameterError(f"--ray has no {name!r}; use num_cpus or num_gpus")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise ParameterError(
                f"--ray {name}={value}: use a number from 0; num_gpus=0.25 lets four share one"
            )
    return given
