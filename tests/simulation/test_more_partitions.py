"""Shards, k classes, quantity, similarity and natural clients: by hand, by moments, and what is refused."""

import numpy as np
import pytest

from fedguard.core.errors import ParameterError
from fedguard.core.named_code import GIVEN
from fedguard.simulation.partitions import Split, make_partition, split_samples
from fedguard.simulation.partitions.base import checked_split
from fedguard.simulation.partitions.k_classes import k_classes
from fedguard.simulation.partitions.natural import natural
from fedguard.simulation.partitions.quantity import quantity
from fedguard.simulation.partitions.shards import shards
from fedguard.simulation.partitions.similarity import similarity

CLASSES = 10
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), 60))


def rng(seed=0):
    return np.random.default_rng(seed)


class Ordered:
    """Stands for a generator whose permutations change nothing, so that results can be worked out by hand."""

    def permutation(self, what):
        return np.arange(what) if np.isscalar(what) else np.asarray(what)

    def choice(self, what, size, replace):
        assert not replace
        return np.asarray(what)[:size]

    def dirichlet(self, alpha):
        shares = np.arange(1, len(alpha) + 1)
        return shares / shares.sum()

    def standard_normal(self, size):
        return np.log(np.arange(1, size + 1))


def lists(parts):
    return [part.tolist() for part in parts]


def test_shards_by_hand():
    """Sorted by label: 1, 4, 5 | 0, 3 | 2, 6, 7; four shards of two; client 0 gets the first two."""
    labels = [1, 0, 2, 1, 0, 0, 2, 2]
    assert lists(shards(labels, 2, Ordered(), s=2)) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert lists(shards(labels, 4, Ordered(), s=1)) == [[1, 4], [0, 5], [2, 3], [6, 7]]


