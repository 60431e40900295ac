"""Generative adversarial networks in a federation: both losses by hand, SciPy's matrix root, refusals."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional as F  # noqa: N812

from fedguard.contracts.data import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.core.state import pack, unpack
from fedguard.evaluation.api.evaluate import evaluate
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation import generation
from fedguard.simulation.federation import Federation
from fedguard.simulation.models import build_model
from fedguard.simulation.shadow import Shadow
from fedguard.training.generation import Moments, frechet_distance, gan
from fedguard.training.local import train_client
from fedguard.training.parameters import flat_parameters


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    """The classifier behind the score trains for a moment only."""
    monkeypatch.setattr(generation, "TRAINING", LocalTraining(epochs=None, steps=30, batch_size=64, lr=0.1))
    generation._JUDGES.clear()
    yield
    generation._JUDGES.clear()


def model_of(shape=(2, 3), **params):
    return build_model("gan", shape, 10, torch.Generator().manual_seed(3), **params)


def both_losses(model, inputs, noise):
    """Goodfellow's two losses, each with its own graph: binary cross-entropies against 1 and 0."""
    one, zero = torch.ones(len(inputs), 1), torch.zeros(len(inputs), 1)
    judged, made = model.discriminator(inputs), model.discriminator(model.generate(noise).detach())
    bce = F.binary_cross_entropy_with_logits
    discriminator = bce(judged, one) + bce(made, zero)
    return discriminator, bce(model.discriminator(model.generate(noise)), one)


def gradients_by_hand(model, inputs, noise):
    """(d,) the generator's gradient of its loss, then the discriminator's of its own."""
    of_d, of_g = both_losses(model, inputs, noise)
    parts = [
        *torch.autograd.grad(of_g, list(model.generator.parameters())),
        *torch.autograd.grad(of_d, list(model.discriminator.parameters())),
    ]
    return torch.cat([part.flatten() for part in parts])


def test_one_gradient_of_the_loss_is_both_networks_gradient():
    model = model_of(latent=3, hidden=[5, 4]).eval()
    inputs, noise = torch.randn(7, 2, 3), torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    loss = gan(model(inputs), None)
    torch.testing.assert_close(loss, sum(both_losses(model, inputs, noise)))
    found = torch.autograd.grad(loss, list(model.parameters()))
    flat = torch.cat([part.flatten() for part in found])
    torch.testing.assert_close(flat, gradients_by_hand(model, inputs, noise))


def test_a_client_s_step_moves_both_networks_from_the_same_parameters(monkeypatch):
    model, start = model_of(latent=3), None
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(type(model), "_noise", lambda self, inputs: noise)
    data = LabeledData(torch.randn(4, 2, 3), torch.zeros(4, dtype=torch.int64))
    training = LocalTraining(epochs=None, steps=1, batch_size=4, lr=0.5, loss="gan")
    start = flat_parameters(model)
    expected = -0.5 * gradients_by_hand(model, data.inputs, noise)
    update = train_client(model, start, data, training, torch.Generator().manual_seed(2))
    torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-6)


def test_training_draws_new_noise_and_depends_on_the_client_s_generator_only():
    model, data = model_of(), LabeledData(torch.randn(6, 2, 3), torch.zeros(6, dtype=torch.int64))
    training, start = LocalTraining(batch_size=3, loss="gan"), flat_parameters(model_of())
    updates = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # the global generator stands elsewhere each time
        updates.append(train_client(model, start, data, training, torch.Generator().manual_seed(seed)))
    assert torch.equal(updates[0], updates[1])
    assert not torch.equal(updates[0], updates[2])


def test_the_frechet_distance_by_scipy_s_root():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(30, 4)), draw.normal(size=(40, 4)) @ draw.normal(size=(4, 4)) + 1
    first, second = np.cov(one.T), np.cov(other.T)
    gap = ((one.mean(0) - other.mean(0)) ** 2).sum()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    moments = [Moments.of(torch.from_numpy(part)) for part in (one, other)]
    assert frechet_distance(*moments) == pytest.approx(expected)
    assert frechet_distance(moments[0], moments[0]) == pytest.approx(0, abs=1e-9)
    flat = Moments.of(torch.from_numpy(one[:, :1].repeat(4, 1)))  # a singular covariance
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)
    assert np.isnan(frechet_distance(moments[0], Moments.of(torch.full((3, 4), torch.inf))))


def test_the_judge_finds_the_data_closer_than_noise():
    data = generation_data()
    judge = generation.judge_of(data)
    real, noise = data.training_set.inputs[: judge.count], torch.randn(judge.count, *data.input_shape)
    assert judge.distance(real) < judge.distance(noise) / 5
    assert generation.judge_of(data) is judge


def generation_data():
    return Federation(cell()).setup.dataset


CHANGES = [
    "model={name: gan, latent: 4, hidden: [8]}", "clients=5", "malicious=1", "rounds=3", "partition=iid",
    "training={steps: 2, lr: 0.05}", "defenses={d: {detector: krum}}",
]  # fmt: skip


def cell(attack="sign_flip", *more):
    return load_suite("quickstart", [f"attacks=[{attack}]", *CHANGES, *more])[0].cells()[0]


def scores(records):
    return [record.info.get("generation", {}).get("frechet") for record in records]


def test_a_federation_is_scored_after_each_test_and_resumes():
    whole, again = (
        Federation(cell("sign_flip", "test_every=2")),
        Federation(cell("sign_flip", "test_every=2")),
    )
    records = whole.run()
    found = scores(records)
    assert found[0] is None
    assert found[1] > 0
    assert found[2] > 0
    assert all(np.isnan(record.tacc) for record in records)
    assert np.isfinite(records[-1].loss)
    done = [again.step(0)]
    resumed = Federation(cell("sign_flip", "test_every=2"))
    resumed.load_state_dict(unpack(pack(again.state_dict())))
    assert scores(resumed.run(done=done)) == found
    assert len(whole.params) == sum(p.numel() for p in whole.setup.model.parameters())


def test_watchers_and_the_table_of_runs_have_the_score():
    shadow = Shadow([cell("sign_flip", "mode=shadow")])
    shadow.run()
    assert all(score > 0 for score in scores(shadow.watchers[0].records))
    results = evaluate(
        None, data="digits", model="gan", clients=4, malicious=1, rounds=1, workers=1, training={"steps": 1},
        attacks=["sign_flip"], defenses=["krum"],
    )  # fmt: skip
    assert results.frame["frechet"].gt(0).all()
    assert results.frame["tacc"].isna().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("defenses={d: {detector: fedredefense}}", "is defined for classification, and the model generates"),
        (
            "defenses={d: {detector: lfr}}",
            "lfr needs validation data to predict labels on, and the model generates",
        ),
        ("defenses={d: {aggregator: fltrust}}", "fltrust needs root data to predict labels on"),
        ("attacks=[label_flip]", "changes the labels of classes, but the model generates"),
        ("attacks=[dlg]", "dlg is defined for classification, and the model generates"),
        ("training.loss=mse", "loss mse is not for the task generative; leave `loss` out for gan"),
        ("model={name: gan, latent: 0}", "latent is 0"),
    ],
)
def test_what_needs_labels_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        check_suite(*load_suite("quickstart", ["attacks=[sign_flip]", *CHANGES, change]))


def test_a_classifier_does_not_train_on_the_loss_of_a_gan():
    with pytest.raises(ParameterError, match="loss gan is not for the task classification"):
        Federation(cell("sign_flip", "model=logistic_regression", "training.loss=gan"))
