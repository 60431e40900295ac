"""Recommended detectors whose server has validation data unlike the clients': see ``validation_shift.yaml``.

cd benchmarks && fedguard evaluate validation_shift.yaml -o FOLDER
fedguard export FOLDER -f markdown --pivot attack,defense --columns dacc,fpr,fnr
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.detectors.recommended import Recommended

#: Noise of this many standard deviations of the inputs, and the factor on their contrast.
NOISE, CONTRAST = 0.5, 0.5
#: The share of labels that are replaced by other ones.
WRONG = 0.05


class Unlike(Recommended):
    """The recommended detector on changed validation and root data.

    Args:
        change: "shifted" halves the contrast and adds noise, "class missing" has no sample of class 0, "wrong
            labels" replaces 5 % of the labels, "none" changes nothing.
        pseudo_clients: as in the recommended detector.
    """

    card = Card("unlike", "the recommended detector on changed validation data", "FedGuard")

    def __init__(
        self,
        change: Literal["none", "shifted", "class missing", "wrong labels"] = "none",
        pseudo_clients: bool = False,
    ) -> None:
        super().__init__(validation=80, pseudo_clients=pseudo_clients)
        self.change = change

    def score(self, round: Round) -> Scores:
        """Score with the changed data."""
        server = round.server
        if server is None or server.validation is None:
            return super().score(round)
        changed = dataclasses.replace(
            server,
            validation=self._changed(server.validation),
            root=None if server.root is None else self._changed(server.root),
        )
        other = Round(
            round.updates,
            round.client_ids,
            round.num_examples,
            round.index,
            global_params=round.global_params,
            server=changed,
        )
        return super().score(other)

    def _changed(self, data: LabeledData) -> LabeledData:
        inputs, labels = data
        draw = torch.Generator().manual_seed(0)
        if self.change == "shifted":
            noise = torch.randn(inputs.shape, generator=draw) * inputs.std() * NOISE
            return LabeledData(CONTRAST * inputs + noise, labels)
        if self.change == "class missing":
            kept = labels != 0
            return LabeledData(inputs[kept], labels[kept])
        if self.change == "wrong labels":
            moved = torch.rand(labels.shape, generator=draw) < WRONG
            other = (labels + torch.randint(1, 10, labels.shape, generator=draw)) % 10
            return LabeledData(inputs, torch.where(moved, other, labels))
        return data
