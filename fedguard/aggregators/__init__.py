"""Aggregation rules, one per file."""

CATALOGUE = {
    "mean": "fedguard.aggregators.mean:Mean",
    "median": "fedguard.aggregators.median:Median",
    "trimmed_mean": "fedguard.aggregators.trimmed_mean:TrimmedMean",
    "krum": "fedguard.aggregators.krum:Krum",
    "geometric_median": "fedguard.aggregators.geometric_median:GeometricMedian",
}
