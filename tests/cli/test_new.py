"""``fedguard new`` and ``fedguard check``: what a template makes passes its own tests and the contract."""

import contextlib
import sys

import pytest

from fedguard.cli import checking, entry
from fedguard.cli.scaffold import KINDS, scaffold, shadows, target
from fedguard.core.errors import ConfigError
from fedguard.testing import datasets as dataset_checks
from fedguard.testing.detectors import check_detector
from fedguard.testing.kinds import PARTS, part_checker, plural_of


def call(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    out = capsys.readouterr()
    return stop.value.code or 0, out.out, out.err


def with_checks():
    """The kinds whose contract this version can check."""
    found = []
    for kind in KINDS:
        with contextlib.suppress(ConfigError):
            part_checker(plural_of(kind)) if plural_of(kind) in PARTS else None
            found.append(kind)
    return found


def test_templates_pass_their_own_tests(tmp_path, python):
    for kind in with_checks():
        scaffold(kind, f"far_{kind}", tmp_path)
    # That another process reads the same data is checked below.
    quick = "from fedguard.testing.datasets import CHECKS\n\ndel CHECKS['another process']\n"
    (tmp_path / "conftest.py").write_text(quick)
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", ".").wait()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("forked_reader")
@pytest.mark.parametrize("kind", with_checks())
def test_what_a_template_makes_keeps_the_contract(monkeypatch, capsys, tmp_path, kind):
    scaffold(kind, f"far_{kind}", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if kind == "detector":  # without the measurement of its cost, which takes seconds
        monkeypatch.setitem(checking.CHECKERS, "detectors", lambda *a, cost: check_detector(*a))
    status, out, _ = call(monkeypatch, capsys, "check", target(kind, f"far_{kind}"))
    monkeypatch.delitem(sys.modules, f"far_{kind}")
    assert status == 0
    assert "passed" in out
    assert f"{kind} far_{kind}" in out.replace("FarModel", "far_model")


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("aggregator", "defenses={mine: {aggregator: 'far_out:FarOut'}}"),
        ("policy", "defenses={mine: {detector: krum, policy: {name: 'far_out:FarOut', weight: 0.2}}}"),
        ("stage", "defenses={mine: {stages: ['far_out:FarOut']}}"),
        ("model", "model={name: 'far_out:FarOut', width: 8}"),
        ("dataset", "data={name: 'far_out:far_out', count: 500}"),
        ("partition", "partition={name: 'far_out:far_out', favorite: 0.8}"),
    ],
)
def test_a_suite_runs_with_what_a_template_makes(monkeypatch, capsys, tmp_path, kind, setting):
    scaffold(kind, "far_out", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "far_out", raising=False)
    small = ["rounds=1", "clients=8", "malicious=2", "attacks=[none]", "--workers=1"]
    defenses = () if setting.startswith("defenses") else ("defenses=[none]",)
    status, _, err = call(monkeypatch, capsys, "evaluate", "quickstart", *small, *defenses, setting)
    monkeypatch.delitem(sys.modules, "far_out", raising=False)
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("detector", "krum"),
        ("attack", "lie"),
        ("aggregator", "median"),
        ("policy", "ban"),
        ("stage", "norm_clipping"),
        ("model", "lenet"),
        ("dataset", "digits"),
        ("partition", "dirichlet"),
    ],
)
def test_a_name_that_is_taken_is_warned_of(monkeypatch, capsys, tmp_path, kind, name):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, "new", kind, name)
    assert status == 0
    assert f"warning: there is a {kind} {name!r} already" in err
    assert f"yours is {target(kind, name)}" in err
    assert out.endswith(f"next: fedguard check {target(kind, name)}\n")
    assert (tmp_path / f"{name}.py").exists()


def test_other_names_are_not_warned_of(monkeypatch, capsys, tmp_path):
    assert shadows("model", "krum") == "", "a detector's name is free for a model"
    assert "Python module 'random'" in shadows("model", "random")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, capsys, "new", "partition", "my_deal")[2] == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["new", "modle", "mine"], "cannot write a new 'modle', did you mean 'model'"),
        (["new", "model", "My Net"], "use lower_case_with_underscores"),
        (["check", "csv", "label=y"], "dataset csv: it needs path: fedguard check csv path=…"),
        (["check", "irichlet"], "did you mean 'dirichlet'"),
        (["check", "iid", "--kind", "partiton"], "did you mean 'partition'"),
        (["check", "dirichlet", "bta=1"], ""),
    ],
)
def test_mistakes(monkeypatch, capsys, tmp_path, args, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, *args)
    assert status == (2 if message else 1)
    assert message in err
    if not message:
        assert "unknown parameter" in out


def test_a_check_says_that_the_name_is_taken(monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, "check", "fedguard.simulation.partitions.iid:iid")
    assert status == 0
    assert err == (
        "warning: there is a partition 'iid' already, and `iid` alone still means that one: yours is "
        "fedguard.simulation.partitions.iid:iid\n"
    )
    assert call(monkeypatch, capsys, "check", "iid")[2] == ""


def test_check_all_includes_partitions(monkeypatch, capsys):
    """Of every kind the first names, as all of them take minutes; no new process reads the data."""
    monkeypatch.setitem(dataset_checks.CHECKS, "another process", lambda case: None)
    everything, some = checking.names_of, {"policies": 2, "datasets": 1, "partitions": 2}
    monkeypatch.setattr(checking, "KINDS", tuple(some))
    monkeypatch.setattr(checking, "names_of", lambda plural: everything(plural)[: some[plural]])
    assert checking.check_all()
    out = capsys.readouterr().out
    assert "partitions   iid                      passed" in out
    assert "partitions   dirichlet                passed" in out
    assert "datasets     digits" in out


def test_check_all_names_what_it_leaves_out(monkeypatch, capsys, tmp_path):
    from fedguard.core.errors import DataError
    from fedguard.simulation.partitions import partitions

    def needy(labels, n, share: float):
        """Needs a share."""

    def far(labels, n):
        """Is far away."""

    def missing(*args):
        raise DataError("no files here")

    def absent():
        """A data set."""

    found = {"needy": needy, "far": far, "absent": absent}
    monkeypatch.setattr(type(partitions), "get", lambda self, name: found[name])
    assert checking._left_out("partitions", "needy") == "it needs share: fedguard check needy share=…"
    assert checking._left_out("partitions", "far") == ""
    monkeypatch.setattr(type(partitions), "make", missing)
    monkeypatch.setattr(checking, "part_checker", lambda plural: None)
    assert checking._left_out("datasets", "absent") == "no files here"
