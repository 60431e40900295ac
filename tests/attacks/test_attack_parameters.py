"""Parameters and situations that attacks refuse, and what they say."""

import pytest
import torch

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError

IMAGES = (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("label_flip", {"mode": "pairs"}, "go together"),
        ("label_flip", {"pairs": {0: 2}}, "go together"),
        ("label_flip", {"mode": "pairs", "pairs": {}}, "go together"),
        ("label_flip", {"mode": "pairs", "pairs": {0: 2, 4: 4}}, "class 4 is paired with itself"),
        ("label_flip", {"mode": "backwards"}, "mode"),
        ("gaussian", {"knowledge": "some"}, "knowledge"),
        ("byzantine", {"mode": "sign"}, "mode"),
        ("byzantine", {"std": 0.0}, "std is 0.0"),
        ("lie", {"z": -1.0}, "z is -1.0"),
        ("lie", {"z": float("nan")}, "z is nan"),
        ("min_max", {"perturbation": "cosine"}, "perturbation"),
        ("min_sum", {"knowledge": "none"}, "knowledge"),
        ("fang_trimmed_mean", {"b": 1.0}, "b is 1.0"),
        ("fang_trimmed_mean", {"b": float("inf")}, "b is inf"),
        ("fang_trimmed_mean", {"goal": "deviation", "knowledge": "partial"}, "needs the benign models"),
        ("fang_median", {"b": 0.5}, "fang_median: b is 0.5"),
        ("fang_median", {"goal": "directd"}, "goal"),
        ("fang_median", {"direction": "median"}, "direction"),
        ("fang_krum", {"goal": "deviate"}, "goal"),
        ("fang_krum", {"epsilon": -0.01}, "epsilon is -0.01"),
        ("fang_krum", {"epsilon": float("inf")}, "epsilon is inf"),
        ("fang_krum", {"threshold": 0.0}, "threshold is 0.0"),
        ("fang_krum", {"num_malicious": -1}, "num_malicious is -1"),
        ("fang_krum", {"otherwise": "nothing"}, "otherwise"),
        ("back_gradient", {"distribution": "even"}, "distribution"),
        ("back_gradient", {"fraction": 0.0}, "fraction is 0.0"),
        ("back_gradient", {"max_samples": 1}, "max_samples is 1"),
        ("back_gradient", {"steps": 0}, "steps is 0"),
        ("back_gradient", {"lr": float("nan")}, "lr is nan"),
        ("back_gradient", {"iterations": -1}, "iterations is -1"),
        ("back_gradient", {"step_size": -1.0}, "step_size is -1.0"),
        ("back_gradient", {"tolerance": -1e-6}, "tolerance is -1e-06"),
        ("mpaf", {"scale": -3.0}, "scale is -3.0"),
        ("mpaf", {"std": float("inf")}, "std is inf"),
        ("mpaf", {"base": "final"}, "base"),
        ("ipm", {"epsilon": 0.0}, "ipm: epsilon is 0.0"),
        ("ipm", {"knowledge": "none"}, "knowledge"),
        ("random_labels", {"fraction": 0.0}, "random_labels: fraction is 0.0"),
        ("random_labels", {"fraction": 1.1}, "fraction is 1.1"),
        ("lazy_worker", {"mode": "asleep"}, "mode"),
        ("lazy_worker", {"noise": -1.0}, "lazy_worker: noise is -1.0"),
        ("lazy_worker", {"coefficient": float("nan")}, "coefficient is nan"),
        ("lazy_worker", {"decay": 0.0}, "decay is 0.0"),
        ("mimic", {"warmup": 0}, "mimic: warmup is 0"),
        ("mimic", {"target": "last"}, "target"),
        ("agr_tailored", {"aggregator": "mean"}, "aggregator"),
        ("agr_tailored", {"perturbation": "cosine"}, "perturbation"),
        ("agr_tailored", {"reach": 1.0}, "agr_tailored: reach is 1.0"),
        ("agr_tailored", {"reach": float("inf")}, "reach is inf"),
        ("agr_tailored", {"tolerance": 0.0}, "tolerance is 0.0"),
        ("agr_tailored", {"tolerance": 1.0}, "tolerance is 1.0"),
        ("adaptive_dnc", {"niters": 0}, "niters is 0"),
        ("adaptive_dnc", {"coordinates": 0}, "coordinates 0"),
        ("adaptive_dnc", {"filter_fraction": -1.0}, "filter_fraction is -1.0"),
        ("adaptive_dnc", {"reach": 0.5}, "adaptive_dnc: reach is 0.5"),
        ("scaling_backdoor", {"target": -1}, "labels start at 0"),
        ("scaling_backdoor", {"scale": 0.0}, "scale is 0.0"),
        ("scaling_backdoor", {"fraction": 0.0}, "fraction is 0.0"),
        ("scaling_backdoor", {"fraction": 1.5}, "fraction is 1.5"),
        ("scaling_backdoor", {"patch": 0}, "patch is 0"),
        ("scaling_backdoor", {"pach": 2}, "did you mean 'patch'"),
        ("model_replacement", {"server_lr": 0.0}, "server_lr is 0.0"),
        ("dba", {"size": 0}, "size is 0"),
        ("dba", {"gap": -1}, "gap is -1"),
        ("dba", {"shift": -1}, "shift is -1"),
        ("neurotoxin", {"top": 1.0}, "top is 1.0"),
        ("chameleon", {"temperature": 0.0}, "temperature is 0.0"),
        ("chameleon", {"encoder_epochs": -1}, "encoder_epochs is -1"),
        ("a3fl", {"epochs": 0}, "epochs is 0"),
        ("a3fl", {"balance": -0.1}, "balance is -0.1"),
        ("iba", {"test_epsilon": 0.0}, "test_epsilon is 0.0"),
        ("iba", {"epochs": 0}, "iba: epochs is 0"),
        ("dpot", {"pixels": 0}, "dpot: pixels is 0"),
        ("dpot", {"alpha": 0.0}, "alpha is 0.0"),
        ("collapois", {"epochs": 0}, "collapois: epochs is 0"),
        ("three_dfed", {"epochs": 0}, "three_dfed: epochs is 0"),
        ("three_dfed", {"constraint": 1.0}, "constraint is 1.0"),
        ("three_dfed", {"alpha_min": -0.1}, "alpha_min is -0.1"),
        ("three_dfed", {"threshold": 0.0}, "threshold is 0.0"),
        ("guard_tailored", {"reach": 1.0}, "guard_tailored: reach is 1.0"),
        ("edge_case", {"target": 7}, "two different labels"),
        ("edge_case", {"source": -1}, "two different labels"),
        ("edge_case", {"tail": 0.0}, "tail is 0.0"),
        ("edge_case", {"fraction": 1.0}, "fraction is 1.0"),
        ("edge_case", {"bound": 0.0}, "bound is 0.0"),
    ],
)
def test_a_wrong_parameter_is_refused(name, params, message):
    with pytest.raises(ParameterError, match=message):
        make_attack(name, **params)


