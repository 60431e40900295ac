"""Old names work in this version, give the same objects, and say the new name."""

import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fedguard
from fedguard import Round, Scores, Updates, make_policy
from fedguard._deprecated import MODULES, NAMES, ROOT
from fedguard.core.deprecation import current, renamed_keywords
from fedguard.core.errors import ParameterError

OPTIONAL = {"prometheus", "evaluation.plot"}


def afresh(name):
    """The module as if it were imported for the first time."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.mark.parametrize("old", MODULES)
def test_an_old_module_hands_on_to_the_new_one(old):
    if old in OPTIONAL:
        pytest.importorskip({"prometheus": "prometheus_client"}.get(old, "matplotlib"))
    with pytest.warns(DeprecationWarning, match=rf"fedguard\.{old} is now fedguard\.{MODULES[old]};"):
        module = afresh(f"fedguard.{old}")
    new = importlib.import_module(f"fedguard.{MODULES[old]}")
    public = [name for name in vars(new) if not name.startswith("__") and f"{old}.{name}" not in NAMES]
    assert public or hasattr(new, "__path__"), "only a package may have nothing but modules"
    assert all(getattr(module, name) is getattr(new, name) for name in public)
    assert set(dir(new)) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize("old", NAMES)
def test_an_old_name_is_the_same_object(old):
    module, _, name = old.rpartition(".")
    home, _, new = NAMES[old].rpartition(".")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = getattr(importlib.import_module(f"fedguard.{module}"), name)
    assert found is getattr(importlib.import_module(f"fedguard.{home}"), new)
    if name != new:
        assert any(f"fedguard.{NAMES[old]}" in str(w.message) for w in caught)


def test_the_warning_points_at_who_imports():
    sys.modules.pop("fedguard.state", None)
    with pytest.warns(DeprecationWarning, match="fedguard.core.state") as caught:
        import fedguard.state  # noqa: F401
    assert caught[0].filename == __file__


def test_names_of_the_package():
    for old, new in ROOT.items():
        with pytest.warns(DeprecationWarning, match=f"fedguard.{old} is now fedguard.{new}") as caught:
            assert getattr(fedguard, old) is getattr(fedguard, new)
        assert caught[0].filename == __file__


def test_rooms_that_bear_the_name_of_an_old_module():
    from fedguard.contracts.local_training import LocalTraining
    from fedguard.ledger import Ledger, SQLiteLedger
    from fedguard.training import LocalTraining as Same
    from fedguard.training import train_client

    assert (fedguard.Ledger, fedguard.SQLiteLedger, LocalTraining) == (Ledger, SQLiteLedger, Same)
    assert callable(train_client)
    with pytest.warns(DeprecationWarning, match=r"fedguard.ledger.GUARD is now fedguard.ledger.memory.GUARD"):
        from fedguard.ledger import GUARD
    assert GUARD == "guard"
    with pytest.raises(ImportError):
        from fedguard.ledger import nothing_like_it  # noqa: F401


@pytest.mark.slow  # test_architecture.py looks for them in the sources
def test_our_own_code_uses_no_old_name():
    code = "import pkgutil, importlib, fedguard\n"
    code += "for m in pkgutil.walk_packages(fedguard.__path__, 'fedguard.'):\n"
    code += (
        "    if not m.name.endswith(('__main__', 'prometheus', '.flower')) and '.flower.' not in m.name:\n"
    )
    code += "        importlib.import_module(m.name)\n"
    command = [sys.executable, "-W", "error::DeprecationWarning:fedguard", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_gram_is_refused_because_its_meaning_would_change():
    updates = Updates(np.eye(3, dtype=np.float32))
    with pytest.raises(AttributeError, match=r"centered_gram.*inner_products"):
        _ = updates.gram
    with pytest.warns(DeprecationWarning, match=r"Updates.products is now Updates.inner_products"):
        assert updates.products is updates.inner_products


def test_why_is_now_reason():
    with pytest.warns(DeprecationWarning, match=r"Scores\(why=…\) is now Scores\(reason=…\)"):
        scores = Scores(np.zeros(2), np.zeros(2, bool), why="too far")
    assert scores.reason == "too far"
    with pytest.warns(DeprecationWarning, match=r"Scores.why is now Scores.reason"):
        assert scores.why == "too far"
    with pytest.raises(TypeError, match="give only the first"):
        Scores(np.zeros(2), reason="a", why="b")


def test_a_suite_may_give_an_old_parameter():
    with pytest.warns(DeprecationWarning, match=r"Evidence\(centre=…\) is now Evidence\(center=…\)"):
        policy = make_policy("evidence", centre="own")
    assert policy.center == "own"
    with pytest.raises(ParameterError, match="unknown parameter 'centr'"):
        make_policy("evidence", centr="own")


def test_a_class_without_old_keywords_takes_its_own():
    @renamed_keywords(colour="color")
    class Thing:
        def __init__(self, color: str = "red") -> None:
            self.color = color

    assert Thing("blue").color == Thing(color="blue").color == "blue"
    with pytest.warns(DeprecationWarning, match="color"):
        assert Thing(colour="green").color == "green"
    assert current(Round, {"index": 3}) == {"index": 3}
