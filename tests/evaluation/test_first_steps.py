"""Mistakes of a first day: each is refused before anything trains, at its file, line and key."""

from pathlib import Path

import pytest

from fedguard.core.errors import ConfigError
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_devices, check_suite
from fedguard.evaluation.suites.load import load_suite

OWN = """
import torch


class Boom(torch.nn.Module):
    def __init__(self):
        raise KeyError("boom")


def deal(labels, n):
    return 1 / 0


def double(logit, target):
    return 2 * torch.nn.functional.cross_entropy(logit, target)


THREE = 3
"""

SUITE = """\
data: digits
model: {name: mlp, hidden: [4]}
partition: iid
clients: 4
malicious: 1
rounds: 1
training:
  epochs: 1
  lr: 0.1
attacks: [byzantine]
"""
MLP, LR = "model: {name: mlp, hidden: [4]}", "  lr: 0.1"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "first_steps_own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def check(file: Path) -> None:
    suite, source = load_suite(str(file))
    check_devices(suite, source)
    check_suite(suite, source)


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        (MLP, "model: first_steps_own:Boom", r":2: model: .*KeyError.*own.py:7"),
        (MLP, "model: first_steps_own:THREE", r":2: model: .*of type int"),
        ("partition: iid", "partition: first_steps_own:deal", r":3: partition: .*ZeroDivisionError.*py:11"),
        ("partition: iid", "partition: first_steps_own:THREE", r":3: partition: .*of type int"),
        ("malicious: 1", "malicious: 5", r":5: malicious: malicious is 5, but there are only 4 clients"),
        (LR, LR + "\n  optimizer: adamx", r":10: training.optimizer: unknown optimizer"),
        (LR, LR + "\n  optimizer: adam\n  scheduler: step", r":11: training.scheduler: .*step_size"),
        (LR, LR + "\n  loss: first_steps_own:THREE", r":10: training.loss: .*of type int"),
        (LR, LR + "\n  augment: [flp]", r":10: training.augment: unknown augmentation"),
        ("rounds: 1", "device: cuda:99", r":6: device: device 'cuda:99' is not there"),
        ("rounds: 1", "device: gpu", r":6: device: use cpu, cuda, cuda:1 .*, mps or auto, got 'gpu'"),
        ("attacks: [byzantine]", "defenses: [fedavg]", r":10: defenses.fedavg: .*write {aggregator: fedavg}"),
    ],
)
def test_a_mistake_is_refused_where_it_is(own: Path, line: str, changed: str, message: str) -> None:
    file = own / "mine.yaml"
    assert line in SUITE
    file.write_text(SUITE.replace(line, changed))
    with pytest.raises(ConfigError, match="mine.yaml" + message):
        check(file)


def test_a_loss_may_call_its_arguments_as_it_likes(own: Path) -> None:
    file = own / "mine.yaml"
    file.write_text(SUITE.replace(LR, LR + "\n  loss: first_steps_own:double"))
    check_suite(*load_suite(str(file)))


def test_a_run_diverges_if_no_honest_update_is_finite(own: Path) -> None:
    """The attacker's finite update, alone in the mean, leaves a finite model that nobody has trained."""
    file = own / "mine.yaml"
    file.write_text(SUITE.replace("lr: 0.1", "lr: 1.0e+30"))
    store = run_suite(load_suite(str(file))[0], own / "out", workers=1)
    runs, clients = store.table("runs"), store.table("clients")
    assert clients.loc[clients["malicious"] == 1, "weight"].tolist() == [1.0], "the attacker's was accepted"
    assert runs["diverged"].tolist() == [0]
