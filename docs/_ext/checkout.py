"""Links out of ``docs/`` into the checkout, which has no address of its own.

Pages that live elsewhere in the checkout (measured results, SECURITY.md, …) are copied into the site; a link
to any other file becomes its text and its path.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = Path("benchmarks/results")
#: File of the checkout → page of the site.
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "explanation/security.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CHANGELOG.md": "project/changelog.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


def place(path: Path) -> str | None:
    """Where a file of the checkout (relative to it) lies in the site; None if it is not there."""
    if path.parts[0] == "docs":
        if path.is_relative_to("docs/examples") and path.suffix == ".md":
            return None  # a bare table, not a page
        return path.relative_to("docs").as_posix()
    if path.is_relative_to(RESULTS) and (ROOT / path).is_file():
        return f"results/measured/{path.relative_to(RESULTS).as_posix()}"
    return PAGES.get(path.as_posix())


def rewritten(text: str, origin: Path) -> str:
    """Markdown of a file of the checkout with links that work in the site."""

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or path.startswith("/") or ":" in path:
            return match[0]
        found = Path(os.path.normpath(origin.parent / path))
        if not (ROOT / found).exists():
            return match[0]  # for Sphinx to complain about
        home = place(found)
        if home is None or (ROOT / found).is_dir():
            shown = words if words.strip("`") == found.as_posix() else f"{words} (`{found.as_posix()}`)"
            return shown if "`" in shown else f"`{shown}`"
        if found.suffix == ".html" and found.is_relative_to(RESULTS):  # a page of its own, not a download
            there = os.path.relpath(home, Path(str(place(origin))).parent)
            return f'<a href="{there}">{words}</a>'
        return f"{picture}[{words}](/{home}{'#' + anchor if anchor else ''})"

    parts = FENCE.split(text)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def copies() -> dict[str, str]:
    """Page of the site → Markdown, for all pages that are written elsewhere."""
    files = {Path(name) for name in PAGES if name != "README.md"}
    files |= {path.relative_to(ROOT) for path in (ROOT / RESULTS).rglob("*.md")}
    return {
        str(place(path)): rewritten((ROOT / path).read_text(encoding="utf-8"), path)
        for path in sorted(files)
        if (ROOT / path).exists()
    }


def copy_boards(out: Path) -> None:
    """Pages of results that are no Markdown, into the built site."""
    for path in (ROOT / RESULTS).rglob("*.html"):
        target = out / str(place(path.relative_to(ROOT)))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def copy_pictures() -> None:
    """Pictures and tables that the copied pages show or offer."""
    for path in (ROOT / RESULTS).rglob("*"):
        if path.suffix in (".png", ".svg", ".csv", ".yaml", ".tex") and path.is_file():
            target = DOCS / str(place(path.relative_to(ROOT)))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
