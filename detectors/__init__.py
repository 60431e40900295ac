"""One detector per file. ``CATALOGUE`` is what the entry point ``fedguard.detectors`` offers."""

if __name__ != "fedguard.detectors":  # a second copy of every class would break isinstance checks
    raise ImportError("import this package as fedguard.detectors")

CATALOGUE = {
    "krum": "fedguard.detectors.krum:Krum",
    "foolsgold": "fedguard.detectors.foolsgold:FoolsGold",
    "dnc": "fedguard.detectors.dnc:DnC",
    "err": "fedguard.detectors.err:ERR",
    "lfr": "fedguard.detectors.lfr:LFR",
    "union": "fedguard.detectors.union:Union",
    "fedredefense": "fedguard.detectors.fedredefense:FedREDefense",
    "sklearn": "fedguard.detectors.sklearn:Sklearn",
    "ensemble": "fedguard.detectors.ensemble:Ensemble",
    "adapter_products": "fedguard.detectors.adapter_products:AdapterProducts",
    "lora_probe": "fedguard.detectors.lora_probe:LoraProbe",
    "fltrust": "fedguard.detectors.fltrust:FLTrust",
    "flame": "fedguard.detectors.flame:FLAME",
    "afa": "fedguard.detectors.afa:AFA",
    "norm_bound": "fedguard.detectors.norm_bound:NormBound",
    "three_sigma": "fedguard.detectors.three_sigma:ThreeSigma",
    "cross_round": "fedguard.detectors.cross_round:CrossRound",
    "signguard": "fedguard.detectors.signguard:SignGuard",
    "rflbat": "fedguard.detectors.rflbat:RFLBAT",
    "freqfed": "fedguard.detectors.freqfed:FreqFed",
    "multi_metric": "fedguard.detectors.multi_metric:MultiMetric",
    "fldetector": "fedguard.detectors.fldetector:FLDetector",
    "flanders": "fedguard.detectors.flanders:FLANDERS",
    "recommended": "fedguard.detectors.recommended:Recommended",
    "deepsight": "fedguard.detectors.deepsight:DeepSight",
    "alignins": "fedguard.detectors.alignins:AlignIns",
    "lfighter": "fedguard.detectors.lfighter:LFighter",
    "mesas": "fedguard.detectors.mesas:MESAS",
    "fltracer": "fedguard.detectors.fltracer:FLTracer",
    "agsd": "fedguard.detectors.agsd:AGSD",
    "backdoor_indicator": "fedguard.detectors.backdoor_indicator:BackdoorIndicator",
}
