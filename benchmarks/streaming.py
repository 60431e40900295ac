"""Updates that do not fit into memory: what geometry costs when it is read from disk block by block.

    python benchmarks/streaming.py [--quick] [--clients 10] [--parameters 100000000] [--out FILE]

Writes synthetic updates as safetensors files (they are removed at the end) and computes the same things from
the files and from the loaded matrix, each in a process of its own: seconds, and the peak of resident memory
above what there was after the imports. The loaded side includes reading the files, as the streamed side does.
Nothing is evicted from the operating system's file cache in between: files that are larger than memory
cost the disk's time on top, for either side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import Row, extra_memory, limited, table
from safetensors.torch import load_file

from fedguard import StreamedUpdates, Updates
from fedguard.geometry.blocks import joined, ordered, ranges

SAMPLE = 10_000
THREADS = 4


def write_updates(folder: Path, n: int, d: int) -> list[Path]:
    """n files of d numbers: a common direction and as much noise of each client, block by block."""
    paths = [folder / f"{i}.safetensors" for i in range(n)]
    for i, path in enumerate(paths):
        rng = np.random.default_rng(1 + i)

        def block(part: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
            return part[0] + rng.standard_normal(part.shape[1], dtype=np.float32)

        if i == 0:
            _write_common(path, d)
        with limited(1):  # in order: the blocks share a generator
            StreamedUpdates(paths[:1]).write(path.with_suffix(".new"), block)
    for path in paths:
        path.with_suffix(".new").replace(path)
    return paths


def _write_common(path: Path, d: int) -> None:
    header = json.dumps({"update": {"dtype": "F32", "shape": [d], "data_offsets": [0, 4 * d]}}).encode()
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start, stop in ranges(1, d):
            file.write(rng.standard_normal(stop - start, dtype=np.float32).tobytes())


def _columns(updates: Updates, _: Path) -> object:
    which = torch.from_numpy(np.random.default_rng(0).integers(0, updates.d, SAMPLE))
    return updates.columns(which)


def _median(updates: Updates, out: Path) -> object:
    """The digest of the (d,) vector of medians."""
    middle = updates.n // 2

    def work(block: np.ndarray) -> np.ndarray:
        return ordered(block)[middle]

    if isinstance(updates, StreamedUpdates):
        updates.write(out, work)
    else:
        vector = joined(updates.map_blocks(work)).numpy()
        StreamedUpdates.write(_Whole(vector), out, lambda block: block[0])
    with out.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]


class _Whole(StreamedUpdates):
    """One vector in memory, so that both sides write the same file."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector

    n = property(lambda self: 1)
    d = property(lambda self: len(self.vector))

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> np.ndarray:
        return self.vector[None, start:stop]


WORK: dict[str, tuple[str, Callable[[Updates, Path], object]]] = {
    "finite": ("whose update is finite", lambda updates, _: updates.finite),
    "norms": ("norms", lambda updates, _: updates.norms),
    "gram": ("centerd Gram matrix", lambda updates, _: updates.centered_gram),
    "sq_distances": ("squared distances", lambda updates, _: updates.sq_distances),
    "cosines": ("cosines", lambda updates, _: updates.cosines),
    "columns": (f"{SAMPLE:,} random columns", _columns),
    "median": ("coordinate-wise median, into a file", _median),
}


def part(name: str, side: str, folder: Path) -> None:
    """One measurement, in this process; prints JSON."""
    torch.set_num_threads(THREADS)
    paths = sorted(folder.glob("*.safetensors"), key=lambda path: int(path.stem))

    def run() -> object:
        if side == "streamed":
            updates: Updates = StreamedUpdates(paths)
        else:
            matrix = torch.empty(len(paths), StreamedUpdates(paths).d)
            for row, path in zip(matrix, paths, strict=True):
                row.copy_(load_file(path)["update"])
            updates = Updates(matrix)
        return WORK[name][1](updates, folder / f"{name}.result")

    start = time.perf_counter()
    result, memory = extra_memory(run)
    seconds = time.perf_counter() - start
    text = json.dumps(np.asarray(result).tolist())
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(json.dumps({"seconds": seconds, "memory": memory, "digest": digest}))


def rows(quick: bool, n: int = 10, d: int | None = None, folder: Path | None = None) -> list[Row]:
    """One line for each piece of work."""
    d = d or (10**6 if quick else 10**8)
    repeats = 1 if quick else 3
    found = []
    with tempfile.TemporaryDirectory(prefix="fedguard-streaming-", dir=folder) as name:
        write_updates(Path(name), n, d)
        for work, (words, _) in WORK.items():
            ours = [_measured(work, "streamed", name) for _ in range(repeats)]
            theirs = [_measured(work, "loaded", name) for _ in range(repeats)]
            same = len({run["digest"] for run in (*ours, *theirs)}) == 1
            a, b = (float(np.median([run["seconds"] for run in runs])) for runs in (ours, theirs))
            found.append(
                Row(
                    f"{words}, {n} × {d:.0e} = {4e-9 * n * d:.2g} GB",
                    "loaded into memory",
                    ratio=b / a,
                    ours=a,
                    theirs=b,
                    our_memory=max(run["memory"] for run in ours),
                    their_memory=max(run["memory"] for run in theirs),
                    threads=THREADS,
                    repeats=repeats,
                    agreement="equal" if same else "DIFFERENT",
                )
            )
    return found


def _measured(work: str, side: str, folder: str) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--part", work, side, "--folder", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this script
    result: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs=2)
    given = parser.parse_args()
    if given.part:
        part(*given.part, given.folder)
        return
    found = rows(given.quick, given.clients, given.parameters, given.folder)
    largest = max(row.our_memory for row in found)
    whole = found[0].work.rpartition("= ")[2]
    text = (
        "# Updates streamed from disk\n\n"
        f"`python benchmarks/streaming.py{' --quick' if given.quick else ''}`: "
        f"{THREADS} threads, torch {torch.__version__}, NumPy {np.__version__}.\n\n"
        f"Extra memory at most {largest:.0f} MiB for {whole} of updates. Measured = seconds of the loaded "
        "side / seconds of the streamed one; both read the files, cached by the operating system.\n\n"
        f"{table(found)}\n"
    )
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