@pytest.mark.parametrize(
    ("module", "cls", "params"),
    [
        ("label_flip", "LabelFlip", {"mode": "backwards"}),
        ("gaussian", "Gaussian", {"knowledge": "some"}),
        ("byzantine", "Byzantine", {"mode": "sign"}),
        ("min_max", "MinMax", {"perturbation": "cosine"}),
        ("mpaf", "MPAF", {"base": "final"}),
        ("lazy_worker", "LazyWorker", {"mode": "asleep"}),
        ("mimic", "Mimic", {"target": "last"}),
        ("agr_tailored", "AGRTailored", {"aggregator": "mean"}),
        ("adaptive_dnc", "AdaptiveDnC", {"perturbation": "cosine"}),
        ("fang_trimmed_mean", "FangTrimmedMean", {"goal": "directd"}),
        ("fang_median", "FangMedian", {"direction": "median"}),
        ("fang_krum", "FangKrum", {"goal": "directd"}),
        ("fang_krum", "FangKrum", {"otherwise": "nothing"}),
        ("fang_krum", "FangKrum", {"direction": "krum"}),
        ("back_gradient", "BackGradient", {"distribution": "even"}),
    ],
)
def test_a_wrong_word_is_refused_without_the_registry_too(module, cls, params):
    made = __import__(f"fedguard.attacks.{module}", fromlist=[cls])
    with pytest.raises(ParameterError, match=str(*params.values())):
        getattr(made, cls)(**params)


