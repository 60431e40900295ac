"""Interrupted at any moment and run again: the same bits as without the interruption."""

import json
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing

import pytest
import torch
from filelock import FileLock

from fedguard.cli.entry import main
from fedguard.core.errors import ResultsError
from fedguard.evaluation.results import code
from fedguard.evaluation.results.folders import folder_for
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.checkpoint import Checkpoint
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

#: Everything that remembers: histories, bans and parole, sybils, learnt thresholds, stateful attacks.
SUITE = """\
data: digits
partition: {name: dirichlet, beta: 1.0}
model: logistic_regression
clients: 8
malicious: 2
rounds: 5
participation: 0.8
training: {epochs: 1, batch_size: 32, lr: 0.1}
attacks:
  returning: {name: byzantine, mode: random, schedule: {start: 1, rejoin_after: 1}}
  adaptive: {name: adaptive, attack: {name: scaling_backdoor}}
defenses:
  foolsgold: {detector: foolsgold, policy: reweight}
  ban: {detector: {name: krum, select: m_krum}, policy: {name: ban, duration: 2, parole: 1, rule: mad}}
  learnt: {detector: dnc, policy: {name: exclude, rule: {name: calibrated, rounds: 2, rate: 0.2}}}
  voted: {detector: foolsgold, flcert: {groups: 2}}
  knowledge:
    detector: {name: fedredefense, num_images: 2, inner_steps: 2, first_iterations: 2, later_iterations: 2}
"""


