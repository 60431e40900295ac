"""What an attack may know (each one's contract: tests/testing/test_checks.py)."""

import inspect

import pytest
import torch

from fedguard.contracts.attack import KNOWLEDGE, Attack
from fedguard.contracts.card import Card
from fedguard.contracts.registry import attacks
from fedguard.core.errors import KnowledgeError
from fedguard.testing.attacks import Case

GRADED = [
    name
    for name in attacks.names()
    if "knowledge" in inspect.signature(attacks.get(name)).parameters
    and attacks.get(name).knowledge == {"benign_updates"}
]


@pytest.mark.parametrize("name", GRADED)
def test_partial_knowledge_needs_no_benign_update(name):
    cls = attacks.get(name)
    partial, full = (Case(cls, {"knowledge": k}) for k in ("partial", "full"))
    assert partial.make().knowledge == frozenset()
    assert full.make().knowledge == frozenset({"benign_updates"})
    blind = partial.view(partial.make())
    assert torch.isfinite(partial.make().craft(blind)).all()
    assert blind.reached == set()
    spoiled = full.view(full.make(), benign_scale=float("nan"))
    assert not torch.equal(full.make().craft(spoiled), full.make().craft(full.view(full.make())))


@pytest.mark.parametrize("wanted", sorted(set(KNOWLEDGE) - {"data"}))  # data are seen before training
def test_undeclared_knowledge_is_refused_by_name(wanted):
    class Greedy(Attack):
        card = Card("greedy", "reaches for what it did not declare", "a test")
        kind = "model"

        def craft(self, view):
            return getattr(view, wanted)

    case = Case(Greedy, {})
    with pytest.raises(KnowledgeError, match=f"greedy reaches for {wanted}"):
        case.make().craft(case.view(case.make()))
