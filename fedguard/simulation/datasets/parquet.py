"""A Parquet file as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.extras import extra_module
from .base import Dataset, Task
from .files import own_file
from .split import TEST_SHARE
from .table import MAX_FEATURES, Missing, Roles, Table, from_tables, wrong

#: The most bytes of a file, and of its table in memory: Parquet is compressed.
MAX_BYTES, MAX_UNPACKED = 2**32, 2**33
#: Rows that are read at a time.
BATCH = 2**14


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
        columns, count = _read(path, parquet, arrow)
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}") from None
    if count == 0:
        raise DataError(f"{path} has no row; at least one sample is needed")
    return Table(str(path), columns, lambda i: f"{path}: row {i + 1}")


def _read(path: Path, parquet: Any, arrow: Any) -> tuple[dict[str, Any], int]:
    """The columns, and the number of rows; what it unpacks to is counted before any text is copied."""
    schema = parquet.read_schema(path)
    if len(schema) > MAX_FEATURES:
        raise DataError(f"{path}: {len(schema):,} columns; at most {MAX_FEATURES:,} can be read")
    texts = [field.name for field in schema if _is_text(field.type, arrow.types)]
    plain = [field.name for field in schema if _is_plain(field.type, arrow.types)]
    batches, size = [], 0
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=plain):
            size += sum(_bytes(column, arrow) for column in batch.columns)
            if size > MAX_UNPACKED:
                raise DataError(f"{path} has more than {MAX_UNPACKED >> 20} MiB unpacked; use fewer samples")
            batches.append(batch)
        count = file.metadata.num_rows
    if not batches:
        return {}, 0
    table = arrow.Table.from_batches(batches)
    if plain and len(table) != count:
        raise DataError(f"{path}: {len(table)} rows, but it announces {count}")
    # What is neither numbers nor texts is not read: a list, which no column may hold, stands for it.
    return {name: _values(table.column(name), arrow) if name in plain else [[]] * count
            for name in schema.names}, count  # fmt: skip


def _is_text(kind: Any, kinds: Any) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _is_plain(kind: Any, kinds: Any) -> bool:
    """Whether a column holds numbers, texts or times, one per row, of a size that can be told."""
    if kinds.is_dictionary(kind):
        return _is_plain(kind.value_type, kinds)
    numbers = kinds.is_primitive(kind) or kinds.is_decimal(kind) or kinds.is_null(kind)
    return bool(numbers or _is_text(kind, kinds))


def _bytes(column: Any, arrow: Any) -> int:
    """What part of a column takes with every text written out; in the file, each is stored once."""
    if not arrow.types.is_dictionary(column.type) or not _is_text(column.type.value_type, arrow.types):
        return int(column.nbytes)
    compute = extra_module("pyarrow.compute", "parquet", "data parquet")
    lengths = compute.binary_length(column.dictionary)
    return int(compute.sum(lengths.take(column.indices)).as_py() or 0) + 8 * len(column)


def _values(column: Any, arrow: Any) -> Any:
    kinds = arrow.types
    if kinds.is_floating(column.type) or (kinds.is_integer(column.type) and column.null_count == 0):
        return column.to_numpy()  # a null becomes NaN
    return column.to_pylist()
