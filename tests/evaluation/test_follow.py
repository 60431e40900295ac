"""Who follows a suite: JSON lines, trackers, the terminal; and that none of them can cost results."""

import io
import json

import pytest

from fedguard.core.errors import ParameterError
from fedguard.evaluation.running.follow import Follower, run_followed
from fedguard.evaluation.running.json_lines import JsonLines
from fedguard.evaluation.running.live import Terminal
from fedguard.evaluation.running.trackers import make_tracker
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """
clients: 8
rounds: 2
model: logistic_regression
malicious: 2
attacks: [none, byzantine]
defenses: {nothing: {}, krum: {detector: krum}}
mode: both
"""


def suite_of(folder, *overrides):
    (folder / "s.yaml").write_text(SUITE)
    suite, source = load_suite(folder / "s.yaml", list(overrides))
    check_suite(suite, source)
    return suite


def test_json_lines_tell_everything(tmp_path):
    stream = io.StringIO()
    store = run_followed(suite_of(tmp_path), tmp_path / "out", 1, [JsonLines(stream)])
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["event"] for e in events][:1] == ["started"]
    assert events[-1]["event"] == "ended"
    runs = [e for e in events if e["event"] == "run"]
    rounds = [e for e in events if e["event"] == "round"]
    assert len(runs) == events[0]["runs"] == events[-1]["runs"] == 6
    assert len(rounds) == events[0]["rounds"] == 4 * 2 + 2 * 2, "watchers share rounds"
    stored = store.table("runs")
    for run in runs:
        (row,) = [
            r
            for _, r in stored.iterrows()
            if (r["attack"], r["defense"], r["mode"]) == (run["attack"], run["defense"], run["mode"])
        ]
        assert run["metrics"]["tacc"] == row["tacc"]
        assert run["status"] == "done"
    assert any(run["metrics"].get("aar", 0) is None for run in runs), "undefined is null"


def test_only_what_is_left_is_announced(tmp_path):
    suite = suite_of(tmp_path)
    run_followed(suite, tmp_path / "out", 1, [])
    stream = io.StringIO()
    run_followed(suite, tmp_path / "out", 1, [JsonLines(stream)])
    first, last = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["runs"], first["rounds"]) == (0, 0)
    assert last["runs"] == 6


def test_a_follower_that_fails_costs_nothing(tmp_path, capsys):
    class Broken(Follower):
        calls = 0

        def round_done(self, cell, index):
            type(self).calls += 1
            raise RuntimeError("server is down")

    stream = io.StringIO()
    store = run_followed(suite_of(tmp_path), tmp_path / "out", 1, [Broken(), JsonLines(stream)])
    assert (store.table("runs")["status"] == "done").all()
    assert Broken.calls == 1, "told nothing more"
    assert "Broken failed and receives nothing more: server is down" in capsys.readouterr().err
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "ended", "the others go on"


def test_followers_are_closed_after_an_interruption(tmp_path):
    seen = []

    class Impatient(Follower):
        def round_done(self, cell, index):
            raise KeyboardInterrupt

        def close(self):
            seen.append("closed")

    with pytest.raises(KeyboardInterrupt):
        run_followed(suite_of(tmp_path), tmp_path / "out", 1, [Impatient()])
    assert seen == ["closed"]


def test_the_terminal_shows_the_tables(tmp_path, capsys):
    run_followed(suite_of(tmp_path, "seeds=[0,1]"), tmp_path / "out", 1, [Terminal(1, ("dacc", "tpr_at_1"))])
    out = capsys.readouterr().out
    assert "shadow mode: attack: Byzantine" in out
    assert "TPR at 1 % FPR" in out
    assert "TACC %" not in out
    assert "±" in out
    assert "12 runs in" in out


def test_tensorboard_gets_curves_and_results(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    suite = suite_of(tmp_path, "mode=closed")
    store = run_followed(suite, tmp_path / "out", 1, [make_tracker("tensorboard")])
    folders = sorted(path.name for path in (tmp_path / "out" / "tensorboard").iterdir())
    assert folders == sorted(f"{a}-{d}-closed-seed_0" for a in suite.attacks for d in suite.defenses)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "byzantine-krum-closed-seed_0"))
    events.Reload()
    shown = [event.value for event in events.Scalars("rounds/tacc")]
    rounds, runs = store.table("rounds"), store.table("runs")
    run = runs[(runs["attack"] == "byzantine") & (runs["defense"] == "krum")].iloc[0]
    assert shown == pytest.approx(rounds[rounds["run"] == run["run"]]["tacc"].tolist())
    assert events.Scalars("run/dacc")[0].value == pytest.approx(run["dacc"])


def test_mlflow_gets_runs(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    suite = suite_of(tmp_path, "mode=closed", "attacks=[byzantine]")
    store = run_followed(suite, tmp_path / "out", 1, [make_tracker("mlflow")])
    found = mlflow.search_runs(experiment_names=[suite.name]).set_index("params.defense")
    run = store.table("runs").set_index("defense").loc["krum"]
    assert found.loc["krum", "metrics.run/dacc"] == pytest.approx(run["dacc"])
    assert found.loc["krum", "metrics.tacc"] == pytest.approx(run["tacc"]), "the last round's"
    assert not (tmp_path / "mlruns").exists(), "everything lies in the results folder"


def test_wandb_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    suite = suite_of(tmp_path, "mode=closed", "attacks=[byzantine]")
    store = run_followed(suite, tmp_path / "out", 1, [make_tracker("wandb")])
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))) == len(store.finished()) == 2


def test_trackers_are_checked_before_anything_runs(monkeypatch):
    with pytest.raises(ParameterError, match="no tracker 'mlflo', did you mean 'mlflow'"):
        make_tracker("mlflo")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ParameterError, match=r'needs an extra: pip install "fedguard\[wandb\]"'):
        make_tracker("wandb")
