"""Ranks: SciPy's, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from fedguard.core.ranks import last_rank, mean_rank

VALUES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False)), min_size=1)


@given(VALUES)
def test_ranks_are_scipys(values):
    assert mean_rank(values).tolist() == rankdata(values).tolist()
    assert last_rank(values).tolist() == rankdata(values, method="max").tolist()


@pytest.mark.parametrize("rank", [mean_rank, last_rank])
def test_by_hand(rank):
    assert rank(np.array([7, 2, 7, 9])).tolist() == ([2.5, 1, 2.5, 4] if rank is mean_rank else [3, 1, 3, 4])
