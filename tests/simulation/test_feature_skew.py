"""Feature skew: what each client sees, only training samples change, the same bits in every process."""

import sys
import types

import numpy as np
import pytest
import torch

from fedguard.contracts.data import Samples
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.datasets import Dataset, load_dataset
from fedguard.simulation.deal import deal, with_changes
from fedguard.simulation.federation import Federation
from fedguard.simulation.partitions import Split, split_samples
from fedguard.simulation.partitions.feature_skew import rotated
from fedguard.simulation.pool import Workers
from fedguard.simulation.setup import Setup

LABELS = np.arange(40) % 4
SMALL = ("clients=6", "malicious=2", "attacks=[none]", "defenses=[none]")


def split(n=4, **params):
    return split_samples("feature_skew", LABELS, n, np.random.default_rng(0), {}, params)


def draw():
    return torch.Generator().manual_seed(0)


def images(count=3):
    return torch.rand(count, 2, 4, 4, generator=draw())


def cell_of(partition, *more):
    plan, source = load_suite("quickstart", [f"partition={partition}", *SMALL, *more])
    check_suite(plan, source)
    return plan.cells()[0]


def test_quarter_turns_are_exact():
    """By hand: counterclockwise, the right column becomes the top row."""
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert rotated(image, 90).tolist() == [[[[2.0, 4.0], [1.0, 3.0]]]]
    assert rotated(image, 180).tolist() == [[[[4.0, 3.0], [2.0, 1.0]]]]
    assert torch.equal(rotated(image, -90), rotated(image, 270))
    assert torch.equal(rotated(image, 360), image)


def test_other_angles_agree_with_quarter_turns_and_with_scipy():
    from scipy.ndimage import rotate

    picture = images(1)
    assert torch.allclose(rotated(picture, 90.0001), rotated(picture, 90), atol=1e-4)
    smooth = torch.linspace(0, 1, 21).outer(torch.linspace(0, 1, 21) ** 2)
    ours = rotated(smooth[None, None], 30)[0, 0]
    theirs = rotate(smooth.numpy(), 30, reshape=False, order=1, mode="constant")
    middle = slice(4, 17)  # at the edges, the two blend with what lies outside in different ways
    assert np.allclose(ours[middle, middle], theirs[middle, middle], atol=1e-5)


def test_oblong_images_keep_their_shape_and_their_proportions():
    line = torch.zeros(1, 1, 5, 9)
    line[0, 0, 2, 2:7] = 1  # five pixels long, in the middle
    turned = rotated(line, 90)
    assert turned.shape == line.shape
    assert torch.allclose(turned[0, 0, :, 4], torch.ones(5), atol=1e-5), "now upright, still five long"
    assert turned.sum() == pytest.approx(5, abs=1e-4)


def test_contrast_keeps_the_mean():
    pixels = images() / 2 + 0.25
    change = split(noise=0, contrasts=[0.5]).change
    seen = change(0, pixels, draw())
    mean = pixels.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(seen, mean + 0.5 * (pixels - mean))


def test_noise_grows_from_client_to_client():
    """The variance of client i is σ (i + 1)/n, of features, which have no bounds."""
    change, zeros = split(noise=0.8).change, torch.zeros(20_000, 3)
    found = [change(i, zeros, draw()).var().item() for i in range(4)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=0.02)


def test_images_stay_in_range_and_the_input_is_not_written_to():
    pixels = images()
    before = pixels.clone()
    seen = split(noise=1.0).change(3, pixels, draw())
    assert torch.equal(pixels, before)
    assert seen.min() == 0
    assert seen.max() == 1


def test_every_combination_occurs():
    found = split(8, noise=0, rotations=[0, 90], contrasts=[1, 0.5]).notes
    assert found == ("", "90°", "contrast 0.5", "90°, contrast 0.5") * 2


def test_changes_stack_up():
    inner = {"name": "feature_skew", "noise": 0, "rotations": [90]}
    found = split(noise=0, rotations=[180], of=inner)
    assert torch.equal(found.change(0, images(), draw()), torch.rot90(images(), 3, (2, 3)))
    assert found.notes[0] == "90°, 180°"


@pytest.mark.parametrize(
    ("pixels", "params", "message"),
    [
        (torch.rand(2, 5), {"rotations": [90]}, r"shape \(5,\) are not images"),
        (torch.rand(2, 5), {"contrasts": [2]}, "not images; use noise alone"),
        (torch.zeros(2, 5, dtype=torch.int64), {}, "whole numbers, say tokens"),
    ],
)
def test_what_cannot_be_changed_is_refused(pixels, params, message):
    with pytest.raises(ParameterError, match=message):
        split(**params).change(0, pixels, draw())


