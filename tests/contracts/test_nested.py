"""Methods as parameters of other methods: building them, telling them, spelling them out."""

import sqlite3
from contextlib import closing

import pytest

from fedguard import Aggregator, Card, Detector, make_attack, make_detector, make_policy
from fedguard.aggregators.median import Median
from fedguard.contracts.nested import (
    AggregatorSpec,
    AttackSpec,
    DetectorSpec,
    PolicySpec,
    change_nested,
    make,
    nested_parameters,
)
from fedguard.contracts.registry import aggregators, detectors
from fedguard.core.errors import ConfigError, ParameterError, RegistryError
from fedguard.core.params import check_params
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.schema import suite_schema
from fedguard.simulation.build import build_attack, build_guard


class Outer(Detector):
    """Holds methods in every way in which a parameter may."""

    card = Card("outer", "for tests", "FedGuard")

    def __init__(
        self,
        detector: DetectorSpec = "krum",
        several: list[DetectorSpec] | None = None,
        aggregators: list[AggregatorSpec] = ["mean", {"name": "trimmed_mean"}],  # noqa: B006
        attack: AttackSpec | None = None,
        policy: PolicySpec = "exclude",
        words: list[str] | None = None,
        rule: str | dict[str, int] = "native",
        num_malicious: int | None = None,
    ) -> None:
        self.aggregators = [make(spec, "aggregators", "outer: aggregator") for spec in aggregators]
        self.detector = make(detector, "detectors", "outer: detector")
        self.several = [make(spec, "detectors", "outer: several") for spec in several or []]
        self.attack = None if attack is None else make(attack, "attacks", "outer: attack")
        self.num_malicious = num_malicious

    def score(self, round):
        return self.detector(round)


class Trust(Aggregator):
    """An aggregator around another one, which has no default."""

    card = Card("trust", "for tests", "FedGuard")

    def __init__(self, inner: AggregatorSpec) -> None:
        self.inner = make(inner, "aggregators", "trust: inner")

    def aggregate(self, round, weights):
        return self.inner(round, weights)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for registry, cls in ((detectors, Outer), (aggregators, Trust)):
        monkeypatch.setitem(registry._added, cls.card.name, cls)


def test_what_is_nested_is_read_from_the_annotations():
    assert nested_parameters(Outer) == {
        "detector": "detectors",
        "several": "detectors",
        "aggregators": "aggregators",
        "attack": "attacks",
        "policy": "policies",
    }
    assert nested_parameters(Median) == {}
    assert nested_parameters(type(make_policy("gate"))) == {"policy": "policies"}
    assert nested_parameters(type(make_attack("adaptive"))) == {"attack": "attacks"}
    assert nested_parameters(type(make_detector("ensemble"))) == {"members": "detectors"}


def test_building_by_name_by_mapping_and_by_object():
    assert make("krum", "detectors").name == "krum"
    spec = {"name": "krum", "num_malicious": "2"}
    assert make(spec, "detectors").num_malicious == 2
    assert spec == {"name": "krum", "num_malicious": "2"}, "left as it is"
    built = make_detector("dnc")
    assert make(built, "detectors") is built
    assert make("fedguard.aggregators.median:Median", "aggregators").name == "median"


def test_objects_pass_through_the_registry_as_well():
    inner = make_detector("dnc")
    assert make_detector("ensemble", members=[inner, "krum"]).members["dnc"] is inner
    assert make_policy("gate", policy=(policy := make_policy("ban"))).policy is policy
    assert make_attack("adaptive", attack=(attack := make_attack("lie"))).attack is attack


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("krun", RegistryError, "^here 'krun': unknown detector 'krun', did you mean 'krum'"),
        ("mean", RegistryError, "^here 'mean': unknown detector 'mean'"),
        ({"name": "krum", "m": 0}, ParameterError, "^here 'krum': krum: m is 0"),
        ({"name": "krum", "k": 0}, ParameterError, "^here 'krum': detector krum: unknown parameter 'k'"),
        (
            {"name": "krum", 3: 0},
            ParameterError,
            "^here 'krum': detector krum: 3 is not a valid parameter name",
        ),
        ({"name": "krum", "self": 0}, ParameterError, "unknown parameter 'self'"),
        ({"select": "krum"}, ParameterError, "^here: .*'select'.* is not a valid detector; write a name"),
        ({"name": 3}, ParameterError, "^here: .* is not a valid detector"),
        (3, ParameterError, "^here: 3 is not a valid detector"),
        (None, ParameterError, "^here: None is not a valid detector"),
        (Median(), ParameterError, "is not a valid detector"),
    ],
)
def test_mistakes_say_where(spec, error, message):
    with pytest.raises(error, match=message):
        make(spec, "detectors", "here")


