"""Report the guard's verdicts: to Flower's metrics, to its log, and to a file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flwr.app import MetricRecord

from ..contracts.outcome import Outcome
from ..core.files import open_to_append
from .arrays import clean
from .replies import Reply

log = logging.getLogger("flwr")  # Flower's own


@dataclass(frozen=True)
class Verdict:
    """The verdict on one client in one round.

    Attributes:
        round: the guard's round number, from 0; it continues after a restart.
        node: the node id.
        client: the client id in the ledger.
        score: its suspicion; +Inf for an unusable reply, NaN if no detector scored it.
        suspect: whether it is a suspect in this round.
        weight: its weight in the aggregate, in [0, 1].
        banned: whether a ban is in force from this round on.
        reason: why, in one phrase.
    """

    round: int
    node: int
    client: str
    score: float
    suspect: bool
    weight: float
    banned: bool
    reason: str


def verdicts(index: int, replies: Sequence[Reply], clients: Sequence[str], outcome: Outcome) -> list[Verdict]:
    """Return the guard's outcome as one verdict per client."""
    rows = zip(
        replies, clients, outcome.scores, outcome.suspects, outcome.weights, outcome.banned, outcome.reasons,
        strict=True,
    )  # fmt: skip
    return [
        Verdict(index, reply.node, client, float(score), bool(suspect), float(weight), bool(banned), reason)
        for reply, client, score, suspect, weight, banned, reason in rows
    ]


def refused(
    index: int,
    replies: Sequence[Reply],
    clients: Sequence[str],
    weights: Sequence[float],
    problems: Sequence[str | None],
    why: str,
) -> list[Verdict]:
    """Return the verdicts of a round that the guard did not judge."""
    rows = zip(replies, clients, weights, problems, strict=True)
    return [
        Verdict(index, reply.node, client, math.nan, problem is not None, weight, False, problem or why)
        for reply, client, weight, problem in rows
    ]


def metrics(rows: Sequence[Verdict], kept: bool, refused: bool, per_client: bool) -> MetricRecord:
    """Return the numbers for Flower. A MetricRecord holds no text; reasons are in the log and in the file."""
    record = MetricRecord(
        {
            "guard-clients": len(rows),
            "guard-suspects": sum(row.suspect for row in rows),
            "guard-excluded": sum(row.weight == 0 for row in rows),
            "guard-banned": sum(row.banned for row in rows),
            "guard-kept-global": int(kept),
            "guard-refused": int(refused),
        }
    )
    if per_client:
        record["guard-nodes"] = [row.node for row in rows]
        record["guard-scores"] = [row.score for row in rows]
        record["guard-weights"] = [row.weight for row in rows]
    return record


def summarize(inner: str, entries: Mapping[str, Any]) -> None:
    """Log the settings of a guard before an inner strategy."""
    log.info("\t├──> FedGuard before %s:", inner)
    for name, value in entries.items():
        log.info("\t│\t%s %s: %s", "└──" if name == list(entries)[-1] else "├──", name, value)


def tell(index: int, server_round: int, rows: Sequence[Verdict], note: str) -> None:
    """Log a round: clients with a weight below 1 at info level, the others at debug level."""
    out = sum(row.weight == 0 for row in rows)
    where = f"FedGuard round {index} (Flower's {server_round})"
    log.info("%s: %d clients, %d excluded", where, len(rows), out)
    for row in rows:
        level = logging.DEBUG if row.weight == 1 and not row.suspect else logging.INFO
        name = row.client if row.client == f"node-{row.node}" else f"{row.client} (node {row.node})"
        log.log(level, "\t> %s: weight %.3g, %s", name, row.weight, clean(row.reason, 300))
    if note:
        log.warning("%s: %s", where, note)


def write(path: Path, rows: Sequence[Verdict]) -> None:
    """Append the verdicts to a file, one JSON object per line. Infinities and NaN become text."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    lines = [
        json.dumps({key: plain(value) for key, value in asdict(row).items()}, ensure_ascii=False)
        for row in rows
    ]
    with open_to_append(path) as file:
        file.write("".join(line + "\n" for line in lines).encode())
