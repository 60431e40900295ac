"""``fedguard show`` and ``fedguard list --json``: everything by name, as text and as JSON."""

import json
import sys

import pytest

from fedguard.cli import entry
from fedguard.cli.listing import KINDS as LISTED
from fedguard.cli.listing import as_records
from fedguard.cli.show import KINDS, _names, description
from fedguard.contracts.aliases import ALIASES
from fedguard.core.docstrings import readable
from fedguard.core.errors import RegistryError
from fedguard.evaluation.suites.schema import suite_schema
from fedguard.simulation.partitions.iid import iid
from fedguard.testing.kinds import PARTS


def call(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    out = capsys.readouterr()
    return stop.value.code or 0, out.out, out.err


@pytest.mark.parametrize("kind", KINDS)
def test_everything_can_be_shown(kind):
    assert _names(kind)
    for name in _names(kind):
        found = description(name, kind)
        assert found["name"] == name
        assert found["summary"]
        assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("kind", ["detectors", "attacks", "aggregators", "stages", "policies", "partitions"])
def test_every_parameter_is_described(kind):
    for name in _names(kind):
        found = description(name, kind)
        if found.get("paper") == "FedGuard":
            continue
        for parameter in found["parameters"]:
            assert parameter["description"], f"{name}: {parameter['name']}"
            assert parameter["type"], f"{name}: {parameter['name']}"


def test_a_detector():
    found = description("krum", "detector")
    assert found["kind"] == "detector"
    assert found["paper"] == "Blanchard et al., Krum, NeurIPS 2017"
    assert found["needs"] == []
    assert found["minimum clients"] == 3
    select = found["parameters"][1]
    assert select["name"] == "select"
    assert select["type"] == "'krum' | 'm_krum' | 'multi_krum'"
    assert select["default"] == "krum"
    assert select["description"].startswith('"krum" keeps the lowest score only; "m_krum"')


def test_a_partition_says_what_fedguard_fills_in():
    found = description("dirichlet")
    assert found["filled in"] == ["labels", "n", "rng"]
    assert [p["name"] for p in found["parameters"]] == ["beta", "equal_sizes", "min_examples"]
    assert found["parameters"][0]["default"] == 0.1
    assert "ICML 2024" in found["paper"]


def test_a_suite_and_a_metric_and_a_rule():
    assert description("quickstart")["runs"] == 42
    assert description("dacc")["heading"] == "DACC %"
    rule = description("threshold")
    assert rule["parameters"][0] == {
        "name": "value",
        "type": "float",
        "required": True,
        "default": None,
        "description": "",
    }


def test_the_text(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "show", "lie")
    assert status == 0
    assert out.startswith("lie  (attack)\nthe honest mean shifted by z standard deviations\n")
    assert "knowledge: benign_updates" in out
    assert "'full' | 'partial'" in out
    assert "It has no parameters." in call(monkeypatch, capsys, "show", "iid")[1]


def test_json(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "show", "krum", "--kind", "aggregator", "--json")
    assert json.loads(out) == description("krum", "aggregators")


@pytest.mark.parametrize("kind", [kind for kind in LISTED if kind != "aliases"])
def test_lists_as_json(monkeypatch, capsys, kind):
    status, out, _ = call(monkeypatch, capsys, "list", kind, "--json")
    assert status == 0
    rows = json.loads(out)
    aliases = {alias for known in ALIASES.values() for alias in known}
    expected = aliases if kind == "aliases" else set(_names(kind))
    assert {row["alias" if kind == "aliases" else "name"] for row in rows} == expected
    assert all(all(isinstance(value, str) for value in row.values()) for row in rows)


def test_ones_own(monkeypatch, capsys, tmp_path):
    (tmp_path / "shown_deal.py").write_text(
        "def evenly(labels, n, share: float = 0.5):\n"
        '    """Deals evenly.\n\n    Args:\n        share: of the samples.\n    """\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    status, out, _ = call(monkeypatch, capsys, "show", "shown_deal:evenly")
    monkeypatch.delitem(sys.modules, "shown_deal")
    assert status == 0
    assert "Deals evenly." in out
    assert "of the samples." in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["krum"], "'krum' is in detectors and aggregators; say which with --kind"),
        (["irichlet"], "nothing is called 'irichlet', did you mean 'dirichlet'"),
        (["krum", "--kind", "partition"], "nothing is called 'krum' among the partitions"),
        (["krum", "--kind", "partiton"], "unknown kind 'partiton', did you mean 'partitions'"),
    ],
)
def test_mistakes(monkeypatch, capsys, args, message):
    status, _, err = call(monkeypatch, capsys, "show", *args)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("kind", PARTS)
def test_the_schema_has_every_part_with_its_parameters(kind):
    entries = {
        o["properties"]["name"]["const"]: o["properties"]
        for o in suite_schema()["$defs"][kind]["anyOf"]
        if "const" in o.get("properties", {}).get("name", {})
    }
    assert set(entries) == set(_names(kind))
    for name, properties in entries.items():
        wanted = [p["name"] for p in description(name, kind)["parameters"]]
        assert set(properties) == {"name", "label", *wanted}


def test_the_schema_describes_parameters():
    entry = next(
        o["properties"]
        for o in suite_schema()["$defs"]["partitions"]["anyOf"]
        if o.get("properties", {}).get("name") == {"const": "shards"}
    )
    assert entry["s"]["description"] == "shards per client."


@pytest.mark.parametrize(
    ("alias", "kind", "real"),
    [("multikrum", "detector", "krum with select: multi_krum"), ("fedavg", "aggregator", "mean")],
)
def test_an_alias_shows_what_it_stands_for(alias, kind, real):
    told = description(alias)
    assert (told["name"], told["kind"]) == (alias, kind)
    assert told["summary"].endswith(f"; stands for {real}")
    assert told["parameters"] == description(real.split()[0], kind)["parameters"]


def test_every_rule_that_a_policy_takes_is_shown():
    assert set(_names("rules")) >= {"native", "calibrated", "mad"}
    assert [entry["name"] for entry in description("calibrated")["parameters"]] == ["rate", "rounds"]
    assert description("native")["parameters"] == []


def test_no_marks_of_restructuredtext_are_shown():
    assert readable(":class:`~fedguard.core.x.Y` of ``n``, :meth:`.Z.run`, `a: b`") == "Y of n, run, `a: b`"
    for kind in KINDS:
        if kind != "suites":
            told = json.dumps([description(name, kind) for name in _names(kind)] + as_records(kind))
            assert "``" not in told
            assert ":`" not in told


def test_a_broken_part_hides_no_other(monkeypatch):
    from fedguard.simulation.partitions import partitions

    def lost():
        raise RegistryError("cannot load what a package registers")

    monkeypatch.setattr(partitions, "_sources", {"lost": lost, "iid": lambda: iid})
    records = as_records("partitions")
    assert records[0] == {
        "name": "lost",
        "what it is": "cannot be used: cannot load what a package registers",
    }
    assert records[1]["name"] == "iid"
