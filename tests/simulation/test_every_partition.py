"""What holds for every partition, whatever the labels, the clients and the parameters."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fedguard.core.errors import ParameterError
from fedguard.simulation.partitions import CATALOGUE, split_samples

PARAMS = {
    "iid": st.just({}),
    "dirichlet": st.fixed_dictionaries(
        {"beta": st.floats(0.05, 100), "equal_sizes": st.booleans(), "min_examples": st.integers(1, 3)}
    ),
    "label_probability": st.fixed_dictionaries({"p": st.floats(0.01, 1)}),
    "shards": st.fixed_dictionaries({"s": st.integers(1, 4)}),
    "k_classes": st.fixed_dictionaries({"k": st.integers(1, 4)}),
    "quantity": st.fixed_dictionaries(
        {
            "distribution": st.sampled_from(["lognormal", "dirichlet"]),
            "beta": st.floats(0.05, 100),
            "sigma": st.floats(0, 3),
            "min_examples": st.integers(1, 3),
        }
    ),
    "similarity": st.fixed_dictionaries({"gamma": st.floats(0, 1)}),
    "natural": st.fixed_dictionaries(
        {"fewer": st.sampled_from(["sample", "merge"]), "min_examples": st.integers(1, 3)}
    ),
    "feature_skew": st.fixed_dictionaries({"of": st.sampled_from(["iid", {"name": "shards", "s": 1}])}),
}
#: Partitions that may leave samples to nobody.
LEAVE_OUT = {"k_classes", "natural"}


def test_every_partition_is_here():
    assert set(PARAMS) == set(CATALOGUE)


@pytest.mark.parametrize("name", PARAMS)
@given(data=st.data(), n=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_partition_invariants(name, data, n, seed):
    classes = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True))
    size = data.draw(st.integers(n, 40 * n))
    labels = np.random.default_rng(seed).choice(classes, size)
    params = data.draw(PARAMS[name])
    groups = np.random.default_rng(seed + 1).integers(0, 2 * n, size)

    def make():
        rng = np.random.default_rng(seed)
        return split_samples(name, labels, n, rng, {"groups": groups}, params).parts

    try:
        parts = make()
    except ParameterError:
        reject()
    assert len(parts) == n
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) >= params.get("min_examples", 1)
        assert (np.diff(part) > 0).all(), "sorted, without repetition"
    dealt = np.sort(np.concatenate(parts))
    assert (np.diff(dealt) > 0).all(), "nobody shares a sample"
    assert dealt[0] >= 0
    assert dealt[-1] < size
    if name not in LEAVE_OUT:
        assert len(dealt) == (size // n * n if params.get("equal_sizes") else size)
    assert all(np.array_equal(a, b) for a, b in zip(parts, make(), strict=True))
