"""Calibration on a recording; expected numbers are counted by hand on updates of one parameter."""

import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from fedguard import Card, Detector, Guard, Round, Scores, load_guard
from fedguard.cli import entry as cli
from fedguard.core.errors import ConfigError, ParameterError, RegistryError, ResultsError
from fedguard.core.files import sha256_of
from fedguard.evaluation.calibration.calibrate import Found, Wish, best, calibrate
from fedguard.evaluation.calibration.injection import Injection
from fedguard.evaluation.calibration.rates import Rate
from fedguard.evaluation.calibration.rounds import Rounds
from fedguard.evaluation.calibration.show import _tables
from fedguard.recording import Recorder, Recording
from fedguard.recording.index import Index, read_index, write_index


class Size(Detector):
    """s_i = |the parameter|; above 100 is a suspect."""

    card = Card("size", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].abs().double().numpy()
        return Scores(values, values > 100, "above 100")


def recorded(folder, rounds, ids="abcd", about=None, **parts):
    with Recorder(folder, about=about) as recorder:
        guard = Guard(observers=[recorder])
        for index, values in enumerate(rounds):
            guard.process(Round(np.array(values, dtype=float)[:, None], list(ids), index=index, **parts))
    return Recording(folder)


#: Scores 1 … 20 to learn from; then 12 to measure, of which 20, 50 and 60 are above 19.
LEARNED = np.arange(1, 21).reshape(5, 4).tolist()
MEASURED = [[8, 20, 7, 6], [8, 50, 7, 6], [8, 60, 7, 6]]


@pytest.fixture
def live(tmp_path):
    return recorded(tmp_path / "live", LEARNED + MEASURED)


def rounds_of(recording, last=100, learn=5 / 8):
    return Rounds(recording, last, learn, None)


def test_an_interval_is_wilsons():
    """By his formula: (k + z²/2 ∓ z √(k(n − k)/n + z²/4)) / (n + z²), z = 1.959964."""
    for k, n in ((0, 10), (1, 10), (7, 30)):
        z = 1.959964
        half = z * np.sqrt(k * (n - k) / n + z**2 / 4)
        ends = [(k + z**2 / 2 + sign * half) / (n + z**2) for sign in (-1, 1)]
        assert Rate(k, n).interval() == pytest.approx(ends, abs=1e-6)
    assert Rate(0, 0).interval() == (0, 1)
    assert str(Rate(1, 10)) == "10.0 [1.8, 40.4]"


def test_rates_are_of_the_rounds_that_were_not_learned_from(live):
    wish = Wish(rate=0.1, policy="exclude", attacks=[])
    native, learned = calibrate(rounds_of(live), [Size()], wish)
    assert native.suspicions == (0, 12)
    # the ⌈21 · 0.9⌉ = 19th smallest of 1 … 20
    assert learned.policy == {"name": "exclude", "rule": {"name": "threshold", "value": 19.0}}
    assert learned.suspicions == (3, 12)
    assert learned.bans == (0, 4)


def test_a_banned_client_is_judged_no_more(live):
    learned = calibrate(rounds_of(live), [Size()], Wish(rate=0.1, attacks=[]))[1]
    assert learned.suspicions == (1, 10), "client b is out after its first round"
    assert learned.bans == (1, 4)


def test_injected_attackers_are_the_same_in_every_round(live):
    rounds = rounds_of(live)
    seed = next(s for s in range(50) if Injection("sign_flip", rounds.clients, 0.25, s).attackers == {"a"})
    wish = Wish(0.1, "exclude", ["sign_flip", {"name": "scaling_backdoor", "scale": 3}], 0.25, seed)
    learned = calibrate(rounds, [Size()], wish)[1]
    # a sends −8, whose size is honest, or 24, which is above 19; of the others' nine, b's three are
    assert learned.detection == {"sign_flip": (0, 3), "scaling_backdoor scale=3": (3, 3)}
    assert learned.honest == {"sign_flip": (3, 9), "scaling_backdoor scale=3": (3, 9)}


def test_the_attack_gets_what_it_declares(live):
    """LIE with full knowledge: μ − zσ of the three benign updates, in every round."""
    rounds = rounds_of(live)
    injection = Injection({"name": "lie", "z": 2}, rounds.clients, 0.25, 0)
    for round in rounds.measured():
        sent, bad = injection.into(round, Guard())
        benign = round.updates.matrix[:, 0].numpy()[~bad]
        assert bad.sum() == 1
        assert sent.updates.matrix[:, 0].numpy()[bad] == pytest.approx(
            benign.mean() - 2 * benign.std(), abs=1e-4
        )
        assert sent.updates.matrix[:, 0].numpy()[~bad].tolist() == benign.tolist()


