"""FedML's configurations as suites: the two figures of FedSecurity, the catalogue, and clear refusals."""

from pathlib import Path

import pytest
import yaml

from fedguard.core.errors import ConfigError
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.fedml import read_fedml
from fedguard.evaluation.suites.fedml_methods import ATTACKS, DEFENSES
from fedguard.evaluation.suites.load import load_suite

#: The shape of the example configurations of FedML's security experiments.
BASE = {
    "common_args": {"training_type": "cross_silo", "scenario": "horizontal", "random_seed": 3},
    "environment_args": {"bootstrap": "config/bootstrap.sh"},
    "data_args": {"dataset": "mnist", "partition_method": "hetero", "partition_alpha": 0.7},
    "model_args": {"model": "lr"},
    "train_args": {
        "federated_optimizer": "FedAvg",
        "client_id_list": None,
        "client_num_in_total": 20,
        "client_num_per_round": 10,
        "comm_round": 7,
        "epochs": 2,
        "batch_size": 10,
        "client_optimizer": "sgd",
        "learning_rate": 0.03,
        "weight_decay": 0.001,
    },
    "validation_args": {"frequency_of_the_test": 4},
    "device_args": {"worker_num": 10, "using_gpu": True},
    "comm_args": {"backend": "MPI"},
    "tracking_args": {"enable_wandb": False},
}
#: Figure 1 of both versions of the paper.
BYZANTINE = {
    "enable_attack": True,
    "attack_type": "byzantine",
    "attack_mode": "random",
    "byzantine_client_num": 1,
}
KRUM = {"enable_defense": True, "defense_type": "krum", "krum_param_m": 5, "byzantine_client_num": 1}


def written(tmp_path, attack=None, defense=None, **sections):
    path = tmp_path / "fedml_config.yaml"
    extra = {"attack_args": attack or {}, "defense_args": defense or {}}
    path.write_text(yaml.safe_dump({**BASE, **extra, **sections}, sort_keys=False), encoding="utf-8")
    return str(path)


def test_the_two_figures_of_the_paper(tmp_path):
    suite, _ = load_suite(written(tmp_path, BYZANTINE, KRUM), fedml=True)
    (cell,) = suite.cells()
    assert (cell.attack.name, cell.attack.params) == ("byzantine", {"mode": "random"})
    assert (cell.malicious, cell.assumed_malicious) == (1, 1)
    (detector,) = cell.defense.detector
    assert (detector.name, detector.params) == ("krum", {"select": "m_krum", "m": 5})
    assert (cell.data.name, cell.model.name) == ("mnist", "logistic_regression")
    assert (cell.partition.name, cell.partition.params) == ("dirichlet", {"beta": 0.7})
    assert (cell.clients, cell.participation, cell.rounds, cell.seed) == (20, 0.5, 7, 3)
    local = cell.training
    assert (local.epochs, local.batch_size, local.lr, local.weight_decay) == (2, 10, 0.03, 0.001)
    assert (local.optimizer.name, local.algorithm, cell.test_every) == ("sgd", "fedavg", 4)


def test_what_is_not_enabled_is_off(tmp_path):
    off = {**BYZANTINE, "enable_attack": False}, {**KRUM, "enable_defense": False}
    (cell,) = load_suite(written(tmp_path, *off), fedml=True)[0].cells()
    assert cell.attack.name == "none"
    assert (cell.defense.detector, cell.defense.aggregator.name) == ([], "mean")
    assert cell.malicious == 0


#: type → its keys, what they become, how many attackers.
ATTACK_CASES = {
    "byzantine": (BYZANTINE, {"mode": "random"}, 1),
    "label_flipping": (
        {"original_class_list": [3, 2], "target_class_list": [9, 1], "ratio_of_poisoned_client": 0.1},
        {"mode": "pairs", "pairs": {3: 9, 2: 1}},
        2,
    ),
    "model_replacement": ({"byzantine_client_num": 1}, {"scale": 10.0}, 1),
    "lazy_worker": (
        {"lazy_worker_num": 2, "attack_mode": "no_mask", "attack_base": "client"},
        {"mode": "previous"},
        2,
    ),
    "edge_case_backdoor": (
        {"poisoned_client_num": 3, "backdoor_sample_percentage": 0.3},
        {"fraction": 0.3},
        3,
    ),
    "backdoor": ({"backdoor_client_num": 4, "num_std": 1.5}, {"z": 1.5}, 4),
}


@pytest.mark.parametrize("kind", ATTACK_CASES)
def test_every_active_attack_of_the_catalogue(tmp_path, kind):
    keys, params, count = ATTACK_CASES[kind]
    suite, source = load_suite(
        written(tmp_path, {**keys, "enable_attack": True, "attack_type": kind}), ["data=digits"], fedml=True
    )
    check_suite(suite, source)
    (cell,) = suite.cells()
    assert (cell.attack.params, cell.malicious) == (params, count)


#: type → its keys, the attack, its parameters, the samples of a victim.
PASSIVE_CASES = {
    "dlg": ({"attack_epoch": 20}, "dlg", {"iterations": 20}, None),
    "invert_gradient": ({"num_images": 2}, "inverting_gradients", {}, 2),
    "revealing_labels_from_gradients": ({}, "revealing_labels", {}, None),
}


