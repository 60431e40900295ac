"""A Parquet file as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.extras import extra_module
from .base import Dataset, Task
from .files import own_file
from .split import TEST_SHARE
from .table import Missing, Roles, Table, from_tables, wrong

#: The most bytes of a file, and of its table in memory: Parquet is compressed.
MAX_BYTES, MAX_UNPACKED = 2**32, 2**33


def load_parquet(
    path: str,
    label: str | list[str],
    client: str | None = None,
    test: float | None = None,
    test_path: str | None = None,
    task: Task = "classification",
    ignore: list[str] | None = None,
    categorical: list[str] | None = None,
    missing: Missing = "error",
) -> Dataset:
    """A Parquet table of your own, one sample per row; needs the extra ``parquet``.

    Its columns are used as those of ``csv``.

    Args:
        path: the file; relative to the current folder.
        label: the column with the label; several for the other tasks.
        client: the column that names each sample's client, for natural clients.
        test: the share of test samples, 0.2 by default; the split is stratified and always the same.
        test_path: a file with the test samples instead.
        task: classification, multilabel (columns of 0 and 1) or regression.
        ignore: columns to leave out.
        categorical: columns of numbers to take as categories.
        missing: a null is an "error", becomes the training part's "mean", or "drop"s its row.

    Raises:
        DataError: the file cannot be read, or a value is wrong; names file, row (from 1) and column.
        ParameterError: a column does not exist, a parameter does not fit, or the extra is missing.
    """
    roles = Roles(label, client, tuple(ignore or ()), tuple(categorical or ()), missing, task)
    if test is not None and test_path is not None:
        raise wrong("test", "give either test or test_path")
    train = read_parquet(own_file(path, MAX_BYTES))
    held = TEST_SHARE if test is None else test
    other = held if test_path is None else read_parquet(own_file(test_path, MAX_BYTES))
    return from_tables("parquet", train, other, roles)


def read_parquet(path: Path) -> Table:
    """The columns of a Parquet file.

    Raises:
        DataError: it is none, or has no row.
        ParameterError: the extra is missing.
    """
    parquet = extra_module("pyarrow.parquet", "parquet", "data parquet")
    arrow = extra_module("pyarrow", "parquet", "data parquet")
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.metadata
            groups = [metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups)]
            if sum(groups) > MAX_UNPACKED:
                raise DataError(f"{path} has more than {MAX_UNPACKED >> 20} MiB unpacked; use fewer samples")
            table = file.read()
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}") from None
    if table.num_rows == 0:
        raise DataError(f"{path} has no row; at least one sample is needed")
    columns: dict[str, Any] = {name: _values(table.column(name), arrow) for name in table.column_names}
    return Table(str(path), columns, lambda i: f"{path}: row {i + 1}")


def _values(column: Any, arrow: Any) -> Any:
    kinds = arrow.types
    if kinds.is_floating(column.type) or (kinds.is_integer(column.type) and column.null_count == 0):
        return column.to_numpy()  # a null becomes NaN
    return column.to_pylist()
