"""Observers of a guard: told after the fact, unable to do harm; the event stream and the metrics."""

import copy
import json
import math
import urllib.request

import numpy as np
import pytest

from fedguard import Card, Detector, EventLog, Guard, Round, Scores, make_policy
from fedguard.core.errors import ParameterError, RoundError

X = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [40.0, 0.0]])
IDS = ("a", "b", "ü\n", 7)


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect."""

    card = Card("first", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10", info={"largest": float(values.max()), "odd": math.inf})


class Memo:
    """Remembers what it was told, and what the ledger knew by then."""

    def __init__(self, guard=None):
        self.seen, self.guard = [], guard

    def observe(self, round, outcome):
        known = self.guard.ledger["a"].rounds if self.guard else None
        self.seen.append((round, outcome, known))


class Broken:
    def observe(self, round, outcome):
        raise RuntimeError("no disk, no network")


def guarded(*observers, **ban):
    return Guard(First(), make_policy("ban", **ban), observers=observers)


# --- the hook


def test_observers_are_told_in_order_once_the_state_is_committed():
    first, second = Memo(), Memo()
    guard = guarded(first, second)
    first.guard = guard
    round = Round(X, IDS, index=0)
    outcome = guard.process(round)
    assert first.seen == [(round, outcome, 1)]
    assert first.seen[0][0] is round
    assert len(second.seen) == 1
    watched = guard.watch(Round(X, IDS, index=1))
    assert first.seen[1][1:] == (watched, 2)


def test_suspects_and_refused_rounds_are_no_news():
    memo = Memo()
    guard = guarded(memo)
    guard.suspects(Round(X, IDS))
    guard.aggregator.aggregate = lambda round, weights: 1 / 0
    with pytest.raises(ZeroDivisionError):
        guard.process(Round(X, IDS))
    assert memo.seen == []


def test_an_observer_that_fails_is_a_warning(caplog):
    memo = Memo()
    outcome = guarded(Broken(), memo).process(Round(X, IDS, index=3))
    assert outcome.suspects.tolist() == [False, False, False, True]
    assert len(memo.seen) == 1, "the others are told all the same"
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "observer Broken failed in round 3")
    assert "no disk" in caplog.text


def test_a_copy_of_a_guard_has_no_observers():
    memo = Memo()
    guard = guarded(memo)
    assert copy.deepcopy(guard).observers == ()
    guard.process(Round(X, IDS))
    assert len(memo.seen) == 1


# --- the event stream


def lines(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines()]


def test_a_line_per_round(tmp_path):
    path = tmp_path / "events.jsonl"
    guard = guarded(EventLog(path), strikes=1, duration=2)
    broken = X.copy()
    broken[1] = np.nan
    guard.process(Round(broken, IDS, index=0))
    guard.process(Round(X, IDS, index=1))
    first, second = lines(path)
    assert (first["event"], first["round"], first["clients"]) == ("round", 0, 4)
    assert first["suspects"] == first["banned"] == first["new_bans"] == ["b", 7]
    assert (second["banned"], second["new_bans"]) == (["b", 7], [])
    assert first["verdicts"][1] == {
        "id": "b",
        "score": "inf",
        "by_detector": {"first": "inf"},
        "suspect": True,
        "weight": 0.0,
        "banned": True,
        "reason": "banned until round 2: non-finite update",
    }
    assert first["verdicts"][2]["id"] == "ü\n"
    assert [v["score"] for v in first["verdicts"]] == [1.0, "inf", 3.0, 40.0]
    assert [v["score"] for v in second["verdicts"]] == [1.0, None, 3.0, None]
    assert first["info"] == {"first": {"largest": 40.0, "odd": "inf"}}
    assert set(first["seconds"]) == {"first", "policy", "aggregator"}
    assert first["time"].endswith("+00:00")
    assert (first["kept_global"], first["note"]) == (False, "")


def test_drift_is_norm_and_cosine_of_the_aggregate(tmp_path):
    path = tmp_path / "events.jsonl"
    guard = Guard(observers=[EventLog(path)])
    aggregates = [(3, 4), (-4, 3), (0, 0), (8, -6), (3e38, 3e38), (1e-30, 0)]
    for index, vector in enumerate(aggregates):
        guard.process(Round(np.array([vector], dtype=np.float32), index=index))
    moves = [line["drift"] for line in lines(path)]
    long = math.sqrt(2) * float(np.float32(3e38))
    expected = [5, 5, 0, 10, long, float(np.float32(1e-30))]
    assert [m["norm"] for m in moves] == pytest.approx(expected, rel=1e-12)
    assert [m["cosine"] for m in moves[:3]] == [None, 0.0, None]
    assert moves[3]["cosine"] == pytest.approx(-1), "compared with the last that had a direction"
    assert moves[4]["cosine"] == pytest.approx(2 / math.sqrt(200))
    assert moves[5]["cosine"] == pytest.approx(math.sqrt(0.5))


def test_long_models_are_measured_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("fedguard.observers.events._BLOCK", 7)
    path, draw = tmp_path / "events.jsonl", np.random.default_rng(0)
    guard, rows = Guard(observers=[EventLog(path)]), draw.normal(size=(2, 1, 100)).astype(np.float32)
    for index, row in enumerate(rows):
        guard.process(Round(row, index=index))
    a, b = rows[:, 0].astype(np.float64)
    drift = lines(path)[1]["drift"]
    assert drift["norm"] == pytest.approx(np.linalg.norm(b), rel=1e-12)
    assert drift["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)


def test_everybody_excluded(tmp_path):
    path = tmp_path / "events.jsonl"
    guard = guarded(EventLog(path))
    guard.process(Round(X + 100, IDS))
    (line,) = lines(path)
    assert line["kept_global"]
    assert "stays as it is" in line["note"]
    assert line["drift"] == {"norm": 0.0, "cosine": None}


def test_files_are_rotated(tmp_path):
    path = tmp_path / "events.jsonl"
    guard = guarded(EventLog(path, max_bytes=3000))
    for index in range(30):
        guard.process(Round(X, IDS, index=index))
    old = tmp_path / "events.jsonl.1"
    assert sorted(tmp_path.iterdir()) == [path, old]
    assert 3000 <= old.stat().st_size < 5000
    rounds = [line["round"] for line in lines(old) + lines(path)]
    assert rounds == list(range(rounds[0], 30)), "no line is lost between the two"
    assert rounds[0] > 0
    with pytest.raises(ParameterError, match="max_bytes is 0"):
        EventLog(path, max_bytes=0)


def test_a_line_cut_short_by_a_crash_stays_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "round", "rou')
    guarded(EventLog(path)).process(Round(X, IDS, index=5))
    torn, whole = path.read_text("utf-8").splitlines()
    assert torn == '{"event": "round", "rou'
    assert json.loads(whole)["round"] == 5


def test_a_stream_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    guarded(EventLog(tmp_path / "nowhere" / "events.jsonl")).process(Round(X, IDS))
    assert "observer EventLog failed in round 0" in caplog.text


# --- metrics


def metrics(**where):
    pytest.importorskip("prometheus_client")
    from fedguard.observers.prometheus import PrometheusMetrics

    return PrometheusMetrics(**where)


def samples(text):
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if "_created" not in name}


def test_counters_and_gauges(tmp_path):
    path = tmp_path / "fedguard.prom"
    guard = guarded(metrics(textfile=path), strikes=1, duration=2)
    broken = X.copy()
    broken[1] = np.nan
    guard.process(Round(broken, IDS, index=0))
    guard.process(Round(X, IDS, index=1))
    guard.process(Round(np.where(X == 40, 4, X), IDS, index=5))
    with pytest.raises(RoundError):
        guard.process(Round(X, IDS, index=5))
    got = samples(path.read_text("utf-8"))
    expected = {
        "fedguard_rounds_total": 3,
        "fedguard_refused_rounds_total": 1,
        "fedguard_kept_global_rounds_total": 0,
        "fedguard_updates_total": 12,
        "fedguard_excluded_updates_total": 4,
        "fedguard_suspicions_total": 4,
        "fedguard_unusable_updates_total": 1,
        "fedguard_bans_total": 2,
        "fedguard_round": 5,
        "fedguard_clients": 4,
        "fedguard_suspects": 0,
        "fedguard_banned_clients": 0,
        "fedguard_aggregate_norm": 2.5,
        "fedguard_aggregate_cosine": 1,
        'fedguard_score{detector="first",quantile="min"}': 1,
        'fedguard_score{detector="first",quantile="median"}': 2.5,
        'fedguard_score{detector="first",quantile="p90"}': 3.7,
        'fedguard_score{detector="first",quantile="max"}': 4,
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    parts = {name for name in got if name.startswith("fedguard_seconds_total")}
    assert parts == {f'fedguard_seconds_total{{part="{p}"}}' for p in ("first", "policy", "aggregator")}
    assert set(got) == set(expected) | parts


def test_new_clients_are_no_new_time_series(tmp_path):
    path = tmp_path / "fedguard.prom"
    guard = guarded(metrics(textfile=path))
    sizes = []
    for index in range(5):
        guard.process(Round(X, tuple(f"sybil-{index}-{k}" for k in range(4)), index=index))
        sizes.append(len(samples(path.read_text("utf-8"))))
    assert len(set(sizes)) == 1
    assert "sybil" not in path.read_text("utf-8")


def test_no_finite_score_and_no_detector(tmp_path):
    path = tmp_path / "fedguard.prom"
    guarded(metrics(textfile=path)).process(Round(X * np.nan, IDS))
    got = samples(path.read_text("utf-8"))
    assert math.isnan(got['fedguard_score{detector="first",quantile="max"}'])
    assert got["fedguard_kept_global_rounds_total"] == 1
    Guard(observers=[metrics(textfile=path)]).process(Round(X, IDS))
    assert "fedguard_score{" not in path.read_text("utf-8")


def test_metrics_are_served():
    served = metrics(port=0)
    guarded(served).process(Round(X, IDS, index=4))
    url = f"http://127.0.0.1:{served.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        assert samples(reply.read().decode())["fedguard_round"] == 4
    with pytest.raises(ParameterError, match=f"cannot serve on 127.0.0.1:{served.port}"):
        metrics(port=served.port)
    served.close()
    served.close()
    assert served.port is None
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_what_metrics_need(monkeypatch):
    with pytest.raises(ParameterError, match="give a port to serve on, a textfile to write, or both"):
        metrics()
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    from fedguard.observers.prometheus import PrometheusMetrics

    with pytest.raises(ParameterError, match=r"pip install \"fedguard\[prometheus\]\""):
        PrometheusMetrics(port=0)
