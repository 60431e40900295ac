"""Results of older versions of the tables are rewritten; oracles: rows written by hand, the file before."""

import errno
import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from filelock import FileLock

from fedguard.core.errors import ResultsError
from fedguard.core.sqlite_file import schema_of
from fedguard.evaluation.results import store_migration
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.store_tables import ADDED, SCHEMA_VERSION, tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite

TABLES = ("meta", "runs", "clients", "rounds", "timings")
SUITE = """
clients: 6
malicious: 1
rounds: 2
participation: 0.8
seeds: [0, 1]
attacks: [label_flip]
defenses: {krum: {detector: krum}, nothing: {}}
"""
#: As the first version wrote it.
FIRST_CLIENTS = """
CREATE TABLE clients (
    run INTEGER REFERENCES runs, round INTEGER, client INTEGER, malicious INTEGER, participated INTEGER,
    score REAL, suspect INTEGER, weight REAL, banned INTEGER, reason TEXT,
    PRIMARY KEY (run, round, client)
) WITHOUT ROWID;
"""


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    """Results of this version, and their suite."""
    folder = tmp_path_factory.mktemp("today")
    (folder / "s.yaml").write_text(SUITE)
    suite, _ = load_suite(folder / "s.yaml")
    return run_suite(suite, folder / "out", workers=1), suite


