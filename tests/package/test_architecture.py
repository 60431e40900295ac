"""The import arrows, and what must not appear where; read from the sources, nothing is run."""

import ast
import functools
from pathlib import Path

import pytest

from fedguard import _deprecated as old

ROOT = Path(__file__).parents[2]
FOLDERS = {"fedguard": "fedguard", "detectors": "fedguard.detectors", "attacks": "fedguard.attacks"}
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
#: Parts that know who is malicious.
TRUTH = ("fedguard.simulation", "fedguard.evaluation", "fedguard.testing.fuzzing")
#: What runs in a live federation as well: nothing that knows the truth may be in its reach.
SURFACES = (
    "fedguard.simulation",
    "fedguard.evaluation",
    "fedguard.cli",
    "fedguard.__main__",
    "fedguard.configs",
    "fedguard.testing.fuzz",  # shows hostile files to all of them
    "fedguard.testing.fuzzing",
    "fedguard.testing.models",  # checks parts of simulations
    "fedguard.testing.datasets",
    "fedguard.testing.partitions",
)
#: What they pickle goes to and from their own worker processes, as multiprocessing itself does it.
OWN_PROCESSES = ("fedguard.simulation.pool", "fedguard.simulation.packing")
MAX_LINES = 350


def module_of(path):
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = [FOLDERS[folder], *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path):
    """Every module or name that a file imports, absolute; imports for type checkers count as well."""
    return tuple(_imports(path))


def _imports(path):
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def within(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def offenders(files, *forbidden):
    return [f"{p.relative_to(ROOT)}: {n}" for p in files for n in imports(p) if within(n, *forbidden)]


def test_the_sources_are_found():
    modules = {module_of(path) for path in FILES}
    assert {
        "fedguard",
        "fedguard.guard",
        "fedguard.aggregators.mean",
        "fedguard.detectors.krum",
        "fedguard.attacks",
    } <= modules
    guard = next(path for path in FILES if module_of(path) == "fedguard.guard")
    assert {"numpy", "fedguard.ledger.memory.Ledger", "fedguard.contracts.registry.make_policy"} <= set(
        imports(guard)
    )


def test_the_engine_never_imports_detectors_or_attacks():
    engine = [p for p in FILES if not within(module_of(p), "fedguard.detectors", "fedguard.attacks")]
    assert offenders(engine, "fedguard.detectors", "fedguard.attacks", "detectors", "attacks") == []


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("fedguard.detectors", ("fedguard.attacks", "attacks")),
        ("fedguard.attacks", ("fedguard.detectors", "detectors")),
    ],
)
def test_detectors_and_attacks_never_import_each_other(package, forbidden):
    files = [p for p in FILES if within(module_of(p), package)]
    assert files
    assert offenders(files, *forbidden) == []


def test_nothing_that_runs_live_can_reach_the_ground_truth():
    live = [p for p in FILES if not within(module_of(p), *SURFACES)]
    live.remove(ROOT / "fedguard/__init__.py")  # names everything that is public
    assert len(live) > 20
    assert offenders(live, *TRUTH) == []


def test_no_live_name_carries_the_truth():
    """Only attacks (they are the malicious clients) and metrics speak of who is malicious."""
    allowed = (*SURFACES, "fedguard.attacks", "fedguard.contracts.attack", "fedguard.evaluation.metrics")
    words = {"malicious", "is_malicious", "malicious_ids", "ground_truth", "truth", "attackers", "benign_ids"}
    found = []
    for path in FILES:
        if within(module_of(path), *allowed):
            continue
        for node in ast.walk(tree(path)):
            names = {
                ast.Name: lambda n: n.id,
                ast.Attribute: lambda n: n.attr,
                ast.arg: lambda n: n.arg,
                ast.keyword: lambda n: n.arg,
            }
            name = names.get(type(node), lambda n: None)(node)
            if name in words:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}: {name}")
    assert found == []


def test_the_contracts_do_not_know_the_command_line():
    engine = [p for p in FILES if not within(module_of(p), *SURFACES)]
    assert offenders(engine, "fedguard.cli", "typer", "rich") == []


def test_files_are_short():
    sizes = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_no_source_imports_an_old_name():
    names = [f"fedguard.{name}" for name in (*old.MODULES, *old.NAMES, *old.ROOT)]
    assert offenders(FILES, *names) == []


def test_torchvision_is_imported_in_one_place():
    users = {module_of(p) for p in FILES if any(within(n, "torchvision") for n in imports(p))}
    assert users <= {"fedguard.simulation.vision"}


def calls(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def restricts_unpickling(path):
    """Whether a file defines an Unpickler with a ``find_class`` of its own."""
    return any(
        isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("Unpickler") for base in node.bases)
        and any(isinstance(part, ast.FunctionDef) and part.name == "find_class" for part in node.body)
        for node in ast.walk(tree(path))
    )


def test_nothing_is_unpickled_but_by_a_restricted_reader_of_data_sets():
    picklers = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    users = {p for p in FILES if any(within(name, *picklers) for name in imports(p))}
    users -= {p for p in FILES if module_of(p) in OWN_PROCESSES}
    for path in users:
        assert within(module_of(path), "fedguard.simulation.datasets"), path
        assert restricts_unpickling(path), path
        assert not {"pickle.load", "pickle.loads"} & {function for function, _ in calls(path)}, path


def test_nothing_runs_or_loads_what_it_is_given():
    forbidden = {"torch.save", "eval", "exec", "yaml.unsafe_load", "yaml.full_load"}
    for path in FILES:
        for function, keywords in calls(path):
            assert function not in forbidden, path
            assert function != "torch.load" or keywords.get("weights_only") == "True", path
            assert keywords.get("allow_pickle", "False") == "False", path
            assert function != "yaml.load" or "Safe" in keywords.get("Loader", ""), path


def test_no_global_seeding():
    forbidden = {
        "torch.manual_seed",
        "np.random.seed",
        "numpy.random.seed",
        "random.seed",
        "torch.cuda.manual_seed_all",
    }
    assert [(module_of(p), f) for p in FILES for f, _ in calls(p) if f in forbidden] == []
