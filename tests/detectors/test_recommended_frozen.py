"""The recommended detector is the one that its published figures were measured with."""

import runpy
from pathlib import Path

import yaml

HOME = Path(__file__).resolve().parents[2]


def test_the_rule_is_the_tested_one():
    """After a change of the rule: run the test of benchmarks/recommended_heldout.yaml anew, then freeze."""
    module = runpy.run_path(str(HOME / "benchmarks" / "recommended_frozen.py"))
    frozen = yaml.safe_load(module["FROZEN"].read_text(encoding="utf-8"))
    assert module["digests"]() == frozen
