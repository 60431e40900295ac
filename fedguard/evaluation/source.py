"""YAML with line numbers, so that every message about a suite can say where."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..named_code import code_in, refusal
from ..params import nearest

Path_ = tuple[str | int, ...]

#: A file of settings has no more bytes, and no more values once its aliases are written out.
MAX_BYTES, MAX_VALUES = 4 * 2**20, 100_000


class _Loader(yaml.SafeLoader):
    """Safe YAML whose scalars read as people expect: 1e-3 is a number, only true/false are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)|[0-9]+\.[0-9]*|\.[0-9]+|\.inf|\.nan)$"
    ),
    list("-+.0123456789"),
)


@dataclass
class Source:
    """A parsed YAML file and the line of every key path in it.

    Attributes:
        name: what the file is called in messages.
        data: the plain value.
        lines: key path → line, from 1.
        overrides: key path → the override that set it.
        aliases: another way to name a key path (an entry of a list by its label) → the path in the file.
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
                where = f"override {self.overrides[prefix]!r}"
                break
            if prefix in self.lines:
                where = f"{self.name}:{self.lines[prefix]}"
                break
        key = ".".join(map(str, path))
        return ConfigError(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def override(self, assignment: str) -> None:
        """Apply ``a.b=c``; the value is YAML, list positions are numbers.

        Raises:
            ConfigError: no "=", or the path runs into something that has no keys.
        """
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {assignment!r}: write key.path=value")
        path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        value = _parse(text, f"override {assignment!r}").data
        target = self.data
        for depth, part in enumerate(path[:-1]):
            if isinstance(target, dict) and part not in target:
                target[part] = {}
            target = self._step(target, part, path[: depth + 1], assignment)
            if isinstance(target, str):  # `attacks.0.knowledge=partial` on the short form "lie"
                raise ConfigError(
                    f"override {assignment!r}: {'.'.join(map(str, path[: depth + 1]))} is {target!r}; "
                    f"override it whole, e.g. {'.'.join(map(str, path[: depth + 1]))}={{name: {target}, …}}"
                )
        if not isinstance(target, dict | list):
            raise ConfigError(f"override {assignment!r}: {'.'.join(map(str, path[:-1]))} has no keys")
        if isinstance(target, list):
            self._step(target, path[-1], path, assignment)
        target[path[-1]] = value  # type: ignore[index]
        self.lines = {p: line for p, line in self.lines.items() if p[: len(path)] != path}
        self.overrides[path] = assignment

    def refuse_code(self) -> None:
        """Refuse a file that names classes to import: whoever wrote it chooses what is run.

        Raises:
            ConfigError: with the place of the first ``module:Class``.
        """
        for path, name in code_in(self.data):
            if not any(path[:k] in self.overrides for k in range(len(path) + 1)):
                raise self.error(path, refusal(name))

    def _step(self, target: Any, part: str | int, path: Path_, assignment: str) -> Any:
        try:
            return target[part]
        except (KeyError, IndexError, TypeError):
            raise ConfigError(f"override {assignment!r}: there is no {'.'.join(map(str, path))}") from None


def assignments(texts: list[str]) -> dict[str, Any]:
    """``["a.b=1", "c=x"]`` as ``{"a": {"b": 1}, "c": "x"}``; values are YAML.

    Raises:
        ConfigError: no "=", or not valid YAML.
    """
    source = Source("parameters", {})
    for text in texts:
        source.override(text)
    return dict(source.data)


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
        ConfigError: no such file or suite, or not valid YAML (says the line).
    """
    shipped = shipped_suites()
    path = shipped.get(suite, Path(suite))
    if not path.is_file():
        raise ConfigError(
            f"no suite {suite!r}{nearest(suite, shipped)}: it is neither a file nor a shipped suite "
            f"({', '.join(shipped)})"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: has more than {MAX_BYTES >> 20} MiB; that is no suite")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return _parse(text, path.name if suite in shipped else str(path))


def _parse(text: str, name: str) -> Source:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        source = Source(name, None)
        source.data = None if node is None else _plain(loader, node, (), source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply, or an alias that holds itself") from None
    except (ValueError, TypeError) as error:  # 2026-99-99, an integer of 10,000 digits, a mapping as a key
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    return source


def _plain(loader: _Loader, node: yaml.Node, path: Path_, source: Source) -> Any:
    source.lines[path] = node.start_mark.line + 1
    if len(source.lines) > MAX_VALUES:  # aliases of aliases grow exponentially
        raise ConfigError(f"{source.name}: more than {MAX_VALUES:,} values once aliases are written out")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, i), source) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    _refuse_duplicates(loader, node, path, source)
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        result[key] = _plain(loader, value_node, (*path, key), source)
        source.lines[(*path, key)] = key_node.start_mark.line + 1
    return result


def _refuse_duplicates(loader: _Loader, node: yaml.MappingNode, path: Path_, source: Source) -> None:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            source.lines[(*path, key)] = key_node.start_mark.line + 1
            raise source.error((*path, key), "this key is given twice; keep one")
        seen.add(key)
