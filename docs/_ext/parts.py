"""Reference pages of the parts of a federation, written from their registries when the site is built."""

from __future__ import annotations

from typing import Any

from fedguard.core.docstrings import sections
from fedguard.simulation.partitions import partitions

from .methods import _text, _title

#: kind → its registry, the key of a suite that names it, and what its page says first.
KINDS: dict[str, tuple[Any, str, str]] = {
    "partitions": (partitions, "partition", "Each deals the training samples to the clients."),
}


def pages() -> dict[str, str]:
    """File name → reStructuredText: one page per kind."""
    return {f"{kind}.rst": _page(kind, *entry) for kind, entry in KINDS.items()}


def _page(kind: str, parts: Any, key: str, lead: str) -> str:
    lines = [_title(kind.capitalize(), "="), lead, ""]
    lines += [f"A suite names one as ``{key}: {{name: …, parameters}}``; ``fedguard list {kind}`` shows this"]
    lines += ["table, ``fedguard show NAME`` one entry.", "", ".. list-table::", "   :header-rows: 1", ""]
    lines += ["   * - Name", "     - What it does"]
    for name in parts.names():
        summary = " ".join(sections(parts.get(name))[""].partition("\n\n")[0].split())
        lines += [f"   * - :ref:`{name} <{kind}-{name}>`", f"     - {_text(summary)}"]
    lines.append("")
    for name in parts.names():
        maker = parts.get(name)
        lines += [f".. _{kind}-{name}:", "", _title(name, "-")]
        directive = "autoclass" if isinstance(maker, type) else "autofunction"
        lines += [f".. {directive}:: {maker.__module__}.{maker.__qualname__}", "   :no-index:", ""]
    return "\n".join(lines)
