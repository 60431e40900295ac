"""The same results on the pool, on Ray and through submitit."""

import logging
import os
import sqlite3
from contextlib import closing
from queue import SimpleQueue

import pytest

from fedguard.core.errors import ParameterError
from fedguard.evaluation.running.executors import Pool, Ray, Slurm, make_executor, pool
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """\
data: digits
model: logistic_regression
clients: 6
malicious: 2
rounds: 2
training: {steps: 2, batch_size: 16, lr: 0.1}
mode: both
attacks: [none, {name: byzantine, mode: random}]
defenses: {krum: {detector: {name: krum, select: m_krum, num_malicious: 1}}, none: none}
"""


def suite_of(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return load_suite(path)[0]


def dump(store):
    with closing(sqlite3.connect(store.path)) as db:
        return {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in ("runs", "clients")}  # noqa: S608


def run(suite, folder, executor):
    rounds = []
    store = run_suite(suite, folder, 1, on_round=lambda cell, index: rounds.append(index), executor=executor)
    assert len(rounds) == 2 * (4 + 2), "closed cells, and one trajectory per attack"
    return dump(store)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return run(suite_of(folder), folder / "out", Pool(1))


@pytest.mark.usefixtures("forked_workers")
def test_the_pool(expected, tmp_path):
    assert run(suite_of(tmp_path), tmp_path / "out", Pool(2)) == expected


@pytest.mark.usefixtures("forked_workers")
def test_what_workers_log_is_logged_here(tmp_path, caplog):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("num_malicious: 1", "num_malicious: 2"), encoding="utf-8")
    run(load_suite(path)[0], tmp_path / "out", Pool(2))
    (remark,) = [record for record in caplog.records if record.name == "fedguard.aggregators.krum"]
    assert (remark.levelname, remark.process) == ("WARNING", os.getpid())
    assert remark.getMessage().startswith("krum: the round has 6 clients")


def test_a_single_task_runs_here_and_logs_as_usual(tmp_path, caplog):
    path = tmp_path / "suite.yaml"
    one = SUITE.replace("num_malicious: 1", "num_malicious: 2").replace("[none, {", "[{")
    path.write_text(one.replace(", none: none", "").replace("both", "closed"), encoding="utf-8")
    ours = logging.getLogger("fedguard")
    before = list(ours.handlers), ours.propagate
    run_suite(load_suite(path)[0], tmp_path / "out", 1, executor=Pool(2))
    assert (ours.handlers, ours.propagate) == before
    assert len([record for record in caplog.records if record.name == "fedguard.aggregators.krum"]) <= 1


def test_a_remark_of_several_workers_is_logged_once(caplog):
    queue, rounds = SimpleQueue(), []
    said = [(1, "once"), (2, "once"), (2, "other: 5 %s"), (1, "once")]
    for process, text in said:
        queue.put(pool._Remark(process, "fedguard.x", logging.WARNING, text))
    queue.put((0, 3))
    queue.put(None)
    pool._listen(queue, lambda position, index: rounds.append((position, index)))
    assert caplog.messages == ["once", "other: 5 %s", "once"], "but what one worker says twice, twice"
    assert rounds == [(0, 3)]


def test_ray(expected, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setitem(os.environ, "RAY_USAGE_STATS_ENABLED", "0")
    assert run(suite_of(tmp_path), tmp_path / "out", Ray(workers=2)) == expected


def test_submitit(expected, tmp_path):
    pytest.importorskip("submitit")
    executor = Slurm(tmp_path / "logs", cluster="local", settings={"timeout_min": 5})
    assert run(suite_of(tmp_path), tmp_path / "out", executor) == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("grid", None, {}), "unknown executor 'grid'"),
        (("pool", "auto", {}), "--address goes with --executor ray"),
        (("pool", None, {"timeout_min": 1}), "--slurm goes with --executor slurm"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, args, message):
    name, address, slurm = args
    with pytest.raises(ParameterError, match=message):
        make_executor(name, 1, "cells", address, tmp_path, slurm)


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    for name in ("ray", "submitit"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[ray\]"'):
        make_executor("ray", 1, "cells", None, tmp_path, {})
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[slurm\]"'):
        make_executor("slurm", 1, "cells", None, tmp_path, {})
