"""Writing files: never through a link, whole or not at all, and with advice where the disk is full."""

import errno
import os
import sys
from pathlib import Path

import pytest
import safetensors
import torch

import fedguard
from fedguard import SQLiteLedger
from fedguard.cli.common import write
from fedguard.cli.entry import main
from fedguard.cli.scaffold import scaffold
from fedguard.core.errors import ConfigError, LedgerError, ParameterError, ResultsError
from fedguard.core.files import not_written, open_to_append, save_tensors, why, write_atomically, write_file
from fedguard.core.state import load, save
from fedguard.observers.events import EventLog
from fedguard.recording import Recorder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs links and limits")


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "precious"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder."""
    out = tmp_path_factory.mktemp("results") / "out"
    settings = {"clients": 6, "malicious": 1, "rounds": 1, "seeds": [0, 1], "workers": 1}
    fedguard.evaluate(**settings, attacks="min_max", defenses=["dnc", "krum"], out=out)
    return out


def test_a_link_is_refused_and_so_is_what_is_no_file(tmp_path, precious):
    link = tmp_path / "out.csv"
    link.symlink_to(precious)
    with pytest.raises(OSError, match=r"out\.csv is a link"):
        write_file(link, "x")
    with pytest.raises(OSError, match=r"out\.csv is a link"):
        open_to_append(link)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="is a link"):
        write_file(dangling, "x")
    assert not (tmp_path / "made").exists()
    os.mkfifo(tmp_path / "pipe")
    for odd, what in ((tmp_path / "pipe", "is not a regular file"), (tmp_path, "is a folder")):
        with pytest.raises(OSError, match=what):
            write_file(odd, "x")


def test_a_link_in_the_place_of_the_new_file_is_removed_and_not_followed(tmp_path, precious):
    (tmp_path / "out.csv.new").symlink_to(precious)
    write_file(tmp_path / "out.csv", "x")
    assert (tmp_path / "out.csv").read_text() == "x"
    assert not (tmp_path / "out.csv.new").is_symlink()
    (tmp_path / "c.new").symlink_to(precious)
    save(tmp_path / "c.ckpt", {"a": 1})
    assert load(tmp_path / "c.ckpt") == {"a": 1}


def test_a_link_to_a_folder_that_the_user_names_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    write_file(tmp_path / "linked" / "a", "x")
    assert (tmp_path / "real" / "a").read_text() == "x"


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a"
    write_file(path, "before")
    path.chmod(0o600)

    def fail(fresh):
        fresh.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "before"
    write_file(path, "after")
    assert path.stat().st_mode & 0o777 == 0o600, "permissions are kept"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_new_methods_and_events_follow_no_link(tmp_path, precious):
    (tmp_path / "mine.py").symlink_to(tmp_path / "made")
    with pytest.raises(ConfigError, match="already exists"):
        scaffold("detector", "mine", tmp_path)
    (tmp_path / "events").symlink_to(precious)
    from fedguard import Guard, Round

    round = Round(torch.randn(4, 3), [0, 1, 2, 3], index=0)
    outcome = Guard().process(round)
    with pytest.raises(OSError, match="events is a link"):
        EventLog(tmp_path / "events").observe(round, outcome)


IMPOSSIBLE = {"300 characters": "n" * 300, "a NUL": "a\0b", "half a character": "\ud800"}
OPENERS = {
    "ledger": (LedgerError, SQLiteLedger),
    "ledger to read": (LedgerError, lambda name: SQLiteLedger(name, read_only=True)),
    "state to read": (ResultsError, load),
    "state to write": (ResultsError, lambda name: save(name, {})),
    "recorder": (ResultsError, Recorder),
    "events": (ParameterError, EventLog),
    "output": (ConfigError, lambda name: write(b"x", Path(name))),
}


@pytest.mark.parametrize("name", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("what", OPENERS)
def test_a_name_that_no_file_can_have_is_a_typed_error(what, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error, opened = OPENERS[what]
    with pytest.raises(error, match=r"(?i)file name too long|no file can have this name"):
        opened(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "report NAME",
        "report ledger.db --events NAME",
        "ledger show NAME",
        "ledger ban NAME a --why x",
        "ledger export NAME",
        "ledger export ledger.db --out NAME",
        "new detector NAME",
        "serve NAME",
        "watch NAME",
        "replay NAME",
        "export NAME",
    ],
)
def test_no_command_ends_in_a_traceback_for_a_long_name(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    SQLiteLedger("ledger.db")
    arguments = command.replace("NAME", "n" * 300).split()
    monkeypatch.setattr(sys, "argv", ["fedguard", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("fedguard: error: ")


def test_a_folder_is_not_moved_out_of_the_way_of_a_state(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(ResultsError, match="state is a folder; use another name"):
        save(tmp_path / "state", {})
    assert (tmp_path / "state").is_dir()


def test_a_full_disk_says_what_to_do():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert why(full).endswith("free some space there, then give the same command again")
    assert why(OSError(errno.EACCES, "Permission denied")) == "Permission denied"


@pytest.mark.parametrize(
    ("number", "ends"),
    [
        (errno.EACCES, "write to another file (--out)"),
        (errno.EROFS, "write to another file (--out)"),
        (
            errno.ENOENT,
            "create its folder first, or write to another file (--out)",
        ),
        (errno.ENOSPC, "free some space there, then give the same command again"),
    ],
)
def test_what_cannot_be_written_is_named_with_what_to_do(tmp_path, number, ends):
    said = not_written(tmp_path / "a.csv", OSError(number, os.strerror(number)))
    assert said == f"cannot write {tmp_path / 'a.csv'}: {os.strerror(number)}; {ends}"


#: A command that writes into a folder that cannot be written → what it says to do.
UNWRITABLE = {
    "report RESULTS": "write to another file (--out)",
    "export RESULTS -o FILE": "write to another file (--out)",
    "compare RESULTS --mine dnc -o FILE": "write to another file (--out)",
    "compare RESULTS RESULTS -o FILE": "write to another file (--out)",
    "evaluate SUITE -q --out FILE": "choose another folder (--out)",
    "evaluate SUITE -q --out FOLDER --record FILE": "record to another folder",
}


@pytest.mark.parametrize("command", UNWRITABLE)
def test_every_command_says_what_to_do_about_a_folder_it_cannot_write(
    command, tmp_path, results, monkeypatch, capsys
):
    def refuse(path, *args, **settings):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    if command.startswith("report"):
        monkeypatch.setattr("fedguard.core.files.open_fresh", refuse)
    suite = "{clients: 4, malicious: 1, rounds: 1, attacks: [none], defenses: {krum: {detector: krum}}}"
    (tmp_path / "suite.yaml").write_text(suite)
    (tmp_path / "file").write_text("")
    places = {"RESULTS": results, "FILE": tmp_path / "file" / "out", "FOLDER": tmp_path / "new",
              "SUITE": tmp_path / "suite.yaml"}  # fmt: skip
    words = [str(places.get(word, word)) for word in command.split()]
    monkeypatch.setattr(sys, "argv", ["fedguard", *words])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert UNWRITABLE[command] in said


WRITERS = {
    "a file": "write(b'x' * 100_000, path)",
    "a state": "save(path, {'a': torch.zeros(50_000)})",
    "shared data": "Workers(2, {'a': torch.zeros(50_000)}).__enter__()",
}


def test_every_writer_gives_a_typed_error_on_a_full_disk(tmp_path, python):
    """The system allows 60 kB per file, in a process of its own."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from fedguard.cli.common import write\nfrom fedguard.core.errors import FedGuardError\n"
        "from fedguard.core.state import save\nfrom fedguard.simulation.pool import Workers\n"
        "path = Path(sys.argv[1])\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
    )
    for name, writer in WRITERS.items():
        code += f"try:\n    {writer}\nexcept FedGuardError as error:\n    print('{name}:', error)\n"
    done = python("-c", code, tmp_path / "out", env={"TMPDIR": str(tmp_path)}).wait()
    said = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == list(WRITERS), done.stderr
    assert all("free some space" in line for line in said)
    assert [p for p in tmp_path.iterdir() if p.name.startswith("fedguard-")] == []
    assert not (tmp_path / "out").exists()


def test_half_a_character_is_written_as_its_number(tmp_path):
    write_file(tmp_path / "out.csv", "id\ud800")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "id\\ud800"


def test_tensors_report_the_systems_own_error(tmp_path):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is what counts
        save_tensors({"a": torch.zeros(3)}, tmp_path / "no" / "such" / "folder")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("words", ["(os error 28) at path x", "IoError(Os { code: 28, kind: StorageFull })"])
def test_the_systems_error_is_found_in_the_words_of_every_safetensors(words, tmp_path, monkeypatch):
    def full(*args, **settings):
        raise safetensors.SafetensorError(f"Error while serializing: {words}")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="out") as caught:
        save_tensors({"a": torch.zeros(3)}, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC


def test_a_results_folder_with_links_is_refused(tmp_path, precious):
    from fedguard.evaluation.results.store import Store
    from fedguard.evaluation.suites.load import load_suite

    suite, _ = load_suite("quickstart")
    for name in ("lock", "suite.yaml", "results.sqlite", "checkpoints"):
        (tmp_path / name).symlink_to(precious)
        with pytest.raises(ResultsError, match=f"{name} is a link"):
            Store.create(tmp_path, suite)
        (tmp_path / name).unlink()
