"""How grids of cases are thinned (``pytest.mark.thin`` of tests/conftest.py)."""

from itertools import product
from pathlib import Path

import pytest


@pytest.fixture
def kept(request):
    conftest = Path(__file__).parents[1] / "conftest.py"
    return request.config.pluginmanager.get_plugin(str(conftest)).kept


def test_one_in_k_is_kept_and_every_value(kept):
    cases = [{"a": repr(a), "b": repr(b)} for a, b in product(range(5), range(12))]
    stay = kept(cases, 4)
    assert len(stay) == 15
    assert {cases[k]["a"] for k in stay} == {repr(a) for a in range(5)}
    assert {cases[k]["b"] for k in stay} == {repr(b) for b in range(12)}


def test_every_value_outranks_the_share(kept):
    assert kept([{"a": repr(a)} for a in range(9)], 100) == set(range(9))


def test_the_choice_depends_on_the_values_and_not_on_their_order(kept):
    cases = [{"a": repr(a), "b": repr(b)} for a, b in product(range(5), range(12))]
    there = kept(cases[::-1], 4)
    assert {59 - k for k in there} == kept(cases, 4)
