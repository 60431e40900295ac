"""YAML from strangers: merge keys, lines, and bounds that hold before anything is built."""

import contextlib
import time

import pytest

from fedguard.core.errors import ConfigError
from fedguard.core.yaml_values import MAX_BYTES, parse
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.source import Source, assignments

#: Far more than any of these takes, also on a busy machine; what they used to take is minutes or for ever.
SECONDS = 30


def value(text):
    return parse(text, "s.yaml")[0]


# --- merge keys


def test_own_keys_override_merged_ones_and_earlier_mappings_later_ones():
    text = "one: &one {x: 1, y: 2}\ntwo: &two {x: 8, y: 9, z: 7}\nboth:\n  y: 3\n  <<: [*one, *two]\n"
    assert value(text)["both"] == {"x": 1, "y": 3, "z": 7}
    assert value("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}")["c"] == {"x": 1, "y": 2}
    assert value('a: {"<<": 1}') == {"a": {"<<": 1}}, "quoted, it is a word"


def test_a_mistake_in_a_merged_mapping_is_reported_where_it_stands(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("anchors:\n  t: &t\n    lr: fast\ntraining:\n  <<: *t\n  epochs: 2\n")
    with pytest.raises(ConfigError, match=r"s\.yaml:3: training\.lr: .*number"):
        load_suite(path)
    path.write_text("anchors:\n  t: &t\n    lr: 0.5\n    epochs: 7\ntraining:\n  <<: *t\n  epochs: 2\n")
    suite, _ = load_suite(path)
    assert (suite.training.lr, suite.training.epochs) == (0.5, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", r"s\.yaml:4: b: '<<' is given twice"),
        ("a:\n  <<: 3", r"s\.yaml:2: a: '<<' merges a mapping or a list"),
        ("a: <<", r"s\.yaml:1: a: '<<' merges mappings and stands before a colon"),
        ("a: &a {<<: *a}", r"s\.yaml:1: a: nested more than 40 levels"),
        (
            "a0: &a0 {k: 1}\n"
            + "\n".join(f"a{k}: &a{k} {{<<: [*a{k - 1}, *a{k - 1}]}}" for k in range(1, 39)),
            r"s\.yaml:\d+: a\d+: more than 100,000 values after expanding aliases and merges",
        ),
    ],
    ids=["twice", "number", "value", "itself", "exponential"],
)
def test_merges_are_bounded(text, expected):
    with pytest.raises(ConfigError, match=expected):
        value(text)


# --- what is refused, with its line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 0x" + "f" * 9000, "s.yaml:2: b: a number of more than 100 characters"),
        ("a: 1\nb: " + "9" * 9000, "s.yaml:2: b: a number of more than 100 characters"),
        ("a: 1\nb: 1" + "0" * 20, "s.yaml:2: b: 100000000000000000000 does not fit into a 64-bit integer"),
        ("a: 1\nb: 0x_", "s.yaml:2: b: '0x_' is not an integer"),
        ("a: 1\nb: " + "x" * 20_000, "s.yaml:2: a text of more than 10,000 characters"),
        ("a: 1\nb: \0", r"s.yaml:2: not valid YAML: the character #x0000 is not allowed"),
        ('a: 1\nb: "\\ud800"', "s.yaml:2: b: half a character"),
        ("a: 1\nb: " + "[" * 5000, "s.yaml:2: nested more than 40 levels deep"),
        ("a: 1\n" + "- " * 5000, "s.yaml:2: not valid YAML"),
        ("- a\n" * 30_000, "s.yaml:20000: more than 20,000 values"),
        ("a: 1\na: 2", "s.yaml:2: a: this key is given twice"),
        ("a:\n  ? [1]\n  : b", "s.yaml:2: a: a key is a word"),
        ("a:\n  ~: b", "s.yaml:2: a: a key is a word"),
        ("a: 1\nb: !!set {c}", "s.yaml:2: b: the tag !!set is not allowed"),
        ("a: 1\nb: !mine [1]", "s.yaml:2: b: the tag !mine is not allowed"),
        ("a: 1\nb: !!python/object/apply:os.system [x]", "s.yaml:2: b: the tag !!python/object/apply"),
        ("a: 1\nb: !!bool maybe", "s.yaml:2: b: 'maybe' is not bool"),
    ],
)
def test_what_is_refused_names_its_line(text, expected):
    with pytest.raises(ConfigError, match=expected):
        value(text)


@pytest.mark.parametrize(
    "fill",
    ["9", "x", "1_", "59:", "0.", "1e", "[", "{", "- ", "&a ", "*", "!", "? ", "'", '"', "#", ".", "-"],
)
def test_no_text_takes_long(fill):
    """Every character that means something, repeated as often as a file may hold it."""
    start = time.monotonic()
    with contextlib.suppress(ConfigError):
        value("a: " + fill * ((MAX_BYTES - 3) // len(fill)))
    assert time.monotonic() - start < SECONDS


def test_plain_words_are_what_people_expect():
    found = value(
        "[1e-3, 1., .5, -1.5e3, 0x10, 010, 1_000, -0, yes, no, true, ~, '', 1:30, 2026-01-01, '=', .inf]"
    )
    assert found[:16] == [
        1e-3,
        1.0,
        0.5,
        -1500.0,
        16,
        8,
        1000,
        0,
        "yes",
        "no",
        True,
        None,
        "",
        "1:30",
        "2026-01-01",
        "=",
    ]
    assert found[16] == float("inf")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a=" + "9" * 9000, "a number of more than 100 characters"),
        ("a=!!set {b}", "the tag !!set is not allowed"),
        ("a." * 100 + "b=1", "nested more than 40 levels deep"),
        ("a=\0", "the character #x0000 is not allowed"),
    ],
)
def test_overrides_take_the_same_road(assignment, expected):
    with pytest.raises(ConfigError, match=expected):
        Source("s.yaml", {}).override(assignment)
    with pytest.raises(ConfigError, match=expected):
        assignments([assignment])


def test_positions_are_ascii_digits_and_not_too_many():
    assert assignments(["a.²=1"]) == {"a": {"²": 1}}
    assert assignments([f"a.{'9' * 5000}=1"]) == {"a": {"9" * 5000: 1}}
