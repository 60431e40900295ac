"""The partition contract: what comes with FedGuard keeps it, and every check finds what it is there for."""

import numpy as np
import pytest
import torch
from torch import nn

from fedguard.core.errors import ConfigError, ParameterError, RegistryError
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.partitions import Split, partitions
from fedguard.testing import check_partition, parametrize_checks
from fedguard.testing import partitions as module
from fedguard.testing.kinds import find_kind, names_of


@parametrize_checks(partitions.names(), kind="partition")
def test_what_comes_with_fedguard(check):
    check()


@parametrize_checks(
    [
        ("dirichlet", {"equal_sizes": True}),
        ("quantity", {"distribution": "lognormal"}),
        ("natural", {"fewer": "merge"}),
        ("feature_skew", {"of": "natural", "noise": 0, "rotations": [0, 30], "contrasts": [0.5]}),
    ]
)
def test_other_parameters(check):
    check()


def even(labels, n):
    """Sample i goes to client i mod n."""
    return [np.arange(k, len(labels), n) for k in range(n)]


def silent(labels, n):
    return even(labels, n)


def undescribed(labels, n, share: float = 0.5):
    """Deals."""
    return even(labels, n)


def untyped(labels, n, share=0.5):
    """Deals.

    Args:
        share: of something.
    """
    return even(labels, n)


def greedy(labels, n):
    """Client 0 gets all."""
    return [np.arange(len(labels)), *[np.arange(0)] * (n - 1)]


def twice(labels, n):
    """Everybody gets all."""
    return [np.arange(len(labels))] * n


def refusing(labels, n):
    """Deals nothing."""
    raise ParameterError("not today")


def failing(labels, n):
    """Divides by what is left."""
    return even(labels, n) if len(labels) >= n else [1 // 0]


COUNT = iter(range(10**6))


def moody(labels, n):
    """Turns with every call."""
    order = np.roll(np.arange(len(labels)), next(COUNT))
    return np.array_split(order, n)


def unseeded(labels, n, rng):
    """Asks for a generator and leaves it alone."""
    return even(labels, n)


def worldly(labels, n, rng):
    """Draws from the global generator."""
    return np.array_split(np.random.permutation(len(labels)), n)


def sorting(labels, n):
    """Writes to the labels."""
    labels.sort()
    return even(labels, n)


def changing(change):
    def partition(labels, n):
        """Changes inputs."""
        return Split(even(labels, n), change)

    return partition


def in_place(client, pixels, generator):
    return pixels.mul_(0.5)


BROKEN = [
    ("docstring", silent, "no docstring"),
    ("docstring", undescribed, "does not describe share"),
    ("types of the parameters", untyped, "parameter share has no type"),
    ("a part for everybody", greedy, "leaves client 1 of 2 without samples"),
    ("a part for everybody", twice, "to two clients"),
    ("a part for everybody", refusing, "not today"),
    ("too few samples", failing, "ZeroDivisionError"),
    ("the same seed", moody, "gives other parts"),
    ("another seed", unseeded, "every seed gives the same parts"),
    ("nothing else changes", worldly, "NumPy's global generator"),
    ("nothing else changes", sorting, "read-only"),
    ("changed inputs", changing(lambda c, pixels, g: None), "NoneType, not a tensor"),
    ("changed inputs", changing(lambda c, pixels, g: pixels[:, :, 1:]), "made shape"),
    ("changed inputs", changing(lambda c, pixels, g: pixels.double()), "float64"),
    ("changed inputs", changing(lambda c, pixels, g: pixels / 0), "infinite"),
    ("changed inputs", changing(lambda c, pixels, g: torch.rand_like(pixels)), "other inputs"),
    ("changed inputs", changing(lambda c, pixels, g: pixels * torch.rand(1, generator=g)), ""),
    ("changed inputs", changing(in_place), "changed the pixels"),
]


@pytest.mark.parametrize(("check", "maker", "message"), [b for b in BROKEN if b[2]])
def test_a_broken_partition_is_found(check, maker, message):
    module.labels.cache_clear()
    report = check_partition(maker)
    module.labels.cache_clear()
    failed = {result.check: result for result in report.failures}
    assert message in failed[check].message
    assert failed[check].advice


@pytest.mark.parametrize("maker", [even, BROKEN[-2][1]])
def test_a_sound_one_passes(maker):
    report = check_partition(maker)
    assert report.ok, report.failures
    assert len(report.results) == 8


class Net(nn.Module):
    """A model."""


def make_net() -> nn.Module:
    return Net()


def make_data() -> Dataset:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        ("dirichlet", "partitions"),
        ("resnet20", "models"),
        ("cifar10", "datasets"),
        ("timm:resnet18", "models"),
        ("flwr:IidPartitioner", "partitions"),
        ("openml:61", "datasets"),
        (Net, "models"),
        (Net(), "models"),
        (make_net, "models"),
        (make_data, "datasets"),
        (even, "partitions"),
        ("fedguard.simulation.partitions.iid:iid", "partitions"),
        ("torchvision:resnet18", "models"),
        ("torchvision:EMNIST", "datasets"),
    ],
)
def test_kinds_are_found(thing, kind):
    assert find_kind(thing) == kind


@pytest.mark.parametrize(
    ("thing", "kind", "error", "message"),
    [
        ("dirichlt", None, ConfigError, "did you mean 'dirichlet'"),
        (lambda x: x, None, ConfigError, "say what it makes with --kind"),
        ("iid", "partion", ConfigError, "did you mean 'partition'"),
        ("no_such_module:thing", None, RegistryError, "cannot load"),
        (int, None, RegistryError, "inherits from none"),
    ],
)
def test_unclear_kinds_are_refused(thing, kind, error, message):
    with pytest.raises(error, match=message):
        find_kind(thing, kind)


def test_every_kind_has_names():
    assert "iid" in names_of("partitions")
    assert "mean" in names_of("aggregators")


def test_a_kind_without_checks_is_refused(monkeypatch):
    from fedguard.testing import kinds

    monkeypatch.setattr(kinds, "PARTS", {**kinds.PARTS, "moods": "mood"})
    with pytest.raises(ConfigError, match="no checks for moods"):
        kinds.part_checker("moods")
