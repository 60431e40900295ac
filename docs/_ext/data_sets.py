"""The reference page of data sets, written from the functions that load them."""

from __future__ import annotations

import inspect
import re
from typing import Any

from fedguard.simulation.datasets import datasets
from fedguard.simulation.datasets.torchvision_sets import OTHERS, OWN

from .methods import _text, _title

LITERAL = re.compile(r"(``.*?``)")
#: Library data sets whose parameters stand for their kind's.
EXAMPLES = (
    "torchvision:EMNIST",
    "torchvision:CIFAR100",
    "torchvision:SVHN",
    "huggingface:OWNER/NAME",
    "openml:61",
)


def page() -> str:
    """reStructuredText: every data set with its parameters."""
    lines = [
        _title("Data sets", "="),
        "A suite names one as ``data``; ``fedguard list datasets`` lists the built-in ones.",
    ]
    lines += ["", ":doc:`/how-to/your-own-data` shows how to use your own.", ""]
    for name in (*datasets.names(), *EXAMPLES):
        maker = datasets.get(name)
        lines += [_title(name, "-"), _body(inspect.getdoc(maker) or ""), _parameters(maker), ""]
    known = ", ".join(f"``torchvision:{name}``" for name in (*OWN, *OTHERS))
    lines += [_title("Data sets of torchvision", "-"), f"These are known: {known}.", ""]
    return "\n".join(lines)


def _body(doc: str) -> str:
    """The prose before the sections of a docstring."""
    for section in ("\nArgs:", "\nRaises:"):
        doc = doc.partition(section)[0]
    return "\n\n".join(_escaped(part) for part in doc.strip().split("\n\n")) + "\n"


def _parameters(maker: Any) -> str:
    parameters = [p for p in inspect.signature(maker).parameters.values() if p.name not in datasets.offers]
    if not parameters:
        return "It has no parameters.\n"
    about = _about(inspect.getdoc(maker) or "")
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - Parameter",
        "     - Default",
        "     - Meaning",
    ]
    for p in parameters:
        default = "required" if p.default is p.empty else f"``{p.default!r}``"
        lines += [f"   * - ``{p.name}``", f"     - {default}", f"     - {about.get(p.name, '')}"]
    return "\n".join([*lines, ""])


def _about(doc: str) -> dict[str, str]:
    """Parameter → what its docstring says."""
    section = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        start, colon, rest = line.strip().partition(": ")
        if colon and start.isidentifier() and len(line) - len(line.lstrip()) == 4:
            name = start
            found[name] = rest
        elif name:
            found[name] += f" {line.strip()}"
    return {key: _escaped(text) for key, text in found.items()}


def _escaped(text: str) -> str:
    """Prose in reStructuredText; what is literal stays as it is."""
    parts = LITERAL.split(text)
    parts[::2] = map(_text, parts[::2])
    return "".join(parts)
