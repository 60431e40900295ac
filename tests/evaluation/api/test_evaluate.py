"""``fedguard.evaluate``: everything that can be given, mistakes, failures, resuming, workers."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fedguard
from fedguard.core.errors import ConfigError, FedGuardError, ResultsError, RunsFailed
from fedguard.core.named_code import GIVEN
from fedguard.evaluation.suites.load import load_suite

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("own_parts_of_a_user", HERE / "own.py")
own = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = own
_spec.loader.exec_module(own)


def run(**arguments):
    return fedguard.evaluate(None, **{"workers": 1, **own.FEDERATION, **arguments})


def bits(results):
    """What a suite's results are, without costs."""
    return results.clients.to_csv() + results.rounds.to_csv()


def settings_of(results):
    return [json.loads(text) for text in results.frame["settings"]]


def test_objects_classes_functions_and_names_run_together(tmp_path):
    guard = fedguard.Guard(own.Far(3.0), "exclude", "median")
    results = run(
        data=own.plane(),
        model=own.Net(6),
        attacks=["none", own.Mine(), {"strong": own.Mine(5.0), "byzantine": "byzantine"}, own.Mine],
        defenses={
            "mine": own.Far(),
            "class": {"detector": {"name": own.Far, "limit": 4.0}, "policy": {"name": "ban", "strikes": 1}},
            "krum": "krum",
            "two": [own.Far(), "dnc"],
            "rule": fedguard.make_aggregator("trimmed_mean"),
            "guard": guard,
            "nested": {"detector": {"name": "ensemble", "members": [own.Far, "krum"]}},
        },
        rounds=1,
        out=tmp_path / "out",
    )
    frame = results.frame
    assert list(frame["attack"].unique()) == ["none", "mine", "strong", "byzantine", "mine_2"]
    assert list(frame["defense"].unique()) == ["mine", "class", "krum", "two", "rule", "guard", "nested"]
    assert set(frame["status"]) == {"done"}
    cells = {(c["attack_label"], c["defense_label"]): c for c in settings_of(results)}
    assert cells["none", "mine"]["data"]["name"].startswith("given:plane@")
    assert cells["none", "mine"]["model"]["name"].startswith("given:Net@")
    assert cells["none", "guard"]["defense"]["aggregator"]["name"].startswith("given:Median@")
    assert cells["none", "mine"]["attack"]["name"] == "none"
    assert cells["mine", "mine"]["attack"]["name"] != cells["strong", "mine"]["attack"]["name"]
    limits = results.clients.groupby(["attack", "defense"])["suspect"].sum()
    assert limits["strong", "mine"] == 2, "−15 times an update is far longer than the others"
    assert GIVEN == {}, "the names hold for the call only"


def test_a_guards_claim_limit_is_the_stage_of_a_suite():
    guard = fedguard.Guard(own.Far(3.0), claim_limit=2.5)
    results = run(defenses={"guard": guard}, attacks="none", rounds=1)
    (stage,) = settings_of(results)[0]["defense"]["stages"]
    assert stage["name"].startswith("given:CountClipping@")
    assert set(results.frame["status"]) == {"done"}


def test_a_given_instance_is_a_template():
    far = own.Far()
    results = run(defenses=far, attacks=[own.Mine(), own.Mine(2.5)], seeds=[0, 1])
    assert far.rounds == 0
    infos = [info for info in results.rounds["info"] if info]
    assert sum('"rounds": 0' in info for info in infos) == 4, "each of four runs begins at 0"


def test_same_bits_as_the_class_with_the_same_parameters():
    assert bits(run(defenses={"d": own.Far(1.5)}, attacks={"a": own.Mine(3.0)})) == bits(
        run(defenses={"d": {"detector": {"name": own.Far, "limit": 1.5}}}, attacks={"a": own.Mine(3)})
    )


def test_parameters_of_an_instance_are_refused():
    with pytest.raises(ConfigError, match="unknown parameter 'limit'"):
        run(defenses={"d": {"detector": {"name": own.Far(), "limit": 3.0}}})


