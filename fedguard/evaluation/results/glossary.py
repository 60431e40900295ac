"""What the metrics mean, in a sentence each; ``fedguard list metrics`` and docs/glossary.md show the same."""

from __future__ import annotations

#: Name of a column → its meaning. TP, FP, TN, FN count clients; "positive" is "labeled malicious".
GLOSSARY = {
    "dacc": "Detection accuracy: the share of clients that are labeled rightly, (TP + TN) / n.",
    "fpr": "False positive rate: the share of benign clients that are labeled malicious, FP / (FP + TN).",
    "fnr": "False negative rate: the share of malicious clients that are labeled benign, FN / (FN + TP).",
    "aar": "Rounds in which a malicious client was aggregated, whether it attacked or not; mean over them.",
    "tacc": "Test accuracy of the final model; of several labels per sample, or answer tokens per text, the "
    "share that is right.",
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
    "dacc_active": "DACC over active attackers: whoever sends its honest update in a round is left out.",
    "fnr_active": "FNR over active attackers.",
    "auroc_active": "AUROC over active attackers.",
    "aar_active": "AAR of the rounds in which the client attacked; mean over the clients that ever did.",
    "harm": "What the attack does without a defense: min(1, max(accuracy lost / 10 points, attack success)).",
    "fnr_harm": "FNR weighted by harm over runs, Σ w·FNR / Σ w.",
    "tacc_best": "The highest test accuracy of any round.",
    "ap": "Average precision of the scores, averaged over rounds.",
    "tpr_at_1": "The share of malicious clients above a threshold that flags at most 1 % of the benign ones.",
    "rounds_to_detection": "Rounds of attack until a malicious client is suspected; mean over those caught.",
    "caught": "The share of malicious clients that were suspected at least once while they attacked.",
    "benign_excluded": "Benign clients that took part in a round and were left out, mean over rounds.",
    "fpr_low_skew": "FPR of the third of the benign clients with the most usual labels.",
    "fpr_mid_skew": "FPR of the middle third of the benign clients by skew of their labels.",
    "fpr_high_skew": "FPR of the third of the benign clients with the least usual labels.",
    "aoi": "FedREDefense's average of outer iterations: mean over clients and rounds.",
    "detector_seconds": "Seconds that the detectors took in one run.",
    "peak_memory": "The most resident memory of a run's process while it ran, all that the process held "
    "included; runs that watch one federation have one peak. Undefined elsewhere than on Linux.",
    "state_bytes": "Size of the guard's state at the end of a run.",
    "sent_bytes": "Size of what a client sends in a round: the update of what is trained, and statistics.",
    "loss": "Test loss of the final model: cross-entropy (of causal texts, of the answer tokens), binary "
    "cross-entropy or squared error.",
    "leak_psnr": "Peak signal-to-noise ratio in dB of the images that a passive attack reconstructs, against "
    "the samples that the client's update was computed from: mean over victims and attacked rounds.",
    "leak_ssim": "Structural similarity of the same images, 1 for equal ones.",
    "leak_labels": "The share of the labels of those samples that a passive attack finds.",
    "noise_psnr": "What `leak_psnr` would be of pixels drawn at random.",
    "noise_ssim": "What `leak_ssim` would be of pixels drawn at random.",
    "frechet": "Fréchet distance between the samples of a generative model and the test set, in the 64 "
    "features of a perceptron trained on all clients' data; of the final model, smaller is better.",
    "diverged": "The first round after which the global model, its test loss, or every honest update "
    "was not finite; of several seeds the earliest.",
}
