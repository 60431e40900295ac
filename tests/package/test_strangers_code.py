"""No name out of somebody's recording or results folder is imported, unless ``--allow-code`` says so."""

import base64
import contextlib
import json
import re
import shutil
import sys

import pytest

from fedguard.cli import entry as cli
from fedguard.contracts.registry import REGISTRIES
from fedguard.core.errors import ConfigError, FedGuardError, RegistryError
from fedguard.core.named_code import code_in
from fedguard.core.threads import single_thread
from fedguard.evaluation.results.folders import from_elsewhere
from fedguard.evaluation.results.report.page import write_report
from fedguard.evaluation.running.replay import Question, ask
from fedguard.recording import Recording
from fedguard.recording.index import read_index, write_index
from fedguard.simulation.federation import Federation
from fedguard.simulation.recorded import recording_to
from fedguard.simulation.settings import Cell

EVIL = "evil_module:Mine"
LOCAL = ("loss", "optimizer", "scheduler", "augment")
MODULE = """
from pathlib import Path
Path({mark!r}).write_text("run")
from fedguard import Attack, Card, Detector
class Mine(Detector):
    '''s_i = ‖u_i‖.'''
    card = Card("mine", "length of the update", "nobody, 2026")
    def score(self, round):
        return round.updates.norms
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of a small federation, defended by Krum."""
    folder = tmp_path_factory.mktemp("recorded") / "r"
    cell = Cell(
        clients=6,
        malicious=1,
        rounds=2,
        attack_label="lie",
        attack={"name": "byzantine"},
        defense_label="krum",
        defense={"detector": {"name": "krum"}},
        seed=0,
    )
    with single_thread():
        federation = Federation(cell)
        with recording_to(folder, federation):
            federation.run()
    return folder


@pytest.fixture
def folder(recorded, tmp_path, monkeypatch):
    """Somebody's folder, and we are in it: a recording, and a module that leaves a mark when it is run."""
    shutil.copytree(recorded, tmp_path / "here" / "r")
    here = tmp_path / "here"
    (here / "evil_module.py").write_text(MODULE.format(mark=str(tmp_path / "mark")))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(here))])
    yield here
    sys.modules.pop("evil_module", None)


def told(folder, **changes):
    """Write other settings into a recording, with the right checksum."""
    index = read_index(folder / "r" / "recording.json")
    cell = {**index.about["cell"], **changes}
    write_index(folder / "r", index.model_copy(update={"about": {**index.about, "cell": cell}}))


def ran(folder):
    return (folder.parent / "mark").exists()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fedguard", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code


HOSTILE = {
    "detector": {"detector": [EVIL]},
    "a member of an ensemble": {"detector": [{"name": "ensemble", "members": ["krum", EVIL]}]},
    "a member with parameters": {"detector": [{"name": "ensemble", "members": ["krum", {"name": EVIL}]}]},
    "policy": {"detector": ["krum"], "policy": EVIL},
    "the policy behind a gate": {"detector": ["krum"], "policy": {"name": "gate", "policy": EVIL}},
    "stage": {"detector": ["krum"], "stages": [EVIL]},
    "aggregator": {"detector": ["krum"], "aggregator": EVIL},
}


