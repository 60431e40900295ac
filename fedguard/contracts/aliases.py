"""Names that the field uses for methods registered under another name: each a name with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A registered name, and parameters that go with the alias.
Alias = tuple[str, Mapping[str, Any]]


def _of(name: str, *aliases: str, **params: Any) -> dict[str, Alias]:
    return dict.fromkeys(aliases, (name, params))


#: The kind of method (a key of ``fedguard.contracts.registry.REGISTRIES``) → alias → what it stands for.
ALIASES: dict[str, dict[str, Alias]] = {
    "detectors": {
        **_of("krum", "multikrum", "multi_krum", "mkrum", select="multi_krum"),
        **_of("krum", "m_krum", select="m_krum"),
        **_of("dnc", "divide_and_conquer"),
        **_of("foolsgold", "fools_gold"),
        **_of("fltrust", "fl_trust"),
        **_of("fldetector", "fl_detector"),
        **_of("signguard", "sign_guard"),
        **_of("multi_metric", "multi_metrics", "multimetric"),
    },
    "attacks": {
        **_of("none", "no_attack"),
        **_of("lie", "alie", "little", "little_is_enough"),
        **_of("byzantine", "signflip", "sign_flip", "signflipping", "sign_flipping", mode="flip"),
        **_of("label_flip", "labelflip", "labelflipping", "label_flipping"),
        **_of("scaling_backdoor", "badnets", "badnet", scale=1.0),
        **_of("ipm", "inner_product_manipulation", "foe", "fall_of_empires"),
        **_of("min_max", "minmax"),
        **_of("min_sum", "minsum"),
        **_of("lazy_worker", "free_rider", "freerider"),
        **_of("three_dfed", "3dfed", "thrdfed"),
    },
    "aggregators": {
        **_of("mean", "fedavg", "fed_avg", "average"),
        **_of("trimmed_mean", "trmean", "cwtm", "trimmedmean"),
        **_of("median", "cwmed", "comed", "coordinate_median"),
        **_of("geometric_median", "geomed", "geometricmedian"),
        **_of("centered_clipping", "cc", "centeredclipping", "centered_clip"),
        **_of("robust_learning_rate", "rlr"),
    },
    "stages": {
        **_of("nearest_neighbor_mixing", "nnm"),
        **_of("norm_clipping", "normclipping", "norm_clip"),
    },
    "policies": {},
}


def spelled(name: str, params: Mapping[str, Any]) -> str:
    """What an alias stands for, in words: ``krum with select: multi_krum``."""
    settings = ", ".join(f"{key}: {value}" for key, value in params.items())
    return f"{name} with {settings}" if settings else name
