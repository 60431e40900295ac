"""``fedguard calibrate``: ask a recording, show what was found, write the guard's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...contracts.nested import make
from ...core.errors import ConfigError
from ...core.files import not_written, write_file
from ...guard_file import load_guard
from ...recording import Recording
from ...simulation.recorded import server_of
from ..suites.given import given_server
from ..suites.on_recording import permit_parts
from ..terminal import plain, terminal
from .calibrate import DETECTORS, Found, Wish, best, calibrate, calibrate_guard, label
from .rates import Rate
from .rounds import Rounds


@dataclass(frozen=True)
class Question:
    """What to calibrate on.

    Attributes:
        folder: the recording.
        detectors: names, or mappings of name and parameters.
        wish: what to calibrate for.
        last: how many rounds to take, the latest ones.
        learn: the share of them to learn from.
        guard: measure the guard of this file instead of ``detectors`` and the wish's policy.
        model: for a live recording, see :func:`fedguard.evaluation.suites.given.given_server`.
        validation: likewise.
        root: likewise.
        allow_code: allow importing the parts of a simulation that the recording names.
    """

    folder: Path
    detectors: Sequence[Any] = DETECTORS
    wish: Wish = field(default_factory=Wish)
    last: int = 100
    learn: float = 0.5
    guard: Path | None = None
    model: str | None = None
    validation: Path | None = None
    root: Path | None = None
    allow_code: bool = False


def show_calibration(question: Question, out: Path | None) -> bool:
    """Calibrate, print what was found, write the best rule to ``out``, and return whether all went well.

    Raises:
        ConfigError: the recording is too short, names code, or (with ``out``) no rule fits the wanted rate.
        ResultsError: the recording cannot be read.
        ParameterError: a detector, the policy or a share is not valid.
    """
    recording = Recording(question.folder)
    problems = recording.check()
    rounds = _rounds(question, recording)
    if question.guard is None:
        found = calibrate(rounds, question.detectors, question.wish)
    else:
        found = [calibrate_guard(rounds, load_guard(question.guard, alerts=False), question.wish)]
    console = terminal(piped_width=110)
    learned, measured = rounds.counts
    console.print(
        f"{plain(question.folder)}: {learned} rounds to learn from, {measured} to measure on, "
        f"{len(rounds.clients)} clients taken as honest; in percent, with 95 % intervals",
        soft_wrap=True,
    )
    for table in _tables(found, question.wish, console.width):
        console.print(table)
    for each in found:
        for note in each.notes:
            hint = "; see --model, --validation and --root" if "give the round" in note else ""
            console.print(f"{label(each.detector)} ({each.rule}): {plain(note)}{hint}", style="yellow")
    for problem in problems:
        terminal(stderr=True).print(problem, style="red")
    if out is not None:
        chosen = best(found, question.wish.rate)
        _write(chosen, question, out)
        console.print(f"{label(chosen.detector)} ({chosen.rule}) is in {plain(out)}")
    return not problems and not all(each.failed for each in found)


def _rounds(question: Question, recording: Recording) -> Rounds:
    needs = {need for spec in question.detectors for need in make(spec, "detectors", "detector").needs} - {
        "global_params"
    }
    given = question.model or question.validation or question.root
    server = None
    if given or (needs and recording.index.about.get("cell") is not None):
        permit_parts(recording, question.allow_code)
        server = given_server(recording, question.model, question.validation, question.root)
        server = server_of(recording) if server is None else server
    if not 0 < question.learn < 1:
        raise ConfigError(f"learn is {question.learn}; use a share of the rounds in (0, 1), say 0.5")
    return Rounds(recording, question.last, question.learn, server)


def _tables(found: Sequence[Found], wish: Wish, width: int) -> Iterator[Table]:
    """One table of all rules; where a name or a number would break in it, one for each rule."""
    names = [label(attack) for attack in wish.attacks]
    known = [each for each in found if not each.failed]
    table = _table(known, names)
    if Console(width=10_000).measure(table).maximum <= width:
        yield table
    else:
        yield from (_rates(each, names) for each in known)


def _table(found: Sequence[Found], names: Sequence[str]) -> Table:
    table = Table()
    table.add_column("detector")
    table.add_column("rule")
    for title in ("false\nsuspicions", "false\nbans", *(f"{name}\nkept out" for name in names)):
        table.add_column(title, justify="right")
    for each in found:
        rates = [_cell(each.suspicions), _cell(each.bans), *(_attack_cell(each, name) for name in names)]
        table.add_row(label(each.detector), each.rule.replace(" ", "\n", 1), *rates)
    return table


def _rates(each: Found, names: Sequence[str]) -> Table:
    """The rates of one rule, one below the other."""
    title = f"{label(each.detector)} ({each.rule})"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for head in ("rate", "95 % interval", "honest kept out"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_row("false suspicions", *_split(each.suspicions), "")
    table.add_row("false bans", *_split(each.bans), "")
    for name in names:
        honest = _split(each.honest.get(name))[0]
        table.add_row(f"{name} kept out", *_split(each.detection.get(name)), honest)
    return table


def _split(rate: Rate | None) -> tuple[str, str]:
    """The rate, and its interval."""
    number, _, interval = str(rate or "–").partition(" ")
    return number, interval


def _cell(rate: Rate | None) -> str:
    """The rate, and below it the interval."""
    return "–" if rate is None else str(rate).replace(" ", "\n", 1)


def _attack_cell(found: Found, name: str) -> str:
    """The same, and below it how much of the honest updates was kept out under the attack."""
    honest = found.honest.get(name)
    also = f"\nhonest {100 * honest.value:.1f}" if honest is not None and honest.n else ""
    return _cell(found.detection.get(name)) + also


def _write(found: Found, question: Question, out: Path) -> None:
    detector = {"name": found.detector} if isinstance(found.detector, str) else dict(found.detector)
    lines = [
        f"# fedguard calibrate {plain(question.folder)} --rate {question.wish.rate:g}",
        f"# false suspicions: {found.suspicions} % of {found.suspicions.n} updates",
        f"# false bans: {found.bans} % of {found.bans.n} clients",
        *(f"# {plain(name)} kept out: {rate} %" for name, rate in found.detection.items()),
    ]
    body = yaml.safe_dump({"detectors": [detector], "policy": found.policy}, sort_keys=False)
    try:
        write_file(out, "\n".join(lines) + "\n" + body)
    except OSError as error:
        raise ConfigError(not_written(out, error)) from None
