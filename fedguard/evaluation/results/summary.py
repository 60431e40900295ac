"""The metrics of a run from its records."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.state import pack
from ...guard import Guard
from ...simulation.federation import Federation
from ...simulation.flcert import FLCert
from ...simulation.leaks import mean_leak
from ...simulation.progress import GENERATION, LEAK
from ...simulation.records import RoundRecord
from ...simulation.settings import Cell
from ...simulation.setup import setup_for
from ...simulation.shadow import Watcher
from ..metrics import (
    aar,
    active_metrics,
    auroc,
    average_precision,
    benign_excluded,
    detection_metrics,
    fpr_by_skew,
    mean_over_rounds,
    rounds_to_detection,
    tpr_at_fpr,
)


def summarize(federation: Federation | FLCert | Watcher, records: list[RoundRecord]) -> dict[str, Any]:
    """The metrics of a run, as the columns of the table ``runs``.

    With a policy that bans, DACC, FPR and FNR come from the labels at the end of the run (a client ever
    banned counts as labeled malicious; basis "labels"). Otherwise they are the averages over rounds
    (basis "rounds"), which are always available as ADACC, AFPR and AFNR. Without a detector, or for a
    recording without labels, all of them are undefined. TACC and ASR are those of the final model.
    The metrics over active attackers leave out attackers in rounds in which they send their honest update.
    """
    guard = federation.guard
    if any(row.malicious is None for row in records[0].clients):
        unknown = {"malicious": None, "rounds": len(records), "basis": ""}
        return {**unknown, "diverged": _diverged(records), **_memory(guard)}
    truth = np.array([row.malicious for row in records[0].clients])
    present, attacking = _table(records, "participated"), _table(records, "attacking")
    weights, suspects, scores = (_table(records, name) for name in ("weight", "suspect", "score"))
    aggregated, last = present & (weights > 0), records[-1]
    row: dict[str, Any] = {
        "malicious": int(truth.sum()),
        "rounds": len(records),
        "basis": "",
        "tacc": last.tacc,
        "tacc_best": _best([record.tacc for record in records]),
        "asr": last.asr,
        "loss": last.loss,
        "diverged": _diverged(records),
        "aar": aar(truth, aggregated),
        "aar_active": aar(truth & attacking.any(0), aggregated & attacking),
        "benign_excluded": benign_excluded(truth, present, weights),
        "sent_bytes": _sent(federation.cell),
        **_leaked(records),
        **last.info.get(GENERATION, {}),
    }
    if not guard.detectors:
        return row
    per_round = detection_metrics(truth, suspects, participated=present)
    labels = np.array([federation.ever_banned(client) for client in range(len(truth))])
    final = detection_metrics(truth, labels) if guard.policy.bans else per_round
    skew = setup_for(federation.cell).label_skew
    verdicts = (labels, skew) if guard.policy.bans else (suspects, skew, present)
    thirds = dict(zip(("low", "mid", "high"), fpr_by_skew(truth, *verdicts), strict=True))
    if np.isnan(skew).any():  # labels that are no classes
        thirds = dict.fromkeys(thirds, np.nan)
    waits, caught = rounds_to_detection(truth, suspects, attacking)
    scored = np.where(present, scores, np.nan)
    return {
        **row,
        **final,
        "basis": "labels" if guard.policy.bans else "rounds",
        **{f"a{name}": per_round[name] for name in ("dacc", "fpr", "fnr")},
        **{f"fpr_{third}_skew": rate for third, rate in thirds.items()},
        **active_metrics(truth, labels if guard.policy.bans else suspects, attacking, scored, present),
        "auroc": mean_over_rounds(auroc, truth, scored),
        "ap": mean_over_rounds(average_precision, truth, scored),
        "tpr_at_1": mean_over_rounds(tpr_at_fpr, truth, scored),
        "rounds_to_detection": waits,
        "caught": caught,
        "aoi": _mean_info(records, "aoi"),
        **_memory(guard),
    }


def _memory(guard: Guard) -> dict[str, int]:
    return {"state_bytes": len(pack(guard.state_dict()))}


def _sent(cell: Cell) -> float:
    """The bytes of a client's update and statistics in one round; NaN for a recording."""
    if cell.recording is not None:
        return float("nan")
    setup = setup_for(cell)
    return float(setup.initial.nbytes + setup.initial_statistics.nbytes)


def _leaked(records: list[RoundRecord]) -> dict[str, float]:
    """What a passive attack reconstructed, as the mean over the rounds in which it did."""
    found = mean_leak([record.info.get(LEAK, {}) for record in records])
    return {name if name.startswith("noise_") else f"leak_{name}": value for name, value in found.items()}


def _mean_info(records: list[RoundRecord], name: str) -> float:
    """The mean over clients and rounds of a number that a detector reports per client; NaN if none does."""
    pairs = [
        (part[name], sum(row.participated and not np.isnan(row.score) for row in record.clients))
        for record in records
        for part in record.info.values()
        if name in part
    ]
    total = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / total if total else float("nan")


def _diverged(records: list[RoundRecord]) -> float:
    """The first round in which the run diverged; NaN if it did not."""
    return next((float(record.index) for record in records if not record.finite), float("nan"))


def _best(values: list[float]) -> float:
    """The highest of the values that are defined."""
    known = [value for value in values if not np.isnan(value)]
    return max(known) if known else float("nan")


def times(
    federation: Federation | FLCert | Watcher, records: list[RoundRecord], total: float
) -> dict[str, float]:
    """Seconds by part, summed over rounds: training, detectors, policy, aggregator; and the total."""
    parts = {"training": 0.0, "detectors": 0.0, "policy": 0.0, "aggregator": 0.0}
    for record in records:
        for part, seconds in record.seconds.items():
            parts["detectors" if part in federation.guard.detectors else part] += seconds
    return {**parts, "total": total}


def _table(records: list[RoundRecord], column: str) -> Any:
    return np.array([[getattr(row, column) for row in record.clients] for record in records])