def test_only_the_clients_training_samples_change():
    skewed = Setup(cell_of("{name: feature_skew, rotations: [0, 90]}", "server.validation=50"))
    plain = load_dataset("digits")
    owned = torch.cat(skewed.samples)
    held = torch.ones(len(plain.train.labels), dtype=torch.bool)
    held[owned] = False
    assert held.sum() == 50
    assert torch.equal(skewed.clients_data.train.pixels[held], plain.train.pixels[held])
    assert torch.equal(skewed.clients_data.test.pixels, plain.test.pixels)
    assert torch.equal(skewed.clients_data.train.labels, plain.train.labels)
    assert not torch.equal(skewed.clients_data.train.pixels[owned], plain.train.pixels[owned])
    own = skewed.client_samples(1).pixels
    turned = torch.rot90(plain.train.pixels[skewed.samples[1]], 1, (2, 3))
    assert (own - turned).abs().mean() < (own - plain.train.pixels[skewed.samples[1]]).abs().mean()
    expected = skewed.dataset.normalize(skewed.clients_data.train.pixels)
    assert torch.equal(skewed.clients_data.training_set.inputs, expected)


def test_nothing_is_copied_before_it_is_needed_or_if_nothing_changes():
    skewed, plain = Setup(cell_of("feature_skew")), Setup(cell_of("iid"))
    assert "clients_data" not in vars(skewed), (
        "checking a suite with many seeds must not copy the data for each"
    )
    assert skewed.clients_data is not skewed.dataset
    assert plain.clients_data is plain.dataset


def test_the_deal_is_that_of_the_inner_partition():
    inner = "{name: dirichlet, beta: 0.5}"
    one, other = Setup(cell_of(inner)), Setup(cell_of(f"{{name: feature_skew, of: {inner}}}"))
    assert all(map(torch.equal, one.samples, other.samples))


def test_through_a_file_the_bits_are_the_same(tmp_path):
    cell = cell_of("feature_skew")
    dataset = load_dataset("digits")
    dealt = deal(cell, dataset)
    found = [with_changes(dataset, dealt, cell, folder) for folder in (None, tmp_path, tmp_path)]
    assert len([path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]) == 1
    for other in found[1:]:
        assert torch.equal(found[0].train.pixels, other.train.pixels)
        assert torch.equal(found[0].training_set.inputs, other.training_set.inputs)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("attack", ["min_max", "label_flip"])
def test_a_federation_gives_the_same_bits_with_any_number_of_workers(attack):
    cell = cell_of("feature_skew", f"attacks=[{attack}]", "rounds=2")
    alone = Federation(cell)
    with Workers(2) as workers:
        together = Federation(cell, workers.map)
        for index in range(2):
            alone.step(index)
            together.step(index)
    assert torch.equal(alone.params, together.params)
    plain = Federation(cell_of("iid", f"attacks=[{attack}]"))
    plain.step(0)
    assert not torch.equal(alone.params, plain.params)


def upside_down(labels, n):
    parts = [np.arange(k, len(labels), n) for k in range(n)]
    return Split(parts, lambda client, pixels, generator: pixels.flip(2) if client else pixels)


@pytest.fixture
def own(monkeypatch):
    made = types.ModuleType("own_split")
    made.__dict__.update(
        upside_down=upside_down,
        smaller=lambda labels, n: Split(upside_down(labels, n).parts, lambda c, pixels, g: pixels[:, :, 1:]),
        lost=lambda labels, n: Split(upside_down(labels, n).parts, lambda c, pixels, g: pixels / 0),
        nothing=lambda labels, n: Split(upside_down(labels, n).parts, lambda c, pixels, g: None),
    )
    monkeypatch.setitem(sys.modules, "own_split", made)


def test_a_change_of_ones_own(own):
    setup = Setup(cell_of("own_split:upside_down"))
    plain = load_dataset("digits").train.pixels
    assert torch.equal(setup.client_samples(1).pixels, plain[setup.samples[1]].flip(2))
    assert torch.equal(setup.client_samples(0).pixels, plain[setup.samples[0]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smaller", "shape and type must stay"),
        ("lost", "infinite values or NaN"),
        ("nothing", "to None; shape and type must stay"),
    ],
)
def test_a_wrong_change_is_refused_before_anything_trains(own, name, message):
    with pytest.raises(ConfigError, match=f"partition: partition own_split:{name}: it changed.*{message}"):
        cell_of(f"own_split:{name}")


def test_natural_clients_of_a_data_set_reach_the_partition():
    """The array `clients` of a data set is what a partition gets as `groups`, without the server's."""
    points = torch.rand(12, 2)
    samples = Samples(points, torch.arange(12) % 2)
    dataset = Dataset("people", samples, samples, 2, mean=(0.0,), std=(1.0,))
    object.__setattr__(dataset, "clients", np.repeat([5, 1, 8], 4))
    plan, _ = load_suite(
        "quickstart", ["partition=natural", "clients=3", "malicious=0", "server.validation=2"]
    )
    cell = plan.all_cells()[0]
    owners = [np.unique(dataset.clients[rows]) for rows in deal(cell, dataset).samples]
    assert np.array(owners).ravel().tolist() == [1, 5, 8]
    assert sum(map(len, deal(cell, dataset).samples)) == 10
