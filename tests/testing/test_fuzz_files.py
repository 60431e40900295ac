"""Mutants of recordings, ledgers, results folders and suites: accepted, or refused with a typed error.

A few of each here, in a process that may be ended; ``make fuzz`` tries ten thousand of each
(benchmarks/results/fuzz.md).
"""

import numpy as np
import pytest

from fedguard.testing.fuzzing import kind_of
from fedguard.testing.fuzzing.driver import fuzz_in_workers
from fedguard.testing.fuzzing.table import failures_of

CASES = {"recordings": 24, "ledgers": 8, "results folders": 8, "suites": 18}


@pytest.mark.usefixtures("forked_workers")
def test_files_from_strangers():
    found = fuzz_in_workers(CASES, workers=1)
    assert failures_of(found) == []
    assert [tally.cases for tally in found.values()] == list(CASES.values())
    assert sum(tally.whole for tally in found.values()) >= sum(CASES.values()) / 2
    assert all(tally.verdicts["accepted"] and tally.verdicts["refused"] for tally in found.values())


def test_a_case_is_the_same_again(tmp_path):
    for name in ("recordings", "ledgers", "suites"):
        made = []
        for again in range(2):
            folder = tmp_path / f"{name}{again}"
            folder.mkdir()
            mutant = kind_of(name).make(np.random.default_rng(11), folder)
            files = {
                p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".yaml")
            }
            made.append((mutant.changes, mutant.whole, [step for step, _ in mutant.steps], files))
        assert made[0] == made[1]