def test_malicious_banned_and_unusable_clients_are_left_out(tmp_path):
    values = [[1, 2, np.nan, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    with Recorder(tmp_path / "r", about={"malicious": [0]}) as recorder:
        recorder.remarks = lambda round, outcome: {"clients": [0, 1, 2, 3]}
        guard = Guard(observers=[recorder])
        for index, row in enumerate(values):
            guard.process(Round(np.array(row)[:, None], list("abcd"), index=index))
            guard.ledger.ban("d", index, None, "for this test")
    rounds = Rounds(Recording(tmp_path / "r"), 100, 0.34, None)
    assert rounds.counts == (1, 2)
    assert [round.client_ids for round in rounds.learned()] == [("b", "d")]
    assert [round.client_ids for round in rounds.measured()] == [("b", "c")] * 2


def test_too_few_scores_give_no_threshold_and_a_note(live):
    (native,) = calibrate(rounds_of(live), [Size()], Wish(rate=0.01, attacks=[]))
    assert native.notes == [
        "no threshold: 20 scores to learn from are too few for a rate of 0.01, or too many are infinite; at "
        "least 99 are needed"
    ]


def test_a_detector_that_needs_more_is_noted_and_the_others_go_on(live):
    found = calibrate(rounds_of(live), ["err", Size()], Wish(rate=0.1, attacks=[]))
    assert [each.failed for each in found] == [True, False, False]
    assert found[0].notes == ["err needs global_params: give the round its global_params"]


def test_a_policy_that_says_its_rule_keeps_it(live):
    policy = {"name": "exclude", "rule": {"name": "top", "count": 1}}
    (only,) = calibrate(rounds_of(live), [Size()], Wish(policy=policy, attacks=[]))
    assert only.suspicions == (3, 12)


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (160, 1)])
def test_no_name_and_no_number_breaks_in_a_narrow_terminal(live, width, tables):
    attacks = ["sign_flip", {"name": "scaling_backdoor", "scale": 2.0}, "lie"]
    wish = Wish(rate=0.1, attacks=attacks)
    found = calibrate(rounds_of(live), [Size()], wish)
    console = Console(file=io.StringIO(), width=width)
    shown = list(_tables(found, wish, width))
    for table in shown:
        console.print(table)
    text = console.file.getvalue()
    assert len(shown) == tables
    assert max(map(len, text.splitlines())) <= width
    rates = [rate for each in found for rate in (each.suspicions, each.bans, *each.detection.values())]
    parts = {part for rate in rates for part in str(rate).split(" ", 1)}
    for word in ("sign_flip", "scaling_backdoor scale=2", "lie", *parts):
        assert word in text


def test_the_best_rule_detects_most_among_those_that_agree_with_the_rate():
    def rule(k, detected):
        return Found("krum", {"name": "ban"}, Rate(k, 100), detection={"lie": Rate(detected, 10)})

    loud, good, weak = rule(20, 10), rule(2, 8), rule(0, 3)
    assert best([loud, good, weak], 0.01) is good
    harsh = rule(2, 10)
    harsh.bans = Rate(1, 12)
    assert best([harsh, good], 0.01) is good, "it bans an honest client"
    assert best([weak, loud], 0.01) is weak
    with pytest.raises(ConfigError, match=r"no rule agrees with a rate of 0\.01"):
        best([loud], 0.01)


# --- the command


