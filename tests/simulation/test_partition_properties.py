"""What holds for every partition, whatever the labels, the clients and the parameters."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fedguard.core.errors import ParameterError
from fedguard.simulation.partitions import make_partition

PARAMS = {
    "iid": st.just({}),
    "dirichlet": st.fixed_dictionaries(
        {"beta": st.floats(0.05, 100), "equal_sizes": st.booleans(), "min_examples": st.integers(1, 3)}
    ),
    "label_probability": st.fixed_dictionaries({"p": st.floats(0.01, 1)}),
}


@pytest.mark.parametrize("name", PARAMS)
@given(data=st.data(), n=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_partition_invariants(name, data, n, seed):
    classes = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True))
    size = data.draw(st.integers(n, 40 * n))
    labels = np.random.default_rng(seed).choice(classes, size)
    params = data.draw(PARAMS[name])
    try:
        parts = make_partition(name, labels, n, np.random.default_rng(seed), **params)
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
    assert len(dealt) == (size // n * n if params.get("equal_sizes") else size)
    again = make_partition(name, labels, n, np.random.default_rng(seed), **params)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