@pytest.mark.parametrize("value", [3, None, {"select": "krum"}, ["krum"], {"name": None}], ids=repr)
def test_the_form_is_checked_before_anything_is_built(value):
    with pytest.raises(ParameterError, match=r"outer: parameter 'detector': .*write a name, or a mapping"):
        check_params(Outer, {"detector": value}, "outer")
    with pytest.raises(ParameterError, match=r"parameter 'several\.0': .*write a name"):
        check_params(Outer, {"several": [value]}, "outer")


def test_the_schema_of_suites_knows_nested_specs():
    members = next(
        part["properties"]["members"]
        for part in suite_schema()["$defs"]["detectors"]["anyOf"]
        if part.get("properties", {}).get("name", {}).get("const") == "ensemble"
    )
    assert members["items"]["anyOf"][0] == {"type": "string"}
    assert members["items"]["anyOf"][1]["required"] == ["name"]


def test_every_nested_spec_is_changed_and_nothing_else():
    seen = []

    def change(kind, name, params):
        seen.append((kind, name, params))
        return {**params, "seen": True}

    built = make_detector("dnc")
    given = {"several": ["krum", built, {"name": "dnc", "niters": 2}], "words": ["krum"], "attack": None}
    result = change_nested(Outer, "outer", given, change)
    assert result == {
        "detector": {"name": "krum", "seen": True},
        "several": [{"name": "krum", "seen": True}, built, {"name": "dnc", "niters": 2, "seen": True}],
        "aggregators": [{"name": "mean", "seen": True}, {"name": "trimmed_mean", "seen": True}],
        "policy": {"name": "exclude", "seen": True},
        "words": ["krum"],
        "attack": None,
    }
    assert ("detectors", "dnc", {"niters": 2}) in seen
    assert given["several"][2] == {"name": "dnc", "niters": 2}, "left as it is"


SUITE = """\
data: digits
clients: 8
malicious: 2
rounds: 2
training: {epochs: 1, batch_size: 64, lr: 0.1}
attacks:
  - none
  - {name: adaptive, attack: {name: lie, z: 2}, label: scaled}
defenses:
  mixed:
    detector:
      name: ensemble
      combine: calibrated
      vote: any
      members:
        - {name: krum, select: m_krum}
        - {name: dnc, num_malicious: 1}
        - {name: ensemble, members: [foolsgold, {name: krum, select: m_krum}]}
        - {name: sklearn, estimator_params: {n_estimators: 5}}
    policy: {name: gate, policy: {name: ban, strikes: 2}}
  standard: {detector: ensemble}
  groups: {detector: {name: ensemble, members: [dnc]}, flcert: {groups: 2}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nested")
    (folder / "nested.yaml").write_text(SUITE, encoding="utf-8")
    suite, source = load_suite(folder / "nested.yaml")
    check_suite(suite, source)
    return suite, run_suite(suite, folder / "one", workers=1)


def rows(store):
    with closing(sqlite3.connect(store.path)) as db:
        return [db.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in ("clients", "rounds")]  # noqa: S608


def cell_of(suite, defense, attack="none"):
    return next(c for c in suite.cells() if (c.defense_label, c.attack_label) == (defense, attack))


def told(guard):
    """What the members of the guard's ensemble, and of the ensemble in it, are told."""
    members = guard.detectors["ensemble"].members
    inner = members.get("ensemble")
    found = {label: getattr(m, "num_malicious", None) for label, m in members.items() if m is not inner}
    return found | ({f"inner.{k}": v for k, v in told_members(inner).items()} if inner else {})


def told_members(ensemble):
    return {label: getattr(member, "num_malicious", None) for label, member in ensemble.members.items()}


def test_nested_methods_are_told_the_assumption_unless_the_suite_sets_it(finished):
    suite, _ = finished
    assert told(build_guard(cell_of(suite, "mixed"))) == {
        "krum": 2, "dnc": 1, "sklearn": None, "inner.foolsgold": None, "inner.krum": 2,
    }  # fmt: skip
    assert told(build_guard(cell_of(suite, "standard"))) == {"krum": 2, "dnc": 2}, "members by default, too"


def test_attacks_are_not_told_but_defenses_in_their_parameters_are(finished, monkeypatch):
    from fedguard.attacks.fang_krum import FangKrum
    from fedguard.contracts.registry import attacks

    class Probing(FangKrum):
        """Takes a number of its own, and a rule that it assumes the server to use."""

        card = Card("probing", "for tests", "FedGuard")

        def __init__(self, rule: AggregatorSpec = "trimmed_mean", num_malicious: int | None = None) -> None:
            super().__init__(num_malicious=num_malicious)
            self.rule = make(rule, "aggregators", "probing: rule")

    monkeypatch.setitem(attacks._added, "probing", Probing)
    suite, _ = finished
    attack = suite.attacks["none"].model_copy(update={"name": "probing"})
    built = build_attack(cell_of(suite, "mixed").model_copy(update={"attack": attack}))
    assert built.num_malicious is None
    assert built.rule.num_malicious == 2


