"""What objects look like at a prompt."""

import copy

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Round, make_aggregator, make_detector, make_policy, make_stage


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (make_detector("krum"), "Krum()"),
        (make_detector("krum", num_malicious=2), "Krum(num_malicious=2)"),
        (make_detector("krum", num_malicious=2, select="krum"), "Krum(num_malicious=2)"),
        (make_policy("ban", strikes=3, duration=5), "Ban(strikes=3, duration=5)"),
        (make_policy("evidence", center="own", rounds=3), "Evidence(center='own', rounds=3)"),
        (make_aggregator("mean", weighting="uniform"), "Mean(weighting='uniform')"),
        (make_stage("norm_clipping"), "NormClipping()"),
    ],
    ids=str,
)
def test_a_method_prints_the_parameters_that_are_not_the_defaults(method, text):
    assert sorted(repr(method).strip(")").split("(")[1].split(", ")) == sorted(
        text.strip(")").split("(")[1].split(", ")
    )
    assert repr(method).partition("(")[0] == text.partition("(")[0]
    assert repr(copy.deepcopy(method)) == repr(copy.copy(method)) == repr(method)


class Odd(Detector):
    """Takes an array."""

    card = Card("odd", "for tests", "FedGuard")

    def __init__(self, values: object = (), limit: float = 1.0) -> None:
        self.values, self.limit = values, limit

    def score(self, round):
        return np.zeros(round.n)


def test_long_and_odd_values_are_cut_short():
    assert repr(Odd(np.zeros(3))) == "Odd(values=array([0., 0., 0.]))"
    text = repr(Odd("x" * 500, limit=2.0))
    assert text.endswith("…, limit=2.0)")
    assert len(text) < 150


def test_a_guard_prints_its_parts():
    guard = Guard(make_detector("krum", num_malicious=2), stages=make_stage("norm_clipping"))
    assert repr(guard) == (
        "Guard(detectors=[Krum(num_malicious=2)], policy=Exclude(), aggregation=[NormClipping(), Mean()])"
    )


def rounds(n):
    draw = np.random.default_rng(0)
    updates = draw.normal(size=(n, 5)) / 100
    updates[-1] += 9
    return Round(updates.astype(np.float32), [f"c{i}" for i in range(n)])


def test_a_round_prints_its_shape():
    assert repr(rounds(6)) == "Round(index=0, n=6, d=5)"
    assert repr(rounds(6).updates) == "Updates(n=6, d=5)"


def test_an_outcome_prints_a_table():
    outcome = Guard(make_detector("krum", num_malicious=1, select="m_krum")).process(rounds(5))
    head, columns, *lines = repr(outcome).splitlines()
    assert head == "5 clients, 1 suspect, 0 banned"
    assert columns.split() == ["client", "score", "weight", "verdict", "reason"]
    assert [line.split()[0] for line in lines] == ["c0", "c1", "c2", "c3", "c4"]
    assert lines[-1].split()[2:4] == ["0", "suspect"]
    assert "excluded" in lines[-1]
    assert "tensor" not in repr(outcome)


def test_of_many_clients_the_suspects_come_first():
    outcome = Guard(make_detector("krum", num_malicious=1, select="m_krum")).process(rounds(50))
    lines = repr(outcome).splitlines()
    assert lines[2].startswith("c49")
    assert lines[-1] == "… and 30 more"
    assert len(lines) == 23


def test_hostile_ids_cannot_move_the_cursor():
    round = Round(np.eye(4, dtype=np.float32), ["a\x1b[2J\n", "b" * 900, "c", "d"])
    text = repr(Guard().process(round))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 6
    assert "b" * 30 not in text
