"""Absurd sizes and names are refused when the suite is read, before anything trains."""

import pytest

from fedguard.core.errors import ConfigError
from fedguard.evaluation.running.task import _folder_name
from fedguard.evaluation.suites.load import load_suite

BASE = """\
data: digits
clients: 6
malicious: 1
rounds: 1
attacks: {byz: {name: byzantine}}
defenses: {kr: {detector: krum}}
"""
LONG = "n" * 300
AXIS = f"grid: {{training.lr: {[0.1] * 1001}}}\ndata"
RUNS = f"seeds: {list(range(1000))}\ngrid: {{training.lr: {[0.1] * 101}}}\ndata"


def load(folder, text):
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return load_suite(path)[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rounds: 1", "rounds: 1" + "0" * 20, r":4: rounds: 1000.* does not fit into a 64-bit integer"),
        ("rounds: 1", "rounds: 10000000000", r":4: rounds: .*less than or equal to 1000000, got 100"),
        ("rounds: 1", "rounds: 10**20", r":4: rounds: .*got '10\*\*20'"),
        ("rounds: 1", "rounds: 1e20", r":4: rounds: .*got 1e\+20"),
        ("clients: 6", "clients: 1000000000", r":2: clients: .*less than or equal to 100000"),
        ("data", "training: {epochs: 9000000000}\ndata", r":1: training\.epochs: .*equal to 1000000000"),
        ("data", "training: {lr: .inf}\ndata", r":1: training\.lr: .*finite"),
        ("krum", "krum, flcert: {groups: 9000000}", r":6: defenses\.kr\.flcert\.groups: .*equal to 100000"),
        ("data", f"seeds: {list(range(1001))}\ndata", r":1: seeds: .*at most 1000 items"),
        ("data", AXIS, r":1: grid\.training\.lr: the grid has 1,001 points, at most 1,000"),
        ("data", RUNS, r":1: seeds: 101,000 runs, at most 100,000"),
        ("byz", LONG, r":5: attacks\.n+…?: a label of 300 bytes; use 100 at most"),
        ("kr:", f"{LONG}:", r":6: defenses\.n+…?: a label of 300 bytes"),
        ("data", f"name: {LONG}\ndata", r":1: name: .*no more than 200 bytes"),
        ("byz", '"a\\nb"', r":5: attacks\.a\\nb: the label .* cannot be printed"),
        ("byz", '"a\\0b"', r":5: attacks\.a\\x00b: the label .* cannot be printed"),
        ("data", "1: 2\ndata", r":1: 1: a key is a word"),
    ],
)
def test_refused_where_it_stands(old, new, expected, tmp_path):
    with pytest.raises(ConfigError, match=r"s\.yaml" + expected):
        load(tmp_path, BASE.replace(old, new, 1))


def test_what_is_allowed_fits_into_a_file_name(tmp_path):
    text = BASE.replace("byz", "é" * 50).replace("kr:", f"{'ü' * 50}:")
    (cell,) = load(tmp_path, f"{text}seeds: [9223372036854775807]").cells()
    (tmp_path / _folder_name(99_999, cell)).mkdir()
    (tmp_path / f"{'s' * 200}-999").mkdir()


def test_a_label_leads_nowhere(tmp_path):
    suite = load(tmp_path, BASE.replace("byz", "../../x"))
    assert "/" not in _folder_name(0, suite.cells()[0])


def test_a_suite_that_no_file_can_be_called_is_no_traceback():
    with pytest.raises(ConfigError, match="no suite 'nnn"):
        load_suite(LONG)


def test_an_override_whose_key_is_a_number_is_refused():
    with pytest.raises(ConfigError, match="a key is a word"):
        load_suite("quickstart", ["1=2"])
