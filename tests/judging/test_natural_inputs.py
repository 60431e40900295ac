"""What users write first: names, mappings, lists of them; and one clear sentence for what cannot be meant."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedguard import Detector, Guard, Round, SQLiteLedger, make_detector
from fedguard.core.errors import ParameterError, RegistryError, RoundError
from fedguard.detectors.krum import Krum

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)


def test_names_are_accepted_where_objects_are():
    guard = Guard("krum", "ban", "median", stages="norm_clipping")
    assert (list(guard.detectors), guard.policy.name) == (["krum"], "ban")
    assert [part.name for part in guard.aggregation()] == ["norm_clipping", "median"]
    guard.process(Round(X))


def test_mappings_and_lists_are_accepted_too():
    guard = Guard(
        [{"name": "krum", "select": "m_krum"}, "dnc", make_detector("norm_bound")],
        {"name": "ban", "strikes": 3},
        {"name": "trimmed_mean", "num_malicious": 1},
        stages=["norm_clipping", {"name": "weak_dp"}],
    )
    assert list(guard.detectors) == ["krum", "dnc", "norm_bound"]
    assert guard.detectors["krum"].select == "m_krum"
    assert guard.policy.strikes == 3
    assert guard.aggregator.inner.num_malicious == 1
    assert Guard({"name": "krum", "num_malicious": 2}).detectors["krum"].num_malicious == 2


class Bare(Detector):
    def score(self, round):
        return np.zeros(round.n)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Guard(Krum), ParameterError, r"detectors: Krum is a class; give an instance, Krum\(…\)"),
        (lambda: Guard([Krum]), ParameterError, "detectors: Krum is a class"),
        (lambda: Guard("krum", SQLiteLedger), ParameterError, "policy: SQLiteLedger is a class"),
        (lambda: Guard(Bare()), ParameterError, r"detectors: Bare has no card; write `card = Card\("),
        (lambda: Guard("krun"), RegistryError, "did you mean 'krum'"),
        (lambda: Guard("krum", "bann"), RegistryError, "did you mean 'ban'"),
        (lambda: Guard({"name": "krum", "sel": 1}), ParameterError, "did you mean 'select'"),
        (lambda: Guard("krum", aggregator="krum2"), RegistryError, "unknown aggregator 'krum2'"),
        (lambda: Guard(7), ParameterError, "detectors: 7 is not a valid detector"),
        (
            lambda: Guard("krum", ledger="ledger.db"),
            ParameterError,
            r"ledger: 'ledger.db' is not a ledger.*SQLite",
        ),
        (
            lambda: Guard("krum", policy=make_detector("krum")),
            ParameterError,
            "policy: .* is not a valid policy",
        ),
        (
            lambda: Guard().process(X),
            RoundError,
            r"judges a Round, got a ndarray; write guard.process\(Round\(",
        ),
        (lambda: Guard().watch(X.tolist()), RoundError, "got a list"),
        (lambda: Guard().suspects(X), RoundError, "got a ndarray"),
        (lambda: Guard().process(Round), RoundError, "got the class Round"),
    ],
)
def test_what_cannot_be_meant_gets_one_sentence(build, error, message):
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_every_module_that_the_docs_name_in_full_is_there_after_the_import(tmp_path):
    """``fedguard.core.state.save(path, state)`` after nothing but ``import fedguard``."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md"]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    called = re.findall(r"\b(fedguard(?:\.[A-Za-z_]\w*)+)\(", text)
    named = re.findall(r"\b(fedguard\.core\.\w+\.\w+)`", text)
    extras = ("fedguard.flower", "fedguard.testing", "fedguard.evaluation")
    names = sorted({name for name in called + named if not name.startswith(extras)})
    assert {"fedguard.core.state.save", "fedguard.core.history.MAX_CLIENTS"} <= set(names)
    code = f"import fedguard\nfor name in {names}:\n    eval(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_state_is_saved_under_a_path_as_text(tmp_path):
    import fedguard

    guard = Guard("krum", "ban")
    guard.process(Round(X))
    path = str(tmp_path / "guard.state")
    fedguard.core.state.save(path, guard.state_dict())
    other = Guard("krum", "ban")
    other.load_state_dict(fedguard.core.state.load(path))
    assert other.next_index == 1
    assert fedguard.core.state.load(str(tmp_path / "none.state")) is None