def dump(path):
    """All rows, column by column; what took how long differs between runs."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]  # noqa: S608
            for table in TABLES
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        }


def schema(path):
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return version, db.execute("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL").fetchall()


@pytest.fixture
def aged(today, tmp_path):
    """Makes a folder that an older version would have written with the same results."""
    store, _ = today

    def age(version):
        folder = tmp_path / f"v{version}"
        folder.mkdir()
        shutil.copy(store.folder / "suite.yaml", folder)
        rows = dump(store.path)
        for run in rows["runs"] if version < 3 else []:
            settings = json.loads(run["settings"])
            del settings["defense"]["flcert"]
            run["settings"] = json.dumps(settings)
        with closing(sqlite3.connect(folder / "results.sqlite")) as db, db:
            db.executescript(tables(version))
            for table in TABLES:
                names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                for row in rows[table] if names else []:
                    values = [row[name] for name in names]
                    marks = ", ".join("?" * len(names))
                    db.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)  # noqa: S608
        return folder

    return age


def test_the_first_tables_are_those_that_were_written():
    assert {part for part in schema_of(tables(1)) if part[1] == "clients"} == schema_of(FIRST_CLIENTS) - {
        part for part in schema_of(FIRST_CLIENTS) if part[0] != "table"
    }
    assert {name for kind, name, *_ in schema_of(tables(2)) if kind == "table"} == {*TABLES} - {"meta"}
    assert {name for kind, name, *_ in schema_of(tables(3)) if kind == "table"} == {*TABLES}


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_results_of_every_older_version_are_rewritten_on_opening(today, aged, version):
    folder, now = aged(version), dump(today[0].path)
    store = Store(folder)
    assert schema(store.path) == schema(today[0].path)
    rows, later = dump(store.path), [n for since, names in ADDED.items() if since > version for n in names]
    for run, fresh in zip(rows["runs"], now["runs"], strict=True):
        assert json.loads(run.pop("settings")) == json.loads(fresh.pop("settings"))
        assert run == {**fresh, **dict.fromkeys(later)}, "all that was there, and nothing invented"
    assert rows["clients"] == now["clients"], "this attack attacks in every round"
    assert rows["rounds"] == now["rounds"]
    peaks = {"peak_memory": None} if version < 10 else {}
    assert rows["timings"] == [{**row, **peaks} for row in now["timings"]]
    assert store.code == (today[0].code if version > 2 else "unknown")
    assert read_results(folder)["tacc"].tolist() == read_results(today[0].folder)["tacc"].tolist()
    before = store.path.read_bytes()
    Store(folder)
    assert store.path.read_bytes() == before, "once"
    assert {p.name for p in folder.iterdir()} - {"lock"} == {"results.sqlite", "suite.yaml"}


def test_a_full_disk_leaves_the_old_file(aged, monkeypatch):
    folder = aged(4)
    before = (folder / "results.sqlite").read_bytes()

    def full(db, table, names, rows):
        db.execute("INSERT INTO meta VALUES ('half', 'done')")
        db.commit()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(store_migration, "_insert", full)
        with pytest.raises(ResultsError, match=r"older version .* could not be rewritten: No space left"):
            Store(folder)
    assert (folder / "results.sqlite").read_bytes() == before
    assert not (folder / "results.sqlite.new").exists()
    assert len(Store(folder).finished()) == 4


def test_results_in_a_folder_that_cannot_be_written_are_read_all_the_same(today, aged, monkeypatch):
    folder = aged(4)
    before = (folder / "results.sqlite").read_bytes()

    def refuse(path, write):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store_migration, "write_atomically", refuse)
    store = Store(folder)
    assert len(store.table("clients")) == 4 * 2 * 6
    assert store.folder == folder
    assert store.path.parent != folder
    with pytest.raises(ResultsError, match="older version of FedGuard, and is read-only"):
        Store.create(folder, today[1])
    assert (folder / "results.sqlite").read_bytes() == before


def test_results_that_are_being_written_are_left_alone_and_read_all_the_same(today, aged, monkeypatch):
    folder = aged(3)
    before = (folder / "results.sqlite").read_bytes()
    monkeypatch.setattr(store_migration, "_PATIENCE", 0)
    with FileLock(folder / "lock"):
        assert read_results(folder)["tacc"].tolist() == read_results(today[0].folder)["tacc"].tolist()
        with pytest.raises(ResultsError, match="another process is writing to it; wait for it, or use --out"):
            run_suite(today[1], folder, workers=1)
    assert (folder / "results.sqlite").read_bytes() == before


def test_an_interrupted_transaction_is_rolled_back_first(aged):
    """A hot journal belongs to the old file, and would spoil the new one."""
    folder = aged(3)
    path = folder / "results.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA cache_spill = 1")
        db.execute("PRAGMA cache_size = 1")
        db.execute(
            "UPDATE clients SET reason = hex(randomblob(2000))"
        )  # more than the cache: reaches the file
        shutil.copytree(folder, folder.with_name("killed"))
        db.rollback()
    killed = folder.with_name("killed")
    assert (killed / "results.sqlite-journal").stat().st_size > 0
    Store(killed)
    assert not (killed / "results.sqlite-journal").exists()
    assert dump(killed / "results.sqlite")["clients"] == dump(Store(folder).path)["clients"]


def test_an_old_folder_is_continued_on_request(today, aged):
    store, suite = today
    folder = aged(5)
    with closing(sqlite3.connect(folder / "results.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = '0.0.9+0123456789ab torch 1.0' WHERE name = 'code'")
        for table in ("runs", "clients", "rounds", "timings"):
            db.execute(f"DELETE FROM {table} WHERE run = 3")  # noqa: S608
    with pytest.raises(ResultsError, match=r"another version of the code \(0\.0\.9.*--force"):
        run_suite(suite, folder, workers=1)
    ran = []
    again = run_suite(suite, folder, workers=1, on_cell=ran.append, force=True)
    assert len(ran) == 1
    assert again.code == f"0.0.9+0123456789ab torch 1.0, then {store.code}"
    assert dump(again.path)["clients"] == dump(store.path)["clients"]
    assert dump(again.path)["runs"][3]["loss"] == dump(store.path)["runs"][3]["loss"]


def test_a_suite_that_lacks_later_settings_is_the_same_suite(today, aged):
    _, suite = today
    folder = aged(7)
    path = folder / "suite.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("  loss:")))
    assert path.read_text() != "".join(lines)
    assert Store.create(folder, suite).folder == folder
    with pytest.raises(ResultsError, match=r"another suite \(other rounds\)"):
        Store.create(folder, suite.model_copy(update={"rounds": 9}))


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_results_of_a_newer_version_are_refused(today, tmp_path, version):
    shutil.copy(today[0].path, tmp_path / "results.sqlite")
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ResultsError, match=rf"has version {version} of the tables"):
        Store(tmp_path)
