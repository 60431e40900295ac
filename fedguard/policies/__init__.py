"""Policies, one per file."""

CATALOGUE = {
    "observe": "fedguard.policies.observe:Observe",
    "exclude": "fedguard.policies.exclude:Exclude",
    "reweight": "fedguard.policies.reweight:Reweight",
    "ban": "fedguard.policies.ban:Ban",
    "evidence": "fedguard.policies.evidence:Evidence",
    "gate": "fedguard.policies.gate:Gate",
}
