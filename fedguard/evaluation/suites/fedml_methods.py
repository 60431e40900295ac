"""FedML's attack and defense types, with their keys, as parts of a suite.

Types whose constant was not in the version that was read are called as their file: lazy_worker,
edge_case_backdoor, backdoor, bulyan, wise_median, residual_based_reweighting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import ConfigError

Values = dict[str, Any]


@dataclass(frozen=True)
class Pieces:
    """What a type becomes.

    Attributes:
        spec: the attack or the defense, as in a suite.
        settings: keys of the suite beside it.
    """

    spec: Values
    settings: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One type.

    Attributes:
        keys: the keys that it takes.
        build: (the keys' values, clients, clients per round) → pieces; raises KeyError for a missing key.
    """

    keys: tuple[str, ...]
    build: Callable[[Values, int, int], Pieces]


def _renamed(values: Values, names: dict[str, str]) -> Values:
    """The values that are given, under their names here."""
    return {own: values[theirs] for theirs, own in names.items() if theirs in values}


def _absent(why: str) -> Method:
    """A type without a counterpart."""

    def build(values: Values, clients: int, per_round: int) -> Pieces:
        raise ConfigError(f"not here: {why}")

    return Method((), build)


def _attack(name: str, count: str, names: dict[str, str], **fixed: Any) -> Method:
    """A type whose number of attackers is the key ``count``."""

    def build(values: Values, clients: int, per_round: int) -> Pieces:
        return Pieces({"name": name, **fixed, **_renamed(values, names)}, {"malicious": values[count]})

    return Method((count, *names), build)


def _label_flipping(values: Values, clients: int, per_round: int) -> Pieces:
    sources, targets = values["original_class_list"], values["target_class_list"]
    if len(sources) != len(targets):
        raise ConfigError("original_class_list and target_class_list differ in length")
    spec: Values = {
        "name": "label_flip",
        "mode": "pairs",
        "pairs": dict(zip(sources, targets, strict=True)),
    }
    schedule = _renamed(values, {"poison_start_round_id": "start"})
    if "poison_end_round_id" in values:  # the last round with the attack
        schedule["until"] = values["poison_end_round_id"] + 1
    if schedule:
        spec["schedule"] = schedule
    if "poisoned_client_num" in values:
        return Pieces(spec, {"malicious": values["poisoned_client_num"]})
    return Pieces(spec, {"malicious": round(values["ratio_of_poisoned_client"] * clients)})


def _lazy_worker(values: Values, clients: int, per_round: int) -> Pieces:
    how = values["attack_mode"], values.get("attack_base", "global")
    modes = {("no_mask", "global"): "zero", ("no_mask", "client"): "previous"}
    if how not in modes:
        raise ConfigError(
            f"attack_mode {how[0]} on attack_base {how[1]} has no counterpart; use no_mask, or the modes of "
            "FedGuard's lazy_worker in a suite"
        )
    return Pieces({"name": "lazy_worker", "mode": modes[how]}, {"malicious": values["lazy_worker_num"]})


def _model_replacement(values: Values, clients: int, per_round: int) -> Pieces:
    # As FedML: one attacker per round if it is not told another number, scaled by the clients of the round.
    return Pieces(
        {"name": "model_replacement", "scale": float(per_round)},
        {"malicious": values.get("byzantine_client_num", 1)},
    )


def _reconstruction(name: str, names: dict[str, str], samples: str = "") -> Method:
    """A type that reconstructs data; the key ``samples`` is the number of samples of a victim."""

    def build(values: Values, clients: int, per_round: int) -> Pieces:
        victims = {"victims": {"samples": values[samples]}} if samples in values else {}
        return Pieces({"name": name, **victims, **_renamed(values, names)})

    return Method((*names, *([samples] if samples else [])), build)


ATTACKS: dict[str, Method] = {
    "byzantine": _attack("byzantine", "byzantine_client_num", {"attack_mode": "mode"}),
    "label_flipping": Method(
        (
            "original_class_list",
            "target_class_list",
            "ratio_of_poisoned_client",
            "poisoned_client_num",
            "poison_start_round_id",
            "poison_end_round_id",
        ),
        _label_flipping,
    ),
    "model_replacement": Method(("byzantine_client_num",), _model_replacement),
    "lazy_worker": Method(("lazy_worker_num", "attack_mode", "attack_base"), _lazy_worker),
    "edge_case_backdoor": _attack(
        "edge_case", "poisoned_client_num", {"backdoor_sample_percentage": "fraction"}
    ),
    "backdoor": _attack("min_distance_backdoor", "backdoor_client_num", {"num_std": "z", "alpha": "alpha"}),
    "dlg": _reconstruction("dlg", {"attack_epoch": "iterations"}),
    "invert_gradient": _reconstruction("inverting_gradients", {}, "num_images"),
    "revealing_labels_from_gradients": _reconstruction("revealing_labels", {}),
}


