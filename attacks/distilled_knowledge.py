"""Distilled knowledge: what FedREDefense itself reveals about the clients."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fedguard.contracts.card import Card
from fedguard.contracts.registry import make_detector
from fedguard.contracts.round import Round
from fedguard.contracts.server import Server
from fedguard.passive import Leak, PassiveAttack, Reconstruction


class DistilledKnowledge(PassiveAttack):
    """The synthetic images and labels that FedREDefense distills from the client's update.

    A server that runs FedREDefense has them for every client. This attack takes the detector's knowledge
    after one round; the labels are those with the largest logits.

    Args:
        defense: parameters of the detector ``fedredefense``; its defaults if absent. The number of images
            is the number of samples to reconstruct.

    Source: Xie et al., FedREDefense, ICML 2024, Algorithm 2; measured as an attack by FedGuard.
    """

    card = Card(
        "distilled_knowledge",
        "the images that FedREDefense distills from an update",
        "Xie et al., FedREDefense, ICML 2024",
    )
    check_with = MappingProxyType({"defense": {"first_iterations": 2, "inner_steps": 2}})

    def __init__(self, defense: dict[str, Any] | None = None) -> None:
        self.defense = dict(defense or {})
        make_detector("fedredefense", **self.defense)  # refuse bad parameters now

    def reconstruct(self, leak: Leak) -> Reconstruction:
        """Score the update by the detector and take its knowledge."""
        detector = make_detector("fedredefense", **{**self.defense, "num_images": leak.count})
        server = Server(model=leak.model, input_shape=leak.input_shape, num_classes=leak.num_classes)
        seen = Round(leak.update[None], global_params=leak.global_params, server=server)
        detector.commit(seen, detector(seen))
        ((_, knowledge),) = detector.state_dict()["knowledge"]
        return Reconstruction(knowledge["images"], knowledge["labels"].argmax(1))
