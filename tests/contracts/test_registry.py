"""The registry: entry points, catalogues, refusals. Entry points are made up; classes come from a module
that lives in ``sys.modules`` for the time of a test."""

import sys
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from fedguard import Aggregator, Attack, Card, Detector, Policy, make_aggregator
from fedguard.aggregators.mean import Mean
from fedguard.aggregators.trimmed_mean import TrimmedMean
from fedguard.contracts import registry
from fedguard.contracts.registry import REGISTRIES, Registry
from fedguard.core import entry_points
from fedguard.core.errors import ParameterError, RegistryError

CARD = Card("sample", "one line", "FedGuard")


class Sample(Detector):
    card = CARD

    def __init__(self, level: float = 1.0) -> None:
        self.level = level

    def score(self, round):
        return np.full(round.n, self.level)


class LFR(Sample):
    """Called by its initials, as if it were a table."""

    card = Card("lfr", "one line", "FedGuard")


@pytest.fixture
def points(monkeypatch):
    """Make up entry points (name -> value); returns a fresh registry of detectors that sees only them."""
    module = types.ModuleType("made_up")
    module.__dict__.update(
        Sample=Sample,
        LFR=LFR,
        TABLE={"sample": "made_up:Sample", "lost": "no_such_module:Lost"},
        OTHER={"sample": "made_up:LFR"},
        NOTHING=3,
    )
    monkeypatch.setitem(sys.modules, "made_up", module)

    def install(**entries):
        made = [EntryPoint(name, value, "fedguard.detectors") for name, value in entries.items()]
        monkeypatch.setattr(
            entry_points, "entry_points", lambda group: made if group == "fedguard.detectors" else []
        )
        return Registry("detector", Detector, registry._check_detector)

    return install


@pytest.mark.parametrize("kind", ["aggregators", "policies"])
def test_builtins_are_found_through_entry_points(kind):
    names = REGISTRIES[kind].names()
    assert names == sorted(names)
    assert {"mean", "median"} <= set(names) if kind == "aggregators" else {"exclude", "ban"} <= set(names)
    for name in names:
        assert REGISTRIES[kind].get(name).card.name == name


def test_a_catalogue_and_a_class_register_alike(points):
    for found in (points(pack="made_up:TABLE"), points(sample="made_up:Sample")):
        assert "sample" in found.names()
        assert found.get("sample") is Sample
        assert found.make("sample", level=2).level == 2.0


def test_a_class_called_by_its_initials_is_no_table(points):
    found = points(lfr="made_up:LFR")
    assert found.names() == ["lfr"]
    assert found.get("lfr") is LFR


def test_a_module_is_imported_only_when_its_method_is_used(points):
    found = points(pack="made_up:TABLE")
    assert found.names() == ["lost", "sample"]
    assert found.get("sample") is Sample
    with pytest.raises(RegistryError, match=r"cannot load .*'no_such_module:Lost': No module named"):
        found.get("lost")


def test_a_single_class_is_imported_only_when_used(points):
    found = points(sample="made_up:Sample", lost="no_such_module:Lost")
    assert found.get("sample") is Sample
    with pytest.raises(RegistryError, match=r"cannot load .*No module named"):
        found.get("lost")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("made_up:NOTHING", "not a table"),
        ("made_up:MISSING", "cannot load .*made_up.*MISSING"),
        ("no_such_module:TABLE", "cannot load .*no_such_module"),
    ],
)
def test_a_broken_catalogue_is_named(points, value, message):
    with pytest.raises(RegistryError, match=message):
        points(pack=value).names()


def test_the_same_name_from_two_sources_is_refused(points):
    found = points(one="made_up:TABLE", two="made_up:OTHER")
    with pytest.raises(
        RegistryError, match=r"'sample' is registered twice, by .*TABLE.* and .*OTHER.*rename"
    ):
        found.names()


def test_the_name_on_the_card_must_agree(points):
    with pytest.raises(RegistryError, match="its card says 'sample' but it is registered as 'other'"):
        points(other="made_up:Sample").get("other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smaple", "unknown detector 'smaple', did you mean 'sample'"),
        ("zzz", r"unknown detector 'zzz' \(`fedguard list detectors`"),
        ("", "unknown detector ''"),
        ("made_up:Smaple", "cannot load detector 'made_up:Smaple'"),
        ("made_up:", "cannot load"),
        (":Sample", "cannot load"),
        (":", "cannot load"),
        (".relative:X", "cannot load"),
        ("made_up:NOTHING", "3 is not a valid detector: it does not inherit from fedguard.Detector"),
        ("fedguard.policies.ban:Ban", "Ban is not a valid detector"),
    ],
)
def test_unknown_names(points, name, message):
    with pytest.raises(RegistryError, match=message):
        points(pack="made_up:TABLE").get(name)


