"""Suites that record, and suites on a recording."""

import dataclasses
import sqlite3
import sys
from contextlib import closing

import pytest

from fedguard import Guard
from fedguard.cli.entry import main
from fedguard.core.errors import ConfigError
from fedguard.evaluation.results.frame import metrics_frame
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import attack_tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.recording import Recorder, Recording
from fedguard.testing.federation import federation, fresh

SUITE = """\
data: digits
model: logistic_regression
clients: 8
malicious: 2
rounds: 4
participation: 0.9
training: {steps: 2, batch_size: 16, lr: 0.1}
server: {validation: 50}
mode: both
attacks:
  noise: {name: byzantine, mode: random, schedule: {start: 1, rejoin_after: 1}}
defenses:
  none: none
  gold: {detector: foolsgold, policy: {name: ban, duration: 1}}
  krum: {detector: {name: krum, select: m_krum}}
"""


def load(path, *overrides):
    suite, source = load_suite(path, list(overrides))
    check_suite(suite, source)
    return suite


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A suite that was run without an interruption, recorded: its folder."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "s.yaml").write_text(SUITE, encoding="utf-8")
    run_suite(load(folder / "s.yaml"), folder / "out", 1, record=folder / "rec")
    return folder


def contents(folder):
    """Every round that was recorded, byte by byte."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("round-*"))}


def verdicts(store, defense, mode):
    with closing(sqlite3.connect(store.path)) as db:
        return db.execute(
            "SELECT round, client, id, clients.malicious, attacking, score, suspect, weight, banned, reason "
            "FROM clients JOIN runs USING (run) WHERE defense = ? AND mode = ? AND participated "
            "ORDER BY round, client",
            (defense, mode),
        ).fetchall()


def test_every_federation_is_recorded_once(recorded):
    names = sorted(p.name for p in (recorded / "rec").iterdir())
    assert names == [
        "000-noise-none-seed0",
        "001-noise-gold-seed0",
        "002-noise-krum-seed0",
        "003-noise-shadow-seed0",
    ]
    for name in names:
        recording = Recording(recorded / "rec" / name)
        assert recording.check() == []
        assert [r.round.index for r in recording] == [0, 1, 2, 3]


def test_recording_changes_no_result(recorded, tmp_path):
    store = run_suite(load(recorded / "s.yaml"), tmp_path / "out", 1)
    for defense, mode in (("gold", "closed"), ("krum", "shadow")):
        assert verdicts(store, defense, mode) == verdicts(Store(recorded / "out"), defense, mode)


class Stop(BaseException):
    """An interruption."""


@pytest.mark.parametrize("rounds", [2, 7, 14])
def test_an_interrupted_suite_ends_in_the_same_recordings(recorded, tmp_path, rounds):
    left = [rounds]

    def interrupt(_cell, _index):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    suite = load(recorded / "s.yaml")
    with pytest.raises(Stop):  # rarely saved: the recording is ahead of the checkpoint
        run_suite(
            suite, tmp_path / "o", 1, on_round=interrupt, checkpoint_seconds=1e6, record=tmp_path / "rec"
        )
    run_suite(suite, tmp_path / "o", 1, checkpoint_seconds=0, record=tmp_path / "rec")
    assert contents(tmp_path / "rec") == contents(recorded / "rec")
    assert all(Recording(p).check() == [] for p in (tmp_path / "rec").iterdir())


def interrupted(suite, folder, rounds):
    """Run a suite until so many rounds are done and saved."""
    left = [rounds]

    def interrupt(_cell, _index):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    with pytest.raises(Stop):
        run_suite(suite, folder, 1, on_round=interrupt, checkpoint_seconds=0)


def on(recording, folder, *lines):
    folder.mkdir(exist_ok=True)
    path = folder / "on.yaml"
    path.write_text("\n".join([f"recording: {recording}", *lines]), encoding="utf-8")
    return path


KRUM = "defenses: {krum: {detector: {name: krum, select: m_krum}}, gold: {detector: foolsgold, policy: ban}}"


def test_defenses_on_the_recorded_shadow_federation_say_what_they_said_in_shadow_mode(recorded, tmp_path):
    path = on(recorded / "rec" / "003-noise-shadow-seed0", tmp_path, KRUM)
    store = run_suite(load(path), tmp_path / "out", 1)
    assert verdicts(store, "krum", "recorded") == verdicts(Store(recorded / "out"), "krum", "shadow")
    runs, before = store.table("runs"), Store(recorded / "out").table("runs")
    ours = runs[runs["defense"] == "krum"].iloc[0]
    theirs = before[(before["defense"] == "krum") & (before["mode"] == "shadow")].iloc[0]
    columns = ["dacc", "fpr", "fnr", "auroc", "aar", "malicious", "clients", "assumed_malicious"]
    assert ours[columns].tolist() == theirs[columns].tolist()
    assert runs["tacc"].isna().all(), "models are not measured"


def test_the_recorded_defense_judges_itself_alike(recorded, tmp_path):
    line = "defenses: {gold: {detector: foolsgold, policy: {name: ban, duration: 1}}}"
    store = run_suite(
        load(on(recorded / "rec" / "001-noise-gold-seed0", tmp_path, line)), tmp_path / "out", 1
    )
    assert verdicts(store, "gold", "recorded") == verdicts(Store(recorded / "out"), "gold", "closed")


def test_the_tables_say_that_the_rounds_were_recorded(recorded, tmp_path):
    store = run_suite(load(on(recorded / "rec" / "000-noise-none-seed0", tmp_path, KRUM)), tmp_path / "o", 2)
    ((heading, table),) = attack_tables(metrics_frame(store))
    assert heading.startswith("recorded rounds, shadow mode: attack: noise   (2 of 8 clients malicious")
    assert [column.header for column in table.columns] == [
        "defense",
        "DACC %",
        "FPR %",
        "FNR %",
        "AAR",
        "AUROC",
    ]


def test_the_suite_that_is_stored_runs_again(recorded, tmp_path):
    suite = load(on(recorded / "rec" / "000-noise-none-seed0", tmp_path, KRUM))
    store = run_suite(suite, tmp_path / "out", 1)
    again = load(tmp_path / "out" / "suite.yaml")
    ran = []
    run_suite(again, tmp_path / "out", 1, on_cell=ran.append)
    assert ran == []
    assert set(store.finished().values()) == {"done"}


def test_watching_a_recording_goes_on_after_an_interruption(recorded, tmp_path):
    suite = load(on(recorded / "rec" / "000-noise-none-seed0", tmp_path, KRUM))
    whole = run_suite(suite, tmp_path / "whole", 1)
    interrupted(suite, tmp_path / "out", 2)
    ran = []
    store = run_suite(suite, tmp_path / "out", 1, on_round=lambda c, i: ran.append(i), checkpoint_seconds=0)
    assert ran == [2, 3]
    for defense in ("krum", "gold"):
        assert verdicts(store, defense, "recorded") == verdicts(whole, defense, "recorded")


def test_what_the_recording_says_cannot_be_set(recorded, tmp_path):
    path = on(recorded / "rec" / "000-noise-none-seed0", tmp_path, KRUM)
    for override in ("clients=9", "attacks=[lie]", "seeds=[0,1]", "mode=closed", "rounds=[1,2]"):
        with pytest.raises(ConfigError, match="this comes from the recording; leave it out"):
            load(path, override)
    assert load(path, "clients=8", "seeds=[0]").clients == 8, "the same is no contradiction"
    assert load(path, "assumed_malicious=3").assumed == 3


def test_mistakes_are_found_before_anything_runs(recorded, tmp_path):
    good = recorded / "rec" / "000-noise-none-seed0"
    with pytest.raises(ConfigError, match=r"on.yaml:1: recording: there is no folder"):
        load(on(tmp_path / "nowhere", tmp_path, KRUM))
    with pytest.raises(ConfigError, match=r"on.yaml:2: defenses.a: fltrust needs root"):
        load(on(good, tmp_path, "defenses: {a: fltrust}"))
    with pytest.raises(ConfigError, match="mode 'recorded' needs a `recording`"):
        load(on(good, tmp_path, KRUM), "recording=null", "mode=recorded")
    import shutil

    shutil.copytree(good, tmp_path / "torn")
    path = tmp_path / "torn" / "round-000000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"round-000000002.safetensors is damaged"):
        load(on(tmp_path / "torn", tmp_path, KRUM))


def test_several_guards_and_recordings_are_not_recorded(recorded, tmp_path, monkeypatch, capsys):
    path = on(recorded / "rec" / "000-noise-none-seed0", tmp_path, KRUM)
    for arguments, message in (
        ([str(path)], "this suite is on a recording already"),
        (
            ["quickstart", "defenses={voted: {detector: krum, flcert: {groups: 2}}}"],
            "voted has several guards",
        ),
    ):
        monkeypatch.setattr(
            sys, "argv", ["fedguard", "evaluate", *arguments, "--record", str(tmp_path / "r")]
        )
        with pytest.raises(SystemExit, match="2"):
            main()
        assert message in capsys.readouterr().err


# --- live recordings


@pytest.fixture
def live(tmp_path):
    with Recorder(tmp_path / "live") as recorder:
        guard = Guard(observers=[recorder])
        for round in federation():
            guard.process(dataclasses.replace(fresh(round), index=round.index + 10))
    return tmp_path / "live"


def test_a_live_recording_has_no_labels_and_no_model(live, tmp_path):
    with pytest.raises(ConfigError, match="assumed_malicious: this recording does not say how many"):
        load(on(live, tmp_path, KRUM))
    with pytest.raises(ConfigError, match=r"defenses.a: lfr needs model"):
        load(on(live, tmp_path, "assumed_malicious: 2", "defenses: {a: lfr}"))
    suite = load(on(live, tmp_path, "assumed_malicious: 2", KRUM))
    assert (suite.clients, suite.rounds) == (8, 3)
    store = run_suite(suite, tmp_path / "out", 2)
    runs, clients = store.table("runs"), store.table("clients")
    assert set(runs["status"]) == {"done"}
    assert runs[["dacc", "fpr", "fnr", "malicious"]].isna().all(axis=None)
    assert clients["malicious"].isna().all()
    assert sorted(set(clients["round"])) == [10, 11, 12]
    assert set(clients["id"]) == {"5", "b", "2", "a", "0", "11", "5b", "7"}
    interrupted(suite, tmp_path / "again", 2)
    again = run_suite(suite, tmp_path / "again", 1, checkpoint_seconds=0)
    assert verdicts(again, "gold", "recorded") == verdicts(store, "gold", "recorded")
    ((heading, _),) = attack_tables(metrics_frame(store))
    assert "an unknown number of 8 clients malicious, defenses are told 2" in heading
