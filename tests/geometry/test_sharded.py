"""Updates in shards have the bits of updates in one memory."""

import pickle
from itertools import pairwise

import cloudpickle
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedguard import Guard, Round, ShardedUpdates, StreamedUpdates, Updates, make_aggregator, make_detector
from fedguard.core.errors import RoundError, StreamedError
from fedguard.geometry import blocks


class Elsewhere:
    """A shard whose work and results travel as bytes, as those of another process do."""

    def __init__(self, matrix):
        self.updates = Updates(matrix.contiguous())

    def submit(self, work):
        job = cloudpickle.dumps(work)
        return lambda: pickle.loads(pickle.dumps(pickle.loads(job)(self.updates)))  # noqa: S301


def sharded(matrix, edges):
    columns = [Elsewhere(matrix[:, a:b]) for a, b in pairwise(edges)]
    return ShardedUpdates(columns, edges, len(matrix))


@pytest.fixture(scope="module")
def matrix():
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(9, 4000, generator=draw) + torch.randn(4000, generator=draw)
    X[3] = X[2] * (1 + 1e-6)  # so close that their distance is computed anew
    return X


@pytest.fixture(params=[[0, 4000], [0, 1, 1000, 1701, 4000], [0, 512, 1024, 4000]], ids=str)
def both(request, matrix, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)  # blocks of 256 columns
    monkeypatch.setattr(blocks, "GROUP", 3)
    return Updates(matrix), sharded(matrix, request.param)


TABLES = ["norms", "finite", "mean", "inner_products", "centered_gram", "sq_distances", "cosines"]


@pytest.mark.parametrize("clients", [None, [4, 2, 3, 8]], ids=["all", "some"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_same_bits(both, name, clients):
    ours, theirs = (u if clients is None else u.take(clients) for u in both)
    assert np.array_equal(getattr(theirs, name), getattr(ours, name))


def test_the_order_of_sums_is_fixed_by_groups_of_blocks(both, monkeypatch):
    before = both[0].take([0, 1, 5]).inner_products
    monkeypatch.setattr(blocks, "GROUP", 2)
    assert torch.allclose(both[0].take([0, 1, 5]).inner_products, before, rtol=1e-14)


def test_vectors_rows_and_columns_have_the_same_bits(both, matrix):
    ours, theirs = both
    point = matrix[:3].mean(0)
    assert torch.equal(theirs.along(point), ours.along(point))
    assert torch.equal(theirs.distances_to(point), ours.distances_to(point))
    weights = np.linspace(0, 1, 18).reshape(2, 9)
    assert torch.equal(theirs.weighted_sum(weights), ours.weighted_sum(weights))
    which = torch.tensor([3999, 0, 1000, 999, 1700, 1701])
    assert torch.equal(theirs.columns(which), ours.columns(which))
    assert torch.equal(theirs.take([5, 1]).row(1), matrix[1])
    assert torch.equal(torch.cat(list(theirs.blocks()), 1), matrix.double())
    assert torch.equal(theirs.gram_about(2), ours.gram_about(2))


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "bulyan", "geometric_median", "meamed"])
def test_aggregators_have_the_same_bits(both, name):
    params = {"num_malicious": 1} if name in ("trimmed_mean", "krum", "bulyan", "meamed") else {}
    ours, theirs = (make_aggregator(name, **params)(Round(u)) for u in both)
    assert torch.equal(torch.as_tensor(theirs), torch.as_tensor(ours))


@pytest.mark.parametrize("name", ["krum", "dnc", "three_sigma", "rflbat"])
def test_a_guard_decides_alike(both, name):
    params = {"coordinates": 1000} if name == "dnc" else {}
    rounds = [Round(u, global_params=torch.ones(4000)) for u in both]
    ours, theirs = (Guard(make_detector(name, **params), "exclude").process(round_) for round_ in rounds)
    assert np.array_equal(theirs.suspects, ours.suspects)
    assert np.array_equal(theirs.scores, ours.scores)
    assert np.array_equal(theirs.aggregate, ours.aggregate)


def test_what_needs_the_whole_matrix_says_so(both):
    with pytest.raises(StreamedError, match="shards"):
        _ = both[1].matrix


@pytest.mark.parametrize("edges", [[0, 3, 3, 5], [0, 5]])
def test_every_shard_has_columns(edges):
    with pytest.raises(RoundError, match="at least one column"):
        ShardedUpdates([object(), object(), object()], edges, 4)


def test_many_clients_take_tiles(matrix, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "GROUP", 3)
    monkeypatch.setattr("fedguard.geometry.gram.TILE", 4)
    ours, theirs = Updates(matrix), sharded(matrix, [0, 700, 4000])
    assert torch.equal(theirs.sq_distances, ours.sq_distances)
    assert torch.equal(theirs.cosines, ours.cosines)


@pytest.mark.slow
def test_ray_actors_read_files(matrix, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    files = [tmp_path / f"{i}.safetensors" for i in range(len(matrix))]
    for file, row in zip(files, matrix, strict=True):
        save_file({"a": row[:1500].clone(), "b": row[1500:].clone()}, file)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)  # a group of blocks lies in two actors
    theirs = ShardedUpdates.on_ray(files, shards=3)
    assert torch.equal(theirs.sq_distances, StreamedUpdates(files).sq_distances)
    ours = Guard("krum", "exclude").process(Round(matrix))
    assert np.array_equal(Guard("krum", "exclude").process(Round(theirs)).aggregate, ours.aggregate)
