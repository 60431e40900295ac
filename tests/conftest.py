"""For all tests: one torch thread per process, and the same hypothesis examples in every run.

``--hypothesis-profile=explore`` looks for new examples instead.
"""

import importlib.util
import shutil
from pathlib import Path

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


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests that want one are skipped where there is none."""
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = next(filter(None, map(shutil.which, module.BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here")
    browser = module.Browser(program)
    yield browser
    browser.close()
