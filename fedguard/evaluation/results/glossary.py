"""What the metrics mean, in a sentence each; ``fedguard list metrics`` and docs/glossary.md show the same."""

from __future__ import annotations

#: Name of a column → its meaning. TP, FP, TN, FN count clients; "positive" is "labeled malicious".
GLOSSARY = {
    "dacc": "Detection accuracy: the share of clients that are labeled rightly, (TP + TN) / n.",
    "fpr": "False positive rate: the share of benign clients that are labeled malicious, FP / (FP + TN).",
    "fnr": "False negative rate: the share of malicious clients that are labeled benign, FN / (FN + TP).",
    "aar": "Rounds in which a malicious client was aggregated while it attacked; mean over those clients.",
    "tacc": "Test accuracy of the final model.",
    "asr": "Attack success rate: the share of test samples with the trigger that the final model gives the "
    "attacker's label.",
    "auroc": "The chance that a malicious client scores above a benign one in a round; 0.5 is guessing.",
    "detector_share": "The detectors' share of the time of training, detection and aggregation.",
    "accuracy_lost": "TACC of the undefended run without attack, minus TACC of this run.",
    "adacc": "DACC of each round's suspects, averaged over rounds.",
    "afpr": "FPR of each round's suspects, averaged over rounds.",
    "afnr": "FNR of each round's suspects, averaged over rounds.",
    "pooled_dacc": "DACC over all clients of all rounds together.",
    "pooled_fpr": "FPR over all clients of all rounds together.",
    "pooled_fnr": "FNR over all clients of all rounds together.",
    "tp": "Malicious clients that are labeled malicious.",
    "fp": "Benign clients that are labeled malicious.",
    "tn": "Benign clients that are labeled benign.",
    "fn": "Malicious clients that are labeled benign.",
    "ap": "Average precision of the scores, averaged over rounds.",
    "tpr_at_1": "The share of malicious clients above a threshold that flags at most 1 % of the benign ones.",
    "rounds_to_detection": "Rounds of attack until a malicious client is suspected; mean over those caught.",
    "caught": "The share of malicious clients that were suspected at least once while they attacked.",
    "benign_excluded": "Benign clients that took part in a round and were left out, mean over rounds.",
    "fpr_low_skew": "FPR of the third of the benign clients whose labels are most like those of all clients.",
    "fpr_mid_skew": "FPR of the middle third of the benign clients by skew of their labels.",
    "fpr_high_skew": "FPR of the third of the benign clients whose labels are least like those of all clients.",
    "aoi": "FedREDefense's average of outer iterations: what reconstructing a client's update took.",
    "detector_seconds": "Seconds that the detectors took in one run.",
    "state_bytes": "Size of the guard's state at the end of a run.",
}
