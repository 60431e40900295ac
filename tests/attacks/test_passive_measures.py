"""Passive attacks: measures against their formulas, attacks against what they must find on simple models."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fedguard.attacks._matching import count_labels
from fedguard.attacks.inverting_gradients import total_variation
from fedguard.attacks.revealing_labels import separable
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError
from fedguard.passive import Leak, Reconstruction, loss_gradient, measure, psnr, ssim
from fedguard.training.parameters import flat_parameters

SHAPE, CLASSES = (1, 4, 4), 5


def smooth_model(seed=0, bias=True):
    torch.manual_seed(seed)
    hidden = nn.Linear(16, 12)
    return nn.Sequential(nn.Flatten(), hidden, nn.Sigmoid(), nn.Linear(12, CLASSES, bias=bias))


def leak_of(labels, seed=0, bias=True, lr=0.1):
    """A client that takes one full-batch step; the gradient by autograd through the plain model."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.tensor(labels)
    inputs = torch.rand((len(labels), *SHAPE), generator=draw)
    model = smooth_model(seed, bias)
    start = flat_parameters(model)
    F.cross_entropy(model(inputs), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    leak = Leak(
        model=model,
        global_params=start,
        update=-lr * gradient,
        input_shape=SHAPE,
        num_classes=CLASSES,
        count=len(labels),
        gradient_scale=lr,
        bounds=(torch.tensor(0.0), torch.tensor(1.0)),
        generator=draw,
    )
    return leak, inputs, labels, gradient


# --- what is measured


def test_psnr_by_hand():
    assert psnr(torch.zeros(2, 2), torch.full((2, 2), 0.1)) == pytest.approx(20)
    assert psnr(torch.ones(3), torch.ones(3)) == math.inf


def ssim_by_hand(x, y):
    """Window by window: an 11 x 11 Gaussian, borders reflected."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    px, py = (np.pad(image, 5, mode="symmetric") for image in (x, y))
    values = []
    for i, j in itertools.product(range(x.shape[0]), range(x.shape[1])):
        a, b = px[i : i + 11, j : j + 11], py[i : i + 11, j : j + 11]
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
        cov = (window * a * b).sum() - ma * mb
        top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
        values.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    return np.mean(values)


def test_ssim_window_by_window():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 2, 9, 7)).astype(np.float32)
    expected = np.mean([ssim_by_hand(a.astype(float), b.astype(float)) for a, b in zip(x, y, strict=True)])
    assert ssim(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, abs=1e-9)
    assert ssim(torch.tensor(x), torch.tensor(x)) == pytest.approx(1)
    assert ssim(torch.tensor(x), 1 - torch.tensor(x)) < 0


def test_every_reconstruction_is_compared_with_a_true_image_of_its_own():
    truth = torch.stack([torch.full(SHAPE, v) for v in (0.0, 0.5, 1.0)])
    found = truth[[2, 0, 1]] * 0.9 + 0.01
    result = measure(Reconstruction(found, None), found, truth, torch.tensor([0, 1, 2]))
    assert result["psnr"] == pytest.approx(
        np.mean([psnr(a, b) for a, b in zip(found, truth[[2, 0, 1]], strict=True)])
    )
    assert math.isnan(result["labels"])


@pytest.mark.parametrize(
    ("found", "share"), [([1, 2, 2], 1.0), ([2, 1, 1], 2 / 3), ([2], 1 / 3), ([0, 4, 4], 0.0), ([], 0.0)]
)
def test_labels_are_counted_as_multisets(found, share):
    labels = torch.tensor(found, dtype=torch.int64)
    result = measure(Reconstruction(None, labels), None, torch.zeros(3, *SHAPE), torch.tensor([2, 1, 2]))
    assert result["labels"] == pytest.approx(share)
    assert math.isnan(result["psnr"])


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 0.5]]]])
    vertical = np.mean([0, 1, 0.5])
    horizontal = np.mean([1, 0, 0, 0.5])
    assert float(total_variation(image)) == pytest.approx(vertical + horizontal)


# --- what is matched


def test_the_matched_gradient_is_the_gradient_of_the_mean_loss():
    leak, inputs, labels, gradient = leak_of([3, 1, 1])
    torch.testing.assert_close(loss_gradient(leak, inputs, labels).detach(), gradient)
    torch.testing.assert_close(leak.gradient, gradient)
    soft = F.one_hot(labels, CLASSES).float()
    torch.testing.assert_close(loss_gradient(leak, inputs, soft).detach(), gradient)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("label", range(CLASSES))
def test_one_label_is_read_off_exactly(bias, label):
    leak, *_ = leak_of([label], bias=bias)
    assert count_labels(leak, "test").tolist() == [label]


def test_labels_of_a_batch_are_counted_up_to_what_the_model_prefers():
    """Exact for a model without preference; its own preferences shift a count by one here and there."""
    for seed in range(5):
        leak, _, labels, _ = leak_of([4, 0, 4, 4, 2, 0], seed=seed)
        found = Reconstruction(None, count_labels(leak, "test"))
        assert measure(found, None, torch.zeros(6, *SHAPE), labels)["labels"] >= 5 / 6


def test_a_model_that_does_not_end_in_a_linear_layer_is_refused():
    leak, *_ = leak_of([1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(ParameterError, match="does not end in a linear layer with an output per class"):
        count_labels(Leak(**{**vars(leak), "model": model}), "test")


# --- what is found


def test_dlg_finds_one_sample_to_the_pixel():
    leak, inputs, labels, _ = leak_of([3])
    found = make_attack("dlg", iterations=60).reconstruct(leak)
    assert psnr(found.inputs, inputs) > 60
    assert found.labels.tolist() == labels.tolist()


def test_dlg_stays_where_it_is_put_if_that_is_right():
    leak, inputs, labels, _ = leak_of([3, 1])
    logits = 30.0 * F.one_hot(labels, CLASSES)
    found = make_attack("dlg", iterations=3).reconstruct(Leak(**{**vars(leak), "start": (inputs, logits)}))
    assert psnr(found.inputs, inputs) > 60


def test_inverting_gradients_finds_a_sample_in_its_bounds():
    leak, inputs, labels, _ = leak_of([2])
    found = make_attack("inverting_gradients", iterations=400, tv=0.0).reconstruct(leak)
    assert psnr(found.inputs, inputs) > 40
    assert found.labels.tolist() == labels.tolist()
    assert 0 <= found.inputs.min() <= found.inputs.max() <= 1
    rough = make_attack("inverting_gradients", iterations=400, tv=1.0).reconstruct(leak)
    assert total_variation(rough.inputs) < total_variation(found.inputs)


def test_the_direction_of_the_update_is_enough_for_inverting_gradients_only():
    leak, inputs, *_ = leak_of([2])
    longer = Leak(**{**vars(leak), "update": 5 * leak.update})
    found = make_attack("inverting_gradients", iterations=400, tv=0.0).reconstruct(longer)
    assert psnr(found.inputs, inputs) > 40
    assert psnr(make_attack("dlg", iterations=30).reconstruct(longer).inputs, inputs) < 40


@pytest.mark.parametrize("labels", [[0], [1, 3], [4, 4], [0, 2, 0]])
def test_revealing_labels_finds_the_set(labels):
    for seed in range(3):
        leak, *_ = leak_of(labels, seed=seed)
        assert make_attack("revealing_labels").reconstruct(leak).labels.tolist() == sorted(set(labels))


def test_the_linear_program_against_a_search_over_directions():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 20001)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    for _ in range(40):
        basis = rng.normal(size=(4, 2))
        values = basis @ directions
        for c in range(4):
            rest = np.delete(values, c, axis=0)
            assert separable(basis, c) == bool(((values[c] < -1e-3) & (rest >= 0).all(0)).any())
    assert not separable(np.zeros((4, 0)), 1)


def test_distilled_knowledge_comes_close_to_a_single_sample():
    leak, inputs, labels, _ = leak_of([3])
    settings = {"threshold": 0.05, "first_iterations": 500, "inner_lr": 1.0, "lr_images": 2.0}
    found = make_attack("distilled_knowledge", defense=settings).reconstruct(leak)
    assert found.inputs.shape == inputs.shape
    assert found.labels.tolist() == labels.tolist()
    with pytest.raises(ParameterError, match="threshold"):
        make_attack("distilled_knowledge", defense={"threshhold": 1})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dlg", {"iterations": 0}),
        ("dlg", {"restarts": 0}),
        ("dlg", {"lr": 0.0}),
        ("inverting_gradients", {"tv": -1.0}),
        ("inverting_gradients", {"iterations": 0}),
        ("revealing_labels", {"tolerance": 0.0}),
    ],
)
def test_parameters_out_of_range_are_refused(name, params):
    with pytest.raises(ParameterError, match=f"{name}: {next(iter(params))} is"):
        make_attack(name, **params)


@pytest.mark.parametrize("name", ["dlg", "inverting_gradients", "distilled_knowledge"])
def test_a_suite_needs_images_for_what_reconstructs_inputs(name):
    with pytest.raises(ParameterError, match="leaks are measured on images, the inputs are \\(30,\\)"):
        make_attack(name).check((30,), 2, 10, 0)
    make_attack("revealing_labels").check((30,), 2, 10, 0)
