"""FLCert: groups, votes and certificates by brute force."""

import itertools
import math

import numpy as np
import pytest
import torch

from fedguard.core.errors import ConfigError
from fedguard.evaluation.running.task import Task, run_task
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.flcert import FLCert, certified, count_votes, groups_of, merge
from fedguard.simulation.records import ClientRow
from fedguard.simulation.settings import FLCertSettings

SUITE = """\
data: digits
model: logistic_regression
clients: 9
malicious: 2
rounds: 2
training: {steps: 2, batch_size: 16, lr: 0.1}
attacks: [{name: byzantine, mode: random}]
"""


def cell_of(tmp_path, defense, **changes):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE + f"defenses: {{d: {defense}}}\n", encoding="utf-8")
    suite, source = load_suite(path, [f"{k}={v}" for k, v in changes.items()])
    check_suite(suite, source)
    return suite.cells()[0]


def test_disjoint_groups_hold_everybody_once():
    groups = groups_of(FLCertSettings(groups=4), 10, seed=3)
    assert sorted(itertools.chain(*groups)) == list(range(10))
    assert sorted(map(len, groups)) == [2, 2, 3, 3]
    assert (
        groups
        == groups_of(FLCertSettings(groups=4), 10, seed=3)
        != groups_of(FLCertSettings(groups=4), 10, 4)
    )


def test_random_groups_are_drawn_afresh():
    groups = groups_of(FLCertSettings(groups=30, mode="random", size=3), 10, seed=0)
    assert all(len(set(group)) == 3 for group in groups)
    assert len({tuple(group) for group in groups}) > 20


def vote_by_hand(predictions, classes):
    counts = [list(predictions).count(c) for c in range(classes)]
    return counts.index(max(counts))


@pytest.mark.parametrize("models", [1, 3, 4, 5])
def test_a_certificate_is_the_largest_number_of_turned_models_that_changes_nothing(models):
    """By brute force over every way to turn k of the models: exact, not only a bound."""
    classes = 3
    for predictions in itertools.product(range(classes), repeat=models):
        winner = vote_by_hand(predictions, classes)
        safe = -1
        for k in range(models + 1):
            turned = [
                [forged[who.index(i)] if i in who else p for i, p in enumerate(predictions)]
                for who in itertools.combinations(range(models), k)
                for forged in itertools.product(range(classes), repeat=k)
            ]
            if any(vote_by_hand(t, classes) != winner for t in turned):
                break
            safe = k
        votes = count_votes(torch.tensor(predictions)[:, None], classes)
        assert int(votes.argmax(1)) == winner
        for label in range(classes):
            level = int(certified(votes, torch.tensor([label])))
            assert level == (min(safe, models // 2) if label == winner else -1), (predictions, label)


def test_one_group_is_the_ordinary_federation(tmp_path):
    plain = cell_of(tmp_path, "none")
    alone = cell_of(tmp_path, "{flcert: {groups: 1}}")
    for one, other in zip(Federation(plain).run(), FLCert(alone).run(), strict=True):
        assert repr(one.clients) == repr(other.clients)  # scores are NaN
        assert one.tacc == pytest.approx(other.tacc)


def test_groups_train_their_own_models_under_their_own_guards(tmp_path):
    cell = cell_of(
        tmp_path, "{detector: {name: krum, select: m_krum, num_malicious: 0}, flcert: {groups: 3}}"
    )
    ensemble = FLCert(cell)
    records = ensemble.run()
    params = [part.params for part in ensemble.members]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(params, 2))
    assert [row.client for row in records[0].clients] == list(range(9))
    assert all(row.participated for row in records[0].clients)
    assert sum(row.attacking for row in records[0].clients) == 2
    assert 0 <= records[-1].info["flcert"]["certified_accuracy"] <= records[-1].tacc
    assert math.isnan(records[-1].loss)


def test_each_group_is_told_its_share(tmp_path):
    cell = cell_of(tmp_path, "{detector: krum, flcert: {groups: 2}}", clients=20, malicious=5)
    assert {part.guard.detectors["krum"].num_malicious for part in FLCert(cell).members} == {3}


def test_a_run_is_summarized_like_any_other(tmp_path):
    cell = cell_of(tmp_path, "{detector: {name: dnc, num_malicious: 0}, policy: ban, flcert: {groups: 2}}")
    (result,) = run_task(Task((0,), (cell,), tmp_path / "state.ckpt", 10.0))
    assert result.error == ""
    assert result.metrics["basis"] == "labels"
    assert result.metrics["malicious"] == 2


def row(client, participated, score, suspect, weight, banned=False, reason="r"):
    return ClientRow(client, str(client), False, False, participated, score, suspect, weight, banned, reason)


def test_a_client_in_several_groups_gets_one_row():
    rows = [
        row(3, True, 0.5, False, 1.0),
        row(3, True, 0.7, True, 0.0, True, "bad"),
        row(3, False, math.nan, False, 0.0),
    ]
    assert merge(3, rows, [3])[4:] == (True, 0.7, True, 0.5, True, "bad")
    nobody = merge(5, [], [5])
    assert nobody.malicious
    assert not nobody.participated
    assert nobody.reason == "in no group"
    assert np.isnan(nobody.score)


@pytest.mark.parametrize(
    ("flcert", "problem"),
    [
        ("{groups: 10}", "9 clients do not fit groups of 0"),
        ("{groups: 2, mode: random, size: 10}", "9 clients do not fit groups of 10"),
        ("{groups: 2, mode: random}", "go together"),
        ("{groups: 2, size: 3}", "go together"),
        ("{groups: 0}", "greater than or equal to 1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(tmp_path, flcert, problem):
    with pytest.raises(ConfigError, match=rf"defenses\.d.*{problem}"):
        cell_of(tmp_path, f"{{flcert: {flcert}}}")


def test_groups_too_small_for_a_detector_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="krum needs at least 4 clients, the round has 3"):
        cell_of(tmp_path, "{detector: krum, flcert: {groups: 3}}")
