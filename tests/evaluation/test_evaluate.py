"""Running a suite: what is stored, that it is the same bits however it is run, and what fails how."""

import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from fedguard.core.errors import ConfigError, DataError, ResultsError
from fedguard.evaluation.results.export import export
from fedguard.evaluation.results.folders import folder_for
from fedguard.evaluation.results.frame import metrics_frame
from fedguard.evaluation.results.report.page import write_report
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.results.tables import attack_tables
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

TINY = """\
data: digits
partition: {name: dirichlet, beta: 1.0}
model: logistic_regression
clients: 6
malicious: 2
rounds: 2
participation: 0.84
training: {epochs: 1, batch_size: 32, lr: 0.1}
server: {validation: 40}
attacks: [none, {name: byzantine, mode: random}, scaling_backdoor]
defenses:
  no_defense: none
  krum: {detector: {name: krum, select: m_krum}}
  both: {detector: [foolsgold, lfr], aggregator: median}
  banned: {detector: dnc, policy: {name: ban, strikes: 1}}
"""


def suite_of(tmp_path, text=TINY, overrides=()):
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return load_suite(path, list(overrides))


def dump(store, tables=("runs", "clients", "rounds")):
    with closing(sqlite3.connect(store.path)) as db:
        return {t: db.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in tables}  # noqa: S608


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    suite, source = suite_of(folder)
    check_suite(suite, source)
    return suite, run_suite(suite, folder / "one", workers=1)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("parallel", ["cells", "clients"])
def test_same_bits_for_any_number_of_workers(finished, tmp_path, parallel):
    suite, alone = finished
    other = run_suite(suite.model_copy(update={"parallel": parallel}), tmp_path / "many", workers=2)
    assert dump(other) == dump(alone)


def test_the_resolved_suite_spells_everything_out_and_runs_to_the_same_results(finished, tmp_path):
    _, store = finished
    suite, source = load_suite(store.folder / "suite.yaml")
    check_suite(suite, source)
    assert suite.assumed_malicious == 2
    assert suite.defenses["krum"].detector[0].params == {"num_malicious": 2, "select": "m_krum", "m": None}
    assert suite.attacks["scaling_backdoor"].params["scale"] == 3
    tables = ("clients", "rounds")
    assert dump(run_suite(suite, tmp_path / "again", workers=1), tables) == dump(store, tables)


def test_testing_less_often_changes_nothing_else(tmp_path):
    text = TINY + "  voted: {flcert: {groups: 2}}\n"
    small = ["rounds=4", "attacks=[scaling_backdoor]"]
    every, third = (
        run_suite(suite_of(tmp_path, text, [*small, f"test_every={n}"])[0], tmp_path / str(n), workers=1)
        for n in (1, 3)
    )
    assert dump(third, ["clients"]) == dump(every, ["clients"])
    final = ["attack", "defense", "dacc", "aar", "tacc", "asr"]
    assert third.table("runs")[final].equals(every.table("runs")[final])
    tested = [2, 3]  # the third round and the last
    numbers = ["tacc", "loss", "asr"]
    rounds, all_rounds = third.table("rounds"), every.table("rounds")
    here = rounds["round"].isin(tested)
    assert rounds.loc[here, numbers].equals(all_rounds.loc[here, numbers])
    assert rounds.loc[~here, numbers].isna().all(axis=None)
    assert all_rounds["tacc"].notna().all()
    certified = rounds["info"].str.contains("certified_accuracy")
    assert certified.sum() == (here & all_rounds["info"].str.contains("certified_accuracy")).sum() > 0
    assert (write_report(third.folder, tmp_path / "report.html")).stat().st_size > 10_000


def test_one_row_per_client_and_round(finished):
    suite, store = finished
    clients, runs, rounds = store.table("clients"), store.table("runs"), store.table("rounds")
    assert len(runs) == len(suite.cells())
    assert set(runs["status"]) == {"done"}
    assert len(rounds) == len(runs) * suite.rounds
    assert len(clients) == len(runs) * suite.rounds * suite.clients
    assert (clients.groupby(["run", "round"])["participated"].sum() <= 5).all()
    assert (clients["reason"].str.len() > 0).all()
    assert set(clients["malicious"]) == {0, 1}
    clean = runs.set_index("run")["attack"].eq("none")
    assert not clients.loc[clients["run"].map(clean), "malicious"].any()


def test_metrics_in_the_store_follow_from_its_rows(finished):
    """By-hand recomputation of DACC, FPR, FNR and AAR from the table of clients."""
    _, store = finished
    clients = store.table("clients")
    for _, run in store.table("runs").iterrows():
        rows = clients[clients["run"] == run["run"]]
        present = rows[rows["participated"] == 1]
        evil = rows[rows["malicious"] == 1]
        if len(evil):
            aggregated = evil[(evil["participated"] == 1) & (evil["weight"] > 0)]
            assert run["aar"] == pytest.approx(len(aggregated) / evil["client"].nunique())
        else:
            assert np.isnan(run["aar"])
        if run["defense"] == "no_defense":
            assert np.isnan(run["dacc"])
            continue
        if run["basis"] == "labels":
            labels = rows.groupby("client")["banned"].max()
            truth = rows.groupby("client")["malicious"].max()
            assert run["dacc"] == pytest.approx((labels == truth).mean())
        else:
            per_round = [(r["suspect"] == r["malicious"]).mean() for _, r in present.groupby("round")]
            assert run["dacc"] == pytest.approx(np.mean(per_round))
            assert run["tp"] + run["fp"] + run["tn"] + run["fn"] == len(present)


