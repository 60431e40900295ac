"""constraints.txt: every package that FedGuard and its extras bring along, as exact pins and nothing else."""

from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def pins():
    """Line by line, without comments."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked():
    """Name → version on this machine."""
    here = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in here}


def required(name, extras, seen):
    """All that a distribution needs here, and what those need in turn; ``seen`` collects the names."""
    try:
        needs = distribution(name).requires or []
    except PackageNotFoundError:  # of an extra that is not installed
        return
    for need in map(Requirement, needs):
        wanted = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *extras))
        key = (canonicalize_name(need.name), frozenset(need.extras))
        if wanted and key not in seen:
            seen.add(key)
            required(need.name, need.extras, seen)


def test_the_lock_says_versions_and_nothing_else():
    for pin in pins():
        (only,) = pin.specifier
        assert only.operator == "==", pin
        assert Version(only.version).local is None, f"{pin}: not the build of one machine"
        assert pin.url is None
        assert not pin.extras
    text = (ROOT / "constraints.txt").read_text()
    assert not any(word in text for word in ("://", "file:", "--hash", "sha256"))


def test_the_environment_is_the_locked_one():
    wanted = locked()
    found = {canonicalize_name(d.name): Version(Version(d.version).public) for d in distributions() if d.name}
    other = {n: (str(v), str(wanted[n])) for n, v in found.items() if n in wanted and v != wanted[n]}
    assert not other, (
        f"installed, locked: {other}; run `python3 dev.py setup`, or `make lock` for a newer lock"
    )


def test_all_that_tests_need_is_locked():
    seen = set()
    required("fedguard", ["dev"], seen)
    names = {name for name, _ in seen}
    assert {"torch", "numpy", "pytest", "mpmath", "flwr"} <= names
    assert not names - set(locked())


@pytest.mark.parametrize("extra", sorted(set(distribution("fedguard").metadata.get_all("Provides-Extra"))))
def test_every_extra_is_locked(extra):
    needs = [Requirement(need) for need in distribution("fedguard").requires]
    own = [need for need in needs if need.marker and need.marker.evaluate({"extra": extra})]
    for need in own:
        version = locked()[canonicalize_name(need.name)]
        assert need.specifier.contains(version), f"{need} and the lock's {version}: run `make lock`"