@pytest.mark.parametrize("command", ["replay", "rollback"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_recorded_defense_is_not_imported(what, command, folder, monkeypatch, capsys):
    told(folder, defense=HOSTILE[what])
    assert run(monkeypatch, command, "r") == 2
    said = capsys.readouterr().err
    assert re.search(r"r/recording\.json: about\.cell\.defense\.\S+: evil_module:Mine is code", said), said
    assert "--allow-code" in said
    assert not ran(folder)


@pytest.mark.parametrize(
    "attack",
    [
        {"name": EVIL},
        {"name": "adaptive", "attack": EVIL},
        {"name": "inflated_counts", "attack": {"name": "adaptive", "attack": {"name": EVIL}}},
    ],
    ids=["attack", "inner", "inner of the inner"],
)
def test_a_recorded_attack_is_never_imported_not_even_if_allowed(attack, folder, monkeypatch):
    """It is not run again: a recording can be scored without the code that attacked."""
    told(folder, attack=attack)
    assert run(monkeypatch, "replay", "r", "--detector", "dnc", "--param", "niters=1") == 0
    assert run(monkeypatch, "replay", "r", "--allow-code") == 0
    (folder / "own.yaml").write_text("recording: r\ndefenses: [krum]\n")
    assert run(monkeypatch, "evaluate", "own.yaml", "--workers", 1, "--out", "results", "-q") == 0
    assert not ran(folder)


def test_a_recorded_defense_runs_if_that_is_allowed(folder, monkeypatch, capsys):
    """From the current folder too: it may be one's own."""
    rule = {"name": "exclude", "rule": "mad"}
    told(folder, defense={"detector": [EVIL], "policy": rule})
    assert run(monkeypatch, "replay", "r", "--allow-code") == 0
    assert "mine" in capsys.readouterr().out
    assert ran(folder)


def test_a_module_beside_the_recording_is_not_imported_either(folder, monkeypatch):
    told(folder, attack={"name": EVIL}, defense={"detector": [EVIL]})
    shutil.move(folder / "evil_module.py", folder / "r")
    monkeypatch.chdir(folder / "r")
    assert run(monkeypatch, "replay", ".") == 2
    assert run(monkeypatch, "replay", ".", "--detector", "krum") == 1, "a file that is not in the index"
    assert not ran(folder)


def test_another_detector_and_policy_need_no_permission(folder, monkeypatch):
    told(folder, defense={"detector": [EVIL], "policy": EVIL})
    assert run(monkeypatch, "replay", "r", "--detector", "krum", "--policy", "observe") == 0
    assert not ran(folder)


def test_what_is_kept_of_the_recorded_defense_needs_it(folder, monkeypatch, capsys):
    told(folder, defense={"detector": ["krum"], "aggregator": EVIL})
    assert run(monkeypatch, "replay", "r", "--detector", "dnc") == 2
    assert "about.cell.defense.aggregator.name" in capsys.readouterr().err
    assert not ran(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {"name": EVIL}),
        ("data", {"name": EVIL}),
        ("partition", {"name": EVIL}),
        ("training", {"steps": 1, "optimizer": {"name": EVIL}}),
        ("training", {"steps": 1, "loss": {"name": EVIL}}),
        ("training", {"steps": 1, "augment": ["flip", {"name": EVIL}]}),
    ],
)
def test_the_parts_of_a_recorded_federation_are_not_imported(key, value, folder, monkeypatch, capsys):
    told(folder, **{key: value})
    assert run(monkeypatch, "replay", "r", "--detector", "fltrust") == 2
    said = capsys.readouterr().err
    assert re.search(rf"about\.cell\.{key}\S*: evil_module:Mine is code", said), said
    (folder / "own.yaml").write_text("recording: r\ndefenses: [krum]\n")
    assert run(monkeypatch, "evaluate", "own.yaml", "--dry-run") == 2
    assert not ran(folder)
    with contextlib.suppress(TypeError):  # it is no such part
        run(monkeypatch, "evaluate", "own.yaml", "--dry-run", "--allow-code")
    assert ran(folder)


def test_python_refuses_as_the_command_line_does(folder):
    told(folder, defense={"detector": [EVIL]})
    with pytest.raises(ConfigError, match=r"recording\.json.*evil_module:Mine is code"):
        ask(Question(folder / "r"))
    assert len(Recording(folder / "r")) == 2
    assert not ran(folder)


@pytest.mark.parametrize("place", ["results/suite.yaml", "r/suite.yaml", "r/below/suite.yaml", "link.yaml"])
def test_a_suite_in_somebodys_folder_is_not_ones_own(place, folder, monkeypatch, capsys):
    results = folder / "results"
    results.mkdir()
    (results / "results.sqlite").touch()
    suite = results / "suite.yaml" if place == "link.yaml" else folder / place
    suite.parent.mkdir(exist_ok=True)
    suite.write_text(f"clients: 4\nrounds: 1\ndefenses: [{{detector: '{EVIL}'}}]\n")
    if place == "link.yaml":
        (folder / place).symlink_to(suite)
    assert run(monkeypatch, "evaluate", place, "--dry-run") == 2
    assert "--allow-code" in capsys.readouterr().err
    assert not ran(folder)
    assert from_elsewhere(place)
    assert not from_elsewhere("quickstart")


def test_a_results_folders_suite_that_only_names_a_recording(folder, monkeypatch):
    told(folder, attack={"name": EVIL}, defense={"detector": [EVIL]})
    (folder / "results.sqlite").touch()
    (folder / "suite.yaml").write_text("recording: r\ndefenses: [krum]\n")
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run") == 0
    assert not ran(folder)


def test_the_report_of_a_results_folder_imports_nothing(folder, monkeypatch):
    (folder / "own.yaml").write_text("recording: r\ndefenses: [krum]\n")
    assert run(monkeypatch, "evaluate", "own.yaml", "--workers", 1, "--out", "results", "-q") == 0
    told(folder, attack={"name": EVIL}, defense={"detector": [EVIL]})
    text = f"recording: r\nattacks: ['{EVIL}']\ndefenses: [{{detector: '{EVIL}'}}]\n"
    (folder / "results" / "suite.yaml").write_text(text)
    write_report(folder / "results", None, {})
    assert not ran(folder)