def test_the_assumed_number_does_not_change_an_instance():
    results = run(
        defenses={"own": fedguard.make_detector("krum", num_malicious=1), "told": "krum"}, assumed_malicious=2
    )
    both = results.clients.pivot(index=["round", "client"], columns="defense", values="score")
    assert not both["own"].equals(both["told"])
    same = run(defenses={"told": {"name": "krum", "num_malicious": 1}}, assumed_malicious=2).clients
    assert both["own"].round(9).tolist()[:8] == same["score"].round(9).tolist()[:8]


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("parallel", ["cells", "clients"])
def test_same_bits_with_workers_that_cannot_import_the_objects(parallel):
    arguments = {"defenses": [own.Far(), "lfr"], "attacks": [own.Mine()], "server": {"validation": 20}}
    alone = run(**arguments)
    assert bits(run(**arguments, workers=2, parallel=parallel)) == bits(alone)


SCRIPT = """
import sys, types
import fedguard
{body}
parts = {{"attacks": [Mine(), Mine], "defenses": [Far(), Far]}}
results = fedguard.evaluate(None, **FEDERATION, **parts, workers={workers})
print(len(results.frame))
import hashlib
print(hashlib.sha256((results.clients.to_csv() + results.rounds.to_csv()).encode()).hexdigest())
"""