@pytest.mark.parametrize(
    ("name", "params", "shape", "classes", "n", "m", "message"),
    [
        ("label_flip", {"mode": "pairs", "pairs": {3: 9, 2: 1}}, IMAGES, 9, 10, 3, "name class 9"),
        ("label_flip", {"mode": "pairs", "pairs": {-1: 2}}, IMAGES, 9, 10, 3, "name class -1"),
        ("scaling_backdoor", {}, (30,), 2, 10, 3, "needs images"),
        ("scaling_backdoor", {"patch": 9}, IMAGES, 10, 10, 3, "does not fit images of 8 x 8"),
        ("scaling_backdoor", {"target": 10}, IMAGES, 10, 10, 3, "classes 0 to 9"),
        ("lie", {}, IMAGES, 10, 10, 1, "z = -0.14"),
        ("lie", {}, IMAGES, 10, 10, 2, "set z"),
        ("lie", {}, IMAGES, 10, 9, 1, "set z"),
        ("lie", {}, IMAGES, 10, 10, 8, "z = 0"),
        ("lie", {"z": 1.0, "knowledge": "partial"}, IMAGES, 10, 10, 1, "sees 1 honest"),
        ("gaussian", {"knowledge": "partial"}, IMAGES, 10, 10, 1, "at least 2"),
        ("min_max", {"knowledge": "partial"}, IMAGES, 10, 10, 1, "at least 2"),
        ("min_sum", {}, IMAGES, 10, 4, 3, "sees 1 honest"),
        ("agr_tailored", {}, IMAGES, 10, 4, 3, "agr_tailored: the attacker sees 1 honest"),
        ("agr_tailored", {"aggregator": None, "knowledge": "partial"}, IMAGES, 10, 10, 1, "sees 1 honest"),
        ("adaptive_dnc", {"knowledge": "partial"}, IMAGES, 10, 10, 1, "at least 2"),
        ("fang_trimmed_mean", {"knowledge": "partial"}, IMAGES, 10, 10, 1, "at least 2"),
        ("fang_median", {"knowledge": "partial"}, IMAGES, 10, 10, 1, "fang_median: .* at least 2"),
        ("fang_krum", {}, IMAGES, 10, 6, 4, "which is 0 for n = 6 and f = 4"),
        ("fang_krum", {"num_malicious": 8}, IMAGES, 10, 10, 2, "which is 0 for n = 10 and f = 8"),
        ("fang_krum", {"knowledge": "partial"}, IMAGES, 10, 10, 2, "at least 3"),
        ("back_gradient", {}, (30,), 2, 10, 3, "needs images"),
        ("back_gradient", {}, IMAGES, 1, 10, 3, "no wrong label"),
    ],
)
def test_a_situation_without_effect_is_refused(name, params, shape, classes, n, m, message):
    attack = make_attack(name, **params)
    with pytest.raises(ParameterError, match=message):
        attack.check(shape, classes, n, m)


@pytest.mark.parametrize(
    ("name", "params", "n", "m"),
    [
        ("lie", {"z": 0.5}, 10, 1),
        ("lie", {}, 10, 7),
        ("gaussian", {}, 2, 1),
        ("fang_trimmed_mean", {}, 2, 1),
        ("fang_krum", {}, 4, 1),
        ("fang_krum", {"num_malicious": 2}, 9, 8),
        ("fang_krum", {"knowledge": "partial"}, 4, 3),
        ("min_max", {}, 3, 1),
        ("min_sum", {"knowledge": "partial"}, 10, 2),
        ("agr_tailored", {"aggregator": None}, 10, 1),
        ("ipm", {}, 2, 1),
        ("mimic", {}, 2, 1),
    ],
)
def test_what_can_work_is_accepted(name, params, n, m):
    make_attack(name, **params).check((30,), 2, n, m)


def test_a_label_flip_can_be_targeted_or_not():
    assert make_attack("label_flip").goal == "untargeted"
    assert make_attack("label_flip", mode="pairs", pairs={0: 2}).goal == "targeted"
    assert make_attack("label_flip").goal == "untargeted"  # the class is not changed


def test_the_callers_pairs_are_copied():
    pairs = {0: 2}
    attack = make_attack("label_flip", mode="pairs", pairs=pairs)
    pairs[0] = 3
    test = Samples(torch.zeros(2, 3), torch.tensor([0, 1], dtype=torch.int32))
    trial = attack.trial(test, 10)
    assert trial.target.tolist() == [2]
    assert trial.target.dtype == torch.int32


@pytest.mark.parametrize(
    "name", ["lie", "min_max", "min_sum", "gaussian", "ipm", "agr_tailored", "adaptive_dnc"]
)
def test_without_benign_clients_the_attacker_looks_at_its_own(name):
    """A sampled round may hold malicious clients only."""
    own = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    def craft(knowledge, benign):
        view = UpdateView(
            index=0,
            num_clients=3,
            global_params=own[0],
            initial_params=own[0],
            own_updates=own,
            generator=torch.Generator().manual_seed(0),
            benign_updates=benign,
        )
        return make_attack(name, knowledge=knowledge).craft(view)

    assert torch.equal(craft("full", own[:0]), craft("partial", None))
