"""Sketches against their matrix written out, their variance, and the detectors that keep them."""

import numpy as np
import pytest
import torch

from fedguard import Round, Server, Updates, make_detector
from fedguard.core.errors import ParameterError
from fedguard.detectors._sketch import Sketch

D = 3000


def round_of(X, index=0, seed=0, **others):
    return Round(X.astype(np.float32), index=index, server=Server(seed=seed), **others)


def written_out(sketch):
    return sketch(Updates(np.eye(D, dtype=np.float32))).double().numpy().T


def test_a_sketch_is_a_matrix_with_one_sign_per_column(monkeypatch):
    monkeypatch.setattr("fedguard.geometry.blocks.BLOCK_BYTES", 8 * 64 * 700)
    X = np.random.default_rng(0).normal(size=(70, D)).astype(np.float32)
    sketch = Sketch(32, D, round_of(X))
    matrix = written_out(sketch)
    assert (np.abs(matrix).sum(0) == 1).all()
    assert set(np.unique(matrix)) == {-1, 0, 1}
    np.testing.assert_allclose(sketch(Updates(X)), X.astype(float) @ matrix.T, rtol=1e-6, atol=1e-5)
    part = Updates(X).take([3, 65])
    assert torch.equal(sketch(part), sketch(Updates(X))[[3, 65]])
    assert torch.equal(Sketch(32, D, round_of(X, 5))(part), sketch(part)), "the same in every round"
    assert not torch.equal(Sketch(32, D, round_of(X, seed=1))(part), sketch(part))


def test_inner_products_are_right_on_average_with_the_stated_variance():
    k, (x, y) = 64, np.random.default_rng(1).normal(size=(2, D))
    y += 0.5 * x
    X = np.stack([x, y]).astype(np.float32)
    found = [Sketch(k, D, round_of(X, seed=seed))(Updates(X)).double() for seed in range(300)]
    products = np.array([float(s[0] @ s[1]) for s in found])
    variance = (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 * y**2).sum()) / k
    assert abs(products.mean() - x @ y) < 4 * np.sqrt(variance / 300)
    assert products.var() == pytest.approx(variance, rel=0.3)  # four standard errors of a variance
    cosines = np.array([float(s[0] @ s[1] / s[0].norm() / s[1].norm()) for s in found])
    exact = x @ y / np.sqrt(x @ x * (y @ y))
    assert cosines.std() == pytest.approx((1 - exact**2) / np.sqrt(k), rel=0.2)


def test_foolsgold_finds_sybils_by_sketches_of_a_twelfth():
    rng = np.random.default_rng(2)
    exact, small = make_detector("foolsgold"), make_detector("foolsgold", sketch=256)
    sybil = rng.normal(size=D)
    for index in range(3):
        X = rng.normal(size=(12, D))
        X[:3] = sybil + 0.3 * rng.normal(size=(3, D))
        X[3] = X[4]
        now = round_of(X, index)
        found, expected = small(now), exact(now)
        assert found.suspects.tolist() == expected.suspects.tolist() == [True] * 5 + [False] * 7
        small.commit(now, found)
        exact.commit(now, expected)
    kept = {client: history.numel() for client, history in small.state_dict()["history"]}
    assert kept == dict.fromkeys(range(12), 256)
    again = make_detector("foolsgold", sketch=256)
    again.load_state_dict(small.state_dict())
    assert again(now).values.tolist() == small(now).values.tolist()


def test_fldetector_measures_by_sketches_within_the_stated_error():
    k, rng = 1024, np.random.default_rng(3)
    exact, small = make_detector("fldetector"), make_detector("fldetector", sketch=k)
    model, errors = rng.normal(size=D), []
    for index in range(6):
        X = 0.1 * rng.normal(size=(40, D)) - 0.1 * model
        now = round_of(X, index, global_params=torch.tensor(model, dtype=torch.float32))
        found, expected = small(now), exact(now)
        if index >= 2:
            errors.append(found.memory[1] / expected.memory[1] - 1)
        small.commit(now, found)
        exact.commit(now, expected)
        model = model + X.mean(0)
    assert np.std(errors) == pytest.approx(1 / np.sqrt(2 * k), rel=0.3)
    assert {row.numel() for _, row in small.state_dict()["last"]} == {k}


@pytest.mark.parametrize("name", ["foolsgold", "fldetector"])
def test_a_sketch_as_long_as_the_update_is_no_sketch(name):
    X = np.random.default_rng(4).normal(size=(6, 20))
    now = round_of(X, global_params=torch.zeros(20))
    assert make_detector(name, sketch=20)(now).values.tolist() == make_detector(name)(now).values.tolist()
    with pytest.raises(ParameterError, match="sketch is 0"):
        make_detector(name, sketch=0)
