"""What clients, suites, results folders and data files can supply: none of it is run, none of it escapes.

SECURITY.md says what is promised, and links every promise to a test.
"""

import ast
import functools
import gzip
import importlib
import io
import json
import pickle
import re
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedguard.cli import entry as cli
from fedguard.core.errors import ConfigError, DataError, FedGuardError, ResultsError
from fedguard.core.state import pack, unpack
from fedguard.core.yaml_values import MAX_BYTES
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.checkpoint import Checkpoint
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.source import read
from fedguard.simulation.datasets import cifar10, mnist

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for folder in ("fedguard", "detectors", "attacks") for path in (ROOT / folder).rglob("*.py")
)


class Bomb:
    """What a pickle can do: write a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (Path(self.path).write_text, ("run",))


# --- what the sources do not do


def written(node):
    """An expression as it is written; names and attributes in a tenth of the time that unparse takes."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{written(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ast.unparse(node)


@functools.cache
def calls():
    """(file, what it calls, as it is written) of all sources."""
    trees = {str(p.relative_to(ROOT)): ast.parse(p.read_text(encoding="utf-8")) for p in FILES}
    return {
        (file, written(node.func))
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


def users(*names):
    """Files (relative) that call one of these; ``a.b`` also as ``x.a.b``, ``a.`` is whatever a module has."""
    return {
        file
        for file, called in calls()
        for n in names
        if called == n
        or ("." in n and called.endswith("." + n))
        or (n.endswith(".") and called.startswith(n))
    }


#: Each is allowed in these files only, for the reason given.
ALLOWED = {
    # lazy parts of the package, old names;
    # entry points; module:Class;
    # estimators by name; extras by their fixed names; one of three packages of ours, and of their checks
    ("importlib.import_module", "import_module", "__import__"): {
        "fedguard/__init__.py",
        "fedguard/_deprecated.py",
        "fedguard/core/__init__.py",
        "fedguard/core/deprecation.py",
        "fedguard/core/entry_points.py",
        "fedguard/core/named_code.py",
        "fedguard/cli/listing.py",
        "detectors/_estimators.py",
        "fedguard/core/extras.py",
        "fedguard/testing/__init__.py",
        "fedguard/testing/kinds.py",
    },
    # between our own processes; and a reader that can build arrays of bytes only
    ("pickle.loads", "pickle.load", "_Unpickler"): {
        "fedguard/simulation/packing.py",
        "fedguard/simulation/pool.py",
        "fedguard/simulation/datasets/cifar10.py",
    },
    # data files, with a limit on what they unpack to
    ("gzip.", "zlib.", "lzma.", "bz2.", "zipfile.", "tarfile.", "shutil.unpack_archive"): {
        "fedguard/simulation/datasets/mnist.py",
        "fedguard/simulation/datasets/npz.py",
        "fedguard/testing/fuzzing/case.py",
    },
    # weights of a model, tensors only
    ("torch.load",): {"fedguard/simulation/models/weights.py"},
    ("jit.load", "hub.load", "pandas.read_pickle", "pd.read_pickle"): set(),
    # objects of the caller's notebook, between our own processes
    ("cloudpickle.",): {"fedguard/simulation/packing.py"},
    ("joblib.", "shelve.", "marshal.", "dill."): set(),
    ("eval", "exec", "compile", "os.system", "os.popen"): set(),
    # reads a data set with this Python again, to see whether it is the same; and the operator's own program,
    # without a shell, that gets alerts on its standard input
    ("subprocess.",): {"fedguard/testing/datasets.py", "fedguard/observers/receivers.py"},
    ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"): set(),
    # alerts to the operator's own URL, without redirects
    ("urlopen", "urllib.", "requests.", "socket."): {"fedguard/observers/receivers.py"},
}


@pytest.mark.parametrize("names", ALLOWED, ids=lambda names: names[0])
def test_dangerous_calls_stay_where_they_are_needed(names):
    assert users(*names) <= ALLOWED[names]


def test_the_search_finds_such_calls():
    assert users("importlib.import_module") >= {"fedguard/core/named_code.py", "detectors/_estimators.py"}
    assert users("pickle.loads") >= {"fedguard/simulation/packing.py"}
    assert users("cloudpickle.") == {"fedguard/simulation/packing.py"}
    assert users("gzip.") == {"fedguard/simulation/datasets/mnist.py"}
    assert users("re.compile"), "dotted names are found"
    assert len(FILES) > 100


# --- pickles where none belong


def test_no_file_of_a_results_folder_is_unpickled(tmp_path):
    mark, bomb = tmp_path / "mark", tmp_path / "a"
    for write in (pickle.dumps, torch_saved):
        data = write(Bomb(mark))
        with pytest.raises(ResultsError, match="not a FedGuard state"):
            unpack(data)
        for name in ("results.sqlite", "suite.yaml", "point.state"):
            (tmp_path / name).write_bytes(data)
        assert Checkpoint(tmp_path / "point.state").load() is None
        with pytest.raises((ResultsError, sqlite3.DatabaseError)):
            Store(tmp_path)
        with pytest.raises(ConfigError):
            load_suite(tmp_path / "suite.yaml")
        assert not mark.exists()
    assert not bomb.exists()


def torch_saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_a_pickle_with_the_right_checksum_is_no_checkpoint_either(tmp_path):
    import hashlib

    data = pickle.dumps(Bomb(tmp_path / "mark"))
    (tmp_path / "point.state").write_bytes(hashlib.sha256(data).digest() + data)
    assert Checkpoint(tmp_path / "point.state").load() is None
    assert not (tmp_path / "mark").exists()


def test_a_data_file_with_a_bomb_is_refused(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Bomb(tmp_path / "mark"), "labels": []}))
    with pytest.raises(DataError, match="not allowed"):
        cifar10.read_pickle(path)
    assert not (tmp_path / "mark").exists()


