"""Streamed updates: the bits of those in memory, never more than a block, and errors that say what to do."""

import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedguard import Guard, Round, StreamedUpdates, Updates, make_aggregator, make_detector
from fedguard.core.errors import RoundError, StreamedError
from fedguard.geometry import blocks
from fedguard.geometry.streamed import UpdateFile

N, D = 9, 5000
GEOMETRY = ("norms", "centered_gram", "inner_products", "sq_distances", "cosines", "mean")


def drawn(n=N, d=D, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw) + torch.randn(d, generator=draw)


def written(folder, matrix, save=lambda row: {"update": row}):
    files = {}
    for i, row in enumerate(matrix):
        files[f"client {i}"] = folder / f"{i}.safetensors"
        save_file(save(row.contiguous()), files[f"client {i}"])
    return files


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * N * 700)  # blocks of 700 columns, the last one shorter


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    matrix = drawn()
    files = written(tmp_path_factory.mktemp("updates"), matrix)
    return files, matrix


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_has_the_bits_of_updates_in_memory(pair, name):
    files, matrix = pair
    assert torch.equal(getattr(StreamedUpdates(files), name), getattr(Updates(matrix), name))


def test_blocks_rows_columns_and_sizes(pair):
    files, matrix = pair
    streamed = StreamedUpdates(list(files.values()))
    assert (streamed.n, streamed.d, len(streamed)) == (N, D, N)
    assert torch.equal(torch.cat(list(streamed.blocks()), 1), matrix.double())
    assert np.array_equal(streamed.block(690, 720, slice(2, 4)), matrix[2:4, 690:720].numpy())
    assert torch.equal(streamed.row(4), matrix[4])
    chosen = torch.tensor([4999, 0, 700, 699, 3])
    assert torch.equal(streamed.columns(chosen), matrix[:, chosen])
    assert torch.equal(Updates(matrix).columns(chosen), matrix[:, chosen])
    assert torch.equal(Updates(matrix).take([5, 2]).columns(chosen), matrix[[5, 2]][:, chosen])


def test_some_clients(pair):
    files, matrix = pair
    for warm in (False, True):
        streamed = StreamedUpdates(files)
        if warm:
            _ = [getattr(streamed, name) for name in (*GEOMETRY, "finite")]
        part = streamed.take([5, 2, 8])
        expected = Updates(matrix[[5, 2, 8]])
        assert torch.equal(torch.cat(list(part.blocks()), 1), expected.matrix.double())
        assert torch.equal(part.take([2, 0]).row(0), matrix[8])
        for name in GEOMETRY:
            torch.testing.assert_close(getattr(part, name), getattr(expected, name), rtol=1e-12, atol=1e-9)
        assert torch.equal(part.columns(torch.tensor([7, 1])), matrix[[5, 2, 8]][:, [7, 1]])
    assert streamed.take(range(N)) is streamed


def test_near_duplicates_are_told_apart(tmp_path):
    matrix = drawn(5)
    matrix[3] = matrix[1] * (1 + 1e-6)
    streamed = StreamedUpdates(written(tmp_path, matrix))
    exact = ((matrix[1].double() - matrix[3].double()) ** 2).sum()
    assert float(streamed.sq_distances[1, 3]) == pytest.approx(float(exact), rel=1e-9)


def test_several_tensors_of_several_types_in_one_file(tmp_path):
    """Oracle: the safetensors library's own reader."""

    def save(row):
        return {
            "w": row[:3000].view(60, 50),
            "b": row[3000:3010].to(torch.bfloat16),
            "empty": row[:0],
            "h": row[3010:4000].half(),
            "d": row[4000:].double(),
        }

    files = written(tmp_path, drawn(), save)
    names = ["b", "w", "empty", "h", "d"]
    rows = [torch.cat([load_file(path)[name].flatten().float() for name in names]) for path in files.values()]
    streamed = StreamedUpdates(files, names)
    assert torch.equal(torch.cat(list(streamed.blocks()), 1), torch.stack(rows).double())
    some = torch.tensor([9, 10, 11, 2999, 4999])
    assert torch.equal(streamed.columns(some), torch.stack(rows)[:, some])
    assert StreamedUpdates(files).d == D


def test_unusable_updates_are_found(tmp_path):
    matrix = drawn(4)
    matrix[2, 1234] = torch.nan
    assert Round(StreamedUpdates(written(tmp_path, matrix))).problems == (
        None,
        None,
        "non-finite update",
        None,
    )


WORKING = {
    "krum": {"num_malicious": 2},
    "dnc": {"num_malicious": 2, "coordinates": 1000},
    "foolsgold": {"memory": False},
    "norm_bound": {},
    "afa": {},
    "rflbat": {},
}


