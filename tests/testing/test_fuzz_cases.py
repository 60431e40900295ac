"""The driver of mutants: what it would notice, what it bounds, and how it says so."""

import contextlib
import importlib
import sys
import time

import pytest

from fedguard.core.errors import ConfigError
from fedguard.testing import fuzz
from fedguard.testing.fuzzing import KINDS, driver, kind_of
from fedguard.testing.fuzzing.case import CANARY, Forbidden, Mutant, run_case
from fedguard.testing.fuzzing.files import Victim, no_formulas
from fedguard.testing.fuzzing.table import table
from fedguard.testing.fuzzing.values import changed


class Doing:
    """A kind whose mutants do this."""

    def __init__(self, call, **settings):
        self.call, self.settings = call, settings

    def make(self, rng, folder):
        return Mutant([("step", self.call)], ["a change"], **self.settings)


def verdict(call, bound=5.0, **settings):
    return run_case(Doing(call, **settings), "a kind", 3, bound)


def refuse():
    raise ConfigError("typed")


def fail():
    raise ValueError("un\ntyped")


def import_canary():
    with pytest.raises(ImportError):
        importlib.import_module(CANARY)


def loop():
    while True:
        with contextlib.suppress(Exception):  # it does not stop for that
            time.perf_counter()


def test_verdicts():
    assert verdict(lambda: None)[:2] == ("accepted", True)
    assert verdict(refuse, whole=False)[:2] == ("refused", False)
    assert verdict(lambda: None, refused=lambda: True).verdict == "refused"
    error = verdict(fail)
    assert error.verdict == "error"
    assert error.why.startswith("step (a change): ValueError: un typed at ")
    assert error.where.startswith("ValueError at ")


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (import_canary, "imported"),
        (lambda: print("\x1b]0;own\x07"), "controls the terminal"),
        (lambda: print("\x1b[2J", file=sys.stderr), "controls the terminal"),
    ],
    ids=["import", "stdout", "stderr"],
)
def test_what_no_input_may_bring_about(call, word):
    found = verdict(call)
    assert found.verdict == "error"
    assert word in found.why


def test_what_is_checked_afterwards(tmp_path):
    victim = Victim(tmp_path)
    written = verdict(lambda: victim.path.write_bytes(b"x"), check=victim.unharmed)
    assert (written.verdict, "through a link" in written.why) == ("error", True)
    no_formulas("a,-1.5\n+1e9,'=1\n")
    for cell in ("=1+1", "@x", "-x", '"\t=1"'):
        with pytest.raises(Forbidden):
            no_formulas(f"a\n{cell}\n")


def test_a_loop_is_a_hang():
    found = verdict(loop, bound=0.2)
    assert found.verdict == "hang"
    assert found.seconds < 30


def test_what_becomes_of_a_worker_that_dies(tmp_path):
    trace = tmp_path / "trace"
    text = 'Timeout (0:00:20)!\nThread 0x1:\n  File "/x/fedguard/testing/case.py", line 9 in run\n'
    trace.write_text(text.replace("9 in run\n", '9 in run\n  File "/x/fedguard/a.py", line 7 in read\n'))
    assert driver._death(1, trace)[0] == "hang"
    assert driver._death(1, trace).where == "no end at a.py, line 7 in read"
    trace.write_text("")
    assert driver._death(-11, trace)[0] == "error"
    assert "-11" in driver._death(-11, trace).why


def test_changes_keep_the_original():
    import numpy as np

    tree = {"a": [1, {"b": "x"}], "c": 0.5}
    for seed in range(300):
        changed(np.random.default_rng(seed), tree)
    assert tree == {"a": [1, {"b": "x"}], "c": 0.5}
    assert changed(np.random.default_rng(0), {}) == ({}, "nothing")


def test_the_table_says_where_and_how_to_repeat():
    tally = driver.Tally()
    for seed, result in enumerate([verdict(lambda: None), verdict(fail), verdict(fail), verdict(refuse)]):
        tally.add(seed, result)
    text = table({"suites": tally})
    assert "| suites | 4 | 100 % | 1 | 1 | 2 | 0 |" in text
    assert '- --kind "suites" --seed 1: step (a change): ValueError' in text
    assert "(2 times)" in text
    assert "**Failures: 2.**" in text


def test_the_command_line_repeats_one_case(monkeypatch, capsys):
    asked = []

    def in_workers(cases, workers, first):
        asked.append((dict(cases), first))
        tally = driver.Tally()
        tally.add(first, verdict(fail))
        return dict.fromkeys(cases, tally)

    monkeypatch.setattr(driver, "fuzz_in_workers", in_workers)
    assert fuzz.main(["--kind", "suites", "--seed", "17"]) == 1
    assert asked == [({"suites": 1}, 17)]
    assert "--seed 17" in capsys.readouterr().out


def test_kinds_are_imported_when_they_are_asked_for():
    with pytest.raises(ValueError, match="no kind 'x'"):
        kind_of("x")
    assert set(KINDS) >= {"recordings", "ledgers", "results folders", "suites", "flower replies"}
