"""What a search came to: a table, the suite it found, and its trials."""

from __future__ import annotations

import math
from typing import Any

import yaml
from rich.table import Table

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.files import write_file
from ..cells import csv_text
from ..results.tables import UNDEFINED
from ..suites.suite import with_values
from .bench import entry
from .explore import Tried
from .objective import Goal, Score
from .outcome import TRIALS, Check, Tuned

#: The longest line of the header.
_WIDTH = 100


def write_outcome(tuned: Tuned) -> None:
    """Write every trial as CSV, and the suite that was found, if any."""
    write_file(tuned.folder / TRIALS, csv_text(trial_frame(tuned)))
    if tuned.best is not None:
        write_file(tuned.found, found_suite(tuned))


def found_suite(tuned: Tuned) -> str:
    """The suite as given, with the parameters found and the test seeds, under a header of comments."""
    goal = tuned.goal
    plain: dict[str, Any] = tuned.suite.model_dump(mode="json", exclude_unset=True)
    try:
        plain = with_values(plain, tuned.point)
    except ParameterError:  # the way to it leads through defaults, which are written out then
        plain[goal.kind] |= {goal.label: entry(tuned.suite, goal, tuned.point)}
    plain |= {"name": f"{tuned.suite.name}-tuned", "seeds": list(tuned.test_seeds)}
    header = "".join(f"# {line}\n" for line in heading(tuned))
    return header + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def heading(tuned: Tuned) -> list[str]:
    """What was searched, how, at what cost, and what the check said."""
    goal, how, (count, seconds) = tuned.goal, tuned.how, tuned.runs["search"]
    version = extra_module("optuna", "tune", "fedguard tune").__version__
    repeats = len([one for one in tuned.trials if one.repeats is not None])
    lines = [
        f"Written by `fedguard tune`: {aim(goal)}.",
        *(f"searched: {axis.path}: {axis.text}" for axis in tuned.axes),
        f"found: {_words(tuned.point)}",
        f"search: {len(tuned.trials)} trials ({repeats} of them repeats), {count} runs, {seconds:.0f} s of "
        f"computing",
        f"sampler: {how.sampler.upper()} of Optuna {version}, seed {how.seed}, {how.batch} trials at a time",
        f"tuning seeds: {_list(tuned.seeds)}; test seeds, those of this suite: {_list(tuned.test_seeds)}",
        f"check: {verdict(tuned)}",
    ]
    return [line if len(line) <= 10 * _WIDTH else f"{line[: 10 * _WIDTH]}…" for line in lines]


def aim(goal: Goal) -> str:
    """The goal in words."""
    name, worst = goal.metric.name, "lowest" if goal.metric.best == "max" else "highest"
    others = f"{', '.join(goal.against)}"
    if goal.kind == "attacks":
        share = f"{100 * (1 - goal.tolerance):g} % of its updates"
        within = f"which {'each let' if len(goal.against) > 1 else 'lets'} in at least {share}"
        return f"attack {goal.label}, {worst} {name} against {others}, {within}"
    best = "highest" if goal.metric.best == "max" else "lowest"
    return f"defense {goal.label}, {best} {name} under the worst of {others}"


def checks_table(tuned: Tuned) -> Table:
    """As written, the grid's winner and the search's, on tuning seeds and on test seeds."""
    title = tuned.goal.metric.title
    table = Table(title=f"{aim(tuned.goal)}", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("parameters")
    table.add_column(f"{title}\ntuning seeds {_list(tuned.seeds)}", justify="right")
    table.add_column(f"{title}\ntest seeds {_list(tuned.test_seeds)}", justify="right")
    attacks = tuned.goal.kind == "attacks"
    if attacks:
        table.add_column("let in %\ntest seeds", justify="right")
    table.add_column("decided by", overflow="fold")
    for check in tuned.checks:
        tail = [f"{100 * check.tested.accepted:.1f}"] if attacks else []
        table.add_row(
            _title(tuned, check),
            _words(check.point) or "its own",
            _shown(tuned.goal, check.tuned),
            _shown(tuned.goal, check.tested),
            *tail,
            check.tested.opponent,
        )
    return table


def verdict(tuned: Tuned) -> str:
    """Who won on the test seeds, in a sentence."""
    named = {check.name: check for check in tuned.checks}
    search, grid = named.get("search"), named.get("grid")
    goal = tuned.goal
    if search is None:
        return "no trial was within the tolerance" if goal.kind == "attacks" else "no trial succeeded"
    shown = f"search {_shown(goal, search.tested)}"
    shown += f", as written {_shown(goal, named['as written'].tested)}"
    beyond = (
        "" if goal.allowed(search.tested) else "; on the test seeds the found attack exceeds the tolerance"
    )
    written = named["as written"].tested
    if goal.allowed(written) and written.value == written.value and not goal.better(search.tested, written):
        beyond += "; the parameters as written do no worse"
    if search.tested.error or math.isnan(search.tested.value):
        return f"what the search found fails on the test seeds: {search.tested.error or 'undefined'}"
    if grid is None:
        return f"on the test seeds {shown}; no point of the grid of {tuned.grid_size} is allowed{beyond}"
    shown = f"on the test seeds {shown}, grid of {tuned.grid_size} {_shown(goal, grid.tested)}"
    if not goal.allowed(grid.tested) and goal.allowed(search.tested):
        return f"{shown} (beyond the tolerance): the search wins"
    if goal.allowed(grid.tested) and not goal.allowed(search.tested):
        return f"{shown}: the grid wins{beyond}"
    if goal.better(search.tested, grid.tested):
        return f"{shown}: the search wins{beyond}"
    if goal.better(grid.tested, search.tested):
        return f"{shown}: the plain grid wins{beyond}"
    return f"{shown}: a tie{beyond}"


def trial_line(goal: Goal, tried: Tried) -> str:
    """A trial in a line."""
    score = tried.score
    if score.error:
        return f"trial {tried.number}: {_words(tried.point)}: failed: {score.error}"
    text = f"trial {tried.number}: {_words(tried.point)}: {goal.metric.title} {_shown(goal, score)}"
    if len(goal.against) > 1:
        text += f" ({score.opponent})"
    if goal.kind == "attacks":
        beyond = "" if goal.allowed(score) else ", beyond the tolerance"
        text += f", let in {100 * score.accepted:.1f} %{beyond}"
    return text if tried.repeats is None else f"{text} (as trial {tried.repeats})"


def trial_frame(tuned: Tuned) -> Any:
    """Every trial as a row of a pandas frame."""
    import pandas as pd

    return pd.DataFrame(
        {
            "trial": one.number,
            **one.point,
            tuned.goal.metric.name: one.score.value,
            "accepted": one.score.accepted,
            "decided_by": one.score.opponent,
            "allowed": tuned.goal.allowed(one.score),
            "repeats": one.repeats,
            "error": one.score.error,
        }
        for one in tuned.trials
    )


def _title(tuned: Tuned, check: Check) -> str:
    return f"grid of {tuned.grid_size}" if check.name == "grid" else check.name


def _shown(goal: Goal, score: Score | None) -> str:
    if score is None or math.isnan(score.value):
        return UNDEFINED if score is None or not score.error else "failed"
    return f"{score.value * goal.metric.scale:.{goal.metric.digits}f}"


def _words(point: dict[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in point.items())


def _list(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))
