"""One pytest test per method and check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .kinds import checks_of, label

if TYPE_CHECKING:
    import pytest

#: A class, a function, a registered name or "module:name", alone or with the parameters to check it with.
Checked: TypeAlias = Any | str | tuple[Any | str, Mapping[str, Any]]


def parametrize_checks(methods: Iterable[Checked], kind: str | None = None) -> pytest.MarkDecorator:
    """A decorator that gives one pytest test per (method, check), as scikit-learn's parametrize_with_checks.

    The test gets the argument ``check``, and calls it::

        @parametrize_checks([MyScorer, ("krum", {"select": "m_krum"})], kind="detector")
        def test_the_contract(check):
            check()

    The tests are called ``test_the_contract[my_scorer-order of clients]`` and so on. Checks that a class
    declares ``exempt`` are skipped with its reason. This function needs pytest; nothing else of
    ``fedguard.testing`` does.

    Args:
        methods: detectors, attacks, aggregators, stages and policies, models, data sets and partitions:
            classes, functions, registered names or "module:name", each alone (checked with the class's
            ``check_with``) or as (method, parameters).
        kind: "detector", "attack", "aggregator", "stage", "policy", "model", "dataset" or "partition", where
            a name is one of several kinds, or a function does not say what it makes.

    Raises:
        ConfigError: there is no such method, or several kinds have one of this name.
        RegistryError: a module cannot be loaded, or a class cannot be registered.
    """
    import pytest

    cases = []
    for entry in methods:
        method, params = entry if isinstance(entry, tuple) else (entry, None)
        for check in checks_of(method, params, kind):
            marks = () if check.exempt is None else pytest.mark.skip(reason=check.exempt)
            cases.append(pytest.param(check, id=f"{label(method, params)}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", cases)
