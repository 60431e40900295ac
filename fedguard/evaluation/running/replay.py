"""``fedguard replay``: one defense on a recording, with a summary on the terminal and verdicts in a file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from ...core.errors import ConfigError
from ...core.files import not_written, write_file
from ...core.named_code import find_here, refuse_code
from ...core.threads import single_thread
from ...recording import Recording
from ...recording.index import INDEX
from ...simulation.recorded import RecordedFederation, cell_of
from ...simulation.records import RoundRecord
from ...simulation.settings import Cell, Defense
from ...simulation.shadow import Watcher
from ..cells import csv_text
from ..results.summary import summarize
from ..suites.given import given_server
from ..suites.on_recording import facts_of, permit_parts
from ..suites.suite import Suite
from ..terminal import plain, terminal


@dataclass(frozen=True)
class Question:
    """What to replay, and with which defense.

    Attributes:
        folder: the recording.
        detector: the detector that scores it; the recorded defense if None.
        params: the detector's parameters.
        policy: the policy, as in a suite; the default if None.
        assumed: the number of malicious clients that the defense is told; as recorded if None.
        model: for a live recording, see :func:`fedguard.evaluation.suites.given.given_server`.
        validation: likewise.
        root: likewise.
        banned: also show the defense the clients that were banned during the recording.
        allow_code: allow importing the classes that the recorded defense names.
    """

    folder: Path
    detector: str | None = None
    params: dict[str, Any] | None = None
    policy: Any = None
    assumed: int | None = None
    model: str | None = None
    validation: Path | None = None
    root: Path | None = None
    banned: bool = False
    allow_code: bool = False


@dataclass(frozen=True)
class Answer:
    """The verdicts of the defense.

    Attributes:
        cell: its settings.
        watcher: the defense, and its record of every round.
        problems: what is wrong with the recording.
        compared: how many scores were compared with the recorded ones, if the defense is the recorded one.
        different: how many of them are not bit-identical.
        rotated: how many of the oldest rounds were dropped to save space.
    """

    cell: Cell
    watcher: Watcher
    problems: list[str]
    compared: int
    different: int
    rotated: int

    @property
    def labeled(self) -> bool:
        """Whether it is known who is malicious."""
        return all(row.malicious is not None for row in self.watcher.records[0].clients)


def ask(question: Question) -> Answer:
    """Replay a recording.

    Raises:
        ResultsError: it cannot be read, or its first round is damaged.
        ConfigError: the defense is not valid, was not recorded, or names code that may not be imported.
    """
    recording = Recording(question.folder)
    problems = recording.check()
    if len(recording) == 0:
        raise ConfigError("; ".join(problems) or f"{question.folder} holds no round")
    cell = _cell(question, recording)
    server = given_server(recording, question.model, question.validation, question.root)
    federation = RecordedFederation(cell, recording=recording, server=server, banned=question.banned)
    watcher = Watcher(cell, federation, aggregate=True)
    compared = different = 0
    with single_thread():
        for position in range(len(recording)):
            progress = federation.advance(position)
            watcher.watch(progress, federation.record(progress))
            if watcher.error:
                break
            if question.detector is None and progress.round is not None:
                old, new = _scores(recording, position, watcher.records)
                compared, different = compared + len(old), different + int((~_same(old, new)).sum())
    return Answer(cell, watcher, problems, compared, different, recording.index.rotated)


def show_replay(question: Question, out: Path | None) -> bool:
    """Replay, print the verdicts, and return whether the recording and the defense worked without errors."""
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ConfigError(f"cannot write {out}: use a name that ends in .csv or .json")
    answer = ask(question)
    problems, watcher = list(answer.problems), answer.watcher
    damaged = bool(problems)
    if watcher.error:
        hint = "" if question.model or question.validation else "; see --model, --validation and --root"
        needs = "give the round" in watcher.error
        problems.append(watcher.error.strip().splitlines()[-1] + (hint if needs else ""))
    console = terminal(piped_width=110)
    if watcher.records:
        _show(answer, console)
        if out is not None:
            _write(answer, out)
    for problem in problems:
        terminal(stderr=True).print(problem, style="red")
    return not damaged and not watcher.error


def verdicts(answer: Answer) -> list[dict[str, Any]]:
    """One row per round and client that took part."""
    rows = []
    for record in answer.watcher.records:
        for row in record.clients:
            if row.participated:
                values = row._asdict()
                del values["participated"]
                rows.append({"round": record.index, **values})
    return rows


def _cell(question: Question, recording: Recording) -> Cell:
    recorded = cell_of(recording)
    permit_parts(recording, question.allow_code)
    facts = facts_of(recording)
    if question.detector is None and (recorded is None or not recorded.defense.detector):
        raise ConfigError("no detector was recorded with it: choose one with --detector")
    if question.detector is None and question.params:
        raise ConfigError("--param goes with --detector")
    told = (
        question.assumed if recorded is None or question.assumed is not None else recorded.assumed_malicious
    )
    if recorded is None and told is None:
        raise ConfigError(
            "this recording does not say how many clients are malicious; set with --assumed what "
            "defenses are told"
        )
    before = Defense() if recorded is None else recorded.defense
    try:
        changes: dict[str, Any] = {"policy": question.policy} if question.policy else {}
        if question.detector is not None:
            changes = {
                "detector": {"name": question.detector, **(question.params or {})},
                "policy": question.policy,
            }
        kept = {n: getattr(before, n) for n in Defense.model_fields if n not in changes}
        _permit(before.model_dump(include=set(kept)), recording, question.allow_code)
        defense = Defense(**kept, **changes)
        suite = Suite(**{**facts, "assumed_malicious": told, "defenses": {"replay": defense}})
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    (cell,) = suite.cells()
    return cell


def _permit(recorded: dict[str, Any], recording: Recording, allow_code: bool) -> None:
    """Refuse the code that a recorded defense names, or allow importing it from the current folder."""
    if not allow_code:
        refuse_code(recorded, recording.folder / INDEX, ("about", "cell", "defense"))
    find_here(recorded)


def _scores(recording: Recording, position: int, records: list[RoundRecord]) -> tuple[Any, Any]:
    """The recorded and the new scores of the clients that have both."""
    recorded = recording.read(position)
    new = {row.id: row.score for row in records[-1].clients if row.participated}
    known = [i for i, name in enumerate(recorded.round.client_ids) if str(name) in new]
    ids = [str(recorded.round.client_ids[i]) for i in known]
    return recorded.scores[known], np.array([new[name] for name in ids])


def _same(one: Any, other: Any) -> Any:
    return (one == other) | (np.isnan(one) & np.isnan(other))


def _show(answer: Answer, console: Console) -> None:
    watcher = answer.watcher
    detectors = ", ".join(watcher.guard.detectors)
    console.print(
        f"{detectors} with policy {watcher.guard.policy.name} on {len(watcher.records)} recorded rounds "
        f"({answer.cell.recording})"
    )
    if answer.rotated:
        console.print(
            f"the {answer.rotated} oldest rounds were dropped to save space: detectors start without them",
            style="yellow",
        )
    rounds = _table("round", "clients", "mean score", "suspects", "excluded", "banned", "who")
    for record in watcher.records:
        there = [row for row in record.clients if row.participated]
        rounds.add_row(*map(str, _round_row(record.index, there)))
    console.print(rounds)
    clients = _table("client", "rounds", "mean score", "suspect in", "excluded in", "banned")
    if answer.labeled:
        clients.add_column("truth")
    for number in range(len(watcher.records[0].clients)):
        clients.add_row(*_client_row(answer, number))
    console.print(clients)
    if answer.labeled:
        _show_metrics(answer, console)
    if answer.compared:
        verdict = "the same to the last bit" if answer.different == 0 else f"{answer.different} differ"
        console.print(f"{answer.compared} scores compared with the recorded ones: {verdict}")


def _round_row(index: int, there: list[Any]) -> tuple[Any, ...]:
    suspects = [row.id for row in there if row.suspect]
    named = " ".join(plain(name) for name in suspects[:8]) + (" …" if len(suspects) > 8 else "")
    excluded, banned = sum(row.weight == 0 for row in there), sum(row.banned for row in there)
    return index, len(there), _mean([r.score for r in there]), len(suspects), excluded, banned, named


def _client_row(answer: Answer, number: int) -> list[str]:
    rows = [record.clients[number] for record in answer.watcher.records]
    there = [row for row in rows if row.participated]
    cells = [
        plain(rows[-1].id),
        str(len(there)),
        _mean([row.score for row in there]),
        str(sum(row.suspect for row in there)),
        str(sum(row.weight == 0 for row in there)),
        "yes" if answer.watcher.ever_banned(number) else "",
    ]
    return [*cells, *([("malicious" if rows[0].malicious else "benign")] if answer.labeled else [])]


def _mean(scores: list[float]) -> str:
    """The mean of the finite values."""
    finite = [s for s in scores if math.isfinite(s)]
    return f"{np.mean(finite):.4g}" if finite else "–"


def _show_metrics(answer: Answer, console: Console) -> None:
    numbers = summarize(answer.watcher, answer.watcher.records)
    basis = "labels at the end" if numbers["basis"] == "labels" else "mean over rounds"
    rates = [
        f"{name.upper()} {'–' if math.isnan(numbers[name]) else f'{100 * numbers[name]:.1f} %'}"
        for name in ("dacc", "fpr", "fnr")
    ]
    area = "–" if math.isnan(numbers["auroc"]) else f"{numbers['auroc']:.3f}"
    console.print(f"{', '.join(rates)} ({basis}), AUROC {area}")


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, justify="left" if name in ("client", "who") else "right")
    return table


def _write(answer: Answer, out: Path) -> None:
    import pandas as pd

    rows = verdicts(answer)
    try:
        if out.suffix == ".csv":
            write_file(out, csv_text(pd.DataFrame(rows)))
            return
        plain = [{name: _json(value) for name, value in row.items()} for row in rows]
        write_file(out, json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(not_written(out, error)) from None


def _json(value: Any) -> Any:
    """The value for JSON, which lacks NaN (null) and infinity (the string "inf")."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
