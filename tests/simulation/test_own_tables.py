"""Tables of one's own, CSV and Parquet: features by hand, natural clients, every mistake with its line."""

import tracemalloc

import numpy as np
import pytest
import torch

from fedguard.core.errors import DataError, ParameterError
from fedguard.simulation.datasets import load_dataset

HEADER = "age,ward,site,ill"


def table(count=20):
    """Rows of a small table: numbers, a category, a client, a class."""
    return [f"{20 + k},{'abc'[k % 3]},s{k % 4},{'yes' if k % 2 else 'no'}" for k in range(count)]


@pytest.fixture
def write(tmp_path):
    def made(rows, name="own.csv", header=HEADER):
        path = tmp_path / name
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return str(path)

    return made


def load(path, **params):
    return load_dataset("csv", path=path, **{"label": "ill", "client": "site", **params})


def test_features_labels_and_clients_by_hand(write):
    data = load(write(table()), test_path=write(["50,b,s9,yes", "60,z,s9,no"], "test.csv"))
    expected = [[20 + k, *(float(k % 3 == c) for c in range(3))] for k in range(20)]
    assert data.train.pixels.tolist() == expected
    assert data.train.labels.tolist() == [k % 2 for k in range(20)], "no, yes: in alphabetic order"
    assert data.clients.tolist() == [k % 4 for k in range(20)]
    assert data.client_names == ("s0", "s1", "s2", "s3")
    assert data.test.pixels.tolist() == [[50, 0, 1, 0], [60, 0, 0, 0]], (
        "a text of the test part alone gives zeros"
    )
    assert data.test.labels.tolist() == [1, 0]
    assert data.mean[0] == pytest.approx(29.5)
    assert data.std[0] == pytest.approx(np.arange(20).std())
    assert (data.num_classes, data.task) == (2, "classification")


def test_the_split_is_stratified_complete_and_always_the_same(write):
    path = write(table(50))
    data, again = load(path, test=0.3), load(path, test=0.3)
    assert data.fingerprint == again.fingerprint
    assert sorted(data.test.labels.bincount().tolist()) == [7, 8]
    ages = torch.cat([data.train.pixels[:, 0], data.test.pixels[:, 0]])
    assert sorted(ages.tolist()) == [20 + k for k in range(50)]
    assert data.clients.tolist() == [(int(age) - 20) % 4 for age in data.train.pixels[:, 0]]


def test_other_texts_of_the_test_part_do_not_become_features(write):
    rows = [f"{k},{'rare' if k == 0 else 'often'},s,{'yes' if k % 2 else 'no'}" for k in range(40)]
    for share in (0.2, 0.5):
        data = load(write(rows), test=share)
        ward = data.train.pixels[:, 1:]
        assert ward.sum(0).min() > 0, "each category is one of the training part"


def test_numbers_of_classes_are_ordered_as_numbers(write):
    rows = [f"{k},a,s,{(10, 9, -1)[k % 3]}" for k in range(30)]
    data = load(write(rows), test_path=write(rows[:3], "test.csv"))
    assert data.test.labels.tolist() == [2, 1, 0]


def test_numbers_can_be_categories_and_columns_are_left_out(write):
    rows = [f"{k % 2},x{k},s,{'yes' if k % 2 else 'no'}" for k in range(30)]
    data = load(write(rows), categorical=["age"], ignore=["ward"])
    assert data.input_shape == (2,)
    assert torch.equal(data.train.pixels[:, 1].long(), data.train.labels)


def test_missing_values_become_the_mean_of_the_training_part(write):
    rows = [*table(), ",b,s1,yes", "41,,s2,no"]
    path, test = write(rows), write([",,s1,yes", "1,a,s1,no"], "test.csv")
    data = load(path, test_path=test, missing="mean")
    mean = np.mean([*range(20, 40), 41])
    assert data.train.pixels[20, 0] == pytest.approx(mean)
    assert data.train.pixels[21].tolist() == [41, 0, 1, 0], "b is the most frequent of the training part"
    assert data.test.pixels[0].tolist() == pytest.approx([mean, 0, 1, 0])
    left = load(path, test_path=test, missing="drop")
    assert (len(left.train.labels), len(left.test.labels)) == (20, 1)


@pytest.mark.parametrize("text", ["", "NA", "nan", "NULL", "?", " "])
def test_what_counts_as_missing(write, text):
    rows = table()
    rows[6] = f"{text},a,s0,yes"
    with pytest.raises(
        DataError, match=r"own\.csv:8: column 'age': a value is missing \(in 1 of 20 rows\).*drop"
    ):
        load(write(rows))


