"""Attackers per round, clients that drop out or come late, and runs that diverge."""

import math

import numpy as np
import pytest
import torch

from fedguard.core.errors import ConfigError
from fedguard.core.state import pack, unpack
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.layout import Layout, numbers
from fedguard.evaluation.results.report.page import render
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import attack_tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.participation import call
from fedguard.simulation.setup import setup_for

BASE = {
    "clients": 20,
    "malicious": 5,
    "rounds": 6,
    "attacks": ["byzantine"],
    "training": {"steps": 2, "lr": 0.1},
}


def cell(**settings):
    return Suite(**{**BASE, **settings}).cells()[0]


def sent(record):
    return {row.client for row in record.clients if row.participated}


@pytest.mark.parametrize("fixed", [0, 2, 5])
def test_exactly_so_many_participants_are_malicious(fixed):
    setup = setup_for(cell(participation=0.5, malicious_per_round=fixed))
    drawn = [setup.participants(index, range(20), 20) for index in range(30)]
    assert {len(part) for part in drawn} == {10}
    assert {len(set(part) & set(setup.malicious)) for part in drawn} == {fixed}
    assert len({tuple(part) for part in drawn}) > 20
    assert drawn[3] == setup.participants(3, range(20), 20)
    every = set().union(*drawn)
    assert len(every & set(setup.malicious)) == (5 if fixed else 0)


def test_banned_attackers_are_replaced_by_honest_clients_and_not_the_other_way_round():
    setup = setup_for(cell(participation=0.5, malicious_per_round=3))
    bad = set(setup.malicious)
    left = sorted(bad)[:1]
    few = setup.participants(0, [*left, *(set(range(20)) - bad)], 20)
    assert (len(few), set(few) & bad) == (10, set(left))
    good = sorted(set(range(20)) - bad)[:4]
    assert len(setup.participants(0, [*bad, *good], 20)) == 3 + 4


