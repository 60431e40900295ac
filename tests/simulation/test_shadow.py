"""Shadow mode: defenses that watch see what they would have seen, and change nothing."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from fedguard import Card, Detector
from fedguard.core.errors import DetectorError
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation

SUITE = """\
data: digits
model: logistic_regression
clients: 8
malicious: 2
rounds: 4
training: {steps: 2, batch_size: 16, lr: 0.1}
mode: shadow
attacks: [{name: byzantine, mode: random}, none]
defenses:
  nothing: none
  krum: {detector: {name: krum, select: m_krum}, aggregator: median}
  ban: {detector: {name: krum, select: m_krum}, policy: {name: ban, duration: 2}}
  gold: {detector: foolsgold, policy: reweight}
  groups: {detector: krum, flcert: {groups: 2}}
"""


class Breaks(Detector):
    """Fails in its second round."""

    card = Card("breaks", "for tests", "FedGuard")

    def score(self, round):
        if round.index == 1:
            raise DetectorError("no more")
        return np.zeros(round.n)


def suite_of(tmp_path, *overrides, text=SUITE):
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    suite, source = load_suite(path, list(overrides))
    check_suite(suite, source)
    return suite


def dump(store):
    with closing(sqlite3.connect(store.path)) as db:
        return [db.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in ("runs", "clients")]  # noqa: S608


def first_round(store, defense):
    rows = store.table("clients").merge(store.table("runs")[["run", "attack", "defense"]])
    return rows[(rows["round"] == 0) & (rows["defense"] == defense) & (rows["attack"] == "byzantine")]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    suite = suite_of(folder)
    return suite, run_suite(suite, folder / "out", workers=1)


def test_every_defense_with_a_detector_watches_each_attack(watched):
    runs = watched[1].table("runs")
    assert set(runs["mode"]) == {"shadow"}
    assert runs["defense"].tolist() == ["krum", "ban", "gold"] * 2
    assert set(runs["status"]) == {"done"}


def test_what_is_watched_is_the_undefended_federation(watched, tmp_path):
    _, store = watched
    plain = suite_of(tmp_path, "mode=closed", "defenses=[none]")
    for attack, group in (
        store.table("rounds").merge(store.table("runs")[["run", "attack"]]).groupby("attack")
    ):
        cell = next(c for c in plain.cells() if c.attack_label == attack)
        truth = [record.tacc for record in Federation(cell).run()]
        for _, rounds in group.groupby("run"):
            assert rounds["tacc"].tolist() == truth


def test_the_first_round_is_judged_as_in_a_closed_loop(watched, tmp_path):
    """Up to then nobody has acted; the same scores, suspects, weights and reasons."""
    _, store = watched
    closed = run_suite(suite_of(tmp_path, "mode=closed", "rounds=1"), tmp_path / "out", workers=1)
    columns = ["client", "malicious", "suspect", "weight", "banned", "reason"]
    for defense in ("krum", "ban", "gold"):
        one, other = (first_round(s, defense) for s in (store, closed))
        assert one[columns].values.tolist() == other[columns].values.tolist()
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-9)


def test_whom_a_watcher_would_have_banned_it_no_longer_judges_though_it_takes_part(watched):
    _, store = watched
    runs, clients = store.table("runs"), store.table("clients")
    run = runs[(runs["defense"] == "ban") & (runs["attack"] == "byzantine")].iloc[0]
    rows = clients[(clients["run"] == run["run"]) & (clients["malicious"] == 1)]
    assert rows["participated"].all()
    by_round = rows.groupby("round")
    assert by_round["banned"].all().tolist() == [True, True, True, True]
    assert by_round["score"].count().tolist() == [2, 0, 2, 0], "banned for two rounds, back, banned again"
    assert run["basis"] == "labels"
    assert run["fnr"] == 0


def test_one_watcher_that_fails_does_not_stop_the_others(tmp_path):
    bad = f"{{detector: '{__name__}:Breaks', policy: {{name: exclude, rule: mad}}}}"
    suite = suite_of(tmp_path, f"defenses.bad={bad}")
    runs = run_suite(suite, tmp_path / "out", workers=1).table("runs")
    bad = runs["defense"] == "bad"
    assert set(runs.loc[bad, "status"]) == {"failed"}
    assert set(runs.loc[bad, "error"]) == {"no more"}
    assert set(runs.loc[~bad, "status"]) == {"done"}


class Stop(BaseException):
    """An interruption."""


@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_watching_goes_on_after_an_interruption(watched, tmp_path, rounds):
    suite, whole = watched
    left = [rounds]

    def interrupt(_cell, _index):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    with pytest.raises(Stop):
        run_suite(suite, tmp_path / "out", 1, on_round=interrupt, checkpoint_seconds=0)
    ran = []
    store = run_suite(suite, tmp_path / "out", 1, on_round=lambda c, i: ran.append(i), checkpoint_seconds=0)
    assert len(ran) == 8 - rounds
    assert dump(store) == dump(whole)


def test_both_modes_side_by_side(watched, tmp_path):
    """On two processes: tests/evaluation/test_executors.py."""
    suite = suite_of(tmp_path, "mode=both")
    runs = run_suite(suite, tmp_path / "out", workers=1).table("runs")
    assert runs["mode"].value_counts().to_dict() == {"closed": 10, "shadow": 6}
    shadow = runs[runs["mode"] == "shadow"].reset_index(drop=True)
    expected = watched[1].table("runs")
    columns = ["attack", "defense", "dacc", "fpr", "fnr", "auroc", "tacc"]
    assert shadow[columns].equals(expected[columns])
