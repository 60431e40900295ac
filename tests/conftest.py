"""For all tests: one torch thread per process, and the same hypothesis examples in every run.

``--hypothesis-profile=thorough`` tries five times as many, and ``--hypothesis-profile=explore`` looks for new
ones.
"""

import gc
import importlib.util
import shutil
import zlib
from itertools import groupby
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile(
    "steady", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("steady"), max_examples=200)
settings.load_profile("steady")


def kept(cases, share):
    """The positions of the cases that a thinned grid keeps: one in ``share``, and every value at least once.

    Args:
        cases: for each case, its value of every parameter as text.
        share: of how many cases one is kept.
    """
    order = sorted(range(len(cases)), key=lambda k: zlib.crc32(repr(cases[k]).encode()))
    seen, chosen = set(), []
    for k in order:
        if not cases[k].items() <= seen:
            chosen.append(k)
            seen |= cases[k].items()
    rest = [k for k in order if k not in chosen]
    return {*chosen, *rest[: max(0, len(cases) // share - len(chosen))]}


@pytest.hookimpl(tryfirst=True)  # before the marks decide what is deselected
def pytest_collection_modifyitems(items):
    """Of a test marked ``thin(k)``, all cases but one in k are slow."""
    thinned = [item for item in items if item.get_closest_marker("thin")]
    for _, group in groupby(thinned, key=lambda item: item.nodeid.partition("[")[0]):
        group = list(group)
        cases = [{name: repr(value) for name, value in item.callspec.params.items()} for item in group]
        stay = kept(cases, *group[0].get_closest_marker("thin").args)
        for position, item in enumerate(group):
            if position not in stay:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What was collected stays until the end, so that no garbage collection looks at it again.

    Some of Flower's strategies collect garbage for every reply.
    """
    gc.collect()
    gc.freeze()


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
