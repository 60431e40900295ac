"""The recommended detector as it was frozen before any held-out result: one digest per file of its rule.

python benchmarks/recommended_frozen.py    # print the digests of today's code

Comments, docstrings and layout do not count. Digests depend on Python's version, since its syntax trees do.
"""

from __future__ import annotations

import sys
from importlib.resources import files

from fedguard.evaluation.results.code import functional_digest

#: The files that the rule consists of.
RULE = (
    "recommended",
    "_beside_pseudo_clients",
    "_calibration",
    "_class_cone",
    "_explained",
    "_generators",
    "_label_gradients",
    "_layer_products",
    "_pseudo_clients",
    "_ranking",
    "_signals",
)


def digests() -> dict[str, str]:
    """File of ``fedguard.detectors`` → digest of its code."""
    folder = files("fedguard.detectors")
    return {name: functional_digest((folder / f"{name}.py").read_bytes()) for name in RULE}


def main() -> None:
    """Print the digests."""
    print(f"python: '{sys.version_info.major}.{sys.version_info.minor}'\nfiles:")
    for name, digest in digests().items():
        print(f"  {name}: {digest}")


if __name__ == "__main__":
    main()
