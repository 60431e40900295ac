"""The Sphinx extension: generated pages before reading, links and docstrings while reading."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from typing import Any

from . import checkout, data_sets, methods, networks, parts, public, suite

#: Of a docstring, what is not literal text; and what reStructuredText would take for markup in it.
LITERAL = re.compile(r"(``.*?``|:\w+:`[^`]+`)")
MARKUP = re.compile(r"([|*]|(?<=\w)_(?=\W|$))")


def write(app: Any) -> None:
    """Write all generated pages; what stays the same keeps its time, so that builds are incremental."""
    written = {**methods.pages(), **parts.pages(), **public.pages()}
    pages = {f"reference/generated/{name}": text for name, text in written.items()}
    pages["reference/generated/suite.rst"] = suite.page()
    pages["reference/generated/models.rst"] = networks.page()
    pages["reference/generated/data-sets.rst"] = data_sets.page()
    for old in Path(app.srcdir, "reference", "generated").rglob("*.rst"):
        if old.relative_to(app.srcdir).as_posix() not in pages:
            old.unlink()  # of a page that is no more
    pages |= checkout.copies()
    checkout.copy_pictures()
    for name, text in pages.items():
        path = Path(app.srcdir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def boards(app: Any, exception: Exception | None) -> None:
    """Interactive pages of results, once the site is built."""
    if exception is None and app.builder.format == "html":
        checkout.copy_boards(Path(app.outdir))


def links(app: Any, docname: str, source: list[str]) -> None:
    """Links out of ``docs/``."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".md":
        source[0] = checkout.rewritten(source[0], Path("docs", path.relative_to(app.srcdir)))


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are formulas and prose: | * and a trailing _ outside of literals are just that."""
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type
    for i, line in enumerate(lines):
        parts = LITERAL.split(line)
        parts[::2] = [MARKUP.sub(r"\\\1", part) for part in parts[::2]]
        # reStructuredText needs an escaped space between a literal and its plural s.
        parts[2::2] = ["\\ " + part if part[:1].isalnum() else part for part in parts[2::2]]
        lines[i] = "".join(parts)


def known(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A name of ours that has no page is shown without a link; one that does not exist is a warning."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not name.startswith("fedguard."):
        return None
    return content if _exists(name) else None


def _exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("builder-inited", write)
    app.connect("source-read", links)
    app.connect("build-finished", boards)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon reads sections
    app.connect("missing-reference", known)
    return {"parallel_read_safe": True}