def fresh(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


#: Runs a script as the main module, with workers from a process of its own that has imported FedGuard.
FORKED = """
import multiprocessing as mp, runpy, sys
if "forkserver" in mp.get_all_start_methods():
    mp.set_forkserver_preload(["fedguard.evaluation.running.runner"])
    mp.context.SpawnProcess._Popen = staticmethod(mp.context.ForkServerProcess._Popen)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_a_script_without_a_main_guard_gives_the_same_bits(tmp_path, python):
    body = (HERE / "own.py").read_text()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=body, workers=2))
    here = bits(run(attacks=[own.Mine(), own.Mine], defenses=[own.Far(), own.Far]))
    done = python("-c", FORKED, script).wait()
    assert done.stdout.split() == ["4", hashlib.sha256(here.encode()).hexdigest()], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_code_without_a_file_gives_the_same_bits(workers):
    body = (HERE / "own.py").read_text()
    here = bits(run(attacks=[own.Mine(), own.Mine], defenses=[own.Far(), own.Far]))
    found = fresh("-c", SCRIPT.format(body=body, workers=workers))
    assert found == ["4", hashlib.sha256(here.encode()).hexdigest()]


def test_overrides_of_a_suite():
    results = fedguard.evaluate(
        {
            "data": own.plane,
            "model": own.Net,
            "clients": 6,
            "rounds": 3,
            "training": {"lr": 0.1, "epochs": 2},
        },
        rounds=1,
        training={"lr": 0.5},
        seeds=range(2),
        defenses="krum",
        workers=1,
        **{"training.batch_size": 16, "model": [own.Net, "logistic_regression"]},
    )
    assert [c["rounds"] for c in settings_of(results)] == [1] * 4
    training = settings_of(results)[0]["training"]
    assert (training["lr"], training["epochs"], training["batch_size"]) == (0.5, 2, 16)
    assert list(results.table(rows="model", values="tacc").frame["model"]) == ["Net", "logistic_regression"]


def test_a_setting_replaces_the_suites_axis(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("grid: {training.lr: [0.1, 0.2], rounds: [1, 2]}\nclients: 5\n")
    results = fedguard.evaluate(path, rounds=1, workers=1)
    assert list(results.frame["training.lr"]) == [0.1, 0.2]
    assert len(fedguard.evaluate(path, rounds=1, training={"lr": 0.3}, workers=1).frame) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"round": 3}, r"given from Python: round: unknown key, did you mean 'rounds'"),
        ({"training": {"lrr": 3}}, r"given from Python: training\.lrr: unknown key, did you mean 'lr'"),
        ({"malicious": 9}, "malicious is 9, but there are only 8 clients"),
        ({"attacks": ["lei"]}, r"given from Python: attacks\.lei: unknown attack 'lei'"),
        (
            {"defenses": {"d": object()}},
            r"given from Python: defenses\.d: <object .* is a object; give a name",
        ),
        ({"defenses": {"d": lambda: 3}}, "defenses.d: <lambda> is not a valid detector"),
        ({"defenses": [own.Mine()]}, r"does not inherit from fedguard\.Detector"),
        ({"model": 3}, r"given from Python: model: .*got 3"),
        ({"data": {1, 2}}, "given from Python: data:"),
        ({"partition": "in_turn"}, r"given from Python: partition: unknown partition 'in_turn'"),
        ({"attacks": ["lie", "lie"]}, "'lie' is there twice"),
        ({"defenses": "fedavg"}, "'fedavg' is an aggregator"),
        ({"defenses": "krum", "rounds": "many"}, r"given from Python: rounds: .*got 'many'"),
        ({"seeds": "x"}, r"given from Python: seeds\.0"),
        ({"workers": 0}, "workers is 0"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"progress": 3}, "progress is 3"),
        ({"executor": "cloud"}, "unknown executor 'cloud'"),
    ],
)
def test_mistakes_are_named_before_anything_trains(arguments, message, monkeypatch):
    from fedguard.simulation.federation import Federation

    monkeypatch.setattr(Federation, "run", lambda *_: pytest.fail("it trains"))
    with pytest.raises(FedGuardError, match=message):
        run(**arguments)


def test_mistakes_in_a_file_still_name_the_line(tmp_path):
    (tmp_path / "s.yaml").write_text("clients: 5\nroundz: 2\n")
    with pytest.raises(ConfigError, match=r"s\.yaml:2: roundz: unknown key"):
        fedguard.evaluate(tmp_path / "s.yaml", clients=6)


def test_a_failed_run_raises_at_the_end_and_the_others_are_there():
    with pytest.raises(
        RunsFailed, match="1 of 2 runs failed; the first, none × breaks, seed 0: Zero"
    ) as found:
        run(defenses=[own.Breaks, "krum"])
    results = found.value.results
    assert list(results.frame["status"]) == ["failed", "done"]
    assert "on purpose" in results.failures[0].error
    assert "Traceback" in "".join(found.value.__notes__)
    assert len(run(defenses=[own.Breaks, "krum"], on_error="store").failures) == 1


def test_the_same_call_resumes_and_changed_objects_do_not(tmp_path, monkeypatch):
    arguments = {"attacks": [own.Mine(), "byzantine"], "defenses": own.Far(), "out": tmp_path / "out"}
    whole = bits(run(**{**arguments, "out": None}))
    taken = []

    def stop(self, cell, index):
        taken.append(cell)
        if len(taken) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("fedguard.evaluation.running.follow.Followers.round_done", stop)
    with pytest.raises(KeyboardInterrupt) as end:
        run(**arguments)
    assert "the same call resumes" in end.value.__notes__[0]
    assert len(fedguard.load(tmp_path / "out").frame) == 1
    assert bits(run(**{**arguments, "attacks": [own.Mine(), "byzantine"]})) == whole, "equal objects resume"
    assert len(taken) == 3 + 2, "a finished run does not run again"
    with pytest.raises(ResultsError, match="of another version of Mine"):
        run(**{**arguments, "attacks": [own.Mine(2.5), "byzantine"]})
    monkeypatch.setattr(own, "SCALE", 4.0)
    with pytest.raises(ResultsError, match="of another version of Mine"):
        run(**arguments)
    with pytest.raises(ResultsError, match="of another suite"):
        run(**arguments, rounds=3)


def test_the_command_line_says_that_it_cannot_resume(tmp_path):
    run(defenses=own.Far(), out=tmp_path / "out")
    path = tmp_path / "out" / "suite.yaml"
    suite, _ = load_suite(path)
    assert suite.model.name.startswith("given:Net@")
    with pytest.raises(ConfigError, match="no such object was given; it came from Python"):
        fedguard.evaluate(path, workers=1)


def test_code_that_a_results_folder_names_is_not_imported(tmp_path):
    run(defenses="krum", out=tmp_path / "out")
    path = tmp_path / "out" / "suite.yaml"
    path.write_text("defenses: {d: {detector: 'somebodys:Code'}}\n")
    with pytest.raises(ConfigError, match="is code"):
        fedguard.evaluate(path, workers=1)


def test_records(tmp_path):
    run(defenses=own.Far(), out=tmp_path / "out", record=tmp_path / "rounds")
    assert len(list((tmp_path / "rounds").iterdir())) == 1
