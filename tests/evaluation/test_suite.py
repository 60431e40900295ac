"""Suites: reading YAML, line numbers in messages, short forms, overrides, keys of cells."""

import re

import pytest

from fedguard.core.errors import ConfigError
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.source import read, shipped_suites

BASE = """\
data: digits
partition: {name: dirichlet, beta: 0.5}
clients: 12
malicious: 3
training: {epochs: 2, lr: 1e-2}
attacks: [none, {name: lie, z: 1.5, label: strong}]
defenses:
  - none
  - {detector: {name: krum, select: m_krum}, policy: exclude}
  - {label: both, detector: [krum, dnc], aggregator: median}
seeds: [0, 1]
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_short_forms_and_defaults(tmp_path):
    suite, _ = load_suite(write(tmp_path, BASE))
    assert suite.name == "mine"
    assert suite.training.lr == 0.01  # YAML 1.1 would read 1e-2 as a string
    assert list(suite.attacks) == ["none", "strong"]
    assert suite.attacks["strong"].params == {"z": 1.5}
    assert list(suite.defenses) == ["none", "krum", "both"]
    assert suite.defenses["none"].detector == []
    assert [d.name for d in suite.defenses["both"].detector] == ["krum", "dnc"]
    assert suite.assumed == 3
    assert len(suite.cells()) == 2 * 3 * 2


def test_what_a_defense_is_told_is_a_setting_of_its_own(tmp_path):
    suite, _ = load_suite(write(tmp_path, BASE), ["assumed_malicious=5", "participation=0.5"])
    assert (suite.malicious, suite.assumed, suite.participants, suite.assumed_per_round) == (3, 5, 6, 3)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("clients: 12", "clinets: 12", r"mine.yaml:3: clinets: unknown key, did you mean 'clients'\?"),
        ("lr: 1e-2", "lrr: 1e-2", r"mine.yaml:5: training.lrr: unknown key, did you mean 'lr'\?"),
        ("lr: 1e-2", "lr: fast", r"mine.yaml:5: training.lr: .*number.*'fast'"),
        (
            "malicious: 3",
            "malicious: 12",
            r"mine.yaml:\d: malicious: malicious is 12, but there are only 12",
        ),
        (
            "policy: exclude",
            "polcy: exclude",
            r"mine.yaml:9: defenses.krum.polcy: unknown key, did you mean 'policy'",
        ),
        ("- none", "- krum", r"mine.yaml:7: defenses: the label 'krum' is used twice"),
        ("seeds: [0, 1]", "seeds: []", r"mine.yaml:11: seeds: .*at least 1"),
        ("seeds: [0, 1]", "clients: 5", r"mine.yaml:11: clients: this key is given twice"),
        ("seeds: [0, 1]", "seeds: [0, 1", r"mine.yaml:1[12]: not valid YAML"),
        ("epochs: 2", "epochs: 2, steps: 3", r"mine.yaml:5: training: .*either epochs or steps"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path, old, new, expected):
    assert old in BASE
    with pytest.raises(ConfigError, match=expected):
        load_suite(write(tmp_path, BASE.replace(old, new)))


def test_unknown_suite_suggests_a_shipped_one():
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_suite("quikstart")


@pytest.mark.parametrize(
    ("override", "look"),
    [
        ("rounds=3", lambda s: s.rounds == 3),
        ("training.lr=5e-3", lambda s: s.training.lr == 0.005),
        ("seeds=[4, 5]", lambda s: s.seeds == [4, 5]),
        ("attacks.1.z=2", lambda s: s.attacks["strong"].params == {"z": 2}),
        ("defenses.1.detector.m=7", lambda s: s.defenses["krum"].detector[0].params["m"] == 7),
        ("server.validation=50", lambda s: s.server.validation == 50),
    ],
)
def test_overrides(tmp_path, override, look):
    suite, _ = load_suite(write(tmp_path, BASE), [override])
    assert look(suite)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rounds", "write key.path=value"),
        ("runds=3", r"^override 'runds=3': runds: unknown key, did you mean 'rounds'"),
        ("attacks.7.z=1", "there is no attacks.7"),
        ("attacks.0.z=1", "is 'none'; override all of it"),
        ("clients.x=1", "clients has no keys"),
        ("rounds=[", "not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path, override, expected):
    with pytest.raises(ConfigError, match=expected):
        load_suite(write(tmp_path, BASE), [override])


def test_cell_keys_depend_on_what_determines_the_results_only(tmp_path):
    cells = load_suite(write(tmp_path, BASE))[0].cells()
    assert len({c.key for c in cells}) == len(cells)
    renamed = load_suite(write(tmp_path, BASE.replace("label: strong", "label: other")))[0].cells()
    assert [c.key for c in renamed] == [c.key for c in cells]
    longer = load_suite(write(tmp_path, BASE), ["rounds=11"])[0].cells()
    assert not {c.key for c in longer} & {c.key for c in cells}


def test_words_that_old_yaml_takes_for_booleans_stay_words(tmp_path):
    path = write(tmp_path, "summary: off\nname: no\n")
    assert read(str(path)).data == {"summary": "off", "name": "no"}


def test_shipped_suites_are_well_formed():
    assert {"quickstart", "fashion_mnist_smoke"} <= set(shipped_suites())
    for name in shipped_suites():
        suite, _ = load_suite(name)
        assert suite.summary
        assert suite.name == name


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("trainig.lr=0.1", "trainig"),  # makes a mapping that nobody knows
        ("trainig.lr.x=0.1", "trainig"),
        ("training.lrr=0.1", "training.lrr"),
        ("rounds=[1,0]", "grid.rounds"),  # moved into the grid
        ("training.lr=[1,0]", "grid.training.lr"),
    ],
)
def test_an_override_is_blamed_for_its_own_mistakes(tmp_path, override, place):
    with pytest.raises(ConfigError, match=rf"^override '{re.escape(override)}': {place}: "):
        load_suite(write(tmp_path, BASE), [override])


def test_defenses_without_a_detector_are_named_after_what_they_have(tmp_path):
    listed = "[{aggregator: median}, {aggregator: {name: krum}}, {stages: [norm_clipping]}, none]"
    suite, _ = load_suite(write(tmp_path, BASE), [f"defenses={listed}"])
    assert list(suite.defenses) == ["median", "krum", "norm_clipping", "none"]
    with pytest.raises(ConfigError, match="'median' is used twice; give each entry a `label`"):
        load_suite(write(tmp_path, BASE), ["defenses=[{aggregator: median}, {aggregator: median}]"])