def test_defenses_and_attacks_are_told_the_number_per_round():
    fixed = cell(participation=0.5, malicious_per_round=2)
    assert (fixed.assumed_per_round, fixed.malicious_in_round) == (2, 2)
    assert cell(participation=0.5).assumed_per_round == 3
    assert cell(participation=0.5, malicious_per_round=2, assumed_malicious=8).assumed_per_round == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "malicious_per_round: 6",
            "malicious_per_round is 6, but there are 5 malicious clients and 20 take part",
        ),
        ("malicious_per_round: 0", "only 15 clients are honest; lower `participation`"),
        ("late: 0.1\ntraining: {algorithm: scaffold}", "scaffold needs every update in its own round"),
        ("dropout: 1.0", "dropout"),
        ("dropout: 0.9\ndefenses: [krum]", "krum needs at least"),
        ("malicious_per_round: 5\ndefenses: [{label: f, flcert: {groups: 2}}]", "is of one federation"),
    ],
)
def test_what_cannot_be_is_refused_before_training(settings, message, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(f"clients: 20\nmalicious: 5\nrounds: 2\nattacks: [byzantine]\n{settings}\n")
    with pytest.raises(ConfigError, match=message):
        check_suite(*load_suite(path))


def test_the_shares_are_right_on_average():
    setup = setup_for(cell(dropout=0.13, late=0.22))
    calls = [call(setup, index, range(20), 20) for index in range(300)]
    assert np.mean([len(c.dropped) for c in calls]) == pytest.approx(2.6, abs=0.15)
    assert np.mean([len(c.late) for c in calls]) == pytest.approx(4.4, abs=0.15)
    assert all(len(c.dropped) in (2, 3) and len(c.late) in (4, 5) for c in calls)
    counts = np.bincount(np.concatenate([c.dropped for c in calls]), minlength=20)
    assert counts.min() > 15, "everybody drops out now and then"
    one = calls[0]
    assert sorted([*one.sending, *one.late, *one.dropped]) == list(range(20))
    few = setup_for(cell(clients=2, malicious=0, attacks=["none"], dropout=0.9, late=0.9))
    assert all(len(call(few, index, range(2), 2).sending) == 1 for index in range(20))


def test_who_drops_out_is_not_judged():
    federation = Federation(cell(dropout=0.3, defenses={"k": {"detector": "krum"}}))
    for record in federation.run():
        rows = {row.client: row for row in record.clients}
        silent = [row for row in rows.values() if not row.participated]
        assert 6 <= len(silent) <= 6
        assert {row.reason for row in silent} == {"asked, but dropped out"}
        assert all(math.isnan(row.score) and not row.suspect and not row.attacking for row in silent)


def test_a_late_update_is_that_of_the_older_model(monkeypatch):
    """By hand: train on the model of round 0, and look at what the guard gets in round 1."""
    settings = {"attacks": ["none"], "malicious": 0, "clients": 6}
    federation = Federation(cell(late=0.3, **settings))
    first = federation.setup.initial
    seen = []
    process = federation.guard.process
    monkeypatch.setattr(federation.guard, "process", lambda r: seen.append(r) or process(r))
    progress = [federation.advance(index) for index in range(2)]
    late = progress[0].called.late
    assert late
    assert set(late) <= set(progress[1].asked)
    assert not set(late) & set(progress[0].asked)
    assert not set(late) & set(progress[1].called.training), "who is late is not asked again"
    rows = {row.client: row for row in federation.rows(progress[0])}
    assert all(rows[c].reason == "late: its update arrives in the next round" for c in late)
    other = Federation(cell(**settings))
    assert torch.equal(other.params, first)
    expected = other._train(list(range(6)), set(), 0)
    position = progress[1].asked.index(late[0])
    assert torch.equal(seen[1].updates.matrix[position], expected.updates[late[0]])


def test_late_attackers_craft_what_they_send_in_the_round_in_which_it_arrives():
    federation = Federation(cell(late=0.4))
    for index in range(4):
        progress = federation.advance(index)
        assert progress.attacking == set(federation.malicious) & set(progress.asked)


def test_late_updates_survive_a_resume():
    one = cell(late=0.3, dropout=0.1, participation=0.6)
    whole = Federation(one)
    records = whole.run()
    first = Federation(one)
    done = [first.step(index) for index in range(3)]
    assert first._mail.senders
    second = Federation(one)
    second.load_state_dict(unpack(pack(first.state_dict())))
    second.run(done=done)
    assert torch.equal(second.params, whole.params)
    assert [sent(r) for r in records[:3]] == [sent(r) for r in done]


DIVERGING = """\
data: digits
clients: 4
rounds: 4
model: {name: mlp, hidden: [8]}
training: {steps: 3, lr: 0.1}
server: {lr: 1.0e+36}
defenses: {plain: {}, krum: {detector: {name: krum, num_malicious: 0}}}
"""


def test_a_run_that_diverges_says_so(tmp_path):
    path = tmp_path / "wild.yaml"
    path.write_text(DIVERGING)
    plan, source = load_suite(path)
    check_suite(plan, source)
    run_suite(plan, tmp_path / "out", workers=1)
    frame = read_results(tmp_path / "out")
    runs = Store(tmp_path / "out").table("runs")
    rounds = Store(tmp_path / "out").table("rounds")
    assert (runs["diverged"] == 0).all()
    assert not np.isfinite(rounds["loss"].astype(float)[0])
    assert frame["diverged"].tolist() == [0, 0]
    ((_, table),) = attack_tables(frame)
    assert list(table.columns[0].cells) == ["plain  (diverged in round 0)", "Krum  (diverged in round 0)"]
    assert numbers(frame, Layout())["diverged"].tolist() == [0, 0]
    assert "diverged in round 0" in render(Store(tmp_path / "out"))


def test_training_that_gives_no_finite_update_has_diverged_too():
    settings = {"model": {"name": "mlp", "hidden": [8]}, "training": {"steps": 9, "lr": 1e30}}
    records = Federation(cell(malicious=0, attacks=["none"], **settings)).run()
    assert not records[0].finite
    assert np.isfinite(records[0].loss), "the global model stays as it was"
    assert all(record.finite for record in Federation(cell(rounds=2)).run())