def test_shards_of_the_paper_have_at_most_two_classes():
    """200 shards of 300 images for 100 clients, and classes of 6000: no shard has two classes."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    parts = shards(labels, 100, rng())
    assert {len(part) for part in parts} == {600}
    assert max(len(np.unique(labels[part])) for part in parts) == 2


def test_shards_sort_numbers_too():
    numbers = np.array([0.5, -1.0, 2.0, 0.1])
    assert lists(shards(numbers, 2, Ordered(), s=1)) == [[1, 3], [0, 2]]
    assert lists(shards(numbers[:, None], 2, Ordered(), s=1)) == [[1, 3], [0, 2]]


def test_k_classes_by_hand():
    """The clients own classes {0, 1}, {1, 0}, {2, 0}: three share 0 (0, 3, 6), two share 1 (1, 4)."""
    labels = [0, 1, 2, 0, 1, 2, 0]
    assert lists(k_classes(labels, 3, Ordered(), k=2)) == [[0, 1], [3, 4], [2, 5, 6]]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_everybody_owns_k_classes_in_equal_parts(k):
    parts = k_classes(LABELS, 20, rng(1), k)
    counts = np.array([np.bincount(LABELS[part], minlength=CLASSES) for part in parts])
    assert ((counts > 0).sum(1) == k).all()
    assert counts.sum() == len(LABELS), "with 20 clients every class has an owner"
    for column in counts.T:
        own = column[column > 0]
        assert own.max() - own.min() <= 1


def test_few_clients_leave_classes_to_nobody():
    parts = k_classes(LABELS, 3, rng(), k=2)
    found = np.unique(LABELS[np.concatenate(parts)])
    assert set(found) >= {0, 1, 2}
    assert len(found) <= 6


def test_quantity_by_hand():
    """Shares 1/6, 2/6, 3/6 of twelve samples; exp(1 · ln i) is i, so the log-normal ones are the same."""
    expected = [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    labels = np.zeros(12)
    assert lists(quantity(labels, 3, Ordered())) == expected
    assert lists(quantity(labels, 3, Ordered(), "lognormal", sigma=1)) == expected
    assert lists(quantity(labels, 3, Ordered(), "lognormal", sigma=0)) == lists(np.arange(12).reshape(3, 4))


def test_log_normal_sizes_have_the_spread_of_the_distribution():
    """The standard deviation of ln(size) is σ√(1 − 1/n), as the sizes are made to add up."""
    n, sigma, found = 50, 0.5, []
    for seed in range(40):
        parts = quantity(np.zeros(200_000), n, rng(seed), "lognormal", sigma=sigma)
        sizes = np.log([len(part) for part in parts])
        found.append(np.var(sizes))
    assert np.mean(found) == pytest.approx(sigma**2 * (1 - 1 / n), rel=0.05)


def test_dirichlet_sizes_have_the_variance_of_the_distribution():
    """A share has variance (1/n)(1 − 1/n)/(nβ + 1)."""
    n, beta = 5, 0.5
    shares = [
        [len(part) / 10_000 for part in quantity(np.zeros(10_000), n, rng(s), beta=beta)] for s in range(400)
    ]
    assert np.var(shares) == pytest.approx((1 / n) * (1 - 1 / n) / (n * beta + 1), rel=0.1)


def test_quantity_leaves_labels_alone():
    parts = quantity(LABELS, 4, rng(), beta=100)
    for part in parts:
        assert np.abs(np.bincount(LABELS[part], minlength=CLASSES) / len(part) - 0.1).max() < 0.1


def test_similarity_by_hand():
    """γ = ½ of eight: 0 … 3 are dealt in order; 4 … 7 by label are 5, 7, 4, 6, the last piece to client 0."""
    labels = [0, 0, 0, 0, 1, 0, 1, 0]
    assert lists(similarity(labels, 2, Ordered(), gamma=0.5)) == [[0, 1, 4, 6], [2, 3, 5, 7]]


def test_similarity_goes_from_sorted_to_iid():
    def skew(gamma):
        parts = similarity(LABELS, 10, rng(), gamma)
        shares = np.array([np.bincount(LABELS[part], minlength=CLASSES) / len(part) for part in parts])
        return np.abs(shares - 0.1).sum(1).mean() / 2

    assert skew(0) == pytest.approx(0.9), "one class each"
    assert skew(1) < 0.15
    assert skew(0.5) == pytest.approx(0.45, abs=0.05)


def test_as_many_clients_as_samples_get_one_each():
    for gamma in np.linspace(0, 1, 9):
        assert [len(part) for part in similarity(np.arange(5), 5, rng(), gamma)] == [1] * 5


GROUPS = np.array([7, 3, 3, 9, 7, 7, 1])


def test_natural_clients_by_hand():
    assert lists(natural(np.zeros(7), 4, rng(), GROUPS)) == [[6], [1, 2], [0, 4, 5], [3]]
    assert lists(natural(np.zeros(7), 2, Ordered(), GROUPS)) == [[6], [1, 2]]
    assert lists(natural(np.zeros(7), 2, Ordered(), GROUPS, "merge")) == [[1, 2, 6], [0, 3, 4, 5]]
    assert lists(natural(np.zeros(7), 2, rng(), GROUPS, min_examples=2)) == [[1, 2], [0, 4, 5]]


@pytest.mark.parametrize(
    ("n", "params", "message"),
    [(5, {}, "has 4 natural clients; set `clients` to at most 4"), (3, {"min_examples": 2}, "has 2 natural")],
)
def test_too_few_natural_clients_are_refused(n, params, message):
    with pytest.raises(ParameterError, match=message):
        split_samples("natural", np.zeros(7), n, rng(), {"groups": GROUPS}, params)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (3, "made a int, not a list"),
        ([[0, 1]], "made 1 parts for 2 clients"),
        ([[0, 1], []], "leaves client 1 of 2 without samples; lower `clients`"),
        ([[0, 1], [2.0]], "client 1 float64"),
        ([[0, 1], [[2]]], r"shape \(1, 1\)"),
        ([[0, 1], [5]], "positions 0 … 5 of 5"),
        ([[-1, 1], [2]], "positions -1"),
        ([[0, 1], [1]], "sample 1 to two clients"),
        (Split([np.array([0]), np.array([1])], None, ("one",)), "1 notes for 2"),
    ],
)
def test_what_a_partition_of_ones_own_may_not_return(made, message):
    with pytest.raises(ParameterError, match=f"partition mine.*{message}"):
        checked_split(made, "mine", 5, 2)


def test_the_order_within_a_part_does_not_matter():
    assert lists(checked_split([(3, 0), (1,)], "mine", 5, 2).parts) == [[0, 3], [1]]


@pytest.mark.parametrize("name", ["dirichlet", "label_probability", "k_classes"])
@pytest.mark.parametrize("labels", [np.linspace(0, 1, 50), np.zeros((50, 3), dtype=int)])
def test_partitions_of_classes_refuse_other_labels(name, labels):
    with pytest.raises(ParameterError, match="deals classes, but the labels are"):
        make_partition(name, labels, 2, rng())


def test_owners_of_a_class_with_too_few_samples_are_refused():
    with pytest.raises(ParameterError, match=r"1 of 4 clients got no sample.*raise k or lower"):
        k_classes([0, 0, 0, 0, 1], 4, rng(), k=1)


@pytest.mark.parametrize("name", ["iid", "quantity"])
def test_partitions_that_ignore_labels_take_any(name):
    assert sum(map(len, make_partition(name, np.zeros((50, 3)), 4, rng()))) == 50


@pytest.mark.parametrize("name", ["shards", "similarity"])
def test_several_labels_per_sample_cannot_be_sorted(name):
    with pytest.raises(ParameterError, match="cannot be sorted by label"):
        make_partition(name, np.zeros((50, 3)), 4, rng())


def by_global_chance(labels, n, rng):
    return np.array_split(np.random.permutation(len(labels)), n)


def by_counting(labels, n, rng, calls=[]):  # noqa: B006 - that is the mistake
    calls.append(n)
    return np.array_split(np.roll(np.arange(len(labels)), len(calls)), n)


@pytest.mark.parametrize("function", [by_global_chance, by_counting])
def test_a_partition_that_cannot_be_repeated_is_refused(function, monkeypatch):
    monkeypatch.setitem(GIVEN, "mine", function)
    with pytest.raises(ParameterError, match="deals otherwise when it is called again"):
        make_partition("given:mine", np.arange(40) % 4, 4, np.random.default_rng(0))


def test_a_partition_cannot_change_the_labels(monkeypatch):
    def spoils(labels, n, rng):
        labels[:] = 0
        return np.array_split(np.arange(len(labels)), n)

    labels = np.arange(40) % 4
    monkeypatch.setitem(GIVEN, "mine", spoils)
    make_partition("given:mine", labels, 4, np.random.default_rng(0))
    assert labels.tolist() == [k % 4 for k in range(40)]
