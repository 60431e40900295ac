"""Data sets of OpenML by their number, ``openml:61``."""

from __future__ import annotations

from typing import Any

from ...core.errors import DataError, ParameterError
from ..parts import Maker
from .base import Dataset, Task
from .files import cache_root
from .split import TEST_SHARE
from .table import Missing, Roles, Table, from_tables


def openml_set(number: str) -> Maker:
    """The function that loads a data set of OpenML.

    Args:
        number: its number there.

    Raises:
        ParameterError: it is not a number.
    """
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise ParameterError(f"data openml:{number}: write the data set's number, for example openml:61")

    def load(
        label: str | None = None,
        client: str | None = None,
        test: float = TEST_SHARE,
        task: Task = "classification",
        ignore: list[str] | None = None,
        categorical: list[str] | None = None,
        missing: Missing = "error",
    ) -> Dataset:
        frame, target = _fetched(int(number))
        chosen = label or target
        if chosen is None:
            raise ParameterError(
                f"data openml:{number} names no label; give `label` (it has {', '.join(frame)})"
            )
        roles = Roles(chosen, client, tuple(ignore or ()), tuple(categorical or ()), missing, task)
        where = f"openml:{number}"
        return from_tables(where, Table(where, frame, lambda i: f"{where}: row {i + 1}"), test, roles)

    load.__doc__ = f"""A table of OpenML: number {number}, kept in the download cache.

    Its columns are used as those of ``csv``.

    Args:
        label: the column with the label; OpenML's own by default.
        client: the column that names each sample's client.
        test: the share of test samples; the split is stratified and always the same.
        task: classification or regression.
        ignore: columns to leave out.
        categorical: columns of numbers to take as categories.
        missing: an empty value is an "error", becomes the training part's "mean", or "drop"s its row.
    """
    return load


def _fetched(number: int) -> tuple[dict[str, Any], str | None]:
    """The columns of a table, and the name of its label."""
    from sklearn.datasets import fetch_openml

    folder = cache_root() / "openml"
    try:
        bunch = fetch_openml(data_id=number, data_home=str(folder), as_frame=True, parser="pandas")
    except Exception as error:  # networks fail in many ways
        raise DataError(
            f"openml:{number} could not be read: {error}. Check the number and the network; what was "
            f"downloaded is kept in {folder}"
        ) from None
    frame = bunch.frame
    columns = {
        str(name): frame[name].to_numpy()
        if frame[name].dtype.kind in "fiub"
        else [None if value != value else value for value in frame[name].astype(object)]
        for name in frame.columns
    }
    targets = list(bunch.target_names or ())
    return columns, str(targets[0]) if len(targets) == 1 else None
