"""SIGTERM and Ctrl-C: everything ends, nothing is left, and the same command gives the same results."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fedguard.cli.entry import main
from fedguard.core.interrupts import Terminated, deferred, terminating

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

SUITE = """\
data: {name: npz, path: PATH}
clients: 8
malicious: 2
rounds: 20
attacks: [none, byzantine]
defenses: {kr: {detector: krum}, dn: {detector: dnc}}
"""
#: A shell's background jobs ignore Ctrl-C.
PROGRAM = """\
import signal
from fedguard.cli.entry import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
"""
#: Two imports of FedGuard instead of three, as workers are forked from one process.
FORKED = """\
import multiprocessing as mp
if __name__ == "__main__" and "forkserver" in mp.get_all_start_methods():
    mp.set_forkserver_preload(["fedguard.evaluation.running.runner"])
    mp.context.SpawnProcess._Popen = staticmethod(mp.context.ForkServerProcess._Popen)
"""


def command(folder, workers):
    """The data come with their test part: to split digits, scikit-learn is imported, which takes a second."""
    draw = np.random.default_rng(0)
    inputs, labels = draw.random((500, 64), dtype=np.float32), np.arange(500) % 10
    parts = {"train_x": inputs[:400], "train_y": labels[:400], "test_x": inputs[400:], "test_y": labels[400:]}
    np.savez(folder / "data.npz", **parts)
    (folder / "s.yaml").write_text(SUITE.replace("PATH", str(folder / "data.npz")))
    out = str(folder / "out")
    return ["evaluate", str(folder / "s.yaml"), "--out", out, "--workers", str(workers), "--json-lines"]


@pytest.fixture
def scratch():
    """Where temporary files go: a short path, as sockets have it in their names."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def start(folder, scratch, forked):
    (folder / "program.py").write_text(forked * FORKED + PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(folder / "program.py"), *command(folder, 2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
    )


def run_here(folder):
    """The whole command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fedguard", *command(folder, 1)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0


def rows(out):
    tables = ("clients", "rounds")
    with closing(sqlite3.connect(out / "results.sqlite")) as db:
        return [db.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in tables]  # noqa: S608


def processes(session):
    """What still runs in a session, without zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run_here(folder)
    return rows(folder / "out")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "group", "code", "forked"),
    [
        (signal.SIGTERM, False, 143, True),
        pytest.param(signal.SIGTERM, False, 143, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, 143, True, marks=pytest.mark.slow),
        (signal.SIGINT, True, 130, True),
    ],
    ids=["TERM", "TERM, spawned", "TERM to all", "INT to all"],
)
def test_an_evaluation_ends_in_order_and_resumes(number, group, code, forked, whole, tmp_path, scratch):
    run = start(tmp_path, scratch, forked)
    while (line := run.stdout.readline()) and '"round"' not in line:
        pass
    assert line, run.stderr.read()
    (os.killpg if group else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=120)
    assert run.returncode == code, said
    assert "give the same command again to resume" in said
    assert "leaked" not in said
    assert "Traceback" not in said
    assert list(scratch.iterdir()) == []
    deadline = time.monotonic() + 20  # multiprocessing's own tracker ends after its parent
    while left := processes(run.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    if group:
        return  # one of them is resumed
    run_here(tmp_path)
    assert rows(tmp_path / "out") == whole


def test_terminating_raises_once_and_gives_the_handler_back():
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with terminating():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)  # ignored: clearing away is not interrupted

    with pytest.raises(Terminated) as caught:
        work()
    assert caught.value.__context__ is None, "once"
    assert signal.getsignal(signal.SIGTERM) == before


def test_deferred_signals_come_after_the_block():
    done = []

    def work():
        with terminating(), deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("work")

    with pytest.raises(Terminated):
        work()
    assert done == ["work"]