def fedguard(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Sixteen rounds of eight clients, 50 parameters."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("federation") / "live"
    with Recorder(folder) as recorder:
        guard = Guard(observers=[recorder])
        for index in range(16):
            guard.process(Round(0.5 + rng.normal(size=(8, 50)), [f"h-{k}" for k in range(8)], index=index))
    return folder


def test_the_written_file_does_what_was_measured(federation, monkeypatch, capsys, tmp_path):
    out = tmp_path / "guard.yaml"
    code = fedguard(
        monkeypatch, "calibrate", federation, "--detector", "norm_bound", "--rate", 0.05,
        "--policy", "exclude", "--attack", "{name: scaling_backdoor, scale: 1.2}", "-o", out,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    assert "8 rounds to learn from, 8 to measure on, 8 clients taken as honest" in printed
    assert "norm_bound (threshold" in printed
    guard = load_guard(out)
    assert guard.policy.rule.name == "threshold"
    rounds = Rounds(Recording(federation), 100, 0.5, None)
    suspects = sum(int(guard.process(round).suspects.sum()) for round in rounds.measured())
    assert f"false suspicions: {Rate(suspects, 64)} % of 64 updates" in out.read_text()


def test_a_guards_file_is_measured_as_it_is(federation, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "110")
    path = tmp_path / "guard.yaml"
    path.write_text(
        "detectors: [norm_bound, krum]\npolicy: {name: exclude, rule: {name: top, count: 2}, vote: all}\n"
        "alerts: {webhook: {url_env: NOT_SET_HERE}}\n"
    )
    assert fedguard(monkeypatch, "calibrate", federation, "--guard", path, "--attack", "sign_flip") == 0
    printed = capsys.readouterr().out
    guard, rounds = load_guard(path, alerts=False), Rounds(Recording(federation), 100, 0.5, None)
    suspects = sum(int(guard.process(round).suspects.sum()) for round in rounds.measured())
    assert f"{Rate(suspects, 64)}".split()[0] in printed
    assert "norm_bound + krum" in printed
    assert fedguard(monkeypatch, "calibrate", federation, "--guard", path, "--detector", "krum") == 2
    assert "leave out --detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--guard", "absent.yaml"], "absent.yaml: there is no such file"),
        (["--attack", "label_flip"], "does not craft updates"),
        (["--attack", "dlg"], "does not craft updates"),
        (["--attack", "lye"], "did you mean 'lie'"),
        (["--detector", "krumm"], "did you mean 'krum'"),
        (["--detector", "3"], "not a valid detector"),
        (["--policy", "3"], "not a valid policy"),
        (["--policy", "ban", "--rate", "2"], "rate is 2"),
        (["--share", "0.9"], "share is 0.9"),
        (["--learn", "1"], "learn is 1"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_words(federation, monkeypatch, capsys, args, words):
    assert fedguard(monkeypatch, "calibrate", federation, *args) == 2
    assert words in capsys.readouterr().err


def test_one_round_is_not_enough(tmp_path):
    with pytest.raises(ConfigError, match="record at least 2"):
        rounds_of(recorded(tmp_path / "one", [[1, 2, 3, 4]]))


def test_rounds_of_another_size_are_refused(tmp_path):
    with Recorder(tmp_path / "r") as recorder:
        guard = Guard(observers=[recorder])
        for index, size in enumerate((2, 3, 3, 2)):
            guard.process(Round(np.ones((3, size)), index=index))
    with pytest.raises(ResultsError, match="round 1 has 3 parameters, those before 2"):
        list(Rounds(Recording(tmp_path / "r"), 100, 0.5, None).learned())


@pytest.mark.parametrize("malicious", ["abc", [0.5], {"0": 1}, [True]])
def test_a_strange_truth_is_refused(live, malicious):
    live.index.about["malicious"] = malicious
    with pytest.raises(ResultsError, match="not a list of its clients' numbers"):
        rounds_of(live)


def test_a_strangers_recording_imports_nothing(federation, monkeypatch, capsys, tmp_path):
    """A recording that names code as its detector and its model, with right checksums."""
    (tmp_path / "planted_here.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    index = read_index(federation / "recording.json")
    cell = {
        "clients": 8, "malicious": 1, "rounds": 16, "seed": 0, "model": {"name": "planted_here:Model"},
        "attack_label": "a", "attack": {"name": "planted_here:Attack"},
        "defense_label": "d", "defense": {"detector": {"name": "planted_here:Detector"}},
    }  # fmt: skip
    folder = tmp_path / "stranger"
    folder.mkdir()
    for path in federation.glob("round-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    write_index(folder, Index(**{**json.loads(index.model_dump_json()), "about": {"cell": cell}}))
    assert sha256_of(folder / index.rounds[0].file) == index.rounds[0].sha256
    assert (
        fedguard(monkeypatch, "calibrate", folder, "--detector", "norm_bound", "--attack", "sign_flip") == 0
    )
    assert fedguard(monkeypatch, "calibrate", folder, "--detector", "err", "--attack", "sign_flip") == 2
    assert "planted_here" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_an_unknown_detector_is_an_error_before_any_round_is_read(live):
    with pytest.raises(RegistryError):
        calibrate(rounds_of(live), ["krumm"])
    with pytest.raises(ParameterError):
        Wish(share=0)
