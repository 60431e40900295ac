"""Cards and docstrings of every registered method: complete, and true to the signature."""

import inspect
import re

from fedguard.contracts.registry import REGISTRIES

METHODS = [REGISTRIES[kind].get(name) for kind in REGISTRIES for name in REGISTRIES[kind].names()]


def section(doc, title):
    """The indented lines below ``title:`` of a docstring."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)+)", doc + "\n", re.MULTILINE)
    return inspect.cleandoc(found[1]) if found else ""


def test_arguments_in_the_docstring_are_those_of_the_signature():
    for cls in METHODS:
        documented = re.findall(r"^(\w+): \S", section(inspect.getdoc(cls), "Args"), re.MULTILINE)
        assert documented == list(inspect.signature(cls).parameters), cls


def test_the_card_is_complete():
    for cls in METHODS:
        assert 10 <= len(cls.card.summary) <= 80, cls
        assert not cls.card.summary.endswith("."), cls
        dated = re.search(r"\b(19|20)\d\d\b", cls.card.paper)
        assert cls.card.paper == "FedGuard" or dated, f"{cls}: venue and year"


def test_names_make_what_they_say():
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            assert registry.get(name).card.name == name, kind
            assert registry.make(name).name == name, kind


def test_the_docstring_says_what_and_from_where():
    for cls in METHODS:
        doc = inspect.getdoc(cls)
        assert len(doc.splitlines()[0]) <= 110, cls
        if cls.card.paper != "FedGuard" and cls.card.name != "reweight":
            assert re.search(r"^Source: .*\d{4}", doc, re.MULTILINE), cls
        for member, value in vars(cls).items():
            if inspect.isfunction(value) and not member.startswith("_"):
                assert value.__doc__, f"{cls}: {member}"


def test_one_method_per_file_named_after_it():
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            cls = registry.get(name)
            assert cls.__module__.rpartition(".")[2] == name, kind
            module = inspect.getmodule(cls)
            inside = [
                c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__
            ]
            assert [c for c in inside if issubclass(c, registry.base)] == [cls], name
