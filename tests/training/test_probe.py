"""The probe's file, and its training against AdamW written out in NumPy."""

import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedguard.core.errors import ConfigError, ParameterError
from fedguard.core.seeds import generator
from fedguard.training.probe import Probe, load_probe
from fedguard.training.probe_fit import fit_probe


def samples(m=300, k=20, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.random(m) < 0.25
    x = draw.normal(size=(m, k)) + np.outer(labels, np.linspace(-1, 2, k))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(labels)


def written_out(x, y, seed):
    """The released settings in NumPy, with gradients by hand; the draws are those of the implementation."""
    draw = generator(seed, "lora_probe")
    m, k = x.shape
    order = torch.randperm(m, generator=draw).numpy()
    held = round(m / 10)
    first = ((torch.rand(k + 1, generator=draw) * 2 - 1) / math.sqrt(k)).numpy().astype(np.float64)
    x, y = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    x = np.concatenate([x, np.ones((m, 1))], 1)
    (xt, yt), (xv, yv) = (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]])
    p = (len(yt) - yt.sum()) / yt.sum()

    def loss(theta, x, y):
        z = x @ theta
        return np.mean(p * y * np.log1p(np.exp(-z)) + (1 - y) * np.log1p(np.exp(z)))

    theta, m1, m2, step = first, np.zeros(k + 1), np.zeros(k + 1), 0
    best, least, since, epochs = theta, math.inf, 0, 0
    while epochs < 100 and since < 15:
        epochs += 1
        shuffled = torch.randperm(len(yt), generator=draw).numpy()
        for at in range(0, len(yt), 256):
            xb, yb = xt[shuffled[at : at + 256]], yt[shuffled[at : at + 256]]
            s = 1 / (1 + np.exp(-(xb @ theta)))
            gradient = xb.T @ ((1 - yb) * s - p * yb * (1 - s)) / len(yb)
            gradient *= min(1.0, 0.5 / (np.linalg.norm(gradient) + 1e-6))
            step += 1
            theta = theta * (1 - 0.01 * 2.0)
            m1, m2 = 0.9 * m1 + 0.1 * gradient, 0.999 * m2 + 0.001 * gradient**2
            theta = theta - 0.01 * (m1 / (1 - 0.9**step)) / (np.sqrt(m2 / (1 - 0.999**step)) + 1e-8)
        now = loss(theta, xv, yv)
        if now < least - 1e-4:
            best, least, since = theta, now, 0
        else:
            since += 1
    return best, least, epochs


@pytest.mark.parametrize("seed", [0, 1])
def test_training_is_the_released_one(seed):
    x, y = samples()
    fit = fit_probe(x, y, seed)
    theta, least, epochs = written_out(x, y, seed)
    np.testing.assert_allclose(fit.weight, theta[:-1], rtol=2e-3, atol=2e-4)
    assert fit.bias == pytest.approx(theta[-1], abs=1e-3)
    assert fit.loss == pytest.approx(least, abs=1e-4)
    assert fit.epochs == epochs


def test_training_ends_early_with_the_best_epoch():
    """Labels by chance: the loss of the held-out part soon rises."""
    x, _ = samples(200, 100)
    labels = torch.rand(200, generator=torch.Generator().manual_seed(3)) < 0.5
    fit = fit_probe(x, labels, 4)
    assert 15 <= fit.epochs < 100
    assert fit.loss == pytest.approx(written_out(x, labels, 4)[1], abs=1e-4)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    x, y = samples()
    before = torch.get_rng_state()
    one, other = fit_probe(x, y, 7), fit_probe(x, y, 7)
    assert torch.equal(one.weight, other.weight)
    assert one[1:] == other[1:]
    assert not torch.equal(one.weight, fit_probe(x, y, 8).weight)
    assert torch.equal(before, torch.get_rng_state())


def test_both_kinds_are_needed():
    x, _ = samples(20)
    with pytest.raises(ParameterError, match="hold 0 updates of malicious clients"):
        fit_probe(x, torch.zeros(20, dtype=torch.bool))
    with pytest.raises(ParameterError, match="hold 3 updates of honest clients; 4 are"):
        fit_probe(x, torch.arange(20) >= 3)


def test_few_samples_of_a_kind_are_never_all_held_out():
    labels = torch.arange(40) < 4
    for seed in range(30):
        assert math.isfinite(fit_probe(samples(40)[0], labels, seed).loss)


def test_a_probe_survives_its_file(tmp_path):
    probe = Probe(
        {"b": torch.randn(3, 2).double(), "a": torch.ones(2).double()}, 0.1, {"c": torch.ones(1)}, {"seed": 3}
    )
    probe.save(tmp_path / "p.safetensors")
    read = load_probe(str(tmp_path / "p.safetensors"))
    assert (read.bias, read.about, list(read.start)) == (0.1, {"seed": 3}, ["c"])
    x = torch.rand(4, 8, dtype=torch.float64)
    torch.testing.assert_close(read(x), probe(x), rtol=1e-6, atol=1e-7)
    z = x[:, :2].sum(1) + x[:, 2:] @ probe.weight["b"].flatten() + 0.1  # a comes before b
    torch.testing.assert_close(probe(x), 1 / (1 + torch.exp(-z)))
    with pytest.raises(ConfigError, match=r"use a name that ends in \.safetensors"):
        probe.save(tmp_path / "p.npz")


def changed(name, value):
    def change(path):
        tensors = load_file(path)
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
        save_file(tensors, path)

    return change


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a stranger's code ran",))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "there is no file .*fedguard probe RECORDING"),
        (lambda path: path.write_bytes(b""), "is no probe"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is no probe"),
        (lambda path: path.write_bytes(pickle.dumps(Evil())), "is no probe"),
        (changed("bias", None), "one bias"),
        (changed("bias", torch.ones(2)), "one bias"),
        (changed("weight/a", None), "weight for at least one"),
        (changed("weight/a", torch.tensor([math.inf, 1])), "a is not made of finite numbers"),
        (changed("weight/a", torch.tensor([1, 2])), "a is not made of finite numbers"),
        (changed("start/c", torch.tensor([math.nan])), "c is not made of finite numbers"),
    ],
)
def test_a_file_that_is_no_probe_is_named(tmp_path, spoil, words):
    path = tmp_path / "p.safetensors"
    Probe({"a": torch.ones(2)}, 0.5).save(path)
    spoil(path)
    with pytest.raises(ParameterError, match=rf"p\.safetensors.*{words}|{words}.*p\.safetensors|{words}"):
        load_probe(str(path))


def test_a_file_that_claims_too_much_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    Probe({"a": torch.ones(9)}, 0.5).save(path)
    monkeypatch.setattr("fedguard.training.probe.MOST", 9)
    with pytest.raises(ParameterError, match="more than 9 numbers"):
        load_probe(str(path))
