"""Stages before and after the aggregator, one per file."""

CATALOGUE = {
    "norm_clipping": "fedguard.stages.norm_clipping:NormClipping",
    "bucketing": "fedguard.stages.bucketing:Bucketing",
    "nearest_neighbor_mixing": "fedguard.stages.nearest_neighbor_mixing:NearestNeighborMixing",
    "clip_and_noise": "fedguard.stages.clip_and_noise:ClipAndNoise",
    "crfl": "fedguard.stages.crfl:CRFL",
    "count_clipping": "fedguard.stages.count_clipping:CountClipping",
    "indicator_task": "fedguard.stages.indicator_task:IndicatorTask",
    "weak_dp": "fedguard.stages.weak_dp:WeakDP",
}
