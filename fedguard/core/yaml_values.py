"""YAML as plain values, each with its line, with bounds on size and nesting for any input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from .errors import ConfigError

Path_ = tuple[str | int, ...]

#: Limits on the bytes and nodes of one file, and on its values after aliases and merges are expanded.
MAX_BYTES, MAX_NODES, MAX_VALUES = 2**19, 20_000, 100_000
#: Limits on the characters of one string, the digits of one number, and the levels of nesting.
MAX_TEXT, MAX_DIGITS, MAX_DEPTH = 10_000, 100, 40

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
#: Patterns of unquoted scalars, and their first characters. Every pattern takes time linear in the text.
_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    f"{_TAG}bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    f"{_TAG}int": (
        re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)\Z"),
        "-+0123456789",
    ),
    f"{_TAG}float": (
        re.compile(
            r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
            r"|[0-9]+[eE][-+]?[0-9]+|\.inf|\.nan)\Z"
        ),
        "-+.0123456789",
    ),
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), "~nN\0"),
    _MERGE: (re.compile(r"<<\Z"), "<"),
}
_KINDS: dict[type[yaml.Node], str] = {yaml.SequenceNode: f"{_TAG}seq", yaml.MappingNode: f"{_TAG}map"}


class _Loader(yaml.SafeLoader):
    """Composes nodes, and stops at the first string, depth or number of nodes beyond the bounds.

    Scalars read as people expect: 1e-3 is a number, only true and false are booleans, 1:30 is text.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML's

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; refused once there are too many."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.depth > MAX_DEPTH:
            _stop(event, f"nested more than {MAX_DEPTH} levels deep")
        if self.nodes > MAX_NODES:
            _stop(event, f"more than {MAX_NODES:,} values")
        if len(getattr(event, "value", None) or "") > MAX_TEXT:
            _stop(event, f"a text of more than {MAX_TEXT:,} characters")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, (_pattern, _first) in _FORMS.items():
    for _letter in [letter if letter != "\0" else "" for letter in _first]:
        _Loader.yaml_implicit_resolvers.setdefault(_letter, []).append((_tag, _pattern))


class _Refused(yaml.MarkedYAMLError):
    """An error in well-formed YAML that is not valid for settings; collects its key path on the way up."""

    path: Path_ | None = None


def _stop(node: Any, problem: str, path: Path_ | None = None) -> NoReturn:
    error = _Refused(problem=problem, problem_mark=node.start_mark)
    error.path = path
    raise error


def parse(text: str, name: str) -> tuple[Any, dict[Path_, int]]:
    """The value of a YAML text, and the line of every key path in it.

    Args:
        text: one document.
        name: its name in messages.

    Raises:
        ConfigError: not valid YAML, or beyond the bounds; names the line.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            values = _Values()
            value = None if node is None else values.plain(node, ())
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        character = f"#x{ord(text[error.position]):04x}"
        raise ConfigError(
            f"{name}:{line}: not valid YAML: the character {character} is not allowed"
        ) from None
    except _Refused as error:
        key = ".".join(map(str, error.path or ()))
        mark = error.problem_mark
        where = (f"{name}:{mark.line + 1}" if mark else name) + (f": {key}" if key else "")
        raise ConfigError(f"{where}: {error.problem}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    return value, values.lines


class _Values:
    """Turns nodes into plain values.

    Attributes:
        lines: key path → line, from 1.
    """

    def __init__(self) -> None:
        self.lines: dict[Path_, int] = {}
        self._count = 0

    def plain(self, node: yaml.Node, path: Path_) -> Any:
        """The value of a node; values repeated by aliases and merges count again."""
        try:
            return self._plain(node, path)
        except _Refused as error:
            error.path = path if error.path is None else error.path
            raise

    def _plain(self, node: yaml.Node, path: Path_) -> Any:
        self.lines[path] = node.start_mark.line + 1
        self._step(node, len(path))
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag != _KINDS[type(node)]:
            _refuse_tag(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*path, i)) for i, item in enumerate(node.value)]
        result: dict[Any, Any] = {}
        for key, (key_node, value_node) in self._merged(node, path).items():
            result[key] = self.plain(value_node, (*path, key))
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return result

    def _merged(self, node: yaml.Node, path: Path_) -> dict[str | int, tuple[yaml.Node, yaml.Node]]:
        """The entries of a mapping. Its own override merged ones, and earlier merges override later ones."""
        own: dict[str | int, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str | int, tuple[yaml.Node, yaml.Node]] = {}
        merges = False
        for key_node, value_node in node.value:
            self._step(key_node, len(path))
            if key_node.tag == _MERGE:
                if merges:
                    _stop(key_node, "'<<' is given twice; merge a list: <<: [*one, *two]")
                merges = True
                for source in _sources(value_node):
                    merged = {**self._merged(source, (*path, "<<")), **merged}
                continue
            key = _key(key_node)
            if key in own:
                _stop(key_node, "this key is given twice; keep one", (*path, key))
            own[key] = key_node, value_node
        return {**merged, **own}

    def _step(self, node: yaml.Node, depth: int) -> None:
        self._count += 1
        if self._count > MAX_VALUES:  # aliases of aliases grow exponentially
            _stop(node, f"more than {MAX_VALUES:,} values after expanding aliases and merges")
        if depth > MAX_DEPTH:
            _stop(node, f"nested more than {MAX_DEPTH} levels deep, or an alias that contains itself")


def _sources(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    """The mappings that ``<<`` merges."""
    for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(part, yaml.MappingNode):
            _stop(part, "'<<' merges a mapping or a list of them, for example <<: *base")
        yield part


def _key(node: yaml.Node) -> str | int:
    key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str | int) or isinstance(key, bool):
        _stop(node, "a key is a word; put it in quotes if it is one")
    return key


def _scalar(node: yaml.ScalarNode) -> Any:
    tag, text = node.tag, node.value
    if tag == f"{_TAG}str":
        if any("\ud800" <= c <= "\udfff" for c in text):
            _stop(node, "half a character (a surrogate) is not text")
        return text
    if tag not in _FORMS or tag == _MERGE:
        _refuse_tag(node)
    if not _FORMS[tag][0].match(text):
        _stop(node, f"{text[:50]!r} is not {tag.removeprefix(_TAG)}")
    if tag == f"{_TAG}null":
        return None
    if tag == f"{_TAG}bool":
        return text.lower() == "true"
    if len(text) > MAX_DIGITS:
        _stop(node, f"a number of more than {MAX_DIGITS} characters")
    return _integer(node) if tag == f"{_TAG}int" else _float(text)


def _integer(node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "").lower()
    unsigned = digits.lstrip("+-")
    octal = unsigned[0] == "0" and unsigned.isdecimal()
    try:
        value = int(digits, 8 if octal else 0)
    except ValueError:  # 0x_
        _stop(node, f"{node.value!r} is not an integer")
    if not -(2**63) <= value < 2**63:
        _stop(node, f"{node.value} does not fit into a 64-bit integer")
    return value


def _float(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _refuse_tag(node: yaml.Node) -> NoReturn:
    tag = str(node.tag).replace(_TAG, "!!")[:50]
    if node.tag == _MERGE:
        _stop(node, "'<<' merges mappings and stands before a colon; quote it if it is text")
    _stop(node, f"the tag {tag} is not allowed; settings are plain values")
