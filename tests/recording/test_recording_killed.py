"""kill -9 while a recorder writes: what the index names is whole, and the recording goes on."""

import os
import random
import signal
import sys
import time

import numpy as np
import pytest

from fedguard import Guard, Round
from fedguard.recording import Recorder, Recording


def round_of(index):
    """A round that can be told from all others."""
    return Round(np.full((3, 2000), index, dtype="float32"), index=index)


def record_on(folder):
    """Record until somebody kills this process."""
    with Recorder(folder, max_bytes=400_000) as recorder:
        known = Recording(folder).index.rounds
        guard = Guard(observers=[recorder])
        for index in range(known[-1].index + 1 if known else 0, 10**6):
            guard.process(round_of(index))


def newest(folder):
    """The last round that the index names; -1 if there is none."""
    if not (folder / "recording.json").exists():
        return -1
    known = Recording(folder).index.rounds
    return known[-1].index if known else -1


def killed_while_recording(folder, seconds):
    before = newest(folder)
    child = os.fork()
    if child == 0:
        try:
            record_on(folder)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while newest(folder) == before and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended on its own"


def survives(folder, kills):
    chance, last, torn = random.Random(kills), -1, 0  # noqa: S311
    for _ in range(kills):
        killed_while_recording(folder, chance.uniform(0, 0.03))
        recording = Recording(folder)
        problems = recording.check()
        assert all("not in the index" in problem for problem in problems), problems
        torn += len(problems)
        indices = [recorded.round.index for recorded in recording]
        if indices:
            assert indices == list(range(indices[0], indices[-1] + 1))
            assert indices[-1] >= last, "what was recorded is not lost"
            last = indices[-1]
        for recorded in recording:
            assert (recorded.round.updates.matrix == recorded.round.index).all()
    assert last >= kills - 1, "it did get on"
    record_one_more(folder, last)
    return torn


def record_one_more(folder, last):
    with Recorder(folder, max_bytes=400_000) as recorder:
        Guard(observers=[recorder]).process(round_of(last + 1))
    recording = Recording(folder)
    assert recording.check() == [], "what the dead ones left has been cleared away"
    assert recording.index.rounds[-1].index == last + 1


pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no fork, no SIGKILL"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_ten_kills(tmp_path):
    survives(tmp_path, 10)


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    assert survives(tmp_path, 100) > 0, "at least one of them came at a bad moment"
