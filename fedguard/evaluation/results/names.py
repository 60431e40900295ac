"""What methods, data sets and settings are called in print: one list for tables, figures and the report.

A label of a suite is looked up here; a suite's own ``names`` come first, and a label that nobody knows is
shown with spaces for underscores, unless it holds other signs than letters, digits and underscores. The order
of methods is that of the suite, the order of metrics that of
:data:`fedguard.evaluation.results.tables.COLUMNS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from ...core.errors import ConfigError, ResultsError
from ...core.files import is_file, not_written, write_file
from ...core.yaml_values import parse

#: The file of a results folder that holds its suite's ``names``.
FILE = "names.yaml"

DISPLAY: Mapping[str, str] = {
    # attacks
    "none": "none",
    "a3fl": "A3FL",
    "adaptive": "Adaptive",
    "adaptive_dnc": "Adaptive (DnC)",
    "adaptive_label_flip": "Adaptive label flip",
    "agr_tailored": "AGR-tailored",
    "back_gradient": "Back-gradient",
    "byz_mean": "ByzMean",
    "byzantine": "Byzantine",
    "chameleon": "Chameleon",
    "collapois": "CollaPois",
    "dba": "DBA",
    "distilled_knowledge": "Distilled knowledge",
    "dlg": "DLG",
    "dpot": "DPOT",
    "edge_case": "Edge cases",
    "fang_krum": "Fang (Krum)",
    "fang_median": "Fang (median)",
    "fang_trimmed_mean": "Fang (trimmed mean)",
    "gaussian": "Gaussian",
    "guard_tailored": "Guard-tailored",
    "iba": "IBA",
    "inflated_counts": "Inflated counts",
    "inverting_gradients": "Inverting gradients",
    "ipm": "IPM",
    "label_flip": "Label flip",
    "lazy_worker": "Lazy worker",
    "lie": "LIE",
    "mimic": "Mimic",
    "min_distance_backdoor": "Min-distance backdoor",
    "min_max": "Min-Max",
    "min_sum": "Min-Sum",
    "model_replacement": "Model replacement",
    "mpaf": "MPAF",
    "neurotoxin": "Neurotoxin",
    "optimized": "Optimized ALIE/IPM",
    "random_labels": "Random labels",
    "revealing_labels": "Revealing labels",
    "scaling": "Scaling",
    "scaling_backdoor": "Scaling",
    "text_backdoor": "Text backdoor",
    "text_style": "Text style",
    "three_dfed": "3DFed",
    "poisoned_answers": "Poisoned answers",
    # detectors, aggregators, defenses
    "no_defense": "No defense",
    "undefended": "No defense",
    "mean": "FedAvg",
    "fedavg": "FedAvg",
    "adapter_products": "Adapter products",
    "afa": "AFA",
    "agsd": "AGSD",
    "alignins": "AlignIns",
    "backdoor_indicator": "BackdoorIndicator",
    "bulyan": "Bulyan",
    "caf": "CAF",
    "centered_clipping": "Centered clipping",
    "clipped_clustering": "Clipped clustering",
    "cross_round": "Cross-round check",
    "deepsight": "DeepSight",
    "dnc": "DnC",
    "ensemble": "Ensemble",
    "err": "ERR",
    "fednova": "FedNova",
    "fedredefense": "FedREDefense",
    "flame": "FLAME",
    "flanders": "FLANDERS",
    "fldetector": "FLDetector",
    "fltracer": "FLTracer",
    "fltrust": "FLTrust",
    "foolsgold": "FoolsGold",
    "freqfed": "FreqFed",
    "geometric_median": "Geometric median",
    "irls": "IRLS",
    "krum": "Krum",
    "lasa": "LASA",
    "lfighter": "LFighter",
    "lfr": "LFR",
    "lora_probe": "LoRA-Probe",
    "m_krum": "m-Krum",
    "mda": "MDA",
    "meamed": "MeaMed",
    "mesas": "MESAS",
    "median": "Median",
    "multi_krum": "Multi-Krum",
    "multi_metric": "Multi-metric",
    "norm_bound": "Norm bound",
    "recommended": "FedGuard",
    "rfa": "RFA",
    "rflbat": "RFLBAT",
    "robust_learning_rate": "Robust learning rate",
    "signguard": "SignGuard",
    "slsgd": "SLSGD",
    "three_sigma": "Three-sigma",
    "trimmed_mean": "Trimmed mean",
    "union": "ERR + LFR",
    # data sets
    "breast_cancer": "Breast cancer",
    "cifar10": "CIFAR-10",
    "digits": "Digits",
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "tiny_shakespeare": "Tiny Shakespeare",
    # settings
    "assumed_malicious": "Assumed malicious",
    "attack": "Attack",
    "clients": "Clients",
    "data": "Data",
    "defense": "Defense",
    "malicious": "Malicious",
    "mode": "Mode",
    "model": "Model",
    "partition.beta": "β",
    "point": "Setting",
    "seed": "Seed",
}


def display(label: object, own: Mapping[str, str] | None = None) -> str:
    """The name of a label in print.

    Args:
        label: of a suite, or the key of a setting.
        own: the suite's own names, which come first.

    Example:
        >>> from fedguard.evaluation.results.names import display
        >>> display("min_max"), display("my_scorer"), display("my_scorer", {"my_scorer": "Ours"})
        ('Min-Max', 'my scorer', 'Ours')
    """
    text = str(label)
    plain = text.replace("_", " ") if text.isidentifier() else text
    return (own or {}).get(text) or DISPLAY.get(text) or plain


def display_all(labels: Iterable[object], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Label → name in print, in order; labels that would get one name ("scaling", "scaling_backdoor") stay.

    Example:
        >>> from fedguard.evaluation.results.names import display_all
        >>> display_all(["lie", "scaling", "scaling_backdoor"])
        {'lie': 'LIE', 'scaling': 'scaling', 'scaling_backdoor': 'scaling_backdoor'}
    """
    names = {str(label): display(label, own) for label in labels}
    counts = Counter(names.values())
    return {label: name if counts[name] == 1 else label for label, name in names.items()}


def write_names(folder: Path, names: Mapping[str, str]) -> None:
    """Keep a suite's names in a results folder; those of an earlier run are replaced.

    Raises:
        ResultsError: the folder cannot be written.
    """
    if not names and not (folder / FILE).exists():
        return
    try:
        write_file(folder / FILE, yaml.safe_dump(dict(names), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise ResultsError(not_written(folder / FILE, error, "choose another folder (--out)")) from None


def names_of(folder: Path) -> dict[str, str]:
    """The names that the suite of a results folder gives; none if it gives none.

    Raises:
        ResultsError: the file is damaged.
    """
    path = folder / FILE
    if not is_file(path):
        return {}
    try:
        found, _ = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ResultsError(f"{path} is not a mapping from labels to names; delete it")
    return {str(label): str(name) for label, name in found.items()}
