"""One list of layers: a file imports its own layer or lower ones, for type checkers and lazily, too."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {"fedguard": "fedguard", "detectors": "fedguard.detectors", "attacks": "fedguard.attacks"}

#: From the bottom up; modules on one line do not import each other's packages.
LAYERS = (
    ("core", "evaluation.terminal"),
    ("geometry", "ledger", "evaluation.metrics", "evaluation.cells"),
    ("contracts",),
    ("training",),
    ("aggregators", "stages", "policies"),
    ("exchange", "judging", "passive"),
    ("arrays",),
    ("exchange.state_dicts",),
    ("exchange.entries",),
    ("guard",),
    ("recording", "observers"),
    ("guard_file",),
    ("testing", "flower", "serve", "detectors", "attacks"),
    ("simulation",),
    ("testing.models", "testing.datasets", "testing.partitions"),
    ("evaluation.suites",),
    ("evaluation.results",),
    ("evaluation.running",),
    ("evaluation.api", "evaluation.calibration", "evaluation.tuning"),
    ("cli",),
    ("testing.fuzzing",),
    ("testing.fuzz",),
    ("_deprecated", "__main__"),
    ("",),  # the package's own __init__: the public names
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
#: Packages whose __init__ only describes them.
BARE = {"evaluation", "configs"}


def module_of(path):
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = [FOLDERS[folder], *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(p): p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))}


def part_of(module):
    """The entry of the list that a module belongs to; None if it is nobody's."""
    name = module.partition(".")[2]
    if module == "fedguard":
        return ""
    while name and name not in RANK:
        name = name.rpartition(".")[0]
    return name or None


def arrows(module):
    """Every module of FedGuard that a file imports, anywhere in it."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in FILES:
                name = name.rpartition(".")[0]
            if name and name != module:
                yield name


@functools.cache
def graph():
    """What every file imports; computed by the first test that asks, not whenever tests are collected."""
    return {module: sorted(set(arrows(module))) for module in FILES}


def test_the_arrows_are_found():
    assert "fedguard.contracts.round" in graph()["fedguard.guard"]
    assert "fedguard.contracts.registry" in graph()["fedguard.guard"], "lazy imports count"
    assert "fedguard.contracts.decision" in graph()["fedguard.contracts.detector"], "those for types count"
    assert "fedguard.aggregators.mean" in graph()["fedguard.aggregators._leave_one_out"]


def test_every_file_has_a_layer():
    assert [m for m in FILES if part_of(m) is None and m.partition(".")[2] not in BARE] == []


def test_at_most_ten_files_lie_in_the_root():
    assert len([p for p in (ROOT / "fedguard").iterdir() if p.is_file()]) <= 10


def wrong_arrows(module):
    """What a file imports from its own line of the list or above it."""
    here = part_of(module)
    there = {other: part_of(other) for other in graph()[module]}
    return [
        other
        for other, part in there.items()
        if here is not None and part is not None and part != here and RANK[part] >= RANK[here]
    ]


def test_no_arrow_points_up_or_to_a_neighbor():
    found = {module: wrong_arrows(module) for module in graph()}
    assert {module: wrong for module, wrong in found.items() if wrong} == {}


def test_a_wrong_arrow_is_found(monkeypatch):
    monkeypatch.setitem(graph(), "fedguard.contracts.round", ["fedguard.guard", "fedguard.core.errors"])
    assert wrong_arrows("fedguard.contracts.round") == ["fedguard.guard"]


def circles():
    """Strongly connected sets of files with more than one member (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph()[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            part = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(part) > 1:
                found.append(sorted(part))

    for module in graph():
        if module not in index:
            visit(module)
    return found


def test_no_files_import_each_other_in_a_circle():
    assert circles() == []
