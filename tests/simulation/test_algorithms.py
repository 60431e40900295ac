"""FedSGD, FedProx, FedNova and SCAFFOLD over whole rounds, by hand in NumPy; labels that are no classes."""

import numpy as np
import pytest
import torch

from fedguard.contracts.data import Samples
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.core.named_code import GIVEN
from fedguard.core.state import pack, unpack
from fedguard.evaluation.results.frame import metrics_frame
from fedguard.evaluation.results.layout import Layout, words
from fedguard.evaluation.results.tables import attack_tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.source import Source
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.build import build_guard
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.federation import Federation
from fedguard.simulation.pool import Workers
from fedguard.simulation.settings import TrainingSettings


def points(count=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3)).astype(np.float32), rng


def classes():
    x, rng = points()
    samples = Samples(torch.tensor(x), torch.tensor(rng.integers(0, 2, len(x))))
    return Dataset("classes", samples, samples, 2, mean=(0.0,), std=(1.0,))


def numbers(task="regression", outputs=2):
    """Linear in the features, or their signs."""
    x, rng = points(80)
    y = (x @ rng.normal(size=(3, outputs))).astype(np.float32)
    y = torch.tensor(y > 0).float() if task == "multilabel" else torch.tensor(y)
    samples = Samples(torch.tensor(x), y)
    return Dataset("numbers", samples, samples, outputs, mean=(0.0,), std=(1.0,), task=task)


def in_turn(labels, n):
    return [np.arange(k, len(labels), n) for k in range(n)]


def uneven(labels, n):
    """The first client has 6 samples, the second the rest."""
    return [np.arange(6), np.arange(6, len(labels))]


def given(monkeypatch):
    for name, value in (
        ("classes", classes()),
        ("numbers", numbers()),
        ("labels", numbers("multilabel")),
        ("in_turn", in_turn),
        ("uneven", uneven),
    ):
        monkeypatch.setitem(GIVEN, name, value)


def cells(**settings):
    return Suite(**{"partition": "given:in_turn", **settings}).cells()


def federation(**settings):
    return Federation(cells(**settings)[0])


def same(one, other):
    """Whether two lists of records agree, whatever time they took."""
    strip = lambda r: (r.index, r.clients, r.tacc, r.loss, r.note)  # noqa: E731
    return repr([strip(r) for r in one]) == repr([strip(r) for r in other])


@pytest.fixture(autouse=True)
def _given(monkeypatch):
    given(monkeypatch)


def gradient(w, x, y):
    """Of the mean cross-entropy of softmax regression with 3 features and 2 classes."""
    z = np.exp(x @ w[:6].reshape(2, 3).T + w[6:])
    error = z / z.sum(1, keepdims=True) - np.eye(2)[y]
    return np.concatenate([(error.T @ x / len(x)).ravel(), error.mean(0)])


def parts(run):
    """Per client, its features and labels; batches are whole, so that their order does not matter."""
    x, y = run.setup.dataset.train.pixels.numpy().astype(float), run.setup.dataset.train.labels.numpy()
    return [(x[index.numpy()], y[index.numpy()]) for index in run.setup.samples]


BASE = {"data": "given:classes", "clients": 2, "rounds": 4, "partition": "given:uneven"}


def run(rounds=4, **settings):
    one = federation(**{**BASE, **settings})
    start = one.params.numpy().astype(float)
    for index in range(rounds):
        one.step(index)
    return one, start


def test_fedsgd_is_gradient_descent_on_all_data():
    found, w = run(training={"algorithm": "fedsgd", "lr": 0.5, "epochs": 3})
    x, y = found.setup.dataset.train.pixels.numpy().astype(float), found.setup.dataset.train.labels.numpy()
    for _ in range(4):
        w = w - 0.5 * gradient(w, x, y)
    np.testing.assert_allclose(found.params, w, rtol=1e-4, atol=1e-5)


def test_fedprox_takes_its_mu():
    training = {"steps": 3, "batch_size": 100, "lr": 0.3}
    found, w = run(training={**training, "algorithm": "fedprox", "proximal": 0.7})
    for _ in range(4):
        moved, counts = [], []
        for x, y in parts(found):
            v = w.copy()
            for _ in range(3):
                v -= 0.3 * (gradient(v, x, y) + 0.7 * (v - w))
            moved.append(v - w)
            counts.append(len(y))
        w = w + np.average(moved, 0, counts)
    np.testing.assert_allclose(found.params, w, rtol=1e-4, atol=1e-5)
    default = TrainingSettings.model_validate({"algorithm": "fedprox"})
    assert default.local("cross_entropy").proximal == 0.01