def test_regression_and_several_labels(write):
    rows = [f"{k},{k % 2},{k / 4},{k % 3 % 2}" for k in range(20)]
    path = write(rows, header="x,a,b,c")
    one = load_dataset("csv", path=path, label="b", task="regression")
    assert one.train.labels.dtype == torch.float32
    assert one.train.labels[:, 0].tolist() == (one.train.pixels[:, 0] / 4).tolist()
    assert (one.num_classes, one.task) == (1, "regression")
    two = load_dataset("csv", path=path, label=["a", "c"], task="multilabel")
    assert two.train.labels.shape == (16, 2)
    assert two.input_shape == (2,)
    assert (two.num_classes, two.task) == (2, "multilabel")
    with pytest.raises(DataError, match=r"own\.csv:\d+: labels are \[.*\]; multilabel takes 0 and 1"):
        load_dataset("csv", path=path, label=["a", "b"], task="multilabel")


def damaged(line, text):
    rows = table()
    rows[line - 2] = text
    return rows


#: rows, parameters, the error, its message.
MISTAKES = {
    "no such label": (table(), {"label": "il"}, ParameterError, "no column 'il', did you mean 'ill'"),
    "no such client": (table(), {"client": "sit"}, ParameterError, "did you mean 'site'"),
    "no such ignored": (table(), {"ignore": ["wart"]}, ParameterError, "did you mean 'ward'"),
    "two roles": (table(), {"client": "ill"}, ParameterError, "two roles"),
    "several labels": (table(), {"label": ["ill", "age"]}, ParameterError, "task: multilabel"),
    "share": (table(), {"test": 1.5}, ParameterError, "between 0 and 1"),
    "two tests": (table(), {"test": 0.2, "test_path": "x"}, ParameterError, "either test or test_path"),
    "delimiter": (table(), {"delimiter": "ab"}, ParameterError, "one character"),
    "infinite": (damaged(7, "inf,a,s0,yes"), {}, DataError, r"own\.csv:7: column 'age': inf is infinite"),
    "too large": (damaged(7, "1e39,a,s0,yes"), {}, DataError, r"own\.csv:7: column 'age'"),
    "a slip": (damaged(9, "3O,a,s0,yes"), {}, DataError, r"own\.csv:9: column 'age': '3O' is not a number"),
    "a short line": (damaged(4, "30,a,s0"), {}, DataError, r"own\.csv:4: 3 values, but the header names 4"),
    "no label": (damaged(5, "30,a,s0,"), {"missing": "mean"}, DataError, r"own\.csv:5: column 'ill'"),
    "no client": (damaged(5, "30,a,,yes"), {}, DataError, r"own\.csv:5: column 'site'"),
    "a quote": (damaged(5, '30,"a"b,s0,yes'), {}, DataError, r"own\.csv:5: .*CSV"),
    "one class": ([r.replace("yes", "no") for r in table()], {}, DataError, "only one class"),
    "a lone sample": (damaged(5, "30,a,s0,maybe"), {}, DataError, "the class 'maybe' has a single sample"),
    "no line": ([], {}, DataError, "no line below"),
    "no numbers": (
        table(),
        {"label": "ward", "task": "regression"},
        DataError,
        "'ward' holds text such as 'a'",
    ),
    "names": ([f"1,n{k},s,{k % 2}" for k in range(40)], {}, DataError, "'ward' has 32 different texts"),
    "nothing left": (table(), {"ignore": ["age", "ward"]}, DataError, "no column is left"),
    "all dropped": (["1,,s,yes"] * 5, {"missing": "drop"}, DataError, "nothing is left"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_name_file_line_and_column(write, case):
    rows, params, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=message):
        load(write(rows), **params)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,,b\n1,2,3\n", "column 2 has no name"),
        (b"a,b\n1,1\n\xff,1\n", r":3: not UTF-8"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", r"own\.csv:2: field larger"),
    ],
)
def test_files_that_are_no_table(tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset("csv", path=str(path), label="a")


def test_lines_are_counted_as_an_editor_does(write):
    rows = [*table(4), '31,"a\nb",s0,yes', "", "oops,a,s0,yes", *table(20)]
    with pytest.raises(DataError, match=r"own\.csv:9: column 'age': 'oops' is not a number"):
        load(write(rows))


@pytest.mark.parametrize(("mark", "written"), [(";", '";"'), ("\t", r'"\t"'), ("|", '"|"')])
def test_another_delimiter_than_the_one_given_is_named(tmp_path, mark, written):
    path = tmp_path / "own.csv"
    path.write_text("\n".join([HEADER, *table()]).replace(",", mark), encoding="utf-8")
    with pytest.raises(ParameterError) as refused:
        load(str(path))
    assert f"set `delimiter: {written}`" in str(refused.value)
    assert refused.value.key == "delimiter"
    path.write_text("\n".join([HEADER, *table()]), encoding="utf-8")
    with pytest.raises(ParameterError, match='set `delimiter: ","`'):
        load(str(path), delimiter=";")


def test_a_byte_order_mark_and_another_delimiter(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("\n".join([HEADER, *table()]).replace(",", ";"), encoding="utf-8-sig")
    assert load(str(path), delimiter=";").input_shape == (4,)


def test_test_data_with_other_columns_are_refused(write):
    path = write(table())
    with pytest.raises(DataError, match="has no column 'ward', which"):
        load(path, test_path=write(["1,yes"], "t.csv", "age,ill"))
    with pytest.raises(DataError, match=r"t\.csv:2: column 'age': 'x' is not a number"):
        load(path, test_path=write(["x,a,s,yes"], "t.csv"))
    with pytest.raises(DataError, match="no training sample has the class 'maybe'"):
        load(path, test_path=write(["1,a,s,maybe"], "t.csv"))


def test_a_file_that_is_none_or_too_large(tmp_path, monkeypatch, write):
    from fedguard.simulation.datasets import csv_file

    with pytest.raises(DataError, match=r"nowhere\.csv is not a file; a relative path counts from"):
        load("nowhere.csv")
    with pytest.raises(DataError, match="is a folder"):
        load(str(tmp_path))
    monkeypatch.setattr(csv_file, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="MiB"):
        load(write(table()))


def test_names_of_columns_do_not_drive_the_terminal(write):
    path = write(table(), header="age,ward,si\x1b[31mte,ill")
    with pytest.raises(ParameterError, match="it has age") as caught:
        load(path)
    assert "\x1b" not in str(caught.value)
    assert caught.value.key == "client"


def test_one_long_text_does_not_make_all_texts_long(write):
    """In a NumPy array of texts, each takes as much memory as the longest: 2 GB here, from 120 KB."""
    rows = [f"{k},{'abc'[k % 3]},s{k % 4},{'yes' if k % 2 else 'no'}" for k in range(5000)]
    rows[7] = f"1,{'w' * 50_000},{'s' * 50_000},yes"
    path = write(rows)
    tracemalloc.start()
    try:
        data = load(path, test=0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25
    assert data.input_shape[0] in (4, 5)


def test_too_many_columns_are_refused_before_they_are_compared(write):
    header = ",".join(f"c{k}" for k in range(100_001))
    with pytest.raises(DataError, match=r"own\.csv:1: 100,001 columns; at most 100,000"):
        load(write(["1"], header=header))


# --- Parquet ----------------------------------------------------------------------------------------


def test_parquet_is_the_same_table(write, tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = write(table())
    pd.read_csv(path).to_parquet(tmp_path / "own.parquet")
    data = load_dataset("parquet", path=str(tmp_path / "own.parquet"), label="ill", client="site")
    assert data.fingerprint == load(path).fingerprint


def test_parquet_names_the_row(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "own.parquet"
    frame = pd.DataFrame({"x": [1.0, 2, None, 4] * 5, "n": [[1]] * 20, "y": [0, 1] * 10})
    frame.to_parquet(path)
    with pytest.raises(DataError, match=r"own\.parquet: row 3: column 'x': a value is missing"):
        load_dataset("parquet", path=str(path), label="y", ignore=["n"])
    with pytest.raises(DataError, match=r"own\.parquet: row 1: column 'n' holds list"):
        load_dataset("parquet", path=str(path), label="y", missing="mean")
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"own\.parquet cannot be read"):
        load_dataset("parquet", path=str(path), label="y")


@pytest.mark.parametrize("column", ["long text", "one number"])
def test_a_small_parquet_file_cannot_fill_the_memory(column, tmp_path, monkeypatch):
    """Its own account of its size counts a repeated value once: here a few KB for 80 MB and more."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from fedguard.simulation.datasets import parquet as reader

    values = ["A" * 40_000] * 2000 if column == "long text" else np.zeros(10**7)
    path = tmp_path / "own.parquet"
    parquet.write_table(arrow.table({"x": values, "y": np.arange(len(values)) % 2}), path)
    monkeypatch.setattr(reader, "MAX_UNPACKED", 2**22)
    before = arrow.total_allocated_bytes()
    with pytest.raises(DataError, match="has more than 4 MiB unpacked"):
        load_dataset("parquet", path=str(path), label="y")
    assert arrow.total_allocated_bytes() - before < 2**22


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "x.parquet").touch()
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[parquet\]"'):
        load_dataset("parquet", path=str(tmp_path / "x.parquet"), label="y")
