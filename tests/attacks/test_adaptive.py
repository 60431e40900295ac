"""Adaptive scaling against Algorithm 3 of FedREDefense, written out client by client."""

import numpy as np
import pytest
import torch

from fedguard import Card, Detector, Guard, Round, Scores, make_policy
from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import KnowledgeError, ParameterError

BENIGN = torch.tensor([[0.1, 0.0], [0.0, 0.1], [0.1, 0.1]])
OWN = torch.tensor([[0.3, 0.45], [3.0, 4.0], [0.06, 0.081]])  # none of them a neat fraction of GAMMA
GAMMA = 1.0


class Long(Detector):
    """s_i = ‖u_i‖; above GAMMA is a suspect. Notes the rounds it is asked about."""

    card = Card("long", "for tests", "FedGuard")
    asked: list = []  # noqa: RUF012

    def score(self, round):
        self.asked.append(round.n)
        values = round.updates.norms.numpy()
        return Scores(values, values > GAMMA, "long")


def algorithm_3(norm, start=1.0, delta=2.0, precision=0.125):
    """Literally, with the reconstruction error replaced by the norm."""
    factor = start
    while delta >= precision:
        factor = factor + delta
        error = factor * norm
        if error > GAMMA:
            factor = factor - delta
        delta = delta / 2
    return factor


def view(attack, guard=None, known=True):
    know = attack.knowledge

    def received(crafted):
        everybody = torch.cat([crafted, BENIGN]) if "benign_updates" in know else crafted
        return Round(everybody), np.arange(len(crafted))

    return UpdateView(
        index=0,
        num_clients=6,
        global_params=torch.zeros(2),
        initial_params=torch.zeros(2),
        own_updates=OWN,
        generator=torch.Generator(),
        attack=attack.name,
        benign_updates=BENIGN if "benign_updates" in know else None,
        defense=(guard or Guard(Long(), make_policy("ban"))) if known else None,
        received=received,
    )


@pytest.mark.parametrize(
    "params", [{}, {"start": 0.0}, {"step": 4.0, "precision": 0.01}, {"step": 0.5, "precision": 0.5}]
)
def test_every_client_gets_the_factor_of_algorithm_3(params):
    attack = make_attack("adaptive", attack="label_flip", **params)
    sent = attack.craft(view(attack))
    names = {"start": "start", "step": "delta", "precision": "precision"}
    for row, own in zip(sent, OWN, strict=True):
        factor = algorithm_3(float(own.norm()), **{names[k]: v for k, v in params.items()})
        np.testing.assert_allclose(row, factor * own, rtol=1e-6)


def test_what_is_not_caught_at_first_is_never_caught_and_close_to_the_threshold():
    attack = make_attack("adaptive", precision=1e-4, start=0.0, step=16.0)
    norms = attack.craft(view(attack)).norm(dim=1)
    assert (norms <= GAMMA).all()
    assert (norms > GAMMA - 2e-4 * OWN.norm(dim=1)).all()


def test_full_knowledge_asks_about_everybody_and_partial_about_its_own():
    for knowledge, n in (("full", 6), ("partial", 3)):
        Long.asked.clear()
        attack = make_attack("adaptive", knowledge=knowledge)
        attack.craft(view(attack))
        assert Long.asked == [n] * 5  # steps 2, 1, 1/2, 1/4, 1/8


def test_a_guard_that_cannot_judge_so_few_clients_cannot_be_asked():
    class Choosy(Long):
        card = Card("choosy", "for tests", "FedGuard")

        def min_clients(self):
            return 4

    for knowledge, scaled in (("full", True), ("partial", False)):
        attack = make_attack("adaptive", knowledge=knowledge)
        sent = attack.craft(view(attack, Guard(Choosy(), make_policy("ban"))))
        assert torch.equal(sent, OWN) == (not scaled)


def test_the_copy_of_the_guard_is_asked_without_a_trace():
    guard = Guard(Long(), make_policy("ban"))
    attack = make_attack("adaptive")
    attack.craft(view(attack, guard))
    assert guard.ledger.clients() == []


def test_without_knowledge_of_the_defense_it_cannot_work():
    attack = make_attack("adaptive")
    with pytest.raises(KnowledgeError, match=r"adaptive reaches for defense"):
        attack.craft(view(attack, known=False))


def test_the_wrapped_attack_does_the_rest():
    attack = make_attack("adaptive", attack={"name": "dba", "size": 3, "target": 1})
    inner = make_attack("dba", size=3, target=1)
    assert attack.goal == "targeted"
    assert attack.attack.extent() == inner.extent()
    assert make_attack("adaptive_label_flip", mode="pairs", pairs={0: 2}).attack.pairs == {0: 2}
    assert make_attack("adaptive", attack={"name": "lie", "knowledge": "partial"}).knowledge == {
        "benign_updates",
        "defense",
    }
    assert make_attack("adaptive_label_flip").knowledge == {"defense"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"start": -1.0}, "start is -1"),
        ({"step": 0.0}, "step is 0"),
        ({"precision": 3.0}, "precision is 3"),
        ({"attack": "none"}, "sends no updates"),
        ({"attack": "lief"}, "did you mean 'lie'"),
        ({"attack": {"name": "lie", "zz": 1}}, "unknown parameter 'zz'"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params, message):
    with pytest.raises((ParameterError, ValueError), match=message):
        make_attack("adaptive", **params)
