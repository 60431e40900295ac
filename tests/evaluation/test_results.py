"""From a results folder to frames, pivots and published layouts; oracles: loops and scipy's t interval."""

import io
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedguard.core.errors import ParameterError, ResultsError
from fedguard.evaluation.results.export import export
from fedguard.evaluation.results.frame import MEANS, metrics_frame, read_results, run_frame
from fedguard.evaluation.results.layout import Float, Layout, layout_of
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite

SUITE = """
clients: 9
rounds: 2
model: logistic_regression
partition: {name: dirichlet, beta: 0.5}
malicious: [2, 3]
training: {epochs: 1, lr: 0.1}
seeds: [0, 1, 2]
attacks: [none, label_flip, scaling_backdoor]
defenses:
  nothing: {}
  median: {aggregator: median}
  m_krum: {detector: {name: krum, select: m_krum}}
  banned_100%: {detector: norm_bound, policy: ban}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "s.yaml").write_text(SUITE)
    suite, source = load_suite(folder / "s.yaml")
    check_suite(suite, source)
    return run_suite(suite, folder / "out", workers=1)


def group(store, attack, defense, malicious=3):
    runs = store.table("runs")
    return runs[
        (runs["attack"] == attack)
        & (runs["defense"] == defense)
        & (runs["point"] == json.dumps({"malicious": malicious}))
    ]


@pytest.fixture(scope="module")
def frame(store):
    return metrics_frame(store)


def row(frame, attack, defense, malicious=3):
    found = frame[
        (frame["attack"] == attack)
        & (frame["defense"] == defense)
        & (frame["point"] == f"malicious = {malicious}")
    ]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("metric", ["dacc", "fpr", "fnr", "aar", "tacc", "auroc", "fpr_high_skew"])
def test_means_and_intervals_are_those_of_the_seeds(store, frame, metric):
    for defense in ("m_krum", "banned_100%"):
        values = group(store, "label_flip", defense)[metric].to_numpy(float)
        shown = row(frame, "label_flip", defense)
        assert shown["seeds"] == len(values) == 3
        assert shown[metric] == pytest.approx(values.mean())
        if values.std() > 0:
            low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
            assert shown[f"{metric}_ci"] == pytest.approx((high - low) / 2)
        else:
            assert shown[f"{metric}_ci"] == pytest.approx(0, abs=1e-12)


def test_some_interval_is_not_zero(frame):
    assert (frame["tacc_ci"] > 1e-3).any()
    assert (frame["auroc_ci"] > 1e-3).any()


@pytest.mark.parametrize("name", [{"=1+1": 1}, ["digits"], None, 7])
def test_a_name_that_is_no_text_is_shown_as_it_is(store, tmp_path, name):
    """Settings in a results folder may be anybody's."""
    shutil.copytree(store.folder, tmp_path / "own")
    with closing(sqlite3.connect(tmp_path / "own" / "results.sqlite")) as db:
        for run, settings in db.execute("SELECT run, settings FROM runs").fetchall():
            changed = json.dumps({**json.loads(settings), "data": {"name": name}})
            db.execute("UPDATE runs SET settings = ? WHERE run = ?", (changed, run))
        db.commit()
    frame = run_frame(Store(tmp_path / "own"), ["data"])
    assert set(frame["data"]) == {json.dumps({"name": name})}


def test_pooled_rates_come_from_the_counts_of_all_seeds(store):
    runs = group(store, "label_flip", "m_krum")
    shown = row(metrics_frame(store), "label_flip", "m_krum")
    tp, fp, tn, fn = (runs[name].sum() for name in ("tp", "fp", "tn", "fn"))
    assert (shown["tp"], shown["fp"], shown["tn"], shown["fn"]) == (tp, fp, tn, fn)
    assert shown["pooled_dacc"] == pytest.approx((tp + tn) / (tp + fp + tn + fn))
    assert shown["pooled_fpr"] == pytest.approx(fp / (fp + tn))
    assert shown["pooled_fnr"] == pytest.approx(fn / (fn + tp))
    clean = row(metrics_frame(store), "none", "m_krum")
    assert np.isnan(clean["pooled_fnr"]), "no attackers: undefined"
    assert np.isnan(row(metrics_frame(store), "label_flip", "nothing")["pooled_dacc"])


