"""Results as pandas frames: one row per run, and means over seeds with their confidence intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError, ResultsError
from ...core.named_code import without_fingerprint
from ...core.params import nearest
from ..metrics import harm, harm_weighted_fnr
from .store import Store

if TYPE_CHECKING:
    import pandas as pd

#: The columns that are averaged over seeds.
MEANS = (
    "dacc", "fpr", "fnr", "aar", "adacc", "afpr", "afnr", "auroc", "ap", "tpr_at_1",
    "rounds_to_detection", "caught", "benign_excluded", "fpr_low_skew", "fpr_mid_skew", "fpr_high_skew",
    "dacc_active", "fnr_active", "auroc_active", "aar_active", "harm",
    "tacc", "tacc_best", "loss", "asr", "accuracy_lost", "aoi", "state_bytes", "sent_bytes",
    "leak_psnr", "leak_ssim", "leak_labels", "noise_psnr", "noise_ssim", "frechet",
    "detector_seconds", "detector_share", "peak_memory",
)  # fmt: skip
_COUNTS = ["tp", "fp", "tn", "fn"]
_SHARED = ["attacked", "clients", "malicious", "assumed_malicious", "rounds", "basis"]
#: The columns that identify a row by default.
BY = ("point", "mode", "attack", "defense")
_KEYS = ("point", "mode", "attack", "defense", "seed")


def read_results(folder: str | Path, by: Sequence[str] = BY) -> pd.DataFrame:
    """The detection-metrics table of a results folder: means over seeds, counts pooled over them.

    Args:
        folder: what ``fedguard evaluate`` wrote.
        by: the columns that identify a row: point (of the grid, as text), mode, attack, defense, seed, or
            the key path of any setting, for example "partition.beta". Other settings that vary identify
            rows too: only seeds are averaged.

    Returns:
        One row per combination, in the suite's order. Columns: ``by``; attacked, clients, malicious,
        assumed_malicious, rounds, basis ("labels" at the end of the run, "rounds" averaged over them, or
        empty without a detector); seeds and failed (counts); each mean m of :data:`MEANS`, and m_ci, the
        half width of its 95 % confidence interval over seeds (Student's t; undefined for one seed); the
        pooled counts tp, fp, tn, fn and their rates pooled_dacc, pooled_fpr, pooled_fnr; and fnr_harm, the
        FNR weighted by the harm of each run's attack (:func:`fedguard.evaluation.metrics.harm_weighted_fnr`);
        and diverged, the earliest round in which a run diverged.
        Rates are fractions, undefined ones NaN.

    Raises:
        ResultsError: the folder holds no finished run.
        ParameterError: there is no such setting.

    Example:
        >>> import tempfile
        >>> from fedguard.evaluation.running.runner import run_suite
        >>> from fedguard.evaluation.suites.load import load_suite
        >>> few = ["clients=6", "malicious=1", "rounds=1", "only=[{attack: none, defense: m_krum}]"]
        >>> suite, _ = load_suite("quickstart", few)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run_suite(suite, Path(folder), workers=1)
        ...     table = read_results(folder)
        >>> table[["attack", "defense", "seeds"]].values.tolist()
        [['none', 'm_krum', 1]]
    """
    return metrics_frame(Store(Path(folder)), by)


def metrics_frame(store: Store, by: Sequence[str] = BY) -> pd.DataFrame:
    """The table of an open store, see :func:`read_results`."""
    runs = run_frame(store, by)
    keys = _telling_apart(runs, by)
    groups = runs.groupby(keys, sort=False, dropna=False)
    seeds = groups["seed"].count().rename("seeds")
    failed = groups["status"].apply(lambda s: int((s == "failed").sum())).rename("failed")
    means, counts = groups[list(MEANS)].mean(), groups[_COUNTS].sum(min_count=1)
    shared = groups[[name for name in _SHARED if name not in keys]].first()
    harmed = groups[["fnr", "harm"]].apply(lambda part: harm_weighted_fnr(part["fnr"], part["harm"]))
    parts: list[Any] = [
        seeds,
        failed,
        means,
        intervals(groups),
        counts,
        _pooled(counts),
        harmed.rename("fnr_harm"),
        groups["diverged"].min(),
    ]
    frame: pd.DataFrame = shared.join(parts)
    frame = frame.reset_index()
    frame.attrs["keys"] = keys
    return frame


def run_frame(store: Store, settings: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run: the table ``runs`` with the costs, the accuracy lost, and settings as columns.

    ``accuracy_lost`` is the TACC of the undefended run without attack at the same point of the grid and seed,
    minus this run's. It is undefined in shadow mode and if the suite has no such run. ``harm`` is what
    the run's attack does without a defense (:func:`fedguard.evaluation.metrics.harm`), undefined if the suite
    has no undefended run of this attack. The attack success of the clean model is taken as 0.

    Args:
        store: of a results folder.
        settings: key paths of settings to add as columns.

    Raises:
        ResultsError: the store holds no run.
        ParameterError: there is no such setting.
    """
    runs = store.table("runs")
    if runs.empty:
        raise ResultsError(f"{store.folder} holds no finished run yet")
    resolved = [json.loads(text) for text in runs["settings"]]
    points = [json.loads(text) for text in runs["point"]]
    runs["point"] = [_words(point) for point in points]
    numeric = [*_COUNTS, "diverged", *(name for name in MEANS if name in runs)]
    runs[numeric] = runs[numeric].astype(float)  # a column with only NULLs has no type of its own
    for path in settings:
        if path not in _KEYS:
            runs[path] = [_setting(*one, path) for one in zip(resolved, points, strict=True)]
    runs["attacked"] = [one["attack"]["name"] != "none" for one in resolved]
    runs["accuracy_lost"] = _accuracy_lost(runs, resolved)
    runs["harm"] = _harm(runs, resolved)
    return _with_costs(runs, store)


def _with_costs(runs: pd.DataFrame, store: Store) -> pd.DataFrame:
    timings = store.table("timings")
    totals = timings[timings["part"] == "total"].set_index("run")
    runs["peak_memory"] = runs["run"].map(totals["peak_memory"].astype(float))
    seconds = timings.pivot(index="run", columns="part", values="seconds")
    for part in ("training", "detectors", "policy", "aggregator"):
        seconds[part] = seconds.get(part, math.nan)
    busy = seconds[["training", "detectors", "policy", "aggregator"]].sum(axis=1)
    costs = {"detector_share": seconds["detectors"] / busy, "detector_seconds": seconds["detectors"]}
    for name, values in costs.items():
        # Watching a recording involves no training.
        measured = (runs["basis"].fillna("") != "") & (runs["mode"] != "recorded")
        runs[name] = runs["run"].map(values).where(measured)
    return runs


def _accuracy_lost(runs: pd.DataFrame, settings: list[dict[str, Any]]) -> list[float]:
    plain = [s["attack"]["name"] == "none" and _undefended(s["defense"]) for s in settings]
    clean = runs[[p and mode == "closed" for p, mode in zip(plain, runs["mode"], strict=True)]]
    best = {(row["point"], row["seed"]): row["tacc"] for _, row in clean.iterrows()}
    return [
        best.get((row["point"], row["seed"]), math.nan) - row["tacc"] if row["mode"] == "closed" else math.nan
        for _, row in runs.iterrows()
    ]


def _harm(runs: pd.DataFrame, settings: list[dict[str, Any]]) -> list[float]:
    """Per run, the harm of its attack: that of the undefended run of the same point, attack and seed."""
    plain = [_undefended(s["defense"]) and s["attack"]["name"] != "none" for s in settings]
    alone = runs[[p and mode == "closed" for p, mode in zip(plain, runs["mode"], strict=True)]]
    known = {
        (row["point"], row["attack"], row["seed"]): harm(row["accuracy_lost"], row["asr"])
        for _, row in alone.iterrows()
    }
    return [
        known.get((row["point"], row["attack"], row["seed"]), math.nan) if row["attacked"] else math.nan
        for _, row in runs.iterrows()
    ]


def _undefended(defense: dict[str, Any]) -> bool:
    """Whether the defense is plain federated averaging."""
    plain = not (defense["detector"] or defense["stages"] or defense["flcert"])
    return plain and defense["aggregator"]["name"] == "mean"


def _telling_apart(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """``by``, plus those of point, mode, attack and defense that it does not determine."""
    keys = list(by)
    for name in BY:
        if name not in keys and runs.groupby(keys, dropna=False)[name].nunique().gt(1).any():
            keys.append(name)
    return keys


def intervals(groups: Any, names: Sequence[str] = MEANS) -> pd.DataFrame:
    """Half widths of 95 % intervals: t_{0.975, k−1} s/√k over the k seeds where a metric is defined.

    Args:
        groups: rows of runs, grouped by the identifying columns.
        names: the columns; each gives a column ``<name>_ci``.
    """
    count, spread = groups[list(names)].count(), groups[list(names)].std(ddof=1)
    width: pd.DataFrame = spread / count**0.5
    if (count > 1).any(axis=None):
        from scipy.special import stdtrit  # the t quantile: scipy.stats takes four times as long to import

        width *= stdtrit((count - 1).where(count > 1), 0.975)
    return width.add_suffix("_ci")


def _pooled(counts: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    tp, fp, tn, fn = (counts[name] for name in _COUNTS)
    rates = {"dacc": (tp + tn) / (tp + fp + tn + fn), "fpr": fp / (fp + tn), "fnr": fn / (fn + tp)}
    return pd.DataFrame(rates).add_prefix("pooled_")


def _setting(settings: dict[str, Any], point: dict[str, Any], path: str) -> Any:
    """The value at a key path of the grid or of a run's settings; for a method, its name."""
    value: Any = {**settings, **point}
    for key in [path] if path in point else path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ParameterError(f"there is no setting {path}{nearest(key, value)}")
        value = value[key]
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return without_fingerprint(value["name"])
    return json.dumps(value) if isinstance(value, dict | list) else _plain(value)


def _plain(value: Any) -> Any:
    return without_fingerprint(value) if isinstance(value, str) else value


def _words(point: dict[str, Any]) -> str:
    """A point of the grid as text; empty without a grid."""
    return ", ".join(f"{path} = {_plain(value)}" for path, value in point.items())
