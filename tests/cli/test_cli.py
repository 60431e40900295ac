"""The command line: a user's mistake is one line and exit status 2, never a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedguard.cli import entry as cli
from fedguard.cli.listing import KINDS


def call(monkeypatch, capsys, *args):
    """Run the command line in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return stop.value.code or 0, out.out, out.err


SMALL = ["quickstart", "rounds=1", "clients=8", "malicious=3", "attacks=[none, lie]", "--workers=1"]


def test_evaluate_then_export(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(monkeypatch, capsys, "evaluate", *SMALL, "defenses=[none, krum]")
    assert status == 0
    assert "attack: LIE" in out
    assert "DACC %" in out
    assert "defenses are told 3" in out
    settings = yaml.safe_load((tmp_path / "results/quickstart/suite.yaml").read_text())
    assert settings["rounds"] == 1
    status, out, _ = call(monkeypatch, capsys, "export", "results/quickstart", "--format", "json")
    assert status == 0
    assert {row["defense"] for row in json.loads(out)} == {"none", "krum"}
    status, _, _ = call(monkeypatch, capsys, "export", "results/quickstart", "-f", "latex", "-o", "table.tex")
    assert (tmp_path / "table.tex").read_text().startswith("\\begin{table}")
    status, out, _ = call(monkeypatch, capsys, "report", "results/quickstart")
    assert status == 0
    assert out.startswith("wrote results/quickstart/report.html (")
    status, out, _ = call(
        monkeypatch, capsys, "report", "results/quickstart", "-o", "r.html", "--where", "attack=lie"
    )
    assert status == 0
    assert "attack = lie" in (tmp_path / "r.html").read_text()


def test_a_detector_of_ones_own_by_module_and_class(monkeypatch, capsys, tmp_path):
    (tmp_path / "my_scorer.py").write_text(
        "from fedguard import Card, Detector\n"
        "class Norm(Detector):\n"
        "    '''Score = norm.'''\n"
        "    card = Card('my_norm', 'norm of the update', 'none')\n"
        "    def score(self, round):\n"
        "        return round.updates.norms\n"
    )
    monkeypatch.chdir(tmp_path)
    mine = "defenses={mine: {detector: 'my_scorer:Norm', policy: {name: exclude, rule: mad}}}"
    status, out, err = call(monkeypatch, capsys, "evaluate", *SMALL, mine)
    assert status == 0, err
    assert "mine" in out


@pytest.mark.parametrize("kind", KINDS)
def test_list(monkeypatch, capsys, kind):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = call(monkeypatch, capsys, "list", kind)
    assert status == 0
    known = {
        "detectors": "fedredefense",
        "attacks": "min_max",
        "aggregators": "median",
        "stages": "norm_clipping",
        "policies": "ban",
        "models": "resnet20",
        "datasets": "cifar10",
        "partitions": "dirichlet",
        "rules": "two_means",
        "suites": "fashion_mnist_smoke",
        "metrics": "False negative rate",
        "aliases": "krum with select: multi_krum",
    }
    assert known[kind] in out
    also = {"models": "timm:NAME", "datasets": "openml:NUMBER", "partitions": "flwr:NAME"}
    assert also.get(kind, "") in out


def test_list_aliases_of_one_kind(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "list", "attacks", "--aliases")
    assert status == 0
    assert "badnets" in out
    assert "trmean" not in out


WRITING = [
    "evaluate", "export", "report", "plot", "compare", "replay", "calibrate", "leak", "schema",
    "ledger export",
]  # fmt: skip


@pytest.mark.parametrize("command", WRITING)
def test_every_command_that_writes_takes_o_and_out(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = call(monkeypatch, capsys, *command.split(), "--help")
    assert re.search(r"--out\b[^\n]* -o ", out), out


def test_o_writes(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, rounds in (("a", "1"), ("b", "2")):
        settings = [*SMALL, f"rounds={rounds}", "attacks=[none]", "defenses=[none]"]
        assert call(monkeypatch, capsys, "evaluate", *settings, "-q", "-o", name)[0] == 0
    assert call(monkeypatch, capsys, "compare", "a", "b", "-o", "c.txt")[:2] == (0, "")
    assert "setting rounds: 1 → 2" in (tmp_path / "c.txt").read_text()
    assert call(monkeypatch, capsys, "schema", "-o", "s.json")[:2] == (0, "")
    assert "krum" in (tmp_path / "s.json").read_text()


@pytest.mark.parametrize(
    ("words", "found"), [("list ali", ["aliases"]), ("evaluate quick", ["quickstart"]), ("sche", ["schema"])]
)
def test_shells_complete(words, found):
    done = subprocess.run(
        [Path(sys.executable).with_name("fedguard")],
        env={
            **os.environ,
            "_FEDGUARD_COMPLETE": "complete_bash",
            "COMP_WORDS": f"fedguard {words}",
            "COMP_CWORD": str(len(words.split())),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == found, done.stderr


def test_completion_can_be_installed(monkeypatch, capsys):
    """In bash, whatever started the tests: a daemon has no shell to find."""
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert "--install-completion" in call(monkeypatch, capsys, "--help")[1]
    assert "FEDGUARD_COMPLETE=complete_bash" in call(monkeypatch, capsys, "--show-completion")[1]


def test_schema_describes_the_shipped_suites(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "schema")
    assert status == 0
    schema = json.loads(out)
    krum = next(
        o
        for o in schema["$defs"]["detectors"]["anyOf"]
        if o.get("properties", {}).get("name") == {"const": "krum"}
    )
    assert set(krum["properties"]) == {"name", "label", "num_malicious", "select", "m"}
    assert {"attacks", "defenses", "seeds", "data"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["evaluate", "nosuch"], "no suite 'nosuch'"),
        (["evaluate", "quickstart", "ruonds=1"], "did you mean 'rounds'"),
        (["evaluate", "quickstart", "data=fashion_mnist", "--data-root", "nowhere"], "nowhere"),
        (["export", "nowhere"], "holds no results.sqlite"),
        (["report", "nowhere"], "holds no results.sqlite"),
        (["plot", "nowhere", "--kind", "rocs", "--out", "f.png"], "did you mean 'roc'"),
        (["list", "detector"], "did you mean 'detectors'"),
    ],
)
def test_mistakes(monkeypatch, capsys, tmp_path, args, expected):
    monkeypatch.setenv("FEDGUARD_DATA", "")  # restored afterwards: --data-root sets it
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *args)
    assert status == 2
    assert expected in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists(), "nothing is written for a run that never started"


def test_an_interrupted_suite_says_where_its_results_are(monkeypatch, capsys, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedguard.evaluation.running.runner.run_suite", interrupted)
    status, _, err = call(monkeypatch, capsys, "evaluate", *SMALL)
    assert status == 130
    assert "interrupted; give the same command again to resume (results in results/quickstart)" in err


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['fedguard', '--help']\n"
        "from fedguard.cli import entry as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_labels_with_brackets_are_printed_as_they_are(monkeypatch, capsys, tmp_path):
    """Rich would take them for markup, and refuse a closing tag that nobody opened."""
    monkeypatch.chdir(tmp_path)
    labels = ['attacks=[none, {label: "[red]x[/nope]", name: lie}]', 'defenses={"[/b] :smile:": krum}']
    status, out, err = call(monkeypatch, capsys, "evaluate", *SMALL, *labels)
    assert status == 0
    assert err == ""
    assert "attack: [red]x[/nope]" in out
    assert "[/b] :smile:" in out


def test_help_explains_arguments(monkeypatch, capsys):
    """Some releases of click and typer together show their names only."""
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = call(monkeypatch, capsys, "new", "--help")
    assert "lower_case_with_underscores" in out


def test_a_dry_run_says_the_size_checks_everything_and_trains_nothing(monkeypatch, capsys):
    """By hand: 2 attacks × 2 defenses × 2 seeds of 3 rounds, 6 of 12 clients in each; 4 are watched."""
    monkeypatch.setattr("fedguard.simulation.federation.Federation.step", None)
    monkeypatch.setattr("fedguard.simulation.shadow.Shadow.run", None)
    sizes = ["clients=12", "malicious=2", "participation=0.5", "rounds=3", "seeds=[0,1]"]
    suite = ["evaluate", "quickstart", *sizes, "attacks=[none,min_max]", "defenses=[krum,dnc]", "--dry-run"]
    status, out, _ = call(monkeypatch, capsys, *suite)
    assert status == 0
    assert "8 runs (8 tasks, 1 point of the grid), 24 rounds\n144 trainings of a client" in out
    assert "everything fits together; nothing has been run" in out
    status, out, _ = call(monkeypatch, capsys, *suite, "mode=shadow")
    assert "8 runs (4 tasks, 1 point of the grid), 24 rounds\n72 trainings of a client" in out
    status, out, _ = call(monkeypatch, capsys, *suite, "server.validation=5000")
    assert status == 2
    assert "fits together" not in out