def _told(values: Values) -> Values:
    """The number of attackers that the defense assumes."""
    return _renamed(values, {"byzantine_client_num": "assumed_malicious"})


def _aggregator(name: str, names: dict[str, str] | None = None) -> Method:
    def build(values: Values, clients: int, per_round: int) -> Pieces:
        return Pieces({"aggregator": {"name": name, **_renamed(values, names or {})}}, _told(values))

    return Method((*(names or {}), "byzantine_client_num"), build)


def _stage(name: str, names: dict[str, str]) -> Method:
    def build(values: Values, clients: int, per_round: int) -> Pieces:
        return Pieces({"stages": [{"name": name, **_renamed(values, names)}]})

    return Method(tuple(names), build)


def _detector(spec: Values, **rest: Any) -> Method:
    def build(values: Values, clients: int, per_round: int) -> Pieces:
        return Pieces({"detector": dict(spec), **rest}, _told(values))

    return Method(("byzantine_client_num",), build)


def _krum(values: Values, clients: int, per_round: int) -> Pieces:
    many = {"select": "m_krum", "m": values["krum_param_m"]} if "krum_param_m" in values else {}
    if values.get("multi") and not many:
        many = {"select": "m_krum"}
    return Pieces({"detector": {"name": "krum", **many}}, _told(values))


def _slsgd(values: Values, clients: int, per_round: int) -> Pieces:
    trimmed = values["trim_param_b"] if values.get("option_type", 2) == 2 else 0
    return Pieces({"aggregator": {"name": "slsgd", "num_malicious": trimmed, "alpha": values["alpha"]}})


def _trimmed_mean(values: Values, clients: int, per_round: int) -> Pieces:
    return Pieces({"aggregator": {"name": "trimmed_mean", "num_malicious": int(values["beta"] * per_round)}})


def _cclip(values: Values, clients: int, per_round: int) -> Pieces:
    size = values.get("bucket_size", 1)
    stages = {"stages": [{"name": "bucketing", "size": size}]} if size > 1 else {}
    return Pieces({**stages, "aggregator": {"name": "centered_clipping", **_renamed(values, {"tau": "tau"})}})


def _foolsgold(values: Values, clients: int, per_round: int) -> Pieces:
    memory = _renamed(values, {"use_memory": "memory"})
    spec = {"name": "foolsgold", "features": "last_layer", **memory}
    return Pieces({"detector": spec, "policy": "reweight"})


def _residuals(values: Values, clients: int, per_round: int) -> Pieces:
    if values.get("mode", "median") != "median":
        raise ConfigError("its mode is median only")
    names = {"lambda_param": "scale", "thresh": "threshold"}
    return Pieces({"aggregator": {"name": "irls", **_renamed(values, names)}})


_KRUM = Method(("krum_param_m", "multi", "byzantine_client_num"), _krum)
_KICK = {"detector": ["cross_round", "three_sigma"], "policy": "gate"}
DEFENSES: dict[str, Method] = {
    "krum": _KRUM,
    "multikrum": _KRUM,
    "bulyan": _aggregator("bulyan"),
    "norm_diff_clipping": _stage("norm_clipping", {"norm_bound": "bound"}),
    "robust_learning_rate": _aggregator("robust_learning_rate", {"robust_threshold": "threshold"}),
    "slsgd": Method(("trim_param_b", "alpha", "option_type"), _slsgd),
    "geometric_median": _aggregator("geometric_median"),
    "rfa": _aggregator("rfa"),
    "wise_median": _aggregator("median"),
    "trimmed_mean": Method(("beta",), _trimmed_mean),
    "cclip": Method(("tau", "bucket_size"), _cclip),
    "weak_dp": _stage("weak_dp", {"stddev": "noise"}),
    "crfl": _stage("crfl", {"clip_threshold": "bound", "sigma": "noise"}),
    "foolsgold": Method(("use_memory",), _foolsgold),
    "residual_based_reweighting": Method(("lambda_param", "thresh", "mode"), _residuals),
    "3sigma": _detector({"name": "three_sigma"}),
    "3sigma_krum": _detector({"name": "three_sigma", "center": "krum"}),
    "anomaly_detection": Method((), lambda values, clients, per_round: Pieces(dict(_KICK))),
    "3sigma_geo": _absent("three_sigma has no geometric median as its center; use 3sigma"),
    "wbc": _absent("it is the clients' own: set training.wbc in a suite"),
    "soteria": _absent("it protects a client's data, not the model"),
    "dp": _absent("it protects clients' data; weak_dp adds noise against attacks"),
}
