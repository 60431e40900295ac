"""Move the fragments of this folder into CHANGELOG.md: ``python changes/collect.py VERSION``."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Kind → its heading, in the order of the changelog.
KINDS = {
    "breaking": "Breaking",
    "deprecated": "Deprecated",
    "added": "Added",
    "fixed": "Fixed",
    "docs": "Documentation",
}


def fragments(folder: Path) -> dict[str, list[Path]]:
    """Kind → its files, sorted by name.

    Raises:
        ValueError: a file's name has no known kind, or a fragment is empty.
    """
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        parts = path.name.split(".")
        if len(parts) != 3 or parts[1] not in KINDS:
            raise ValueError(
                f"{path.name}: call it <short-name>.<kind>.md, with a kind of {', '.join(KINDS)}"
            )
        if not path.read_text(encoding="utf-8").strip():
            raise ValueError(f"{path.name} is empty: say what is different for the reader")
        found[parts[1]].append(path)
    return found


def section(version: str, date: str, found: dict[str, list[Path]]) -> str:
    """The changelog's section on one version."""
    lines = [f"## {version} ({date})", ""]
    for kind, paths in found.items():
        if paths:
            texts = [" ".join(path.read_text(encoding="utf-8").split()) for path in paths]
            lines += [f"### {KINDS[kind]}", "", *(f"- {text}" for text in texts), ""]
    return "\n".join(lines)


def collect(version: str, folder: Path, changelog: Path, date: str) -> None:
    """Put a version's section before the latest one, then delete its fragments."""
    found = fragments(folder)
    text = changelog.read_text(encoding="utf-8")
    head, mark, rest = text.partition("\n## ")
    changelog.write_text(f"{head}\n{section(version, date, found)}{mark}{rest}", encoding="utf-8")
    for paths in found.values():
        for path in paths:
            path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python changes/collect.py VERSION")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    collect(sys.argv[1], HERE, HERE.parent / "CHANGELOG.md", today)