def test_the_stored_suite_spells_nested_methods_out(finished):
    stored, _ = load_suite(finished[1].folder / "suite.yaml")
    mixed = stored.defenses["mixed"]
    assert mixed.detector[0].params["members"] == [
        {"name": "krum", "num_malicious": 2, "select": "m_krum", "m": None},
        {"name": "dnc", "num_malicious": 1, "niters": 5, "coordinates": 10000, "filter_fraction": 1.0},
        {
            "name": "ensemble",
            "members": [
                {"name": "foolsgold", "memory": True, "features": "all", "sketch": None},
                {"name": "krum", "num_malicious": 2, "select": "m_krum", "m": None},
            ],
            "combine": "rank_mean",
            "vote": "majority",
            "window": 10,
        },
        {
            "name": "sklearn",
            "estimator": "sklearn.ensemble.IsolationForest",
            "estimator_params": {"n_estimators": 5},
            "features": "random_projection",
            "components": 10,
        },
    ]
    assert mixed.policy.params["policy"]["strikes"] == 2
    assert mixed.policy.params["policy"]["rule"] == "native"
    assert [m["name"] for m in stored.defenses["standard"].detector[0].params["members"]] == ["krum", "dnc"]
    assert stored.attacks["scaled"].params["attack"] == {"name": "lie", "z": 2, "knowledge": "full"}


def test_under_flcert_what_groups_are_told_stays_open(finished):
    """Each group is told its share, 1 of 2: the stored suite must not say 2 to both."""
    stored, _ = load_suite(finished[1].folder / "suite.yaml")
    (dnc,) = stored.defenses["groups"].detector[0].params["members"]
    assert "num_malicious" not in dnc
    assert dnc["niters"] == 5
    assert told(build_guard(cell_of(stored, "groups").shrunk_to(4))) == {"dnc": 1}


def test_running_the_stored_suite_gives_the_same_results(finished, tmp_path):
    stored, source = load_suite(finished[1].folder / "suite.yaml")
    check_suite(stored, source)
    again = run_suite(stored, tmp_path / "again", workers=1)
    assert rows(again) == rows(finished[1])
    assert (tmp_path / "again" / "suite.yaml").read_text() == (finished[1].folder / "suite.yaml").read_text()


def test_no_run_of_the_suite_failed(finished):
    assert set(finished[1].table("runs")["status"]) == {"done"}


MEMBER = r"^\S*nested.yaml:10: defenses.mixed: ensemble: member "


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{name: dnc, num_malicious: 1}",
            "krun",
            MEMBER + r"'krun': unknown detector 'krun', did you mean 'krum'\?",
        ),
        (
            "[foolsgold,",
            "[krum, foolgold,",
            MEMBER + "'ensemble': ensemble: member 'foolgold': unknown detector",
        ),
        (
            "num_malicious: 1",
            "nitres: 1",
            MEMBER + "'dnc': detector dnc: unknown parameter 'nitres', did you",
        ),
        ("num_malicious: 1", "num_malicious: 8", MEMBER + "'dnc': dnc needs at least 9 clients"),
        ("num_malicious: 1", "num_malicious: 4", "mixed: ensemble is told of 4 malicious clients among 8"),
        ("members: [dnc]", "members: dnc", "groups: detector ensemble: parameter 'members': .*valid list"),
        ("members: [dnc]", "members: [3]", r"groups: .*parameter 'members\.0': .*write a name.*got 3"),
        (
            "name: ban,",
            "name: bann,",
            "mixed: gate: policy 'bann': unknown policy 'bann', did you mean 'ban'",
        ),
        ("{name: ban, strikes: 2}", "gate", "mixed: gate: policy is a gate itself"),
        ("{name: lie, z: 2}", "lye", "attacks.scaled: adaptive: attack 'lye': unknown attack 'lye', did you"),
    ],
)
def test_mistakes_name_file_line_and_path(tmp_path, old, new, expected):
    assert old in SUITE
    (tmp_path / "nested.yaml").write_text(SUITE.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        check_suite(*load_suite(tmp_path / "nested.yaml"))


def test_a_nested_method_without_default_must_be_given(tmp_path):
    text = SUITE.replace("standard: {detector: ensemble}", "standard: {aggregator: trust}")
    (tmp_path / "nested.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="aggregator trust: parameter 'inner' is missing"):
        check_suite(*load_suite(tmp_path / "nested.yaml"))
    given = text.replace("aggregator: trust", "aggregator: {name: trust, inner: trimmed_mean}")
    (tmp_path / "nested.yaml").write_text(given, encoding="utf-8")
    suite, _ = load_suite(tmp_path / "nested.yaml")
    assert build_guard(cell_of(suite, "standard")).aggregator.inner.num_malicious == 2
