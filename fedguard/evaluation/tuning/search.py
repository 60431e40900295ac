"""Search for an attack or a defense, check what was found on unused seeds, and write it down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ...contracts.registry import REGISTRIES
from ...core.errors import ParameterError, ResultsError
from ...core.extras import extra_module
from ...core.files import not_written, refuse_link, write_file
from ...core.folder_marks import TUNING
from ..running.executors import make_executor
from ..suites.check import check_devices, check_suite
from ..suites.load import load_suite
from ..suites.suite import Suite, spelled_out
from .bench import Bench, check_labels, check_space
from .explore import OnTrial, Proposals, Tried, explore
from .objective import Goal, Score, metric_named
from .outcome import FOUND, JOURNAL, TRIALS, Check, Tuned
from .report import write_outcome
from .space import Axis, grid_of, space_of


def tune(
    suite: str | Path,
    overrides: Sequence[str] = (),
    *,
    attack: str | None = None,
    defense: str | None = None,
    against: Sequence[str] = (),
    search: Mapping[str, Any] | Sequence[str] = (),
    trials: int = 20,
    metric: str | None = None,
    tolerance: float = 0.1,
    test_seeds: Sequence[int] = (),
    batch: int = 4,
    sampler: str = "tpe",
    seed: int = 0,
    out: str | Path | None = None,
    workers: int = 1,
    executor: str = "pool",
    address: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    allow_code: bool = True,
    on_trial: OnTrial = lambda _: None,
) -> Tuned:
    """Search for the attack strength that hurts most, or for the defense that bears its worst attack best.

    What is worth how much: :class:`fedguard.evaluation.tuning.objective.Goal`. Every trial is an ordinary run
    of the suite, stored in an ordinary results folder under ``out``. An interrupted search resumes with the
    same call, and comes to the same result. The winner, that of a plain grid with as many points as the
    search ran, and the parameters as written then run on seeds that nobody tuned on.

    Args:
        suite: a shipped suite's name, or the path of a YAML file.
        overrides: settings to change, as on the command line.
        attack: the label of the attack to tune; or
        defense: the label of the defense to tune.
        against: the labels of the opponents; all of the suite's by default.
        search: the space: key path → ``"LOW:HIGH"``, ``"log:LOW:HIGH"`` or a list of values; by default the
            suite's ``search``.
        trials: how many points are proposed; equal ones run once.
        metric: what is measured; by default TACC, ASR for a backdoor, and DACC in shadow mode.
        tolerance: ε of an attack's constraint: a defense lets in 1 − ε of the attacking updates.
        test_seeds: by default as many as the suite has seeds, above them.
        batch: trials that are proposed at a time, and can run side by side.
        sampler: "tpe", a tree-structured Parzen estimator; or "gp", a Gaussian process, which needs fewer
            trials and about a second for each.
        seed: of the proposals.
        out: the folder of the search; results/<suite>-tune-<label> by default.
        workers: processes.
        executor: where to run: pool, ray or slurm.
        address: of a Ray cluster.
        slurm: parameters for submitit.
        allow_code: False refuses a file that names classes to import.
        on_trial: called after every trial.

    Raises:
        ParameterError: something cannot be searched; the message names the path. Or Optuna is missing.
        ConfigError: the suite is wrong.
        ResultsError: the folder holds another search, or cannot be written.
    """
    how = Proposals(trials, batch, sampler, seed)
    extra_module("optuna", "tune", "fedguard tune")  # first: a search takes long
    plan, source = load_suite(suite, list(overrides), allow_code)
    goal = goal_of(plan, attack, defense, against, metric, tolerance)
    axes = space_of(search or plan.search)
    if executor == "pool":
        check_devices(plan, source)
    check_suite(plan, source)
    check_space(plan, source, goal, axes)
    tests = unused(plan.seeds, test_seeds)
    folder = Path(out) if out is not None else _folder(plan, goal)
    place = make_executor(executor, workers, plan.parallel, address, folder, dict(slurm or {}))
    settings = {
        "suite": spelled_out(plan),
        "goal": {**asdict(goal), "metric": goal.metric.name},
        "axes": [asdict(axis) for axis in axes],
        "seeds": plan.seeds,
        "test_seeds": tests,
        **asdict(how),
    }
    with _held(folder, settings):
        return _searched(Bench(plan, goal, folder, workers, place), axes, how, tests, on_trial)


def _folder(plan: Suite, goal: Goal) -> Path:
    name = re.sub(r"[^\w.-]+", "_", f"{plan.name}-tune-{goal.label}")
    return Path("results") / name


def _searched(bench: Bench, axes: list[Axis], how: Proposals, tests: list[int], on_trial: OnTrial) -> Tuned:
    """The search, the grid and the check, as far as they are not in the folder yet."""
    suite, goal = bench.suite, bench.goal

    def judge(number: int, points: dict[int, dict[str, Any]]) -> list[Score]:
        labels = {f"trial-{k:03d}": point for k, point in points.items()}
        return bench.judge(f"batch-{number:03d}", labels, suite.seeds)

    tried = explore(axes, goal, judge, how, bench.folder / JOURNAL, on_trial)
    best = goal.best([one.score for one in tried])
    size, checks = 0, []
    if best is not None:
        points = grid_of(axes, len([one for one in tried if one.repeats is None]))
        grid = bench.judge("grid", {f"grid-{i:03d}": point for i, point in enumerate(points)}, suite.seeds)
        size, checks = len(points), _checks(bench, tried[best], points, grid, tests)
    tuned = Tuned(
        suite=suite,
        goal=goal,
        axes=tuple(axes),
        seeds=tuple(suite.seeds),
        test_seeds=tuple(tests),
        trials=tuple(tried),
        best=None if best is None else tried[best],
        checks=tuple(checks),
        grid_size=size,
        runs={"search": bench.cost("batch"), "grid": bench.cost("grid"), "test": bench.cost("test")},
        folder=bench.folder,
        how=how,
    )
    write_outcome(tuned)
    return tuned


def _checks(
    bench: Bench, best: Tried, points: list[dict[str, Any]], grid: list[Score], tests: list[int]
) -> list[Check]:
    """The winners of search and grid, and the suite as written, on the test seeds."""
    winner = bench.goal.best(grid)
    rows: list[tuple[str, dict[str, Any], Score | None]] = [("as written", {}, None)]
    if winner is not None:
        rows.append(("grid", points[winner], grid[winner]))
    rows.append(("search", best.point, best.score))
    labels = {name.replace(" ", "-"): point for name, point, _ in rows}
    tested = bench.judge("test", labels, tests)
    return [Check(*row, score) for row, score in zip(rows, tested, strict=True)]


def goal_of(
    plan: Suite,
    attack: str | None,
    defense: str | None,
    against: Sequence[str] = (),
    metric: str | None = None,
    tolerance: float = 0.1,
) -> Goal:
    """The goal of a search on a suite.

    Raises:
        ParameterError: not exactly one of attack and defense, a label that the suite does not have, or a
            suite that cannot be searched.
    """
    if (attack is None) == (defense is None):
        raise ParameterError("give either an attack or a defense to tune: --attack LABEL or --defense LABEL")
    if not (0 <= tolerance <= 1):
        raise ParameterError(f"tolerance is {tolerance}; it is a share between 0 and 1")
    for name in ("grid", "only", "exclude"):
        if getattr(plan, name):
            raise ParameterError(f"a search takes one federation and all its pairs: leave out `{name}`")
    if plan.mode not in ("closed", "shadow") or (attack is not None and plan.mode != "closed"):
        raise ParameterError(
            f"mode is {plan.mode!r}; a search for {'an attack' if attack else 'a defense'} runs in mode "
            f"'closed'{'' if attack else ' or shadow'}"
        )
    opponents = tuple(against) or tuple(plan.defenses if attack is not None else plan.attacks)
    kind: Literal["attacks", "defenses"] = "defenses" if attack is None else "attacks"
    rough = Goal(kind, str(attack or defense), opponents, metric_named("tacc", ""), tolerance)
    check_labels(plan, rough)
    default = "dacc" if plan.mode == "shadow" else "tacc"
    if attack is not None and REGISTRIES["attacks"].get(plan.attacks[attack].name).kind == "backdoor":
        default = "asr"
    return Goal(rough.kind, rough.label, rough.against, metric_named(metric or default, plan.mode), tolerance)


def unused(seeds: Sequence[int], wanted: Sequence[int] = ()) -> list[int]:
    """The test seeds: ``wanted``, or as many as there are tuning seeds, above them.

    Raises:
        ParameterError: a test seed is a tuning seed, or is given twice.
    """
    found = list(wanted) or [max(seeds) + 1 + i for i in range(len(seeds))]
    used = sorted(set(found) & set(seeds))
    if used or len(set(found)) < len(found):
        problem = f"seed {used[0]} is a tuning seed" if used else "a seed is given twice"
        raise ParameterError(f"test seeds {found}: {problem}; the check needs seeds of its own")
    return found


@contextmanager
def _held(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """The folder of a search, locked; it holds nothing yet, or the same search.

    Raises:
        ResultsError: it holds another search, is in use, or cannot be written.
    """
    text = json.dumps(settings, indent=1, sort_keys=True, default=str) + "\n"
    path = folder / TUNING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (TUNING, JOURNAL, FOUND, TRIALS, "lock"):
            refuse_link(folder / name)
        lock = FileLock(folder / "lock", timeout=0).acquire()
    except Timeout:
        raise ResultsError(f"another process is searching in {folder}; wait for it, or use --out") from None
    except OSError as error:
        raise ResultsError(not_written(folder, error, "choose another folder (--out)")) from None
    with lock:
        try:
            if not path.exists():
                write_file(path, text)
            there = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ResultsError(not_written(folder, error, "choose another folder (--out)")) from None
        if there != text:
            raise ResultsError(f"{folder} already holds another search; give another folder with --out")
        yield
