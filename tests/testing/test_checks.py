"""Every check of fedguard.testing over every built-in and every variant of it."""

import pytest

from fedguard.contracts.registry import REGISTRIES
from fedguard.testing import aggregators, attacks, detectors, policies, stages
from fedguard.testing.core import variants

CHECKS = {
    "detectors": detectors.check_detector,
    "attacks": attacks.check_attack,
    "aggregators": aggregators.check_aggregator,
    "stages": stages.check_stage,
    "policies": policies.check_policy,
}


def cases():
    for kind in CHECKS:
        for name in REGISTRIES[kind].names():
            for params in variants(REGISTRIES[kind].get(name)):
                words = [str(v) for v in params.values() if isinstance(v, str | bool)]
                yield pytest.param(kind, name, params, id="-".join([kind, name, *words]))


#: Choices that only make sense together with another parameter.
TOGETHER = {("label_flip", "pairs"), ("adaptive_label_flip", "pairs"), ("fang_trimmed_mean", "deviation")}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "name", "params"), list(cases()))
def test_a_built_in_keeps_its_contract(kind, name, params):
    if any((name, value) in TOGETHER for value in params.values() if isinstance(value, str)):
        pytest.skip("needs another parameter with it")
    CHECKS[kind](name, params).raise_for_failures()


def test_exemptions_name_checks_that_exist():
    known = {
        "detectors": set(detectors.CHECKS),
        "attacks": {
            *attacks.CHECKS,
            "what it overrides fits its kind",
            "more knowledge is used",
            "what is there is used",
        },
        "aggregators": set(aggregators.CHECKS),
        "stages": set(stages.CHECKS),
        "policies": set(policies.CHECKS),
    }
    for kind, checks in known.items():
        for name in REGISTRIES[kind].names():
            exempt = REGISTRIES[kind].get(name).exempt
            assert exempt.keys() <= checks, name
            assert all(len(reason) > 15 for reason in exempt.values()), name