def test_states_are_tensors_and_json_and_nothing_else():
    state = {"a": torch.arange(3.0), "b": [1, "x", None, {"c": True}]}
    back = unpack(pack(state))
    assert back["b"] == state["b"]
    with pytest.raises(FedGuardError, match="tensors and JSON values only"):
        pack({"a": Bomb("x")})
    data = pack(state)
    for cut in range(0, len(data), 7):
        with pytest.raises(ResultsError):
            unpack(data[:cut])


# --- suites


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch mark']",
        "name: !!python/name:os.system",
        "clients: !!python/object/new:pathlib.Path ['mark']",
        "a: &a [*a]",
        "[" * 5000,
        "a: 2026-99-99",
        f"clients: {'9' * 5000}",
        "? {a: 1}\n: b",
    ],
    ids=["apply", "name", "new", "itself", "deep", "date", "digits", "key"],
)
def test_yaml_builds_plain_values_only(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_suite(tmp_path / "s.yaml")
    assert not (tmp_path / "mark").exists()


def test_aliases_of_aliases_do_not_explode(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    (tmp_path / "s.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        read(str(tmp_path / "s.yaml"))


def test_huge_files_and_huge_grids_are_refused(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="KiB, the limit for suites"):
        read(str(tmp_path / "s.yaml"))
    axis = list(range(1, 200))
    grid = {f"training.{k}": axis for k in ("lr", "batch_size", "epochs")}
    (tmp_path / "g.yaml").write_text(f"grid: {grid}")
    with pytest.raises(ConfigError, match="7,880,599 runs"):
        load_suite(tmp_path / "g.yaml")


NAMES = ["../up", "a/b", "/etc/x", "..", ".", "", "a\\b", "C:x", "-rf", "a\u0007b", ".hidden"]


@pytest.mark.parametrize("name", NAMES)
def test_a_suites_name_cannot_leave_the_results_folder(name, tmp_path):
    (tmp_path / "s.yaml").write_text(f"name: {json.dumps(name)}")
    for suite, overrides in ((tmp_path / "s.yaml", []), ("quickstart", [f"name={json.dumps(name)}"])):
        with pytest.raises(ConfigError, match="a suite's name is a folder's name"):
            load_suite(suite, overrides)


MODULE = """
from pathlib import Path
Path("mark").write_text("run")
from fedguard import Card, Detector
class Mine(Detector):
    '''s_i = ‖u_i‖.'''
    card = Card("mine", "length of the update", "nobody, 2026")
    def score(self, round):
        return round.updates.norms
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Somebody's folder: a suite, and the module that it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "somebodys_code.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("somebodys_code", None)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fedguard", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code


@pytest.mark.parametrize(
    "lines",
    [
        "defenses: {d: {detector: 'somebodys_code:Mine'}}",
        "defenses: [{detector: {name: ensemble, members: ['krum', 'somebodys_code:Mine']}}]",
        "defenses: {d: {detector: krum}}\ngrid: {defenses.d.detector: ['krum', 'somebodys_code:Mine']}",
        "attacks: ['somebodys_code:Mine']",
        "defenses: [{aggregator: 'somebodys_code:Mine'}]",
    ],
)
def test_a_results_folders_suite_cannot_name_code_unless_that_is_allowed(lines, folder, monkeypatch, capsys):
    (folder / "suite.yaml").write_text(f"clients: 4\nrounds: 1\n{lines}\n")
    (folder / "results.sqlite").touch()
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run") == 2
    said = capsys.readouterr().err
    assert re.search(r"suite\.yaml:\d: .*somebodys_code:Mine is code", said), said
    assert "--allow-code" in said
    assert not (folder / "mark").exists()


def test_code_runs_if_allowed_or_named_on_the_command_line(folder, monkeypatch):
    mine = "{d: {detector: 'somebodys_code:Mine', policy: {name: exclude, rule: mad}}}"
    (folder / "plain.yaml").write_text("clients: 4\nrounds: 1\n")
    (folder / "suite.yaml").write_text(f"clients: 4\nrounds: 1\ndefenses: {mine}\n")
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run") == 0, "a suite of one's own"
    (folder / "mark").unlink()
    sys.modules.pop("somebodys_code")
    (folder / "results.sqlite").touch()
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run", "--allow-code") == 0
    assert (folder / "mark").exists()
    (folder / "mark").unlink()
    sys.modules.pop("somebodys_code")
    assert run(monkeypatch, "evaluate", "plain.yaml", f"defenses={mine}", "--dry-run") == 0
    assert (folder / "mark").exists()


def test_a_module_of_the_current_folder_takes_no_installed_modules_place(folder, monkeypatch):
    (folder / "pandas.py").write_text("raise RuntimeError('not pandas')")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    run(monkeypatch, "check", "somebodys_code:Mine", "--kind", "detector")
    assert (folder / "mark").exists()
    assert sys.path[-1] == str(folder)
    importlib.invalidate_caches()
    found = importlib.machinery.PathFinder.find_spec("pandas", sys.path)
    assert Path(found.origin).parent != folder


# --- unpacking


def test_a_compressed_file_cannot_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_BYTES", 1000)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(DataError, match="unpacked"):
        mnist.read_idx(path, ())
    header = bytes([0, 0, 8, 1]) + (992).to_bytes(4, "big")
    path.write_bytes(gzip.compress(header + bytes(992)))
    assert len(mnist.read_idx(path, ())) == 992


def test_the_limits_let_the_real_data_through():
    assert mnist.MAX_BYTES > 16 + 60_000 * 784
    assert cifar10.MAX_BYTES > 10_000 * 3073 * 2


def test_a_large_batch_is_not_even_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "MAX_BYTES", 10)
    (tmp_path / "b").write_bytes(pickle.dumps(list(range(100))))
    with pytest.raises(DataError, match="MiB"):
        cifar10.read_pickle(tmp_path / "b")


def test_text_in_tables_is_text():
    from fedguard.evaluation.results.latex import escape as _escape

    assert _escape(r"\input{x}_%&#$~^") == (
        r"\textbackslash{}input\{x\}\_\%\&\#\$\textasciitilde{}\textasciicircum{}"
    )


# --- SECURITY.md

LINK = re.compile(r"\]\((tests/[\w/]+\.py)(?:#(\w+))?\)")


def test_every_promise_links_to_a_test_that_exists():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\d+\. .*(?:\n   .*)*", text, re.MULTILINE)
    assert len(promises) >= 15
    for promise in promises:
        links = LINK.findall(promise)
        assert links, promise
        for path, name in links:
            assert (ROOT / path).is_file(), path
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text("utf-8"), re.M), (
                f"{path} has no {name}"
            )


def test_security_md_names_limits_as_they_are():
    from fedguard.core import history
    from fedguard.core.ids import MAX_ID
    from fedguard.evaluation.suites import limits

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for number in (history.MAX_CLIENTS, limits.MAX_RUNS, MAX_ID):
        assert f"{number:,}" in text
    assert np.log2(history.MAX_BYTES) == 31
    assert "2 GiB" in text
    assert np.log2(mnist.MAX_BYTES) == 28
    assert "256 MiB" in text