@pytest.mark.parametrize("name", WORKING)
def test_detectors_that_work_on_geometry_or_columns_do_not_notice(pair, name):
    files, matrix = pair
    params = WORKING[name]
    ids = list(files)
    streamed = make_detector(name, **params)(Round(StreamedUpdates(files), client_ids=ids))
    loaded = make_detector(name, **params)(Round(matrix, client_ids=ids))
    assert np.array_equal(streamed.values, loaded.values)


@pytest.mark.parametrize(
    "name", ["mean", "median", "trimmed_mean", "krum", "bulyan", "geometric_median", "centered_clipping"]
)
def test_aggregators_do_not_notice(pair, name):
    files, matrix = pair
    streamed = make_aggregator(name)(Round(StreamedUpdates(files)))
    assert torch.equal(streamed, make_aggregator(name)(Round(matrix)))


def test_a_guard_runs_on_streamed_updates(pair):
    files, matrix = pair

    def judged(updates):
        guard = Guard([make_detector("krum", num_malicious=2), make_detector("norm_bound")])
        return guard.process(Round(updates, client_ids=list(files)))

    streamed, loaded = judged(StreamedUpdates(files)), judged(matrix)
    assert torch.equal(streamed.aggregate, loaded.aggregate)
    assert streamed.reasons == loaded.reasons


def test_what_needs_the_whole_matrix_is_refused_with_its_size(pair):
    files, _ = pair
    with pytest.raises(StreamedError, match=r"streamed from disk.*\(9 x 5000, 0\.00018 GB\)"):
        _ = StreamedUpdates(files).matrix
    with pytest.raises(StreamedError, match="streamed from disk"):
        make_detector("foolsgold")(Round(StreamedUpdates(files)))


def test_order_statistics_are_written_block_by_block(pair, tmp_path):
    files, matrix = pair
    widths = []

    def median(block):
        widths.append(block.shape)
        return np.median(block, 0)

    StreamedUpdates(files).write(tmp_path / "median.safetensors", median, "median")
    found = load_file(tmp_path / "median.safetensors")
    assert list(found) == ["median"]
    assert torch.equal(found["median"], matrix.median(0).values), "of nine clients, one is in the middle"
    assert max(width for _, width in widths) == 700


def test_nothing_is_written_through_a_link_or_in_part(pair, tmp_path):
    files, _ = pair
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with pytest.raises(OSError, match="link is a link"):
        StreamedUpdates(files).write(tmp_path / "link", lambda block: block[0])
    with pytest.raises(ZeroDivisionError):
        StreamedUpdates(files).write(tmp_path / "kept", lambda block: 1 / 0)
    assert (tmp_path / "kept").read_text() == "kept"


def test_no_read_is_larger_than_a_block(pair, monkeypatch):
    files, _ = pair
    reads, read = [], UpdateFile.read
    monkeypatch.setattr(UpdateFile, "read", lambda self, a, b: reads.append(b - a) or read(self, a, b))
    streamed = StreamedUpdates(files)
    _ = streamed.sq_distances, streamed.norms, streamed.finite
    assert max(reads) == 700


def broken_files(folder):
    first, second = folder / "0.safetensors", folder / "1.safetensors"
    save_file({"a": torch.zeros(10)}, first)

    def other(tensors):
        save_file(tensors, second)

    def raw(data):
        second.write_bytes(data)

    whole = first.read_bytes()
    yield "cannot be read", lambda: second.unlink(missing_ok=True)
    yield "not a safetensors file", lambda: raw(b"")
    yield "not a safetensors file", lambda: raw(b"hello world, this is no header")
    yield "not a safetensors file", lambda: raw(struct.pack("<Q", 4) + b"[{}]")
    yield "shorter than its header says", lambda: raw(whole[:-4])
    yield "same tensors", lambda: other({"b": torch.zeros(10)})
    yield "same tensors", lambda: other({"a": torch.zeros(10), "b": torch.zeros(1)})
    yield "different shapes", lambda: other({"a": torch.zeros(11)})
    yield "different shapes", lambda: other({"a": torch.zeros(2, 5)})
    yield "holds I64", lambda: other({"a": torch.zeros(10, dtype=torch.int64)})


@pytest.mark.parametrize("case", range(10))
def test_files_that_do_not_fit_are_refused(tmp_path, case):
    message, spoil = list(broken_files(tmp_path))[case]
    spoil()
    with pytest.raises(RoundError, match=message):
        _ = StreamedUpdates([tmp_path / "0.safetensors", tmp_path / "1.safetensors"]).norms


def test_no_files_at_all():
    with pytest.raises(RoundError, match="at least one"):
        StreamedUpdates({})