def write(folder, text=SUITE):
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def dump(store):
    with closing(sqlite3.connect(store.path)) as db:
        tables = ("runs", "clients", "rounds", "meta")
        return {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2").fetchall() for t in tables}  # noqa: S608


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    suite, _ = load_suite(write(folder))
    store = run_suite(suite, folder / "out", workers=1)
    assert set(store.finished().values()) == {"done"}
    return suite, dump(store)


class Stop(BaseException):
    """An interruption between two rounds."""


@pytest.mark.thin(2)
@pytest.mark.parametrize(
    "rounds",
    [1, pytest.param(7, marks=pytest.mark.slow), 12, 23, pytest.param(39, marks=pytest.mark.slow), 48],
)
@pytest.mark.parametrize("parallel", ["cells", "clients"])
def test_interrupted_between_any_two_rounds(whole, tmp_path, rounds, parallel):
    suite, expected = whole
    suite = suite.model_copy(update={"parallel": parallel})
    left = [rounds]

    def interrupt(_cell, _index):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    with pytest.raises(Stop):
        run_suite(suite, tmp_path / "out", 1, on_round=interrupt, checkpoint_seconds=0)
    ran = []
    store = run_suite(
        suite, tmp_path / "out", 1, on_round=lambda cell, index: ran.append(index), checkpoint_seconds=0
    )
    assert len(ran) == 50 - rounds, "no round is run twice"
    assert {key: rows for key, rows in dump(store).items() if key != "runs"} == {
        key: rows for key, rows in expected.items() if key != "runs"
    }
    assert [row[:-1] for row in dump(store)["runs"]] == [row[:-1] for row in expected["runs"]]
    assert not list((tmp_path / "out" / "checkpoints").iterdir())


def test_a_finished_suite_is_not_run_again(whole, tmp_path):
    suite, _ = whole
    small = suite.model_copy(update={"attacks": {"none": load_suite("quickstart")[0].attacks["none"]}})
    run_suite(small, tmp_path / "out", workers=1)
    ran = []
    run_suite(small, tmp_path / "out", workers=2, on_cell=ran.append)
    assert ran == []


# --- checkpoints


def test_a_torn_checkpoint_is_noticed_and_the_one_before_used(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c" / "x.ckpt", 0)
    assert checkpoint.load() is None
    checkpoint.save({"round": 1, "w": torch.arange(3.0)})
    checkpoint.save({"round": 2, "w": torch.arange(3.0)})
    data = checkpoint.path.read_bytes()
    for torn in (data[:-1], data[:40], b"", data[:50] + b"?" + data[51:]):
        checkpoint.path.write_bytes(torn)
        assert checkpoint.load()["round"] == 1
    checkpoint.path.with_suffix(".old").write_bytes(b"?")
    assert checkpoint.load() is None
    checkpoint.path.write_bytes(data)
    assert checkpoint.load()["round"] == 2
    checkpoint.clear()
    assert list(checkpoint.path.parent.iterdir()) == []


def test_checkpoints_are_written_no_more_often_than_asked_for(tmp_path):
    rare, always = Checkpoint(tmp_path / "rare.ckpt", 1e6), Checkpoint(tmp_path / "always.ckpt", 0)
    for k in range(2):
        rare.offer(lambda: pytest.fail("nobody asked for a state"))
        always.offer(lambda k=k: {"k": k})
    assert not rare.path.exists()
    assert always.load() == {"k": 1}


def test_a_checkpoint_that_cannot_be_written_is_no_fault_of_the_run(whole, tmp_path):
    suite, _ = whole
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").write_text("in the way")
    with pytest.raises(ResultsError, match=r"cannot write the state .*checkpoints"):
        run_suite(suite, tmp_path / "out", 1, checkpoint_seconds=0)
    assert Store(tmp_path / "out").finished() == {}


# --- folders


def test_an_unfinished_folder_is_gone_on_with_and_a_finished_one_is_not(whole, tmp_path):
    suite, _ = whole
    base = tmp_path / "tiny"
    assert folder_for(base, suite) == base
    store = Store.create(base, suite)
    assert folder_for(base, suite) == base
    other = suite.model_copy(update={"rounds": 6})
    assert folder_for(base, other) == tmp_path / "tiny-2"
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE meta SET value = 'elsewhere'")
    assert folder_for(base, suite) == tmp_path / "tiny-2"
    with pytest.raises(ResultsError, match=r"of another version of the code .elsewhere"):
        run_suite(suite, base, 1)


@pytest.fixture
def sources(monkeypatch):
    """Replaces FedGuard's code, as far as its version is concerned, by one file."""

    def replace(text):
        monkeypatch.setattr(code, "_all_sources", lambda: {"fedguard.detectors/krum.py": text})
        for kept in (code.code_version, code.functional_code):
            kept.cache_clear()

    yield replace
    for kept in (code.code_version, code.functional_code):
        kept.cache_clear()


def test_a_comment_does_not_block_a_resume_and_a_change_is_named(whole, tmp_path, sources):
    suite, _ = whole

    def create(text, force=False):
        sources(text)
        return Store.create(tmp_path, suite, force).code

    before = create(b"Y = 2\n")
    assert create(b"# A comment.\n\n\nY = 2\n") == before
    with pytest.raises(
        ResultsError, match=r"code .*: fedguard\.detectors/krum\.py has changed since.*--force"
    ):
        create(b"Y = 3\n")
    forced = create(b"Y = 3\n", force=True)
    assert forced == f"{before}, then {code.code_version()}"
    assert create(b"Y = 3  # three\n") == forced
    with pytest.raises(ResultsError, match=r"krum\.py has changed since"):
        create(b"Y = 2\n")


def test_files_that_only_show_results_do_not_count(monkeypatch):
    """Neither now, nor in what an earlier version noted when it still counted them."""
    sources = {"fedguard/evaluation/results/plot.py": b"Y = 2\n", "fedguard/guard.py": b"Y = 2\n"}
    monkeypatch.setattr(code, "_all_sources", lambda: sources)
    code.functional_code.cache_clear()
    counted = json.loads(code.functional_code())
    code.functional_code.cache_clear()
    assert counted.keys() == {"python", "fedguard/guard.py"}
    monkeypatch.setattr(code, "functional_code", lambda: json.dumps(counted))
    before = {**counted, "fedguard/evaluation/results/plot.py": "0"}
    assert code._changed(json.dumps(before)) == ""
    assert (
        code._changed(json.dumps({**before, "fedguard/gone.py": "0"})) == "fedguard/gone.py has changed since"
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (b'"""Other words."""\ndef f(x):\n    # why\n    return x + 1\n', True),
        (b'def f(x):\n    """What it does."""\n    return (x\n            + 1)\n', True),
        (b"def f(x):\n    return x + 2\n", False),
        (b"def f(x):\n    return x + 1\n\n\nf(1)\n", False),
        (b"def f(x):\n    '#'\n    return x + 1\n", True),
        (b"def f(x, y='#'):\n    return x + 1\n", False),
    ],
)
def test_only_functional_code_counts(text, same):
    assert (code.functional_digest(text) == code.functional_digest(b"def f(x):\n    return x + 1\n")) == same


@pytest.mark.parametrize("wreck", ["", "PRAGMA user_version = 0"])
def test_a_store_that_was_never_finished_is_started_again(whole, tmp_path, wreck):
    suite, _ = whole
    (tmp_path / "results.sqlite").touch()
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as db, db:
        db.executescript(wreck)
    assert Store.create(tmp_path, suite).finished() == {}


def test_two_processes_do_not_write_to_one_folder(whole, tmp_path):
    suite, _ = whole
    Store.create(tmp_path, suite)
    with FileLock(tmp_path / "lock"), pytest.raises(ResultsError, match="another process is writing to"):
        run_suite(suite, tmp_path, 1)


def test_failed_runs_are_run_again_on_request_only(tmp_path, monkeypatch, capsys):
    from fedguard.contracts.registry import make_detector

    path = write(tmp_path, SUITE.replace("rounds: 5", "rounds: 1"))
    args = ["evaluate", str(path), "attacks=[none]", "--out", str(tmp_path / "out"), "--workers", "1"]

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["fedguard", *args, *more])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    with monkeypatch.context() as broken:
        broken.setattr(type(make_detector("dnc")), "score", lambda self, round: [float("nan")] * round.n)
        status, said = call()
        assert status == 1
        assert "failed: none × learnt" in said.err
    status, said = call()
    assert status == 1, "the failure is still there"
    assert "0 runs in" in said.out
    status, said = call("--retry-failed")
    assert status == 0
    assert "1 runs in" in said.out