def test_accuracy_lost_is_against_the_same_seed_unattacked_and_undefended(store):
    frame = run_frame(store)
    for _, run in frame.iterrows():
        (clean,) = frame[
            (frame["attack"] == "none")
            & (frame["defense"] == "nothing")
            & (frame["seed"] == run["seed"])
            & (frame["point"] == run["point"])
        ]["tacc"]
        assert run["accuracy_lost"] == pytest.approx(clean - run["tacc"], abs=1e-12)
    assert frame["accuracy_lost"].max() > 0.05


def test_false_positives_by_label_skew_count_the_benign_thirds(store):
    from fedguard.simulation.setup import setup_for

    suite, _ = load_suite(store.folder / "suite.yaml")
    clients, runs = store.table("clients"), store.table("runs").set_index("run")
    for number, cell in enumerate(suite.cells()):
        if cell.defense_label != "m_krum" or cell.seed == 1:
            continue
        setup = setup_for(cell)
        labels = [setup.dataset.train.labels[s].numpy() for s in setup.samples]
        everybody = np.concatenate(labels)
        skew = [
            0.5 * sum(abs(np.mean(mine == c) - np.mean(everybody == c)) for c in range(10)) for mine in labels
        ]
        rows = clients[clients["run"] == number]
        benign = sorted(set(rows[rows["malicious"] == 0]["client"]), key=lambda c: (skew[c], c))
        thirds = np.array_split(benign, 3)
        for name, third in zip(("low", "mid", "high"), thirds, strict=True):
            rates = [
                r[r["client"].isin(third)]["suspect"].mean() for _, r in rows.groupby("round", sort=True)
            ]
            assert runs.loc[number, f"fpr_{name}_skew"] == pytest.approx(np.mean(rates))


def test_any_setting_tells_rows_apart_and_only_seeds_are_averaged(store):
    frame = read_results(store.folder, by=["malicious", "defense"])
    assert frame.attrs["keys"] == ["malicious", "defense", "attack"], "attacks are never averaged"
    assert len(frame) == 2 * 4 * 3
    assert set(frame["seeds"]) == {3}
    single = read_results(store.folder, by=["seed", "attack", "defense"])
    assert set(single["seeds"]) == {1}
    assert single[[f"{m}_ci" for m in MEANS]].isna().all(axis=None), "one seed has no interval"
    assert len(single) == len(store.table("runs"))
    with pytest.raises(ParameterError, match=r"no setting partition\.bata, did you mean 'beta'"):
        read_results(store.folder, by=["partition.bata"])


def test_a_pivot_puts_two_settings_across(store):
    layout = layout_of("", "malicious,defense", "tacc", {"attack": "label_flip"})
    table = pd.read_csv(io.BytesIO(export(store, "csv", layout)))
    assert list(table["malicious"]) == [2, 3]
    for malicious in (2, 3):
        expected = group(store, "label_flip", "median", malicious)["tacc"].mean()
        line = table[table["malicious"] == malicious].iloc[0]
        assert line["median tacc"] == pytest.approx(expected)
        assert line["median tacc_ci"] >= 0
    text = export(store, "markdown", layout).decode()
    assert [cell.strip() for cell in text.splitlines()[0].split("|")[1:4]] == [
        "malicious",
        "attack",
        "nothing",
    ]


def test_published_layouts(store):
    one = export(store, "markdown", layout_of("fedredefense_table1", "", "", {"malicious": 3})).decode()
    head = [cell.strip() for cell in one.splitlines()[0].strip("|").split("|")]
    assert head == ["attack", "defense", *(f"digits {m}" for m in ("DACC %", "FPR %", "FNR %", "AAR"))]
    body = [[c.strip() for c in line.strip("|").split("|")][:2] for line in one.splitlines()[2:]]
    assert body == [[a, d] for a in ("label_flip", "scaling_backdoor") for d in ("m_krum", "banned_100%")]
    two = export(store, "csv", layout_of("fedredefense_table2", "", "", {"malicious": 3})).decode()
    assert two.splitlines()[0].startswith("attack,nothing tacc,nothing tacc_ci,nothing asr,")
    text = export(store, "latex", layout_of("fedredefense_table2", "", "", {"malicious": 3})).decode()
    lines = [line for line in text.splitlines() if line.startswith("    Scaling")]
    assert len(lines) == 1
    assert lines[0].count("/") == 4, "TACC/ASR under a backdoor"
    assert "/" not in next(line for line in text.splitlines() if line.startswith("    Label"))


def test_latex_escapes_what_users_call_things(store):
    text = export(store, "latex").decode()
    assert "banned\\_100\\%" in text
    assert "$\\pm$" in text
    assert "±" not in text
    assert text.count("{") == text.count("}")


