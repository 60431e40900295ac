"""The shipped Prometheus rules and Grafana dashboard: valid, and about metrics that are really exported."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fedguard import Guard, Round
from fedguard.observers.alert import KINDS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RULES = EXAMPLES / "fedguard-rules.yml"
DASHBOARD = EXAMPLES / "fedguard-dashboard.json"
FIELDS = {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
NAME = re.compile(r"\bfedguard_\w+")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Metric → its labels, from what the exporter wrote after a round."""
    pytest.importorskip("prometheus_client")
    from fedguard.observers.prometheus import PrometheusMetrics

    path = tmp_path_factory.mktemp("metrics") / "fedguard.prom"
    Guard("norm_bound", observers=[PrometheusMetrics(textfile=path)]).process(Round([[1.0], [2.0]]))
    found = re.findall(r"^(fedguard_\w+)(?:\{(.*?)\})? ", path.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"(\w+)=", labels)) for name, labels in found}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_dashboard_use_exported_metrics_only(exported):
    asked = [rule["expr"] for rule in rules()] + expressions()
    names = {name for expression in asked for name in NAME.findall(expression)}
    assert names <= exported.keys()
    told = {name for name in exported if not name.endswith("_created")}
    assert told - set(NAME.findall(" ".join(expressions()))) == set(), "the dashboard shows all of them"


def test_legends_name_exported_labels(exported):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for target in (target for panel in panels for target in panel["targets"]):
        labels = set().union(*(exported[name] for name in NAME.findall(target["expr"])), {"instance"})
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, target


def test_every_kind_of_alert_has_a_rule():
    names = {rule["alert"] for rule in rules()}
    assert {"FedGuard" + "".join(map(str.title, kind.split("_"))) for kind in KINDS} <= names


def test_rules_have_the_fields_that_prometheus_reads():
    """Prometheus refuses a file with a field that it does not know, or a duration it cannot read."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert set(group) == {"name", "rules"}
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= FIELDS, rule["alert"]
        assert re.fullmatch(r"(?:\d+[smhdwy])+", rule.get("for", "0s"))
        texts = {**rule["labels"], **rule["annotations"]}
        assert all(re.fullmatch(r"[a-zA-Z_]\w*", name) for name in texts)
        assert all(isinstance(text, str) and text.count("{{") == text.count("}}") for text in texts.values())
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names))


def test_panels_do_not_overlap():
    cells = [
        (x, y)
        for p in (panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"])
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
#: Series (one value a minute) → the rules that fire after 20 minutes, worked out by hand.
CASES = [
    ({"fedguard_bans_total": "0x10 1x30"}, {"FedGuardBan"}),
    ({"fedguard_suspects": "6x40", "fedguard_clients": "10x40"}, {"FedGuardMassSuspicion"}),
    ({"fedguard_suspects": "5x40", "fedguard_clients": "10x40"}, set()),
    ({"fedguard_refused_rounds_total": "0x15 1x30"}, {"FedGuardRefusedRound"}),
    ({"fedguard_kept_global_rounds_total": "0x15 1x30"}, {"FedGuardRefusedRound"}),
    ({"fedguard_aggregate_norm": "1x18 3.5x30"}, {"FedGuardDrift"}),
    ({"fedguard_aggregate_norm": "1x18 2.5x30"}, set()),
    ({"fedguard_aggregate_cosine": "-0.6x40"}, {"FedGuardTurnedBack"}),
    (
        {"fedguard_unusable_updates_total": "0+3x40", "fedguard_updates_total": "0+10x40"},
        {"FedGuardUnusableUpdates"},
    ),
    ({"fedguard_unusable_updates_total": "0+1x40", "fedguard_updates_total": "0+10x40"}, set()),
    ({"fedguard_round": "7x40"}, {"FedGuardStalled"}),
    ({"fedguard_round": "0+1x40"}, set()),
    ({"fedguard_rounds_total": "0+1x2"}, {"FedGuardGone"}),
]


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_can_read_what_the_dashboard_asks(tmp_path):
    asked = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    path = tmp_path / "asked.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    promtool("check", "rules", str(path))


@needs_promtool
def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path):
    names = [rule["alert"] for rule in rules()]
    assert {name for _, firing in CASES for name in firing} == set(names), "each rule has a case"
    alive = {"fedguard_rounds_total": "0+1x40"}
    groups = [
        {
            "name": f"case {number}",
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in (alive | series).items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertstate="firing",alertname="{name}"}}) or vector(0)',
                    "eval_time": "20m",
                    "exp_samples": [{"labels": "{}", "value": int(name in firing)}],
                }
                for name in names
            ],
        }
        for number, (series, firing) in enumerate(CASES)
    ]
    path = tmp_path / "tests.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": groups})
    )
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(path))
