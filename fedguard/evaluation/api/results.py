"""Results of a suite in Python: frames, tables, figures, reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ...core.errors import ParameterError, ResultsError
from ...core.files import why
from ..results.compare import Comparison
from ..results.compare import compare as compared
from ..results.frame import BY, run_frame
from ..results.layout import Layout
from ..results.store import Store
from ..results.tables import SHOWN
from ..results.versus import Versus, versus
from .table import Table, written

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Endings of files → formats of tables.
ENDINGS = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json", ".parquet": "parquet"}
#: The columns that say which run a row of ``rounds`` or ``clients`` belongs to.
_RUN = ["run", "point", "mode", "attack", "defense", "seed"]

Names = str | Sequence[str]
Where = Mapping[str, Any]


class Failure(NamedTuple):
    """A run that failed.

    Attributes:
        attack: the attack's label.
        defense: the defense's label.
        seed: its seed.
        error: the error, with its traceback if it was not one of FedGuard's.
    """

    attack: str
    defense: str
    seed: int
    error: str


class Results:
    """The results of a suite, from :func:`fedguard.evaluate` or :func:`fedguard.load`.

    Args:
        folder: what ``fedguard evaluate`` wrote, finished or not.
        keep: the temporary folder that holds it, which is deleted with this object.

    Raises:
        ResultsError: the folder holds no results.
    """

    def __init__(self, folder: str | Path, keep: TemporaryDirectory[str] | None = None) -> None:
        self.folder = Path(folder)
        self._keep = keep
        self._store = Store(self.folder)

    def __repr__(self) -> str:
        finished = self._store.finished()
        failed = sum(status == "failed" for status in finished.values())
        place = "a temporary folder" if self._keep else str(self.folder)
        return f"<Results: {len(finished)} runs{f', {failed} failed' if failed else ''}, in {place}>"

    @property
    def path(self) -> Path:
        """The SQLite file with everything: runs, rounds, clients, timings."""
        return self._store.path

    @property
    def frame(self) -> pd.DataFrame:
        """One row per run: labels, the grid's settings, detection metrics, accuracy, costs.

        Rates are fractions, undefined ones NaN. ``accuracy_lost`` is relative to the undefended run without
        attack of the same seed and point of the grid, ``harm`` what the attack does to the undefended run.
        """
        points = self._store.table("runs")["point"]
        paths = dict.fromkeys(path for point in points for path in json.loads(point))
        return run_frame(self._store, list(paths))

    @property
    def rounds(self) -> pd.DataFrame:
        """One row per run and round: accuracy, loss, attack success, a note."""
        return self._with_runs("rounds")

    @property
    def clients(self) -> pd.DataFrame:
        """One row per run, round and client: truth, score, suspect, weight, banned, reason."""
        return self._with_runs("clients")

    def _with_runs(self, table: str) -> pd.DataFrame:
        runs = self._store.table("runs")[_RUN]
        found: pd.DataFrame = runs.merge(self._store.table(table), on="run")
        return found

    @property
    def failures(self) -> list[Failure]:
        """The runs that failed, with their errors."""
        return [Failure(*row) for row in self._store.failures()]

    def table(
        self,
        rows: Names = "attack",
        columns: Names = "defense",
        values: Names = "dacc",
        where: Where | None = None,
        joined: bool = False,
    ) -> Table:
        """A table of means over seeds, for reading and for papers.

        Args:
            rows: what the rows stand for: attack, defense, mode, seed, or key paths of settings such as
                "partition.beta". Other settings that vary become rows, too: only seeds are averaged.
            columns: likewise for the columns; empty for one column per metric.
            values: metrics (``fedguard list metrics``), or "all".
            where: keeps only runs with these values: setting → value or list of values.
            joined: all values in one cell, as in "85.9/2.4".

        Raises:
            ParameterError: there is no such setting or metric, or nothing is left to show.
        """
        kept = {k: v if isinstance(v, list | tuple) else [v] for k, v in (where or {}).items()}
        layout = Layout(_names(rows) or BY, _names(columns), _names(values) or SHOWN, kept or None, joined)
        return Table(self._store, layout)

    def plot(
        self,
        kind: str = "heatmap",
        metric: str = "dacc",
        where: Where | None = None,
        columns: int = 2,
        dark: bool = False,
    ) -> Figure:
        """A matplotlib figure (extra: plot), which a notebook shows; ``savefig`` writes it.

        Args:
            kind: "heatmap" (a metric by attack and defense), "accuracy" or "success" (of the attack, by
                round, a panel per attack), "roc" (a panel per attack), "scores", "timeline" or "confusion"
                (a panel per attack and defense), "pareto" (FPR against FNR), "cost" (accuracy against
                seconds), "who_sees_what", "skew_share" (AUROC by partition and share of malicious clients),
                or "critical_difference" (average ranks of the defenses).
            metric: of the heat map: dacc, fpr, fnr, auroc, tacc or asr; any metric for ranks.
            where: keeps only runs with these values. The rest must be at one point of the grid and in one
                mode, but for ranks; for "skew_share", partitions and numbers of clients may differ.
            columns: width: 1 or 2 columns of a paper.
            dark: light lines on a dark ground.

        Raises:
            ParameterError: an unknown kind, metric or width; no run or too many are left; no matplotlib.
        """
        from ..results.figures.style import Sheet
        from ..results.plot import draw

        return draw(self._store, kind, metric, where, Sheet(columns, dark))

    def report(self, path: str | Path | None = None, where: Where | None = None) -> Path:
        """Write one self-contained HTML file; ``report.html`` in the results folder if no path is given.

        Raises:
            ConfigError: it cannot be written.
        """
        from ..results.report.page import write_report

        return write_report(self.folder, None if path is None else Path(path), where)

    def export(
        self,
        to: str | Path,
        rows: Names = BY,
        columns: Names = (),
        values: Names = SHOWN,
        where: Where | None = None,
    ) -> Path | str | bytes:
        """The detection-metrics table as a file, or as the content of one.

        Args:
            to: a file (.csv, .md, .tex, .json, .parquet), which is written and returned; or a format (csv,
                markdown, latex, json, parquet), whose content is returned.
            rows: see :meth:`table`.
            columns: see :meth:`table`.
            values: see :meth:`table`.
            where: see :meth:`table`.

        Raises:
            ParameterError: an unknown ending or format, or Parquet without its extra.
            ConfigError: the file cannot be written.
        """
        table = self.table(rows, columns, values, where)
        if str(to) in ENDINGS.values():
            content = table.to_bytes(str(to))
            return content if str(to) == "parquet" else content.decode()
        path = Path(to)
        if path.suffix.lower() not in ENDINGS:
            raise ParameterError(
                f"cannot export to {str(to)!r}: name a file that ends in {', '.join(ENDINGS)}, or a format: "
                f"{', '.join(ENDINGS.values())}"
            )
        return written(path, table.to_bytes(ENDINGS[path.suffix.lower()]))

    @overload
    def compare(self, other: Results | Path, values: Names = SHOWN) -> Comparison: ...

    @overload
    def compare(self, other: str, values: Names = SHOWN) -> Comparison | Versus: ...

    def compare(self, other: Results | str | Path, values: Names = SHOWN) -> Comparison | Versus:
        """One defense against each other one, or these results against later ones; ``print`` shows it.

        Args:
            other: the label of one of these defenses, which is compared with each other one, paired over
                seeds and attacks; or the later results, or their folder (as a ``Path`` if a defense has the
                same name).
            values: the metrics to compare, or "all".

        Returns:
            For a label :class:`fedguard.evaluation.results.versus.Versus`, else what changed between the
            results, with significance over seeds.

        Raises:
            ResultsError: there are no common runs, or no results in the folder.
            ParameterError: there is no other defense, or no metric in common.
        """
        names = [name for name in _names(values) if name != "detector_share"]
        if isinstance(other, str) and other in set(self._store.table("runs")["defense"]):
            return versus(self._store, other, names)
        after = other if isinstance(other, Results) else Results(other)
        return compared(self._store, after._store, names)

    def save(self, folder: str | Path) -> Results:
        """Copy the results folder, for example a temporary one, and return the results there.

        Raises:
            ResultsError: the folder exists and is not empty, or cannot be written.
        """
        target = Path(folder)
        if target.is_dir() and any(target.iterdir()):
            raise ResultsError(f"{target} is not empty; give another folder")
        try:
            shutil.copytree(
                self.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock", "slurm")
            )
        except (OSError, shutil.Error) as error:
            reason = why(error) if isinstance(error, OSError) else str(error)
            raise ResultsError(f"cannot save results to {target}: {reason}") from None
        return Results(target)


def load(folder: str | Path) -> Results:
    """The results in a folder that ``fedguard evaluate`` or :func:`fedguard.evaluate` wrote.

    No code that the folder names is imported.

    Raises:
        ResultsError: the folder holds no results, or those of an unknown version.

    Example:
        >>> import fedguard, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fedguard.evaluate(clients=6, malicious=1, rounds=1, attacks="min_max", defenses="dnc",
        ...                           out=folder, workers=1)
        ...     results = fedguard.load(folder)
        ...     labels = results.frame[["attack", "defense"]].values.tolist()
        >>> labels
        [['min_max', 'dnc']]
    """
    return Results(folder)


def _names(names: Names) -> tuple[str, ...]:
    return tuple(name for name in names.split(",") if name) if isinstance(names, str) else tuple(names)
