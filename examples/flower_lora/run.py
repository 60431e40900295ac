"""Run the app in a simulation on this machine: ``python run.py [key=value …]``, keys as in pyproject.toml.

What starts Flower and prints the table is in ../flower/run.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent
SILOS = 6


def main(settings: list[str]) -> int:
    """Run the app in this folder."""
    spec = importlib.util.spec_from_file_location("flower_run", APP.parent / "flower" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    flower = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flower)
    return int(flower.main(settings, APP, SILOS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
