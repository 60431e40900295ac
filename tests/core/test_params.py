"""Parameters checked against the signature that takes them."""

from typing import Literal

import pytest

from fedguard.core.errors import ParameterError
from fedguard.core.params import check_params, nearest


class Sample:
    def __init__(
        self,
        count: int,
        rate: float = 0.5,
        mode: Literal["one", "two"] = "one",
        limit: int | None = None,
        rule: str | dict[str, int] = "native",
        model_path: str = "",
    ) -> None:
        raise AssertionError("checking builds nothing")


class NoInit:
    pass


def function(values: list, value: float, k: int = 3):
    raise AssertionError("checking calls nothing")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": 3}, {"count": 3}),
        ({"count": "3", "rate": "1e-3"}, {"count": 3, "rate": 1e-3}),  # YAML reads 1e-3 as text
        ({"count": 3.0, "rate": 1}, {"count": 3, "rate": 1.0}),
        ({"count": 0, "limit": None}, {"count": 0, "limit": None}),
        (
            {"count": 1, "rule": {"a": 1}, "model_path": "x"},
            {"count": 1, "rule": {"a": 1}, "model_path": "x"},
        ),
    ],
)
def test_good_parameters_come_back_converted_and_without_defaults(given, expected):
    checked = check_params(Sample, given, "here")
    assert checked == expected
    assert [(k, type(v)) for k, v in checked.items()] == [(k, type(v)) for k, v in expected.items()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "here: parameter 'count' is missing"),
        ({"cuont": 3}, "here: unknown parameter 'cuont', did you mean 'count'"),
        (
            {"count": 3, "xyzzy": 1},
            r"unknown parameter 'xyzzy' \(known: count, rate, mode, limit, rule, model_path\)",
        ),
        ({"count": 3.5}, "here: parameter 'count': .*got 3.5"),
        ({"count": None}, "parameter 'count'"),
        ({"count": [1]}, "parameter 'count'"),
        ({"count": 1, "rate": "fast"}, "parameter 'rate'.*got 'fast'"),
        ({"count": 1, "mode": "three"}, "parameter 'mode'.*'one' or 'two'.*got 'three'"),
        ({"count": 1, "rule": {"a": "b"}}, "parameter 'rule"),
        ({"count": 1, 2: 3}, "2 is not a valid parameter name"),
        ({"count": 1, "self": 3}, "unknown parameter 'self'"),
    ],
)
def test_bad_parameters_say_what_is_wrong(given, message):
    with pytest.raises(ParameterError, match=message):
        check_params(Sample, given, "here")


def test_parameters_that_users_do_not_set_are_left_out():
    omit = frozenset({"values"})
    assert check_params(function, {"value": 1}, "f", omit) == {"value": 1.0}
    with pytest.raises(ParameterError, match="unknown parameter 'values'"):
        check_params(function, {"value": 1, "values": []}, "f", omit)


def test_double_star_takes_anything_else():
    def open_ended(count: int = 1, **more: int) -> None: ...

    assert check_params(open_ended, {"count": "2", "other": 3}, "f") == {"count": 2, "other": 3}


def test_no_parameters_at_all():
    assert check_params(NoInit, {}, "here") == {}
    with pytest.raises(ParameterError, match=r"unknown parameter 'x' \(known: none\)"):
        check_params(NoInit, {"x": 1}, "here")


@pytest.mark.parametrize(("word", "expected"), [("meen", ", did you mean 'mean'?"), ("qqq", ""), ("", "")])
def test_nearest(word, expected):
    assert nearest(word, ["mean", "median"]) == expected


def test_annotations_that_cannot_be_evaluated_are_an_error():
    """As those of torch's LambdaLR, whose module does not import what they name."""

    def strange(count: "Nowhere" = 1) -> None: ...  # noqa: F821

    with pytest.raises(ParameterError, match="scheduler: its parameters cannot be checked: name 'Nowhere'"):
        check_params(strange, {"count": 1}, "scheduler")
