"""What FedGuard 0.1.0 wrote opens in this version: ledgers, states, recordings, a Flower server, results.

``tests/fixtures/v0.1/make.py`` wrote the files. They never change; whoever changes a format reads both.
"""

import importlib.util
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedguard import Guard, Ledger, SQLiteLedger, make_aggregator, make_detector, make_policy
from fedguard.cli.entry import app
from fedguard.core.state import load
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.store import Store
from fedguard.recording import Recording, replay

OLD = Path(__file__).parents[1] / "fixtures" / "v0.1"
IDS = ("ada", 7, "grace", "edsger", "barbara", "mallory")
BAN = "banned until round 3: krum score 1.454: not among the 5 lowest scores"


@pytest.fixture
def old(tmp_path):
    """A copy: opening a SQLite file may change it."""
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture(scope="module")
def made():
    """The script that wrote the files, for the rounds and guards in it."""
    spec = importlib.util.spec_from_file_location("make_v01", OLD / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_ledger_opens_with_its_bans_and_who_decided_them(old):
    ledger = SQLiteLedger(old / "ledger.db")
    assert set(ledger.clients()) == set(IDS)
    assert [client for client in IDS if ledger.is_banned(client, 2)] == ["ada", "mallory"]
    assert [client for client in IDS if ledger.is_banned(client, 3)] == ["ada"]
    mallory = ledger["mallory"]
    assert (mallory.rounds, mallory.strikes, mallory.banned_since, mallory.banned_until) == (2, [0, 1], 1, 3)
    assert mallory.ban_reason == BAN
    assert [(a.client, a.what, a.since, a.until, a.by, a.why) for a in ledger.actions()] == [
        ("mallory", "ban", 1, 3, "guard", BAN),
        ("ada", "ban", 3, None, "operator", "a stolen key"),
        ("grace", "ban", 3, 9, "operator", "a test"),
        ("grace", "unban", 3, None, "operator", "the test is over"),
    ]


def test_a_ledger_opens_with_its_verdicts(old):
    kept = SQLiteLedger(old / "ledger.db").judgements(7)
    assert [(j.round, j.suspect, j.forgiven) for j in kept] == [
        (0, False, False),
        (1, False, False),
        (2, True, False),
    ]
    assert kept[1].score == 6.169371669045853e-05
    assert kept[2].reason == "excluded, strike 1 of 2: krum score 5.224e-05: not among the 4 lowest scores"


def test_a_guard_goes_on_with_an_old_ledger(old, made):
    ledger = SQLiteLedger(old / "ledger.db")
    outcome = made.banning(ledger).process(list(made.rounds(4))[3])
    barred = {client for client, out in zip(outcome.client_ids, outcome.barred, strict=True) if out}
    assert barred == {"ada"}
    assert ledger["mallory"].rounds == 3


def test_the_command_line_shows_an_old_ledger(old):
    shown = CliRunner().invoke(app, ["ledger", "show", str(old / "ledger.db")], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "mallory" in shown.output


def test_what_seven_detectors_remembered_comes_back(old, made):
    state = load(old / "states" / "detectors.state")
    guard = Guard(
        [make_detector(name) for name in made.DETECTORS], aggregator=make_aggregator("centered_clipping")
    )
    guard.load_state_dict(state)
    now = guard.state_dict()["detectors"]
    assert now["afa"]["record"] == state["detectors"]["afa"]["record"]
    past = dict(now["foolsgold"]["history"])
    assert set(past) == set(IDS)
    np.testing.assert_array_equal(
        past["mallory"], dict(state["detectors"]["foolsgold"]["history"])["mallory"]
    )
    assert len(now["flanders"]["past"]) == len(now["fldetector"]["models"]) == 3
    assert guard.ledger["mallory"].strikes == [0, 1, 2]
    assert guard.process(list(made.rounds(4))[3]).client_ids == IDS


def test_evidence_comes_back(old, made):
    guard = Guard.recommended(rounds=1)
    guard.load_state_dict(load(old / "states" / "evidence.state"))
    policy = guard.state_dict()["policy"]
    wealth = {client: sum(bets) for client, bets, *_ in policy["past"]}
    assert wealth["mallory"] == max(wealth.values()) == pytest.approx(0.663270520297192)
    assert dict(policy["clean"]["recommended"][0])["mallory"] == 4.434419293636808
    assert guard.process(list(made.rounds(4))[3]).client_ids == IDS


def test_a_recording_opens_and_plays(old):
    recording = Recording(old / "recording")
    assert recording.check() == []
    first, second, third = recording
    assert [r.round.index for r in (first, second, third)] == [0, 1, 2]
    assert first.round.client_ids == IDS
    assert first.round.updates.matrix.shape == (6, 12)
    assert second.banned.tolist() == [False] * 5 + [True]
    assert second.reasons[-1] == BAN
    assert third.barred.tolist() == [False] * 5 + [True]
    assert math.isnan(third.scores[-1])
    guard = Guard(make_detector("krum", num_malicious=1, select="m_krum"), make_policy("exclude"))
    played = [outcome for _, outcome in replay(recording, guard)]
    assert [outcome.suspects[-1] for outcome in played] == [True, True, False]  # the ban is played, too


def test_a_flower_server_takes_up_its_memory(old, made):
    pytest.importorskip("flwr")
    from fedguard.flower.keeper import Keeper

    guard = made.banning(Ledger())
    assert Keeper(old / "keeper", guard, "node").restore() == 3
    assert guard.ledger.is_banned("mallory", 2)
    assert guard.ledger["mallory"].ban_reason == BAN
    assert guard.ledger[7].strikes == [2]


def test_a_results_folder_opens(old):
    store = Store(old / "evaluated")
    assert store.finished() == {0: "done", 1: "done"}
    table = read_results(old / "evaluated").set_index("defense")
    assert list(table.index) == ["no_defence", "krum"]
    krum = table.loc["krum"]
    assert [krum[count] for count in ("tp", "fp", "tn", "fn")] == [2, 4, 2, 0]
    assert (krum.dacc, krum.fnr, krum.auroc) == (0.5, 0.0, pytest.approx(5 / 6))


@pytest.mark.parametrize(
    "command",
    [
        ["export", "{old}", "-f", "markdown"],
        ["report", "{old}"],
        ["compare", "{old}", "{old}"],
        ["plot", "{old}", "--out", "{old}/plot.png"],
    ],
    ids=lambda words: words[0],
)
def test_commands_read_an_old_results_folder(old, command):
    if command[0] == "plot":
        pytest.importorskip("matplotlib")
    words = [word.format(old=old / "evaluated") for word in command]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_an_old_suite_is_read_as_it_was(old):
    done = CliRunner().invoke(
        app, ["evaluate", str(old / "tiny.yaml"), "--dry-run", "--workers", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
