"""YAML with line numbers, so that messages about a suite name the line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError, DataError
from ...core.files import is_file
from ...core.named_code import refusal, untrusted_in
from ...core.params import nearest
from ...core.yaml_values import MAX_BYTES, MAX_DEPTH, Path_, parse
from ..terminal import plain

#: What messages say instead of a file and a line.
GIVEN_FROM_PYTHON = "given from Python"
_POSITION = re.compile(r"[0-9]{1,9}")


@dataclass
class Source:
    """A parsed YAML file and the line of every key path in it.

    Attributes:
        name: the file's name in messages.
        data: the plain value.
        lines: key path → line, from 1.
        overrides: key path → the override that set it.
        aliases: alternative key path (an entry of a list by its label) → the path in the file.
    """

    name: str
    data: Any
    lines: dict[Path_, int] = field(default_factory=dict)
    aliases: dict[Path_, Path_] = field(default_factory=dict)
    overrides: dict[Path_, str] = field(default_factory=dict)

    def error(self, path: Path_, message: str) -> ConfigError:
        """An error at a key path: ``file:line: key.path: message``."""
        place = path
        for alias, real in self.aliases.items():
            if path[: len(alias)] == alias:
                place = (*real, *path[len(alias) :])
        where = self.name
        for prefix in (place[:k] for k in range(len(place), -1, -1)):
            if prefix in self.overrides:
                where = _said(self.overrides[prefix])
                break
            if prefix in self.lines:
                where = f"{self.name}:{self.lines[prefix]}"
                break
            below = [path for path in self.overrides if prefix and path[: len(prefix)] == prefix]
            if below:  # an override made the mapping that it leads through
                where = _said(self.overrides[below[0]])
                break
        key = short(plain(".".join(map(str, path))))
        return ConfigError(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def data_error(self, path: Path_, error: DataError) -> DataError:
        """An error about the data, with the key path that names them."""
        return DataError(str(self.error(path, str(error))))

    def override(self, assignment: str) -> None:
        """Apply ``a.b=c``; the value is YAML, numbers are list positions.

        Raises:
            ConfigError: no "=", or the path leads through a value that has no keys.
        """
        key, value = _split(assignment)
        path = key_path(key)
        if len(path) > MAX_DEPTH:
            raise ConfigError(f"override {assignment[:50]!r}…: nested more than {MAX_DEPTH} levels deep")
        self.assign(path, value, assignment)

    def assign(self, path: Path_, value: Any, assignment: str = "") -> None:
        """Set the value at a key path.

        Args:
            path: keys and positions in lists.
            value: plain data.
            assignment: the override that says so, for messages; empty if it comes from Python.

        Raises:
            ConfigError: the path leads through a value that has no keys.
        """
        target = self.data
        for depth, part in enumerate(path[:-1]):
            if isinstance(target, dict) and part not in target:
                target[part] = {}
            target = self._step(target, part, path[: depth + 1], assignment)
            if isinstance(target, str):  # `attacks.0.knowledge=partial` on the short form "lie"
                raise ConfigError(
                    f"{_said(assignment)}: {'.'.join(map(str, path[: depth + 1]))} is {target!r}; "
                    f"override all of it, e.g. {'.'.join(map(str, path[: depth + 1]))}={{name: {target}, …}}"
                )
        if not isinstance(target, dict | list):
            raise ConfigError(f"{_said(assignment)}: {'.'.join(map(str, path[:-1]))} has no keys")
        if isinstance(target, list):
            self._step(target, path[-1], path, assignment)
        target[path[-1]] = value  # type: ignore[index]
        self.lines = {p: line for p, line in self.lines.items() if p[: len(path)] != path}
        self.overrides[path] = assignment

    def refuse_code(self) -> None:
        """Refuse a file that names code or data on a server: its author would choose what runs here.

        Raises:
            ConfigError: with the place of the first such name.
        """
        for path, name in untrusted_in(self.data):
            if not any(path[:k] in self.overrides for k in range(len(path) + 1)):
                raise self.error(path, refusal(name))

    def _step(self, target: Any, part: str | int, path: Path_, assignment: str) -> Any:
        try:
            return target[part]
        except (KeyError, IndexError, TypeError):
            raise ConfigError(f"{_said(assignment)}: there is no {'.'.join(map(str, path))}") from None


def _said(assignment: str) -> str:
    """Where a value comes from that is not in the file."""
    return f"override {assignment!r}" if assignment else GIVEN_FROM_PYTHON


def key_path(text: str) -> Path_:
    """``a.0.b`` as keys and positions."""
    return tuple(int(part) if _POSITION.fullmatch(part) else part for part in text.split("."))


def assignments(texts: list[str]) -> dict[str, Any]:
    """``["a.b=1", "c=x"]`` as ``{"a": {"b": 1}, "c": "x"}``; values are YAML.

    Raises:
        ConfigError: no "=", or not valid YAML.
    """
    source = Source("parameters", {})
    for text in texts:
        source.override(text)
    return dict(source.data)


def choices(texts: list[str]) -> dict[str, Any]:
    """``["a.b=1", "c=[x, y]"]`` as ``{"a.b": 1, "c": ["x", "y"]}``, which choose runs; values are YAML.

    Raises:
        ConfigError: no "=", or not valid YAML.
    """
    return dict(_split(text) for text in texts)


def _split(assignment: str) -> tuple[str, Any]:
    """The key path and the value of ``a.b=c``."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {assignment!r}: write key.path=value")
    return key, parse(text, f"override {short(assignment)!r}")[0]


def shipped_suites() -> dict[str, Path]:
    """The suites that come with FedGuard, by name."""
    folder = files("fedguard.configs")
    return {
        entry.name.removesuffix(".yaml"): Path(str(entry))
        for entry in sorted(folder.iterdir(), key=str)
        if entry.name.endswith(".yaml")
    }


def read(suite: str) -> Source:
    """Read a suite by path or by the name of a shipped one.

    Raises:
        ConfigError: no such file or suite, or not valid YAML (names the line).
    """
    shipped = shipped_suites()
    path = shipped.get(suite, Path(suite))
    if not is_file(path):
        raise ConfigError(
            f"no suite {short(suite)!r}{nearest(suite, shipped)}: it is neither a file nor a shipped suite "
            f"({', '.join(shipped)})"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path}: is larger than {MAX_BYTES >> 10} KiB, the limit for suites; use a smaller file"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    name = path.name if suite in shipped else str(path)
    return Source(name, *parse(text, name))


def short(text: str, limit: int = 200) -> str:
    """The start of a text, for a message."""
    return text if len(text) <= limit else f"{text[:limit]}…"
