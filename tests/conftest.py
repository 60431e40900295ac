"""One torch thread per test process: the arrays are tiny, and several test processes share the cores."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