@pytest.mark.parametrize("kind", sorted(set(ATTACKS) - set(ATTACK_CASES)))
def test_every_passive_attack_of_the_catalogue(tmp_path, kind):
    keys, name, params, samples = PASSIVE_CASES[kind]
    path = written(tmp_path, {**keys, "enable_attack": True, "attack_type": kind})
    suite, source = load_suite(path, ["data=digits"], fedml=True)
    check_suite(suite, source)
    (cell,) = suite.cells()
    assert (cell.attack.name, cell.attack.params, cell.malicious) == (name, params, 0)
    assert (cell.attack.victims and cell.attack.victims.samples) == samples


DEFENSE_CASES = {
    "krum": ({}, {"detector": {"name": "krum"}}),
    "multikrum": ({"krum_param_m": 3}, {"detector": {"name": "krum", "select": "m_krum", "m": 3}}),
    "bulyan": ({}, {"aggregator": {"name": "bulyan"}}),
    "norm_diff_clipping": ({"norm_bound": 5.0}, {"stages": [{"name": "norm_clipping", "bound": 5.0}]}),
    "robust_learning_rate": (
        {"robust_threshold": 4},
        {"aggregator": {"name": "robust_learning_rate", "threshold": 4}},
    ),
    "slsgd": (
        {"trim_param_b": 2, "alpha": 0.5, "option_type": 2},
        {"aggregator": {"name": "slsgd", "num_malicious": 2, "alpha": 0.5}},
    ),
    "geometric_median": ({}, {"aggregator": {"name": "geometric_median"}}),
    "rfa": ({}, {"aggregator": {"name": "rfa"}}),
    "wise_median": ({}, {"aggregator": {"name": "median"}}),
    "trimmed_mean": ({"beta": 0.2}, {"aggregator": {"name": "trimmed_mean", "num_malicious": 2}}),
    "cclip": (
        {"tau": 10, "bucket_size": 3},
        {
            "stages": [{"name": "bucketing", "size": 3}],
            "aggregator": {"name": "centered_clipping", "tau": 10},
        },
    ),
    "weak_dp": ({"stddev": 0.02}, {"stages": [{"name": "weak_dp", "noise": 0.02}]}),
    "crfl": (
        {"clip_threshold": 15, "sigma": 0.02},
        {"stages": [{"name": "crfl", "bound": 15, "noise": 0.02}]},
    ),
    "foolsgold": (
        {"use_memory": True},
        {"detector": {"name": "foolsgold", "features": "last_layer", "memory": True}, "policy": "reweight"},
    ),
    "residual_based_reweighting": (
        {"lambda_param": 2, "thresh": 0.1, "mode": "median"},
        {"aggregator": {"name": "irls", "scale": 2, "threshold": 0.1}},
    ),
    "3sigma": ({}, {"detector": {"name": "three_sigma"}}),
    "3sigma_krum": ({}, {"detector": {"name": "three_sigma", "center": "krum"}}),
    "anomaly_detection": ({}, {"detector": ["cross_round", "three_sigma"], "policy": "gate"}),
}


@pytest.mark.parametrize("kind", DEFENSE_CASES)
def test_every_defense_of_the_catalogue(tmp_path, kind):
    keys, expected = DEFENSE_CASES[kind]
    path = written(tmp_path, BYZANTINE, {**keys, "enable_defense": True, "defense_type": kind})
    assert read_fedml(path).data["defenses"] == {kind: expected}
    suite, source = load_suite(path, ["data=digits"], fedml=True)
    check_suite(suite, source)


@pytest.mark.parametrize("kind", sorted(set(DEFENSES) - set(DEFENSE_CASES)))
def test_other_defenses_say_why_not(tmp_path, kind):
    path = written(tmp_path, None, {"enable_defense": True, "defense_type": kind})
    with pytest.raises(ConfigError, match=rf"defense_args\.defense_type: {kind}: not here: "):
        read_fedml(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": {**BYZANTINE, "attack_type": "byzantin"}}, "did you mean 'byzantine'"),
        ({"attack": {**BYZANTINE, "noise": 1}}, r"attack_args\.noise: byzantine takes byzantine_client_num"),
        ({"attack": {"enable_attack": True}}, "has no attack_type"),
        ({"attack": {"enable_attack": True, "attack_type": "byzantine"}}, "needs 'byzantine_client_num'"),
        (
            {"data_args": {"dataset": "femnist"}},
            r":\d+: data_args\.dataset: femnist is not among the data sets",
        ),
        ({"model_args": {"model": "lr", "depth": 3}}, r"model_args\.depth: has no counterpart"),
        (
            {"train_args": {**BASE["train_args"], "federated_optimizer": "FedGKT"}},
            r"train_args\.federated_optimizer: FedGKT is not built here",
        ),
        (
            {"train_args": {**BASE["train_args"], "client_num_per_round": 30}},
            "use 1 to client_num_in_total, 20",
        ),
        ({"more": 1}, "not a section of FedML's configuration"),
    ],
)
def test_what_has_no_counterpart_is_an_error_with_its_place(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_fedml(written(tmp_path, **changes))


def test_a_suite_of_fedguard_is_no_fedml_file(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("data: digits\n")
    with pytest.raises(ConfigError, match="sections such as train_args"):
        read_fedml(str(path))


def test_a_wrong_value_names_the_line_of_fedmls_file(tmp_path):
    path = written(tmp_path, train_args={**BASE["train_args"], "epochs": "two"})
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "epochs" in text)
    with pytest.raises(ConfigError, match=rf"fedml_config\.yaml:{line}: training\.epochs"):
        load_suite(path, fedml=True)
