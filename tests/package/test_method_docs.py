"""Cards and docstrings of every registered method: complete, and true to the signature."""

import inspect
import re

import pytest

from fedguard.contracts.registry import REGISTRIES

METHODS = [(kind, name) for kind in REGISTRIES for name in REGISTRIES[kind].names()]
pytestmark = pytest.mark.parametrize(("kind", "name"), METHODS)


def section(doc, title):
    """The indented lines below ``title:`` of a docstring."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)+)", doc + "\n", re.MULTILINE)
    return inspect.cleandoc(found[1]) if found else ""


def test_arguments_in_the_docstring_are_those_of_the_signature(kind, name):
    cls = REGISTRIES[kind].get(name)
    documented = re.findall(r"^(\w+): \S", section(inspect.getdoc(cls), "Args"), re.MULTILINE)
    assert documented == list(inspect.signature(cls).parameters)


def test_the_card_is_complete(kind, name):
    card = REGISTRIES[kind].get(name).card
    assert card.name == name
    assert 10 <= len(card.summary) <= 80
    assert not card.summary.endswith(".")
    assert card.paper == "FedGuard" or re.search(r"\b(19|20)\d\d\b", card.paper), "venue and year"
    assert REGISTRIES[kind].make(name).name == name


def test_the_docstring_says_what_and_from_where(kind, name):
    cls = REGISTRIES[kind].get(name)
    doc = inspect.getdoc(cls)
    assert len(doc.splitlines()[0]) <= 110
    if cls.card.paper != "FedGuard" and name != "reweight":
        assert re.search(r"^Source: .*\d{4}", doc, re.MULTILINE)
    for member, value in vars(cls).items():
        if inspect.isfunction(value) and not member.startswith("_"):
            assert value.__doc__, member


def test_one_method_per_file_named_after_it(kind, name):
    cls = REGISTRIES[kind].get(name)
    assert cls.__module__.rpartition(".")[2] == name
    module = inspect.getmodule(cls)
    methods = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    assert [c for c in methods if issubclass(c, REGISTRIES[kind].base)] == [cls]