def test_bytes_are_names_too(folder, monkeypatch, capsys):
    """YAML has bytes, which settings would take for text."""
    (folder / "results.sqlite").touch()
    name = base64.b64encode(EVIL.encode()).decode()
    (folder / "suite.yaml").write_text(f"clients: 4\nrounds: 1\ndefenses: [{{detector: !!binary {name}}}]\n")
    (folder / "plain.yaml").write_text(
        f"clients: 4\ndefenses: {{d: {{detector: {{name: !!binary {name}}}}}}}\n"
    )
    for suite in ("suite.yaml", "plain.yaml"):
        assert run(monkeypatch, "evaluate", suite, "--dry-run") == 2
        assert "the tag !!binary is not allowed" in capsys.readouterr().err
    assert not ran(folder)


@pytest.mark.parametrize(
    "name", [" evil_module:Mine", "evil-module:Mine", "evil_module:Mine.x", "evil_module:"]
)
def test_what_is_not_looked_for_is_not_imported_either(name, folder, monkeypatch):
    """The registry imports exactly what the search finds."""
    (folder / "evil-module.py").write_text((folder / "evil_module.py").read_text())
    (folder / " evil_module.py").write_text((folder / "evil_module.py").read_text())
    monkeypatch.syspath_prepend(str(folder))
    assert list(code_in({"a": [name]})) == []
    for registry in REGISTRIES.values():
        with pytest.raises(RegistryError, match="write module:Class"):
            registry.get(name)
    assert not ran(folder)


def test_the_current_folder_is_searched_only_for_what_may_be_imported(folder, monkeypatch):
    """A built-in name, a recording or somebody's suite opens no folder to the imports that follow."""
    told(folder, defense={"detector": [EVIL]})
    run(monkeypatch, "--version")
    run(monkeypatch, "list", "detectors")
    run(monkeypatch, "replay", "r")
    run(monkeypatch, "check", "norm_bound")
    assert str(folder) not in sys.path
    run(monkeypatch, "check", EVIL, "--kind", "detector")
    assert sys.path[-1] == str(folder)
    assert ran(folder)


def test_a_checkpoints_texts_are_no_names(tmp_path, folder):
    from fedguard import Guard, make_detector
    from fedguard.core.state import pack, unpack

    guard = Guard(make_detector("ensemble", members=["krum", "dnc"]))
    state = json.loads(json.dumps(guard.state_dict()).replace("krum", EVIL))
    with contextlib.suppress(FedGuardError):
        guard.load_state_dict(unpack(pack(state)))
    assert not ran(folder)


@pytest.mark.parametrize("name", ["evil_module:1", "evil_module: f", "evil_module:f x", "hf:f"])
@pytest.mark.parametrize("key", [*LOCAL, "data", "model", "partition", "inner"])
def test_what_no_check_takes_for_code_is_not_imported(key, name, folder, monkeypatch, capsys):
    """The check that refuses code looks for module:name; whoever imports must not take anything else."""
    shutil.copy(folder / "evil_module.py", folder / "hf.py")
    line = f"{key}: {{name: {json.dumps(name)}}}"
    if key in LOCAL:
        line = f"training: {{epochs: 1, {line}}}"
    if key == "inner":
        line = f"partition: {{name: feature_skew, of: {json.dumps(name)}}}"
    text = f"clients: 6\nrounds: 1\nattacks: [none]\ndefenses: [none]\n{line}\n"
    (folder / "suite.yaml").write_text(text)
    (folder / "results.sqlite").touch()
    monkeypatch.syspath_prepend(str(folder))
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run") == 2
    assert not ran(folder)
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["openml:61", "huggingface:somebody/bomb", "huggingface:./f", "hf:some/bomb"]
)
def test_what_is_downloaded_is_not_for_strangers_to_choose(name, folder, monkeypatch, capsys):
    suite = f"clients: 6\nrounds: 1\nattacks: [none]\ndefenses: [none]\ngrid: {{data: [digits, '{name}']}}\n"
    (folder / "suite.yaml").write_text(suite)
    (folder / "results.sqlite").touch()
    assert run(monkeypatch, "evaluate", "suite.yaml", "--dry-run") == 2
    assert f"grid.data.1: {name} would be downloaded" in capsys.readouterr().err
    told(folder, data={"name": name})
    assert run(monkeypatch, "replay", "r") == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert f"data.name: {name} would be downloaded" in said
    assert "--allow-code" in said
