"""``fedguard.evaluate``: run a suite on one's own objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ...core.cores import cores
from ...core.errors import ParameterError, RunsFailed
from ...core.interrupts import terminating
from ...core.named_code import find_here, giving
from ...simulation.packing import by_value
from ...simulation.pool import without_main
from ..results.folders import from_elsewhere
from ..running.executors import Executor, make_executor
from ..running.follow import run_followed
from ..suites.check import check_devices, check_suite
from ..suites.load import read_suite, suite_from
from ..suites.on_recording import check_recordable
from ..suites.source import GIVEN_FROM_PYTHON, Source
from ..suites.suite import Suite
from .objects import Objects
from .progress import followers_for
from .results import Results

OnError = Literal["raise", "store"]


def evaluate(
    suite: str | Path | Mapping[str, Any] | None = "quickstart",
    *,
    data: Any = None,
    model: Any = None,
    partition: Any = None,
    attacks: Any = None,
    defenses: Any = None,
    seeds: int | Iterable[int] | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    executor: str | Executor = "pool",
    on_error: OnError = "raise",
    progress: bool | Literal["auto"] = "auto",
    record: str | Path | None = None,
    retry_failed: bool = False,
    force: bool = False,
    allow_code: bool = False,
    address: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Results:
    """Run attacks × defenses × seeds, as ``fedguard evaluate`` does, and return the results.

    Wherever a suite takes a name, a class, a function or an object works, too: as value, in lists, and as
    ``name`` of a mapping with parameters. Objects are templates: every run starts from a copy of them as they
    were given. The results are the same bits for any number of workers, also for classes of a notebook or a
    script (which needs no ``if __name__ == "__main__":``).

    Args:
        suite: a shipped suite's name (``fedguard list suites``), the path of a YAML file, a mapping of the
            same settings, or None for the defaults.
        data: a data set: a name, a mapping with name and parameters, a
            ``fedguard.simulation.datasets.Dataset``, a function that returns one, or what can be converted to
            one (arrays, a torch Dataset).
        model: a name, a mapping, an ``nn.Module`` (its weights are the initial ones), or a class or function
            that makes one; it gets ``input_shape`` and ``num_classes`` if it asks for them.
        partition: a name, a mapping, or a function of ``labels``, ``n`` and ``rng``.
        attacks: one attack or a list of them, or label → attack. An attack is a name, a mapping, a class or
            an instance of :class:`fedguard.Attack`.
        defenses: one defense or a list of them, or label → defense. A defense is a detector (by name, class
            or instance), several of them in a list, an aggregator (class or instance), a
            :class:`fedguard.Guard`, or a mapping of detector, policy, stages and aggregator.
        seeds: one seed or several.
        out: the results folder; the same call resumes it. Without one, results are in a temporary folder
            that is deleted with the returned object (:meth:`fedguard.Results.save` keeps them).
        workers: processes; one per core by default, 1 runs everything in this one. Where there are fewer
            runs, each uses its share of them as threads.
        executor: "pool", "ray", "slurm", or an executor.
        on_error: "raise" raises an error at the end if a run failed; "store" only stores it.
        progress: "auto" shows it in notebooks and on terminals.
        record: a folder; every federation that runs is recorded to a subfolder of it.
        retry_failed: run the failed runs of ``out`` again.
        force: resume ``out`` although FedGuard's code has changed since.
        allow_code: import classes (``module:Class``) that a suite inside a results folder names.
        address: of a Ray cluster.
        slurm: submitit's parameters.
        settings: any other setting of a suite: ``rounds=3``, ``training={"lr": 0.1}`` or
            ``**{"training.lr": 0.1}``. A list is an axis of the grid.

    Raises:
        ConfigError: a setting is wrong; names the key path. Nothing has been trained.
        FedGuardError: a part cannot be built, or an extra is missing; likewise before training.
        ResultsError: the folder holds other results, or those of objects that have changed since.
        RunsFailed: a run failed; ``error.results`` has the results of all runs.

    Example:
        >>> import fedguard
        >>> small = {"clients": 6, "malicious": 1, "rounds": 2}
        >>> results = fedguard.evaluate(
        ...     attacks="min_max", defenses={"mine": "dnc", "mean": "none"}, workers=1, **small
        ... )
        >>> results.frame[["attack", "defense", "seed"]].values.tolist()
        [['min_max', 'mine', 0], ['min_max', 'mean', 0]]
    """
    if on_error not in ("raise", "store"):
        raise ParameterError(f"on_error is {on_error!r}; use 'raise' or 'store'")
    parts = {"data": data, "model": model, "partition": partition, "attacks": attacks, "defenses": defenses}
    given = {key: value for key, value in parts.items() if value is not None} | settings
    if seeds is not None:
        given["seeds"] = [seeds] if isinstance(seeds, int) else list(seeds)
    objects, count = Objects(), cores() if workers is None else workers
    if count < 1:
        raise ParameterError(f"workers is {count}; use 1 to run everything in this process")
    source = _source(suite, objects)
    objects.apply(source, given)
    followers = followers_for(progress, count, record is not None)
    with _given(objects):
        plan = _checked(suite, source, allow_code, record is not None)
        if executor == "pool":
            check_devices(plan, source)
        folder, keep = _folder(out, plan.name)
        where = executor
        if isinstance(where, str):
            where = make_executor(where, count, plan.parallel, address, folder, dict(slurm or {}))
        recorded = None if record is None else Path(record)
        try:
            with terminating():
                run_followed(plan, folder, count, followers, retry_failed, where, recorded, force)
        except KeyboardInterrupt as end:
            if out is not None:
                end.add_note(f"the same call resumes; finished runs are in {folder}")
            raise
    return _returned(Results(folder, keep), on_error)


def _source(suite: str | Path | Mapping[str, Any] | None, objects: Objects) -> Source:
    """The suite's settings before the overrides."""
    if isinstance(suite, str | Path):
        return read_suite(str(suite))
    source = Source(GIVEN_FROM_PYTHON, {"name": "evaluation"})
    for key, value in dict(suite or {}).items():
        source.data[key] = objects.setting(key, value)
    return source


