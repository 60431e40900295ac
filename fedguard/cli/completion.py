"""What shells complete after ``fedguard --install-completion``, without heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files

#: What ``fedguard list`` takes.
KINDS = (
    *("detectors", "attacks", "aggregators", "stages", "policies", "models", "datasets", "partitions"),
    *("rules", "suites", "metrics", "aliases"),
)


def beginning(words: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """A completion: those of the words that begin with what has been typed."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words() if word.startswith(incomplete)]

    return complete


def kinds() -> Sequence[str]:
    """What ``fedguard list`` takes."""
    return KINDS


def suite_names() -> Sequence[str]:
    """The shipped suites."""
    names = sorted(entry.name for entry in files("fedguard.configs").iterdir())
    return [name.removesuffix(".yaml") for name in names if name.endswith(".yaml")]