# --- kill -9


def said(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""


def killed(tmp_path, kills, seed, python):
    """Run the suite in two processes, kill it ``kills`` times after some more rounds, and end it here."""
    path, out = write(tmp_path), tmp_path / "out"
    script = (
        "from pathlib import Path; import sys\n"
        "from fedguard.evaluation.running.runner import run_suite\n"
        "from fedguard.evaluation.suites.load import load_suite\n"
        "import multiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    if 'forkserver' in mp.get_all_start_methods():\n"  # one import instead of two
        "        mp.set_forkserver_preload(['fedguard.evaluation.running.runner'])\n"
        "        mp.context.SpawnProcess._Popen = staticmethod(mp.context.ForkServerProcess._Popen)\n"
        "    suite, _ = load_suite(sys.argv[1])\n"
        "    say = lambda cell, index: print('round', flush=True)\n"
        "    run_suite(suite, Path(sys.argv[2]), 2, on_round=say, checkpoint_seconds=0)\n"
    )
    draw, died = random.Random(seed), 0  # noqa: S311
    for _ in range(kills):
        running, rounds = python("-c", script, path, out), draw.randint(0, 50 // kills)
        while running.process.is_alive() and said(running.out).count("round") < rounds:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))
        running.process.kill()
        died += running.wait().returncode == -signal.SIGKILL
        time.sleep(0.3)  # workers notice that their parent is gone
    return run_suite(load_suite(path)[0], out, 1), died


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_killed_at_random_moments(whole, tmp_path, seed, python):
    kills = 5 if seed else 1
    store, died = killed(tmp_path, kills, seed, python)
    assert died == kills
    assert dump(store) == whole[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_at_a_hundred_random_moments(whole, tmp_path, seed, python):
    store, _ = killed(tmp_path, 10, seed, python)
    assert dump(store) == whole[1]


def test_a_full_disk_loses_no_stored_row_and_the_suite_goes_on_afterwards(whole, tmp_path, python):
    """The disk is full at 60 kB per file: a limit of the operating system, in a process of its own."""
    pytest.importorskip("resource")
    path = write(tmp_path)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from fedguard.evaluation.suites.load import load_suite\n"
        "from fedguard.evaluation.running.runner import run_suite\n"
        "suite, _ = load_suite(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "run_suite(suite, Path(sys.argv[2]), workers=1)\n"
    )
    done = python("-c", code, path, tmp_path / "out").wait()
    assert done.returncode != 0
    assert "ResultsError" in done.stderr, done.stderr
    assert str(tmp_path / "out") in done.stderr, "the error names the place"
    suite, _ = load_suite(path)
    early = Store(tmp_path / "out")
    kept = early.finished()
    assert 0 < len(kept) < len(suite.cells())
    assert len(early.table("clients")["run"].unique()) == len(kept), "whole runs or nothing"
    store = run_suite(suite, tmp_path / "out", workers=1)
    assert dump(store) == whole[1]
