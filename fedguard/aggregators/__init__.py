"""Aggregation rules, one per file."""

CATALOGUE = {
    "mean": "fedguard.aggregators.mean:Mean",
    "median": "fedguard.aggregators.median:Median",
    "trimmed_mean": "fedguard.aggregators.trimmed_mean:TrimmedMean",
    "krum": "fedguard.aggregators.krum:Krum",
    "bulyan": "fedguard.aggregators.bulyan:Bulyan",
    "geometric_median": "fedguard.aggregators.geometric_median:GeometricMedian",
    "rfa": "fedguard.aggregators.rfa:RFA",
    "centered_clipping": "fedguard.aggregators.centered_clipping:CenteredClipping",
    "slsgd": "fedguard.aggregators.slsgd:SLSGD",
    "irls": "fedguard.aggregators.irls:IRLS",
    "robust_learning_rate": "fedguard.aggregators.robust_learning_rate:RobustLearningRate",
    "fltrust": "fedguard.aggregators.fltrust:FLTrust",
    "meamed": "fedguard.aggregators.meamed:MeaMed",
    "mda": "fedguard.aggregators.mda:MDA",
    "caf": "fedguard.aggregators.caf:CAF",
    "clipped_clustering": "fedguard.aggregators.clipped_clustering:ClippedClustering",
    "lasa": "fedguard.aggregators.lasa:LASA",
    "fednova": "fedguard.aggregators.fednova:FedNova",
}
