"""Partitioners of flwr-datasets: with the library if it is here, and with a stand-in of it."""

import sys
import types

import numpy as np
import pytest

from fedguard.core.errors import ParameterError
from fedguard.simulation.partitions import make_partition, split_samples
from fedguard.simulation.partitions.flwr_datasets import flwr_partition, parts_of

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 80))


class Table:
    """As much of a Hugging Face table as a partitioner needs."""

    def __init__(self, columns):
        self.columns = columns

    @classmethod
    def from_dict(cls, columns):
        return cls(columns)

    def __getitem__(self, name):
        return self.columns[name]

    @property
    def column_names(self):
        return list(self.columns)

    def select(self, rows):
        return Table({name: [column[i] for i in rows] for name, column in self.columns.items()})


class EvenPartitioner:
    """Row i of the table goes to part i mod n."""

    def __init__(self, num_partitions: int, seed: int = 42, step: int = 1):
        self.num_partitions, self.seed, self.step = num_partitions, seed, step

    def load_partition(self, partition_id):
        rows = range(partition_id, len(self.dataset["row"]), self.num_partitions * self.step)
        return self.dataset.select(rows)


class ColumnPartitioner(EvenPartitioner):
    """Deals columns."""

    def load_partition(self, partition_id):
        return Table({"label": self.dataset["label"]})


class NaturalIdPartitioner(EvenPartitioner):
    """One part for each value of a column."""

    def __init__(self, partition_by: str):
        self.partition_by = partition_by

    @property
    def num_partitions(self):
        return len(set(self.dataset[self.partition_by]))

    def load_partition(self, partition_id):
        column = self.dataset[self.partition_by]
        name = sorted(set(column))[partition_id]
        return self.dataset.select([i for i, value in enumerate(column) if value == name])


class BrokenPartitioner(EvenPartitioner):
    """Raises what the library raises."""

    def load_partition(self, partition_id):
        raise ValueError("the moon is not full")


@pytest.fixture
def library(monkeypatch):
    """A stand-in of flwr_datasets and of Hugging Face datasets."""
    known = (EvenPartitioner, ColumnPartitioner, NaturalIdPartitioner, BrokenPartitioner)
    partitioner = types.ModuleType("flwr_datasets.partitioner")
    partitioner.__dict__.update({cls.__name__: cls for cls in known})
    partitioner.__all__ = [*(cls.__name__ for cls in known), "Partitioner"]
    tables = types.ModuleType("datasets")
    tables.Dataset = Table
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", partitioner)
    monkeypatch.setitem(sys.modules, "datasets", tables)
    flwr_partition.cache_clear()
    yield
    flwr_partition.cache_clear()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_rows_are_those_of_the_partitioner(library):
    """By hand: the table is in the generator's order, and the part of a client is every fourth row of it."""
    parts = make_partition("flwr:EvenPartitioner", LABELS, 4, rng())
    draws = rng()
    draws.integers(2**31)
    order = draws.permutation(len(LABELS))
    assert all(np.array_equal(part, np.sort(order[k::4])) for k, part in enumerate(parts))
    half = make_partition("flwr:EvenPartitioner", LABELS, 4, rng(), step=2)
    assert sum(map(len, half)) == 200


def test_natural_ids(library):
    groups = np.repeat([3, 1, 2, 2], 100)
    parts = split_samples("flwr:NaturalIdPartitioner", LABELS, 3, rng(), {"groups": groups}, {}).parts
    assert [set(groups[part]) for part in parts] == [{1}, {2}, {3}]


@pytest.mark.parametrize(
    ("name", "n", "params", "message"),
    [
        ("EvenPartitoner", 4, {}, "did you mean 'EvenPartitioner'"),
        ("Partitioner", 4, {}, "no partitioner flwr:Partitioner"),
        ("EvenPartitioner", 4, {"stpe": 1}, "flwr:EvenPartitioner: unknown parameter 'stpe', did you mean"),
        ("EvenPartitioner", 4, {"num_partitions": 5}, "it makes 5 parts; set `clients`, which is 4"),
        ("ColumnPartitioner", 4, {}, "deals columns"),
        ("NaturalIdPartitioner", 4, {}, "does not say which client"),
        ("BrokenPartitioner", 4, {}, "flwr:BrokenPartitioner: the moon is not full"),
        ("EvenPartitioner", 401, {}, "401 clients"),
    ],
)
def test_mistakes_are_named(library, name, n, params, message):
    with pytest.raises(ParameterError, match=message):
        make_partition(f"flwr:{name}", LABELS, n, rng(), **params)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    flwr_partition.cache_clear()
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[flwr-datasets\]"'):
        make_partition("flwr:IidPartitioner", LABELS, 4, rng())


def test_any_object_that_loads_partitions_will_do():
    made = EvenPartitioner(2)
    made.dataset = Table({"row": [4, 2, 0]})
    assert [part.tolist() for part in parts_of(made, 2)] == [[4, 0], [2]]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("IidPartitioner", {}),
        ("DirichletPartitioner", {"alpha": 0.5}),
        ("ShardPartitioner", {"num_shards_per_partition": 2}),
        ("PathologicalPartitioner", {"num_classes_per_partition": 2}),
        ("LinearPartitioner", {}),
        ("NaturalIdPartitioner", {}),
    ],
)
def test_the_library(name, params):
    pytest.importorskip("flwr_datasets")
    groups = np.arange(400) % 4

    def make(seed):
        return split_samples(f"flwr:{name}", LABELS, 4, rng(seed), {"groups": groups}, params).parts

    parts, again = make(0), make(0)
    assert all(map(np.array_equal, parts, again))
    if name != "PathologicalPartitioner":
        assert sum(map(len, parts)) == 400
    else:
        assert {len(np.unique(LABELS[part])) for part in parts} == {2}
    if name == "NaturalIdPartitioner":
        assert [np.unique(groups[part]).tolist() for part in parts] == [[0], [1], [2], [3]]
    else:
        assert not all(map(np.array_equal, parts, make(1))), "the federation's seed decides"


def test_a_suite_with_the_library():
    pytest.importorskip("flwr_datasets")
    from fedguard.evaluation.suites.check import check_suite
    from fedguard.evaluation.suites.load import load_suite

    plan, source = load_suite("quickstart", ["partition={name: 'flwr:DirichletPartitioner', alpha: 1.0}"])
    check_suite(plan, source)
