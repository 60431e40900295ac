"""Every check of fedguard.testing over every built-in and every choice of its parameters."""

import pytest

from fedguard import Detector
from fedguard.contracts.registry import REGISTRIES
from fedguard.core.errors import ConfigError, RegistryError
from fedguard.testing import parametrize_checks
from fedguard.testing.core import variants
from fedguard.testing.kinds import CONTRACTS, checks_of, find_kind

#: Choices that only make sense together with another parameter.
TOGETHER = {("label_flip", "pairs"), ("adaptive_label_flip", "pairs"), ("fang_trimmed_mean", "deviation")}
#: Attacks' parameters beyond the defaults and every choice.
MORE = [
    ("label_flip", {"mode": "pairs", "pairs": {0: 2}}),
    ("label_flip", {"mode": "pairs", "pairs": {3: 9, 2: 1}}),
    ("lie", {"z": 1.5}),
    ("fang_krum", {"goal": "deviation", "knowledge": "partial"}),
    ("fang_krum", {"num_malicious": 1}),
    ("back_gradient", {"iterations": 0}),
    ("back_gradient", {"distribution": "single", "fraction": 1.0}),
    ("ipm", {"epsilon": 5.0}),
    ("mimic", {"warmup": 3}),
    ("random_labels", {"fraction": 0.3}),
    ("agr_tailored", {"aggregator": "multi_krum"}),
    ("agr_tailored", {"aggregator": "bulyan"}),
    ("agr_tailored", {"aggregator": "trimmed_mean"}),
    ("agr_tailored", {"aggregator": "median"}),
    ("agr_tailored", {"aggregator": "afa", "reach": 16.0}),
    ("adaptive_dnc", {"coordinates": 8, "niters": 2}),
]


def built_in(kind):
    """Each method with its defaults, and with every other choice of a parameter."""
    for name in REGISTRIES[kind].names():
        cls = REGISTRIES[kind].get(name)
        for params in variants(cls):
            if not any((name, value) in TOGETHER for value in params.values() if isinstance(value, str)):
                yield cls, params


#: Methods that take most of the time. All checks run with their first parameters; with each of the others
#: one check in four, in turn, and the rest are slow.
DEAR = {"detectors": ("fedredefense", "sklearn"), "attacks": ("agr_tailored",)}


def thinned(mark):
    """The cases of a mark, those of dear methods thinned."""
    cases, seen = [], {}
    for case in mark.args[1]:
        (check,) = case.values
        choices = seen.setdefault(check.cls, {})
        done = choices.setdefault(case.id.removesuffix(check.name), [])
        number = list(choices).index(case.id.removesuffix(check.name))
        dear = check.cls in [REGISTRIES[kind].get(name) for kind, names in DEAR.items() for name in names]
        slow = dear and number and (number + len(done)) % 4
        done.append(check.name)
        marks = [*case.marks, pytest.mark.slow] if slow else case.marks
        cases.append(pytest.param(check, id=case.id, marks=marks))
    return pytest.mark.parametrize("check", cases)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@thinned(parametrize_checks(built_in("detectors")))
def test_detectors(check):
    check()


@thinned(parametrize_checks([*built_in("attacks"), *MORE], kind="attack"))
def test_attacks(check):
    check()


@parametrize_checks(built_in("aggregators"))
def test_aggregators(check):
    check()


@parametrize_checks(built_in("stages"))
def test_stages(check):
    check()


@parametrize_checks(built_in("policies"))
def test_policies(check):
    check()


@pytest.mark.parametrize(
    ("kind", "methods"), [("detectors", built_in("detectors")), ("attacks", [*built_in("attacks"), *MORE])]
)
def test_every_check_of_every_choice_of_a_dear_method_runs_somewhere(kind, methods):
    whole = parametrize_checks(methods := list(methods), kind=kind.removesuffix("s"))
    assert [case.id for case in thinned(whole).args[1]] == [case.id for case in whole.args[1]]
    quick = [case for case in thinned(whole).args[1] if pytest.mark.slow not in case.marks]
    for name in DEAR[kind]:
        cls = REGISTRIES[kind].get(name)
        mine = [case for case in quick if case.values[0].cls is cls]
        choices = {case.id.removesuffix(case.values[0].name) for case in mine}
        assert len(choices) == sum(method in (name, cls) for method, _ in methods)
        further = {case.values[0].name for case in mine[len(CONTRACTS[kind].checks) :]}
        assert further == CONTRACTS[kind].checks.keys(), "each check with some other choice, too"


def test_exemptions_name_checks_that_exist():
    for kind, contract in CONTRACTS.items():
        for name in REGISTRIES[kind].names():
            exempt = REGISTRIES[kind].get(name).exempt
            assert exempt.keys() <= contract.checks.keys(), name
            assert all(len(reason) > 15 for reason in exempt.values()), name


# --- parametrize_checks itself


def cases(mark):
    """The ids, and what is skipped with which reason."""
    name, values = mark.mark.args
    assert name == "check"
    return {case.id: [m.kwargs["reason"] for m in case.marks] for case in values}


def test_one_id_per_method_and_check():
    ids = list(cases(parametrize_checks([("dnc", {"niters": 2}), "fedguard.aggregators.mean:Mean"])))
    assert ids[:2] == ["dnc(niters=2)-card and docstring", "dnc(niters=2)-one number per client"]
    expected = len(CONTRACTS["detectors"].checks) + len(CONTRACTS["aggregators"].checks)
    assert len(ids) == expected


def test_the_kind_is_inferred_from_classes_and_names():
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            assert find_kind(registry.get(name)) == kind
            assert find_kind(name, kind) == kind
    assert find_kind("fedguard.detectors.krum:Krum") == "detectors"
    assert find_kind("dnc") == "detectors"


def test_a_name_of_two_kinds_asks_which():
    with pytest.raises(ConfigError, match="'krum' is in detectors and aggregators"):
        parametrize_checks(["krum"])
    assert checks_of("krum", kind="aggregator")[0].cls is REGISTRIES["aggregators"].get("krum")


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("krun", ConfigError, "nothing is called 'krun', did you mean 'krum'"),
        ("nowhere:Krum", RegistryError, "cannot load"),
        (int, RegistryError, "int inherits from none of Detector"),
        (Detector, RegistryError, "does not define score"),
    ],
)
def test_what_is_no_method_is_refused_when_tests_are_collected(method, error, message):
    with pytest.raises(error, match=message):
        parametrize_checks([method])


def test_exempt_checks_are_skipped_with_their_reason():
    union = REGISTRIES["detectors"].get("union")
    found = cases(parametrize_checks([union]))
    assert found["union-equal updates"] == [union.exempt["equal updates"]]
    assert found["union-order of clients"] == []


def test_a_broken_method_fails_its_own_check_and_says_what_to_do():
    class Position(Detector):
        """s_i = i."""

        card = REGISTRIES["detectors"].get("dnc").card

        def score(self, round):
            return list(range(round.n))

    by_name = {check.name: check for check in checks_of(Position)}
    by_name["scoring is pure"]()
    with pytest.raises(
        AssertionError, match=r"breaks its contract\norder of clients: .* \(Clients in another"
    ):
        by_name["order of clients"]()
