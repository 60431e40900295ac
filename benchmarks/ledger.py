"""What a ledger in a file costs: milliseconds per round, bytes per verdict, and forgetting sybils.

python benchmarks/ledger.py [FOLDER]      # a folder on the disk that is meant
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from fedguard import SQLiteLedger

REASON = "accepted: fedredefense score 0.0123; krum score 1234"


def rounds(ledger: SQLiteLedger, clients: range, count: int) -> tuple[float, float]:
    """Median seconds to look up everybody, and to write a round in which every tenth is a suspect."""
    reads, writes = [], []
    first = ledger.next_round()
    for index in range(first, first + count):
        start = time.perf_counter()
        ledger.view(clients)
        middle = time.perf_counter()
        with ledger.transaction():
            for client in clients:
                ledger.judge(client, index, 0.0123 * client, client % 10 == 0, REASON)
        reads.append(middle - start)
        writes.append(time.perf_counter() - middle)
    return statistics.median(reads), statistics.median(writes)


def main(folder: Path) -> None:
    print("| clients in the round | look up, ms | write and flush, ms |\n|---:|---:|---:|")
    for n in (10, 100, 1000):
        ledger = SQLiteLedger(folder / f"{n}.db")
        read, write = rounds(ledger, range(n), 20)
        print(f"| {n} | {1000 * read:.1f} | {1000 * write:.1f} |")
    ledger = SQLiteLedger(folder / "size.db", keep=50)
    rounds(ledger, range(1000), 120)
    size, kept = ledger.path.stat().st_size, sum(len(ledger.judgements(c)) for c in range(1000))
    print(f"\n{kept} verdicts of 1000 clients after 120 rounds with keep=50: {size / kept:.0f} bytes each")
    ledger = SQLiteLedger(folder / "sybils.db", max_clients=100_000)
    for block in range(100):
        with ledger.transaction():
            for k in range(1000):
                ledger.judge(f"sybil-{block}-{k}", block, 1.0, k % 2 == 0, REASON)
    start = time.perf_counter()
    ledger.judge("one more", 100, 1.0, False, REASON)
    seconds = time.perf_counter() - start
    print(f"forgetting a tenth of 100000 clients, once in 10000 new ones: {seconds:.2f} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
