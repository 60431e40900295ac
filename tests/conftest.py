"""For all tests: one torch thread per process, and the same hypothesis examples in every run.

``--hypothesis-profile=explore`` looks for new examples instead.
"""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The arrays are tiny, and several test processes share the cores."""
    torch.set_num_threads(1)
