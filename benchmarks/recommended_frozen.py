"""The rule of the recommended detector as it was when its test began: digests of the code that decides.

python benchmarks/recommended_frozen.py           # says whether the code is still the tested one
python benchmarks/recommended_frozen.py --write   # freezes the code as it is now

Comments and docstrings do not count. ``tests/detectors/test_recommended_frozen.py`` compares, so that no
figure under ``benchmarks/results`` outlives the rule that it was measured with.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
from pathlib import Path

import yaml

HOME = Path(__file__).resolve().parents[1]
FROZEN = HOME / "benchmarks" / "results" / "recommended_frozen.yaml"
FILES = (
    "detectors/recommended.py",
    "detectors/_beside_pseudo_clients.py",
    "detectors/_calibration.py",
    "detectors/_class_cone.py",
    "detectors/_explained.py",
    "detectors/_generators.py",
    "detectors/_pseudo_clients.py",
    "detectors/_signals.py",
)


def digest(path: Path) -> str:
    """SHA-256 of a file's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def digests() -> dict[str, str]:
    """The digests of the code as it is."""
    return {name: digest(HOME / name) for name in FILES}


def main() -> None:
    """Compare or freeze."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="freeze the code as it is now")
    if parser.parse_args().write:
        FROZEN.write_text(yaml.safe_dump(digests(), sort_keys=True), encoding="utf-8")
    frozen = yaml.safe_load(FROZEN.read_text(encoding="utf-8"))
    changed = [name for name, value in digests().items() if frozen.get(name) != value]
    print("changed since: " + ", ".join(changed) if changed else "the code is the frozen one")


if __name__ == "__main__":
    main()
