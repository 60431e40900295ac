"""One attack per file. ``CATALOGUE`` is what the entry point ``fedguard.attacks`` offers."""

if __name__ != "fedguard.attacks":  # a second copy of every class would break isinstance checks
    raise ImportError("import this package as fedguard.attacks")

CATALOGUE = {
    "none": "fedguard.attacks.none:NoAttack",
    "label_flip": "fedguard.attacks.label_flip:LabelFlip",
    "random_labels": "fedguard.attacks.random_labels:RandomLabels",
    "gaussian": "fedguard.attacks.gaussian:Gaussian",
    "byzantine": "fedguard.attacks.byzantine:Byzantine",
    "lazy_worker": "fedguard.attacks.lazy_worker:LazyWorker",
    "ipm": "fedguard.attacks.ipm:IPM",
    "mimic": "fedguard.attacks.mimic:Mimic",
    "lie": "fedguard.attacks.lie:LIE",
    "min_max": "fedguard.attacks.min_max:MinMax",
    "min_sum": "fedguard.attacks.min_sum:MinSum",
    "agr_tailored": "fedguard.attacks.agr_tailored:AGRTailored",
    "adaptive_dnc": "fedguard.attacks.adaptive_dnc:AdaptiveDnC",
    "fang_trimmed_mean": "fedguard.attacks.fang_trimmed_mean:FangTrimmedMean",
    "fang_median": "fedguard.attacks.fang_median:FangMedian",
    "fang_krum": "fedguard.attacks.fang_krum:FangKrum",
    "back_gradient": "fedguard.attacks.back_gradient:BackGradient",
    "mpaf": "fedguard.attacks.mpaf:MPAF",
    "scaling_backdoor": "fedguard.attacks.scaling_backdoor:ScalingBackdoor",
    "adaptive": "fedguard.attacks.adaptive:Adaptive",
    "inflated_counts": "fedguard.attacks.inflated_counts:InflatedCounts",
    "adaptive_label_flip": "fedguard.attacks.adaptive_label_flip:AdaptiveLabelFlip",
    "dlg": "fedguard.attacks.dlg:DLG",
    "inverting_gradients": "fedguard.attacks.inverting_gradients:InvertingGradients",
    "revealing_labels": "fedguard.attacks.revealing_labels:RevealingLabels",
    "distilled_knowledge": "fedguard.attacks.distilled_knowledge:DistilledKnowledge",
    "model_replacement": "fedguard.attacks.model_replacement:ModelReplacement",
    "dba": "fedguard.attacks.dba:DBA",
    "edge_case": "fedguard.attacks.edge_case:EdgeCase",
    "min_distance_backdoor": "fedguard.attacks.min_distance_backdoor:MinDistanceBackdoor",
    "neurotoxin": "fedguard.attacks.neurotoxin:Neurotoxin",
}