def test_fednova_normalizes_by_steps():
    """Client 0 does 1 step per epoch, client 1 does 3: Δ = τ_eff Σ p_i Δ_i / τ_i."""
    found, w = run(rounds=1, training={"algorithm": "fednova", "epochs": 2, "batch_size": 6, "lr": 0.3})
    local = Federation(found.cell)
    work = local._train([0, 1], set(), 0)
    assert work.steps.tolist() == [2, 6]
    p = np.array([6, 18]) / 24
    aggregate = (p @ work.steps) * ((p / work.steps) @ work.updates.numpy().astype(float))
    np.testing.assert_allclose(found.params, w + aggregate, rtol=1e-5, atol=1e-6)
    plain, _ = run(rounds=1, training={"epochs": 2, "batch_size": 6, "lr": 0.3})
    assert not np.allclose(plain.params, found.params, atol=1e-4)


def test_scaffold_by_hand():
    """Option II of the paper, two clients with unlike numbers of samples, five rounds."""
    steps, lr = 3, 0.4
    found, w = run(rounds=5, training={"algorithm": "scaffold", "steps": steps, "batch_size": 100, "lr": lr})
    c, own = np.zeros_like(w), [np.zeros_like(w), np.zeros_like(w)]
    for _ in range(5):
        moved, changes, counts = [], [], []
        for i, (x, y) in enumerate(parts(found)):
            v = w.copy()
            for _ in range(steps):
                v -= lr * (gradient(v, x, y) - own[i] + c)
            new = own[i] - c + (w - v) / (steps * lr)
            moved.append(v - w)
            changes.append(new - own[i])
            counts.append(len(y))
            own[i] = new
        w = w + np.average(moved, 0, counts)
        c = c + np.mean(changes, 0)
    np.testing.assert_allclose(found.params, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found._controls._server, np.mean(own, 0), rtol=1e-3, atol=1e-4)


def test_scaffold_does_not_use_what_the_guard_excludes():
    settings = {
        "data": "given:classes",
        "clients": 6,
        "malicious": 1,
        "attacks": [{"name": "gaussian"}],
        "defenses": {"k": {"detector": {"name": "krum", "select": "m_krum"}}},
        "training": {"algorithm": "scaffold", "steps": 2, "lr": 0.1},
    }
    one = federation(**settings)
    record = one.step(0)
    out = {row.client for row in record.clients if row.weight == 0}
    assert out
    assert set(one._controls._clients) == set(range(6)) - out
    mean = torch.stack(list(one._controls._clients.values())).sum(0) / 6
    torch.testing.assert_close(one._controls._server, mean)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"algorithm": "scaffold", "momentum": 0.5}, "scaffold is defined for plain SGD"),
        ({"algorithm": "scaffold", "optimizer": "adam"}, "scaffold is defined for plain SGD"),
        ({"algorithm": "fedavgg"}, "Input should be"),
    ],
)
def test_combinations_without_a_meaning_are_refused(training, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**training)


def test_fednova_is_an_aggregation_of_its_own():
    suite = {"training": {"algorithm": "fednova"}, "defenses": {"m": {"aggregator": "median"}, "none": {}}}
    (median, mean) = Suite(**suite).cells()
    with pytest.raises(ParameterError, match="fednova is a way to aggregate, and so is median"):
        build_guard(median)
    assert build_guard(mean).aggregator.name == "fednova"


