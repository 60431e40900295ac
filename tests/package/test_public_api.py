"""The front door: light to import, complete, documented."""

import inspect
import subprocess
import sys

import pytest

import fedguard

HEAVY = ("torch", "torchvision", "sklearn", "pandas", "scipy", "numpy", "pydantic")


def fresh(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_importing_fedguard_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import fedguard; fedguard.__version__; dir(fedguard); "
        f"print([m for m in {HEAVY} if m in sys.modules and m not in before])"
    )
    assert fresh(code) == "[]"


def test_looking_up_methods_imports_none_of_them_and_running_them_no_slow_library():
    code = (
        "import sys; from fedguard.contracts.registry import REGISTRIES; "
        "names = [r.names() for r in REGISTRIES.values()]; assert all(names); "
        "print([m for m in sys.modules if m.startswith(('fedguard.detectors.', 'fedguard.attacks.'))]); "
        "import fedguard.evaluation.running.runner; "
        "print([m for m in ('scipy', 'sklearn', 'pandas', 'torchvision') if m in sys.modules])"
    )
    assert fresh(code).split("\n") == ["[]", "[]"]


@pytest.mark.parametrize("name", fedguard.__all__)
def test_every_public_name_resolves(name):
    assert getattr(fedguard, name) is getattr(fedguard, name)
    assert name in dir(fedguard)


def test_names_are_unique_and_nothing_else_resolves():
    assert len(set(fedguard.__all__)) == len(fedguard.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Gaurd'"):
        fedguard.Gaurd  # noqa: B018


@pytest.mark.parametrize("name", [n for n in fedguard.__all__ if inspect.isclass(getattr(fedguard, n))])
def test_public_classes_and_their_methods_are_documented(name):
    cls = getattr(fedguard, name)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{name}("), "that is what dataclass writes when nobody does"
    for member, value in vars(cls).items():
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member}"


def test_every_error_is_one_of_ours_and_documented():
    from fedguard.core import errors

    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, Exception):
            assert issubclass(cls, fedguard.FedGuardError), name
            assert cls.__doc__, name