def test_attack_success_only_where_it_applies(finished):
    runs = finished[1].table("runs")
    targeted = runs["attack"] == "scaling_backdoor"
    assert runs.loc[targeted, "asr"].notna().all()
    assert runs.loc[~targeted, "asr"].isna().all()


def test_frame_tables_and_exports_agree(finished):
    suite, store = finished
    frame = metrics_frame(store)
    assert len(frame) == len(suite.attacks) * len(suite.defenses)
    tables = attack_tables(frame)
    assert [len(table.rows) for _, table in tables] == [len(suite.defenses)] * len(suite.attacks)
    import io
    import json

    import pandas as pd

    read_back = pd.read_csv(io.StringIO(export(store, "csv").decode()))
    pd.testing.assert_series_equal(read_back["dacc"], frame["dacc"], check_exact=False)
    rows = json.loads(export(store, "json").decode())
    assert rows[0]["dacc"] is None
    assert rows[1]["fnr"] is None, "no attackers: FNR is undefined, not 0"
    markdown, latex = export(store, "markdown").decode(), export(store, "latex").decode()
    assert markdown.count("\n") == 2 + len(frame)
    assert "**" in markdown
    assert latex.startswith("\\begin{table}")
    assert "\\toprule" in latex
    assert "    Scaling & " in latex


def test_a_folder_with_other_results_is_never_overwritten(finished, tmp_path):
    suite, store = finished
    other, _ = suite_of(tmp_path, overrides=["rounds=3"])
    with pytest.raises(ResultsError, match="already holds results of another suite"):
        run_suite(other, store.folder, workers=1)
    assert folder_for(store.folder, suite).name == "one-2", "a finished run is not added to"
    with pytest.raises(ResultsError, match=r"holds no results\.sqlite"):
        Store(tmp_path)


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    from fedguard.contracts.registry import make_detector

    suite, _ = suite_of(tmp_path, overrides=["attacks=[none]"])
    broken = type(make_detector("krum"))
    monkeypatch.setattr(broken, "score", lambda self, round: [float("nan")] * round.n)
    store = run_suite(suite, tmp_path / "out", workers=1)
    runs = store.table("runs").set_index("defense")
    assert runs.loc["krum", "status"] == "failed"
    assert "krum returned NaN for client" in runs.loc["krum", "error"]
    assert (runs.drop("krum")["status"] == "done").all()
    assert metrics_frame(store).set_index("defense").loc["krum", "failed"] == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("server.validation=0", r"tiny.yaml:14: defenses.both: lfr needs validation: .*server.validation"),
        (
            "defenses.krum.detector=krun",
            r"yaml:13: defenses.krum: unknown detector 'krun', did you mean 'krum'",
        ),
        (
            "defenses.krum={detector: {name: krum, selekt: krum}}",
            r"^override .*'selekt', did you mean 'select'",
        ),
        (
            "defenses.krum.policy=reweight",
            r"defenses.krum: policy reweight needs a detector that gives weights",
        ),
        ("assumed_malicious=4", r"defenses.krum: krum needs at least 7 clients, the round has 5"),
        (
            "defenses={d: {detector: {name: dnc, num_malicious: 3}}}",
            r"dnc is told of 3 malicious clients among 5 per round; it needs an honest majority",
        ),
        ("attacks=[{name: label_flip, mode: pairs, pairs: {3: 11}}]", r"attacks.label_flip: .*11"),
        ("partition.beta=-1", r"tiny.yaml:2: partition: .*beta"),
        ("partition=iidd", r"^override 'partition=iidd': partition: .*did you mean 'iid'"),
        ("model=lenet", r"model: .*image"),
        ("data=digit", r"data: .*did you mean 'digits'"),
        ("malicious=0", r"attacks.byzantine: attack byzantine needs malicious clients"),
        ("server.validation=5000", r"tiny.yaml:9: server: the server keeps 5000 samples"),
    ],
)
def test_mistakes_are_found_before_any_training(tmp_path, override, expected):
    suite, source = suite_of(tmp_path, overrides=[override])
    with pytest.raises(ConfigError, match=expected):
        check_suite(suite, source)


def test_unreadable_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDGUARD_DATA", str(tmp_path / "nowhere"))
    suite, source = suite_of(tmp_path, overrides=["data=mnist"])
    with pytest.raises(DataError, match="nowhere"):
        check_suite(suite, source)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FEDGUARD_DATA"), reason="needs FEDGUARD_DATA")
def test_one_round_of_the_fashion_mnist_smoke_suite(tmp_path):
    changes = ["rounds=1", "defenses={no_defense: none, krum: {detector: krum}}", "attacks=[min_max]"]
    suite, source = load_suite("fashion_mnist_smoke", changes)
    check_suite(suite, source)
    store = run_suite(suite, tmp_path / "out", workers=2)
    clients = store.table("clients")
    assert clients.groupby("run")["malicious"].sum().tolist() == [28, 28]
    krum = clients[clients["run"] == 1]
    assert krum["score"].notna().all()
    assert krum["weight"].sum() == 1