def test_module_and_class_work_wherever_a_name_does():
    assert isinstance(make_aggregator("fedguard.aggregators.mean:Mean", weighting="uniform"), Mean)
    with pytest.raises(RegistryError, match="raised on import"):
        make_aggregator("module_that_raises:X")


@pytest.fixture(autouse=True)
def module_that_raises(tmp_path, monkeypatch):
    (tmp_path / "module_that_raises.py").write_text("raise RuntimeError('raised on import')")
    monkeypatch.syspath_prepend(tmp_path)


def invalid(**members):
    return type("Bad", (Sample,), members)


def takes(function):
    return invalid(__init__=function)


def many(self, *levels: float) -> None: ...
def keywords(self, **levels: float) -> None: ...
def bare(self, level=1.0) -> None: ...
def dangling(self, level: "Nowhere" = 1.0) -> None: ...  # noqa: F821


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Sample(), "does not inherit"),
        ("Sample", "does not inherit"),
        (type("Alien", (), {"card": CARD}), "does not inherit from fedguard.Detector"),
        (type("Half", (Detector,), {"card": CARD}), "it does not define score"),
        (type("Anonymous", (Detector,), {"score": Sample.score}), "it has no `card = Card"),
        (invalid(card=("sample", "one line", "FedGuard")), "it has no `card = Card"),
        (invalid(card=Card("Sample", "one line", "x")), "'Sample' is not lower_case"),
        (invalid(card=Card("two words", "one line", "x")), "'two words' is not lower_case"),
        (invalid(card=Card("", "one line", "x")), "'' is not lower_case"),
        (invalid(card=Card("sample", "two\nlines", "x")), "one-line summary"),
        (invalid(card=Card("sample", "", "x")), "one-line summary"),
        (invalid(card=Card("sample", "one line", "")), "and a paper"),
        (takes(many), r"\*levels would swallow"),
        (takes(keywords), r"\*levels would swallow"),
        (takes(bare), "'level' has no type annotation"),
        (takes(dangling), "cannot be checked: name 'Nowhere' is not defined"),
        (invalid(needs=frozenset({"truth"})), "unknown things: truth"),
        (invalid(needs="model"), "not a set of names"),
        (invalid(needs=["model"]), "not a set of names"),
    ],
    ids=lambda v: v if isinstance(v, str) else getattr(v, "__name__", "object"),
)
def test_invalid_classes_are_refused_with_the_reason(points, cls, message):
    with pytest.raises(RegistryError, match=message):
        points().add(cls)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "`kind` is none of"),
        ({"kind": "magic"}, "`kind` is none of"),
        ({"kind": "model", "knowledge": frozenset({"everything"})}, "unknown knowledge: everything"),
        ({"kind": "model", "knowledge": "benign_updates"}, "not a set of names"),
    ],
)
def test_invalid_attacks_are_refused_with_the_reason(members, message):
    with pytest.raises(RegistryError, match=message):
        Registry("attack", Attack, registry._check_attack).add(
            type("Bad", (Attack,), {"card": CARD, **members})
        )


@pytest.mark.parametrize(("kind", "base"), [("aggregator", Aggregator), ("policy", Policy)])
def test_abstract_classes_are_refused(kind, base):
    with pytest.raises(RegistryError, match="it does not define"):
        Registry(kind, base, registry._no_check).add(type("Half", (base,), {"card": CARD}))


def test_adding_a_class(points):
    found = points(pack="made_up:OTHER")
    with pytest.raises(RegistryError, match="'sample' is already registered"):
        found.add(Sample)
    assert found.add(LFR) is LFR, "usable as a decorator"
    assert found.names() == ["lfr", "sample"]
    assert isinstance(found.make("lfr"), LFR)
    with pytest.raises(RegistryError, match="'lfr' is already registered"):
        found.add(LFR)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"num_malicous": 1},
            "aggregator trimmed_mean: unknown parameter 'num_malicous', did you mean 'num_malicious'",
        ),
        ({"beta": 1}, r"unknown parameter 'beta' \(known: num_malicious\)"),
        ({"num_malicious": "few"}, "parameter 'num_malicious': .*got 'few'"),
        ({"num_malicious": 1.5}, "parameter 'num_malicious'"),
        ({"num_malicious": -1}, "cannot be negative"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ParameterError, match=message):
        make_aggregator("trimmed_mean", **params)


def test_parameters_are_converted():
    made = make_aggregator("trimmed_mean", num_malicious="2")
    assert isinstance(made, TrimmedMean)
    assert made.num_malicious == 2
    assert made.name == "trimmed_mean"
