"""Docstrings of FedGuard's form: a lead, then sections such as "Args:" and "Source:"."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Source): *", re.MULTILINE)


def readable(text: str) -> str:
    """Without the marks of reStructuredText: names in double backticks and roles become the names."""
    text = re.sub(r":\w+:`~?\.?(?:[^`]*\.)?([^`.]+)`", r"\1", text)
    return text.replace("``", "")


def sections(thing: object) -> dict[str, str]:
    """The sections by title; what comes before the first one has the title ``""``.

    Args:
        thing: an object with a docstring, or the docstring itself.
    """
    text = inspect.cleandoc(thing) if isinstance(thing, str) else inspect.getdoc(thing) or ""
    marks = list(_SECTION.finditer(text))
    found = {"": text[: marks[0].start() if marks else None].strip()}
    for i, mark in enumerate(marks):
        body = text[mark.end() : marks[i + 1].start() if i + 1 < len(marks) else None]
        found[mark[1]] = inspect.cleandoc(body).strip()
    return found


def described(thing: object) -> dict[str, str]:
    """Parameter → its description under "Args:", as one line."""
    text = sections(thing).get("Args", "")
    entries = re.findall(r"^(\w+): (.*(?:\n+ +.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}
