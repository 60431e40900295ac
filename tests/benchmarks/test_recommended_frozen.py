"""The code of the recommended detector is the one that was frozen before the held-out attacks were run."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
FROZEN = yaml.safe_load((FOLDER / "results" / "recommended_frozen.yaml").read_text())


@pytest.fixture
def rule(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("recommended_frozen")
    del sys.modules["recommended_frozen"]


@pytest.mark.skipif(
    "{}.{}".format(*sys.version_info) != FROZEN["python"], reason="digests depend on Python's version"
)
def test_the_rule_is_the_frozen_one(rule):
    assert rule.digests() == FROZEN["files"], (
        "the rule has changed since the held-out attacks were run: say what and why in "
        "benchmarks/results/recommended_heldout.md, and write the new digests with recommended_frozen.py"
    )
