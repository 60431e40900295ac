"""The metrics of a run from its records."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.state import pack
from ...guard import Guard
from ...simulation.federation import Federation
from ...simulation.flcert import FLCert
from ...simulation.records import RoundRecord
from ...simulation.setup import setup_for
from ...simulation.shadow import Watcher
from ..metrics import (
    aar,
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
    """
    guard = federation.guard
    if any(row.malicious is None for row in records[0].clients):
        return {"malicious": None, "rounds": len(records), "basis": "", **_memory(guard)}
    truth = np.array([row.malicious for row in records[0].clients])
    present, attacking = _table(records, "participated"), _table(records, "attacking")
    weights, suspects, scores = (_table(records, name) for name in ("weight", "suspect", "score"))
    last = records[-1]
    row: dict[str, Any] = {
        "malicious": int(truth.sum()),
        "rounds": len(records),
        "basis": "",
        "tacc": last.tacc,
        "asr": last.asr,
        # A malicious client that does not attack in a round sends its honest update, which does no harm.
        "aar": aar(truth, present & (weights > 0) & attacking),
        "benign_excluded": benign_excluded(truth, present, weights),
    }
    if not guard.detectors:
        return row
    per_round = detection_metrics(truth, suspects, participated=present)
    labels = np.array([federation.ever_banned(client) for client in range(len(truth))])
    final = detection_metrics(truth, labels) if guard.policy.bans else per_round
    skew = setup_for(federation.cell).label_skew
    verdicts = (labels, skew) if guard.policy.bans else (suspects, skew, present)
    thirds = dict(zip(("low", "mid", "high"), fpr_by_skew(truth, *verdicts), strict=True))
    waits, caught = rounds_to_detection(truth, suspects, attacking)
    scored = np.where(present, scores, np.nan)
    return {
        **row,
        **final,
        "basis": "labels" if guard.policy.bans else "rounds",
        **{f"a{name}": per_round[name] for name in ("dacc", "fpr", "fnr")},
        **{f"fpr_{third}_skew": rate for third, rate in thirds.items()},
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


def _mean_info(records: list[RoundRecord], name: str) -> float:
    """The mean over rounds of a number that a detector reports; NaN if none does."""
    values = [part[name] for record in records for part in record.info.values() if name in part]
    return float(np.mean(values)) if values else float("nan")


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