COMBINED = {
    "clients": 12,
    "malicious": 2,
    "rounds": 5,
    "participation": 0.75,
    "partition": {"name": "dirichlet", "beta": 1.0},
    "attacks": ["label_flip"],
    "defenses": {"k": {"detector": {"name": "krum", "select": "m_krum"}, "policy": "exclude"}},
    "malicious_per_round": 1,
    "dropout": 0.15,
}
EVERYTHING = {
    "late": 0.2,
    "server": {"optimizer": "adam", "lr": 0.02},
    "training": {
        "optimizer": {"name": "adamw", "betas": [0.9, 0.95]},
        "scheduler": {"name": "cosine_annealing", "T_max": 3},
        "lr_schedule": "cosine",
        "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "clip": 1.0,
        "epochs": 3,
        "patience": 1,
        "augment": ["flip", {"name": "crop", "padding": 1}],
        "algorithm": "fednova",
    },
}
SCAFFOLD = {"training": {"algorithm": "scaffold", "steps": 4, "lr": 0.1, "clip": 2.0, "lr_decay": 0.9}}


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as pool:
        yield pool


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("more", [EVERYTHING, SCAFFOLD])
def test_the_same_bits_after_a_resume_and_in_workers(more, workers):
    (cell,) = cells(**COMBINED, **more)
    whole = Federation(cell)
    records = whole.run()
    assert whole.params.isfinite().all()
    first = Federation(cell)
    done = [first.step(index) for index in range(3)]
    second = Federation(cell)
    second.load_state_dict(unpack(pack(first.state_dict())))
    assert same(second.run(done=done), records)
    assert torch.equal(second.params, whole.params)
    spread = Federation(cell, workers.map)
    assert same(spread.run(), records)
    assert torch.equal(spread.params, whole.params)


PLAIN = {"clients": 4, "malicious": 1, "rounds": 12, "training": {"lr": 0.3, "batch_size": 8}}


@pytest.mark.parametrize("data", ["numbers", "labels"])
def test_regression_and_several_labels_are_learned(data):
    one = federation(data=f"given:{data}", attacks=["byzantine"], defenses=["krum"], **PLAIN)
    records = one.run()
    assert records[-1].loss < records[0].loss / 2
    if data == "labels":
        assert records[-1].tacc > 0.9
    else:
        assert records[-1].loss < 0.05
        assert all(np.isnan(r.tacc) for r in records)
    outputs = one.setup.dataset.test.pixels @ one.params[:6].view(2, 3).T + one.params[6:]
    labels = one.setup.dataset.test.labels
    loss = {
        "numbers": torch.nn.functional.mse_loss,
        "labels": torch.nn.functional.binary_cross_entropy_with_logits,
    }
    assert records[-1].loss == pytest.approx(float(loss[data](outputs, labels)), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"defenses": ["err"]},
            "err is defined for classification and multilabel, and the data are for regression",
        ),
        ({"defenses": ["fedredefense"]}, "fedredefense is defined for classification"),
        (
            {"defenses": {"e": {"detector": {"name": "ensemble", "members": ["krum", "deepsight"]}}}},
            "deepsight is",
        ),
        (
            {"attacks": ["label_flip"]},
            "label_flip changes the labels of classes, but the data are for regression",
        ),
        ({"defenses": {"f": {"flcert": {"groups": 2}}}}, "its models vote for a class"),
        ({"training": {"loss": "cross_entropy"}}, "needs one class per sample"),
        (
            {"partition": {"name": "dirichlet", "beta": 0.5}},
            "this partition deals classes, but the labels are float32",
        ),
    ],
)
def test_methods_that_need_classes_are_refused_before_training(settings, message):
    suite = Suite(**{**PLAIN, "data": "given:numbers", "partition": "given:in_turn",
                     "server": {"validation": 8}, **settings})  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        check_suite(suite, Source("own", {}))


def test_tables_of_a_regression_show_the_test_loss(tmp_path):
    plain = {**PLAIN, "malicious": 0, "rounds": 2}
    suite = Suite(**{**plain, "data": "given:numbers", "partition": "given:in_turn"})
    frame = metrics_frame(run_suite(suite, tmp_path, workers=1))
    ((_, table),) = attack_tables(frame)
    assert [str(column.header) for column in table.columns] == ["defense", "Loss"]
    assert "Loss" in words(frame, Layout(), str, {}).columns
    assert frame["tacc"].isna().all()


def test_methods_that_evaluate_or_train_the_model_work_on_regression():
    settings = {**PLAIN, "rounds": 2, "server": {"validation": 8, "root": 8}, "attacks": ["byzantine"]}
    defenses = ["lfr", "fltrust", "foolsgold", "multi_metric"]
    for cell in cells(data="given:numbers", defenses=defenses, **settings):
        records = Federation(cell).run()
        assert all(np.isfinite(row.score) for row in records[-1].clients)
        assert np.isfinite(records[-1].loss)
