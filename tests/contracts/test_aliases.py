"""The field's other names for methods: with their parameters, in Python and in suites."""

import pytest

from fedguard import Guard, make_aggregator, make_attack, make_detector
from fedguard.cli.listing import aliases, listing
from fedguard.contracts.aliases import ALIASES, spelled
from fedguard.contracts.registry import REGISTRIES
from fedguard.core.errors import ConfigError, ParameterError, RegistryError
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.build import build_guard

EVERY = [(kind, alias) for kind, table in ALIASES.items() for alias in table]


@pytest.mark.parametrize(("kind", "alias"), EVERY, ids=[f"{k}-{a}" for k, a in EVERY])
def test_every_alias_names_a_method_and_makes_it(kind, alias):
    name, params = ALIASES[kind][alias]
    registry = REGISTRIES[kind]
    assert alias not in registry.names(), "a registered name needs no alias"
    made = registry.make(alias)
    assert made.name == name
    assert {key: getattr(made, key) for key in params} == dict(params)


def test_given_parameters_have_priority_over_those_of_the_alias():
    assert make_detector("multikrum", num_malicious=2).num_malicious == 2
    assert make_detector("multikrum", select="m_krum").select == "m_krum"
    assert make_attack("badnets", target=3).target == 3
    with pytest.raises(ParameterError, match="detector multikrum: unknown parameter 'selct', did you mean"):
        make_detector("multikrum", selct="krum")


def test_a_registered_name_is_no_alias(monkeypatch):
    registry = REGISTRIES["aggregators"]
    monkeypatch.setitem(registry._added, "fedavg", registry.get("median"))
    assert make_aggregator("fedavg").name == "median"


def test_a_suite_takes_aliases_and_keeps_the_labels(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "clients: 10\nmalicious: 2\nattacks: [alie, {name: signflip, schedule: {start: 1}}]\n"
        "defenses: [multikrum, {label: trm, aggregator: trmean}, "
        "{label: both, detector: {name: ensemble, members: [multi_krum, dnc]}, stages: nnm}]\n"
        "grid: {defenses.trm.aggregator: [trmean, fedavg]}\n"
    )
    suite, _ = load_suite(path)
    assert list(suite.attacks) == ["alie", "signflip"]
    assert list(suite.defenses) == ["multikrum", "trm", "both"]
    assert suite.attacks["alie"].name == "lie"
    assert suite.attacks["signflip"].params == {"mode": "flip"}
    assert suite.attacks["signflip"].schedule.start == 1
    cells = {(c.defense_label, c.point["defenses.trm.aggregator"]): c for c in suite.cells()}
    assert build_guard(cells["multikrum", "trmean"]).detectors["krum"].select == "multi_krum"
    assert build_guard(cells["trm", "fedavg"]).aggregator.name == "mean"
    assert build_guard(cells["trm", "trmean"]).aggregator.name == "trimmed_mean"
    both = build_guard(cells["both", "trmean"])
    assert both.aggregation()[0].name == "nearest_neighbor_mixing"
    assert repr(both.detectors["ensemble"]).count("multi_krum") == 1


def test_an_alias_and_its_spelled_out_form_are_the_same_run(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "clients: 9\nmalicious: 2\n"
        "defenses: {a: multikrum, b: {detector: {name: krum, select: multi_krum}}}\n"
    )
    a, b = load_suite(tmp_path / "s.yaml")[0].cells()
    assert a.key == b.key


def test_a_guard_takes_aliases():
    assert Guard("multikrum", aggregator="cwmed").aggregator.name == "median"


def test_hints_name_aliases():
    with pytest.raises(RegistryError, match="unknown detector 'multi_kurm', did you mean 'multi_krum'"):
        make_detector("multi_kurm")
    with pytest.raises(RegistryError, match="'fedavg' is an aggregator"):
        make_detector("fedavg")
    with pytest.raises(RegistryError, match="stands for krum with select: multi_krum"):
        REGISTRIES["detectors"].get("multikrum")


def test_the_list_shows_them():
    assert listing("aliases").row_count == len(EVERY)
    assert aliases(["detectors"]).row_count == len(ALIASES["detectors"])
    with pytest.raises(ConfigError, match="suites have no aliases"):
        aliases(["suites"])
    assert spelled("krum", {"select": "multi_krum"}) == "krum with select: multi_krum"
