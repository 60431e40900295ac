"""3DFed in a federation: the backdoor opens, and the attack answers a defense."""

from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.training.parameters import predict


def federation(attack, defense, rounds=6):
    suite, _ = load_suite("quickstart", [f"rounds={rounds}"])
    cell = next(c for c in suite.cells() if c.attack_label == "none" and c.defense_label == defense)
    return Federation(cell.model_copy(update={"attack": type(cell.attack)(**attack)}))


def test_the_backdoor_opens_under_fedavg():
    attacked, clean = (
        federation({"name": "three_dfed"}, "no_defense"),
        federation({"name": "none"}, "no_defense"),
    )
    last, honest = attacked.run()[-1], clean.run()[-1]
    trial = attacked.attack.trial(clean.setup.dataset.test, 10)
    inputs = clean.setup.dataset.normalize(trial.samples.pixels)
    without = float(
        (predict(clean.setup.model, clean.params, inputs).argmax(1) == trial.target).float().mean()
    )
    assert without < 0.2
    assert last.asr > 0.9
    assert last.tacc > honest.tacc - 0.25
    assert (attacked.attack.noisy, attacked.attack.decoys) == (False, 0)


def test_the_attack_answers_a_defense_that_rejects_it():
    """DnC drops all colluders in round 0, which costs one decoy and fresh α."""
    guarded = federation({"name": "three_dfed"}, "dnc", 2)
    first = guarded.advance(0)
    colluders = [first.asked.index(client) for client in guarded.malicious]
    assert not first.outcome.weights[colluders].any()
    before = guarded.attack.alphas
    assert guarded.attack.decoys == 0
    guarded.advance(1)
    assert guarded.attack.decoys == 1
    assert len(guarded.attack.sent.groups) == len(colluders) - 1
    assert not set(before) & set(guarded.attack.alphas)