def test_a_latex_float_has_caption_label_groups_and_a_note(store):
    layout = replace(
        layout_of("", "attack,defense", "tacc,dacc", {}), float=Float("Own words.", "tab:own", True)
    )
    text = export(store, "latex", layout).decode()
    assert text.startswith("\\begin{table*}[t]\n  \\centering\n")
    assert "\\caption{Own words.}\n  \\label{tab:own}" in text
    assert "\\multicolumn{2}{c}{m-Krum}" in text
    assert "\\cmidrule(lr){" in text
    assert "TACC (\\%) $\\uparrow$" in text
    assert "Mean over 3 seeds" in text
    plain = export(store, "latex").decode()
    assert f"\\label{{tab:{store.folder.name}}}" in plain
    assert "\\addlinespace" in plain


def test_numbers_keep_full_precision_and_their_counts(store):
    frame = metrics_frame(store)
    read = pd.read_csv(io.BytesIO(export(store, "csv")), keep_default_na=True)
    for name in ("dacc", "dacc_ci", "tp", "fn", "pooled_fpr", "accuracy_lost"):
        np.testing.assert_allclose(read[name], frame[name], rtol=1e-12)
    few = export(store, "csv", layout_of("", "", "AP,tpr_at_1", {})).decode().splitlines()[0]
    assert few.endswith("seeds,failed,ap,ap_ci,tpr_at_1,tpr_at_1_ci")


def test_parquet_holds_the_frame(store, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(export(store, "parquet"))
    read = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read, metrics_frame(store), check_dtype=False)


def test_mistakes_are_named(store, tmp_path):
    with pytest.raises(ParameterError, match="no column 'facc', did you mean 'tacc'"):
        export(store, "csv", layout_of("", "", "facc", {}))
    with pytest.raises(ParameterError, match="takes two settings"):
        layout_of("", "attack", "", {})
    with pytest.raises(ParameterError, match="no preset 'fedredefense_table3', did you mean"):
        layout_of("fedredefense_table3", "", "", {})
    with pytest.raises(ParameterError, match="no run is left to show"):
        export(store, "csv", Layout(where={"attack": ["lie"]}))
    with pytest.raises(ParameterError, match="unknown format 'xls'"):
        export(store, "xls")
    with pytest.raises(ResultsError, match=r"holds no results\.sqlite"):
        read_results(tmp_path)


@pytest.mark.parametrize("attack", ["label_flip", "scaling_backdoor"])
def test_fnr_is_weighted_by_what_the_attack_does_without_a_defense(store, attack):
    clean = group(store, "none", "nothing").set_index("seed")["tacc"]
    alone = group(store, attack, "nothing").set_index("seed")
    weights = {
        seed: min(1.0, max(0.0, (clean[seed] - run["tacc"]) / 0.1, np.nan_to_num(run["asr"])))
        for seed, run in alone.iterrows()
    }
    frame, runs = metrics_frame(store), group(store, attack, "m_krum")
    expected = sum(weights[r["seed"]] * r["fnr"] for _, r in runs.iterrows()) / sum(weights.values())
    assert row(frame, attack, "m_krum")["fnr_harm"] == pytest.approx(expected)
    assert row(frame, attack, "m_krum")["harm"] == pytest.approx(np.mean(list(weights.values())))
    assert np.isnan(row(frame, "none", "m_krum")["harm"])


def test_active_attackers_and_the_best_round_are_in_the_store(store):
    runs = store.table("runs")
    judged = runs[(runs["attack"] == "scaling_backdoor") & (runs["defense"] == "m_krum")]
    assert (judged["fnr_active"] == judged["fnr"]).all(), "every attacker attacks in every round"
    assert (judged["aar_active"] == judged["aar"]).all()
    assert (runs["tacc_best"] >= runs["tacc"]).all()


def test_what_a_client_sends_is_its_parameters_in_float32(store, frame):
    assert (store.table("runs")["sent_bytes"] == 4 * (64 * 10 + 10)).all(), "digits, logistic regression"
    assert row(frame, "none", "median")["sent_bytes"] == 2600


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux sets the peak back")
def test_peak_memory_belongs_to_the_total_of_a_run(store, frame):
    timings = store.table("timings")
    total = timings["part"] == "total"
    assert timings.loc[~total, "peak_memory"].isna().all()
    peaks = timings.loc[total, "peak_memory"]
    assert peaks.between(2**25, 2**40).all(), "a process with NumPy and torch"
    assert "peak_memory" not in store.table("runs"), "it differs between two runs of a suite"
    assert frame["peak_memory"].between(peaks.min(), peaks.max()).all()
