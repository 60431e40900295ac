"""3DFed's masks, the choice of its indicators and its tuning, against NumPy, loops and tables."""

import math

import numpy as np
import pytest
import torch

from fedguard.attacks import _three_dfed_indicators as indicators
from fedguard.attacks import _three_dfed_masks as masks
from fedguard.attacks import _three_dfed_tuning as tuning

A, C, R = "accepted", "clipped", "rejected"

# --- noise masks


def stepped(start, update, alpha):
    """The masks by NumPy: 30 steps of SGD with momentum on each colluder's own loss, dual ascent on λ."""
    m, u, velocity, multiplier = start.copy(), update, np.zeros_like(start), 1.0
    for _ in range(30):
        total = m.sum(0)
        gradients = []
        for own in m:
            gradient = multiplier * 0.01 * total / np.linalg.norm(total)
            gradient = gradient + (1 - alpha) * 0.01 * own / np.linalg.norm(own)
            for j, row in enumerate(u + own):
                gradient[j] -= alpha * 0.1 / np.abs(row).sum() ** 2 * np.sign(row)
            gradients.append(gradient / (1 + multiplier) + 5e-4 * own)
        velocity = 0.9 * velocity + np.array(gradients)
        m = m - 0.1 * velocity
        multiplier += 0.1 * np.linalg.norm(m.sum(0))
    return m


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_masks_take_the_steps_of_their_loss(alpha):
    draw = np.random.default_rng(0)
    update, start = draw.normal(size=(3, 20)) / 10, draw.normal(size=(2, 3, 20)) / 10
    found = masks.optimized_masks(torch.tensor(start), torch.tensor(update), alpha)
    np.testing.assert_allclose(found.numpy(), stepped(start, update, alpha), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [2, 5])
def test_masks_cancel_within_a_group_and_hide_the_targets_row(size):
    """Rows of 500 inputs, as in the authors' model for MNIST; the target's row changes most without masks."""
    draw = torch.Generator().manual_seed(3)
    update = 0.01 * torch.randn(9, 501, generator=draw)
    target = 0.03 * torch.randn(501, generator=draw)
    start = masks.drawn_masks(update, size, 0.05, draw)
    assert float(start.sum(0).abs().max()) < 1e-6
    assert float(start.std()) == pytest.approx(0.05 * math.sqrt(1 - 1 / size), rel=0.05)
    found = masks.optimized_masks(start, update, 0.5)
    assert float(found.sum(0).norm()) < 0.01 * float(found[0].norm())
    assert float(target.abs().sum()) > 2 * float(update.abs().sum(1).max())
    for mask in found:
        assert float(target.abs().sum()) < float((update + mask).abs().sum(1).min())


def test_a_larger_alpha_makes_rows_change_more():
    draw = torch.Generator().manual_seed(0)
    update = 0.01 * torch.randn(8, 101, generator=draw)
    start = masks.drawn_masks(update, 2, 0.05, draw)
    changes = [float((update + masks.optimized_masks(start, update, a)).abs().sum()) for a in (0.1, 0.5, 0.9)]
    assert changes == sorted(changes)


def test_a_group_of_one_sends_no_mask():
    assert not masks.optimized_masks(torch.ones(1, 2, 3), torch.ones(2, 3), 0.5).any()


# --- indicators


def test_indicators_are_the_flattest_of_those_that_move_least():
    draw = torch.Generator().manual_seed(0)
    moved, curved = torch.rand(60, generator=draw), torch.rand(60, generator=draw).round(decimals=1)
    few = sorted(range(60), key=lambda i: float(moved[i]))[:15]
    expected = sorted(few, key=lambda i: (float(curved[i]), float(moved[i])))[:3]
    assert indicators.quietest(moved, curved, 3, 5).tolist() == expected


# --- tuning


@pytest.mark.parametrize(
    ("decoys", "backdoors", "verdicts", "expected"),
    [
        (0, [A, A], [], 0),
        (0, [R, R], [], 1),
        (0, [R, C], [], 0),
        (1, [R, R], [R], 2),
        (2, [R, R], [A, R], 1),
        (2, [A, R], [R, R], 2),
        (1, [A, A], [A], 0),
        (1, [R, R], [C], 2),
    ],
)
def test_the_number_of_decoys(decoys, backdoors, verdicts, expected):
    assert tuning.next_decoys(decoys, backdoors, verdicts) == expected


@pytest.mark.parametrize(
    ("alphas", "backdoors", "low", "high"),
    [
        ([0.5, 0.3, 0.7], [A, A, A, A, A, A], 0.3, 0.5),
        ([0.5, 0.3, 0.7], [A, A, A, R, A, A], 0.5, 0.6),
        ([0.5, 0.3, 0.7], [A, R, A, A, R, R], 0.3, 0.4),
        ([0.5, 0.3, 0.7], [A, R, C, C, R, A], 0.2, 0.99),
        ([0.5], [A, A], 0.5, 0.5),
        ([0.5], [A, R], 0.2, 0.99),
        ([0.95, 0.96], [R, R, A, A], 0.96, 0.99),
    ],
)
def test_the_next_alphas(alphas, backdoors, low, high):
    draw = torch.Generator().manual_seed(0)
    groups = [i // 2 for i in range(len(backdoors))]
    drawn = [tuning.next_alphas(alphas, backdoors, groups, 0.2, draw) for _ in range(50)]
    assert {len(one) for one in drawn} == {len(alphas)}
    for group in zip(*drawn, strict=True):
        assert low <= min(group)
        assert max(group) <= high
        assert max(group) - min(group) >= 0.7 * (high - low), "drawn from all of it"
