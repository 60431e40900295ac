"""Ray: cells and clients on one node and on two, the same bits as the pool; workers that die."""

import os

import pytest

from fedguard.core.errors import ParameterError, WorkerError
from fedguard.evaluation.running.executors import Pool, Ray, make_executor
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite
from tests.evaluation.test_executors import dump, run, suite_of

MORTAL = '''
import os
from pathlib import Path

from fedguard.attacks.byzantine import Byzantine

FUSE = Path({fuse!r})


class Mortal(Byzantine):
    """An attack whose process dies while a file is there: crafting in the second round, or training
    in any process but the one that the file names.
    """

    def poison_data(self, samples, view):
        if FUSE.exists() and FUSE.read_text() not in ("", str(os.getpid())):
            os.kill(os.getpid(), 9)
        return samples

    def craft(self, view):
        if view.index == 1 and FUSE.exists() and not FUSE.read_text():
            os.kill(os.getpid(), 9)
        return super().craft(view)
'''


@pytest.fixture
def ray(monkeypatch):
    module = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return run(suite_of(folder), folder / "out", Pool(1))


def test_clients_spread_over_workers(ray, expected, tmp_path):
    assert run(suite_of(tmp_path), tmp_path / "out", Ray(workers=2, parallel="clients")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["cells", "clients"])
def test_two_nodes(ray, expected, tmp_path, parallel):
    """Two nodes in processes of their own, with one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        executor = Ray(cluster.address, parallel=parallel)
        assert run(suite_of(tmp_path), tmp_path / "out", executor) == expected
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["cells", "clients"])
def test_a_worker_that_dies_is_a_typed_error_and_the_same_command_resumes(
    ray, tmp_path, monkeypatch, parallel
):
    fuse = tmp_path / "fuse"
    fuse.write_text("" if parallel == "cells" else str(os.getpid()), encoding="utf-8")
    (tmp_path / "mortal_attack.py").write_text(MORTAL.format(fuse=str(fuse)), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "suite.yaml"
    path.write_text(
        "{clients: 6, malicious: 2, rounds: 3, training: {steps: 2, batch_size: 16, lr: 0.1},\n"
        "attacks: {none: none, mortal: {name: 'mortal_attack:Mortal', mode: random}}}",
        encoding="utf-8",
    )
    suite = load_suite(path)[0]

    def go(folder, executor):
        return run_suite(suite, tmp_path / folder, 1, checkpoint_seconds=0, executor=executor)

    with pytest.raises(WorkerError, match="run the same command to resume"):
        go("ray", Ray(workers=1, parallel=parallel))
    kept = list((tmp_path / "ray" / "checkpoints").glob("*.ckpt"))
    assert bool(kept) == (parallel == "cells"), "the first round is kept, if there was one"
    fuse.unlink()
    assert dump(go("ray", Ray(workers=1, parallel=parallel))) == dump(go("pool", Pool(1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gpu": 1}, "--ray has no 'num_gpu'"),
        ({"num_gpus": -1}, "use a number from 0"),
        ({"num_cpus": "two"}, "use a number from 0"),
        ({"num_cpus": True}, "use a number from 0"),
    ],
)
def test_wrong_options(tmp_path, given, message):
    with pytest.raises(ParameterError, match=message):
        make_executor("ray", 1, "cells", None, tmp_path, {}, given)
    with pytest.raises(ParameterError, match="--ray goes with --executor ray or flower, not pool"):
        make_executor("pool", 1, "cells", None, tmp_path, {}, given)


def test_what_a_piece_takes(ray, tmp_path):
    executor = make_executor("ray", 1, "clients", None, tmp_path, {}, {"num_gpus": 0.25})
    assert (executor.takes, executor.parallel) == ({"num_cpus": 1, "num_gpus": 0.25}, "clients")