@contextmanager
def _given(objects: Objects) -> Iterator[None]:
    """Within the block, the objects have their names, here and in other processes."""
    with ExitStack() as stack:
        stack.enter_context(giving(objects.table))
        if objects.table:
            stack.enter_context(by_value())
        stack.enter_context(without_main())
        yield


def _checked(suite: Any, source: Source, allow_code: bool, recording: bool) -> Suite:
    """The suite, refused if it cannot run."""
    trusted = allow_code or not isinstance(suite, str | Path) or not from_elsewhere(str(suite))
    plan = suite_from(source, trusted)
    find_here(source.data)
    check_suite(plan, source)
    if recording:
        check_recordable(plan)
    return plan


def _folder(out: str | Path | None, name: str) -> tuple[Path, TemporaryDirectory[str] | None]:
    """Where results go; a folder has the suite's name, which captions show."""
    if out is not None:
        return Path(out), None
    keep = TemporaryDirectory(prefix="fedguard-results-")
    return Path(keep.name) / name, keep


def _returned(results: Results, on_error: OnError) -> Results:
    failed = results.failures
    if not failed or on_error == "store":
        return results
    first = failed[0]
    lines = first.error.strip().splitlines() or ["no error recorded"]
    error = RunsFailed(
        f"{len(failed)} of {len(results.frame)} runs failed; the first, {first.attack} × {first.defense}, "
        f"seed {first.seed}: {lines[-1]} (on_error='store' returns the results; error.results.failures has "
        "every error)"
    )
    error.results = results
    if len(lines) > 1:
        error.add_note(first.error.strip())
    raise error
