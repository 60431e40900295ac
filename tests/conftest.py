"""For all tests: one torch thread per process, and the same hypothesis examples in every run.

Without torch and typer at the top: the process that only hands out the tests does not need them.

``--hypothesis-profile=thorough`` tries five times as many, and ``--hypothesis-profile=explore`` looks for new
ones.
"""

import functools
import gc
import importlib.util
import logging
import multiprocessing
import os
import shutil
import subprocess
import zlib
from itertools import groupby
from pathlib import Path

import pytest
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


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays until the end, so no garbage collection looks at it, now or later.

    Some of Flower's strategies collect garbage for every reply. Little of what tests leave is in cycles.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The arrays are tiny, and several test processes share the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def plain_loggers():
    """pytest attaches itself, six times a test, to every logger that does not propagate: torch has forty."""
    import torch  # noqa: F401 - it makes its loggers when it is imported

    for name, logger in logging.root.manager.loggerDict.items():
        if name.split(".")[0] == "torch" and isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """What a test writes need not survive a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_command_line():
    """Typer builds all commands from their signatures at every call; here, once per process."""
    import typer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def forked_workers(monkeypatch):
    """Worker processes are forked from one that has imported FedGuard, which takes a spawned one 2 seconds.

    They see the environment variables of the first of them. Tests of a new interpreter do without this.
    """
    context = multiprocessing.context
    if hasattr(context, "ForkServerProcess"):
        multiprocessing.set_forkserver_preload(IMPORTED)
        monkeypatch.setattr(context.SpawnProcess, "_Popen", staticmethod(context.ForkServerProcess._Popen))


#: What a process has imported from which others are forked.
IMPORTED = ["fedguard.evaluation.running.runner", "fedguard.cli.entry"]
IMPORTED += ["pandas", "sklearn.datasets", "sklearn.model_selection"]  # for data sets and tables, a second
#: What ``python -c CODE ARGUMENTS`` and ``python -m MODULE ARGUMENTS`` do.
PROGRAM = """
import os, runpy, sys
os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
os.environ.update(env)
os.chdir(cwd)
sys.argv = [kind, *arguments]
if kind == "-c":
    exec(what, {"__name__": "__main__"})
else:
    sys.path.insert(0, cwd)
    runpy.run_module(what, run_name="__main__", alter_sys=True)
"""


class Forked:
    """A ``subprocess.Popen`` of a Python that has FedGuard already, which takes a new one 2 seconds."""

    def __init__(self, folder, kind, what, *arguments, cwd, env=None):
        given = {"kind": kind, "what": what, "arguments": arguments, "cwd": str(cwd), "env": env or {}}
        self.out, self.err = folder / "out", folder / "err"
        given |= {"out": str(self.out), "err": str(self.err)}
        multiprocessing.set_forkserver_preload(IMPORTED)
        starts = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in starts else "spawn")
        self.process = context.Process(target=exec, args=(PROGRAM, given))
        self.process.start()

    def wait(self):
        """What ``subprocess.run`` returns."""
        self.process.join(timeout=300)
        said = (path.read_text(encoding="utf-8") if path.exists() else "" for path in (self.out, self.err))
        return subprocess.CompletedProcess("python", self.process.exitcode, *said)


@pytest.fixture
def python(tmp_path_factory, tmp_path):
    """``python("-c", CODE, …)`` and ``python("-m", MODULE, …)`` in a process of its own."""

    def start(*command, cwd=tmp_path, env=None):
        return Forked(tmp_path_factory.mktemp("said"), *map(str, command), cwd=cwd, env=env)

    return start


@pytest.fixture
def forked_reader(monkeypatch, python):
    """The other process in which the contract of data sets reads them is forked.

    Its sets have the order that they have here.
    """

    def run(command, env, **_):
        return python(*command[1:], env=env).wait()

    monkeypatch.setattr("fedguard.testing.datasets.subprocess.run", run)


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
