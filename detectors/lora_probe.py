"""LoRA-Probe: a linear probe, trained beforehand, on what low-rank adapters change."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.history import History
from fedguard.core.restored import count, numbers, pairs
from fedguard.core.state import State
from fedguard.training.places import UP, Place, places
from fedguard.training.probe import (
    HOW,
    SAME_START,
    features,
    likeness,
    load_probe,
    matrices,
    probe_of,
)

#: The steepness of the factor.
K = 10.0


def trust_factor(harmful: float, threshold: float = 0.8) -> float:
    """1 − t: t = σ(10 (s/τ − ½)) / 2 up to the threshold τ, ½ + σ(10 ((s − τ)/(1 − τ) − ½)) / 2 above it.

    Example:
        >>> [round(trust_factor(s), 4) for s in (0.0, 0.4, 0.8, 0.9, 1.0)]
        [0.9967, 0.75, 0.5033, 0.25, 0.0033]
    """
    if harmful <= threshold:
        return 1 - 0.5 / (1 + math.exp(-K * (harmful / threshold - 0.5)))
    return 0.5 - 0.5 / (1 + math.exp(-K * ((harmful - threshold) / (1 - threshold) - 0.5)))


class LoraProbe(Detector):
    """s_i = σ(⟨w, x_i⟩ + b), the probability that client i is harmful; x_i = ΔB_i / ‖ΔB_i‖.

    ΔB_i are the changes of the matrices B of the adapters of the model's first layer, flattened, in the order
    of their names. The probe (w, b) is trained beforehand on labeled updates, by ``fedguard probe``. From
    s_i ≥ 0.8 on a client is a suspect. Its weight is the mean of :func:`trust_factor` over its rounds so far,
    for the policy ``reweight``; after 20 rounds weights stay, and clients that come later have 1. If the mean
    weight of a round is below 0.2, all are 0: the global model stays.

    A probe belongs to one model and one start: the gradient of B is the one of B A x times (A x)ᵀ, so with
    another A (or a new layer for the classes) the same attack looks different. Another layout is refused
    always, another start of A in the first round that is scored. ``seed`` of the language models fixes it.

    This is the client level of Safe-FedLLM. **Not built**: its step level (trust from the number of harmful
    local steps) and its shadow level (a second training from the first adapters), which need B after every
    local step, and another training: FedGuard's clients send neither. For the same reason the probe is
    trained on the last step of each client and round, not on every step.

    Args:
        probe: a probe's file, or the probe itself: ``weight`` by parameter, ``bias``, perhaps ``start``.
        threshold: τ in (0, 1).
        rounds: rounds in which weights are updated.
        skip: the least mean weight of a round, in [0, 1].
        same_start: refuse a federation whose matrices A are not those that the probe's training started from
            (cosine below 0.5).

    Raises:
        ParameterError: a parameter out of range, a file that is no probe, or a probe of another model.
        NeedError: there is no probe.

    Source: Tao et al., Safe-FedLLM, ACL 2026 (arXiv 2601.07177). Read: the authors' code.

    Example:
        >>> from fedguard import make_detector
        >>> make_detector("lora_probe", probe={"weight": {"0.lora_B.weight": [[2.0], [-1.0]]}, "bias": 0.5})
        LoraProbe(probe={'weight': {'0.lora_B.weight': [[2.0], [-1.0]]}, 'bias': 0.5})
    """

    card = Card(
        "lora_probe",
        "a trained linear probe on the adapters of the first layer",
        "Tao et al., Safe-FedLLM, ACL 2026",
    )
    needs = frozenset({"model", "global_params"})
    gives_weights = True
    #: The checks' model has no adapters: a probe on one of its biases stands for them.
    check_with = MappingProxyType(
        {"probe": {"weight": {"3.bias": [1.0, -1.0, 2.0, 0.5, -2.0, 1.5, 0.0, -0.5, 1.0, -1.0]}, "bias": 0.3}}
    )
    exempt = MappingProxyType({"planted attack on top": "it finds what its probe was trained to find"})

    def __init__(
        self,
        probe: str | dict[str, Any] | None = None,
        threshold: float = 0.8,
        rounds: int = 20,
        skip: float = 0.2,
        same_start: bool = True,
    ) -> None:
        if not 0 < threshold < 1:
            raise ParameterError(f"lora_probe: threshold is {threshold}; use a probability in (0, 1)")
        if rounds < 0:
            raise ParameterError(f"lora_probe: rounds is {rounds}; use a number from 0")
        if not 0 <= skip <= 1:
            raise ParameterError(f"lora_probe: skip is {skip}; use a weight in [0, 1]")
        self._source = probe if isinstance(probe, str) else "probe"
        self.probe = (
            None if probe is None else load_probe(probe) if isinstance(probe, str) else probe_of(probe)
        )
        self.threshold = threshold
        self.rounds = rounds
        self.skip = skip
        self.same_start = same_start
        self._done = 0
        self._factors: History[list[float]] = History()  # the sum of a client's factors, and their number

    def check(self, n: int, available: frozenset[str]) -> None:
        """As every detector, and refuse to run without a probe."""
        super().check(n, available)
        if self.probe is None:
            raise NeedError(f"lora_probe needs a trained probe: set `probe` to its file; {HOW}")

    def score(self, round: Round) -> Scores:
        """Ask the probe, then average each client's factors."""
        if self.probe is None or round.server is None or round.server.model is None:
            raise NeedError("lora_probe needs a probe and a model")
        where = places(round.server.model, round.updates.d)
        self._refuse_other_models(where)
        info = self._refuse_other_starts(round, where)
        found = self.probe(features(round.updates, where, sorted(self.probe.weight))).cpu().numpy()
        memory = self._averaged(round, found) if self._done < self.rounds else None
        known = self._factors if memory is None else memory
        totals = [known.get(client, [1.0, 1.0]) for client in round.client_ids]
        weights = np.array([total / number for total, number in totals])
        mean = math.fsum(weights) / round.n
        return Scores(
            found,
            found >= self.threshold,
            f"the probe takes its adapters for harmful (probability from {self.threshold:g})",
            weights=weights * (mean >= self.skip),
            info={"mean_weight": mean, **info},
            memory=memory,
        )

    def _averaged(self, round: Round, found: NDArray[np.float64]) -> History[list[float]]:
        """Sum and number of the factors of this round's clients, this round included."""
        sums = []
        for client, harmful in zip(round.client_ids, found, strict=True):
            total, number = self._factors.get(client, [0.0, 0.0])
            sums.append((client, [total + trust_factor(float(harmful), self.threshold), number + 1]))
        return History(sums)

    def _refuse_other_models(self, where: dict[str, Place]) -> None:
        if self.probe is None:
            return
        for name, part in (*self.probe.weight.items(), *self.probe.start.items()):
            shape = tuple(where[name].shape) if name in where else None
            if shape == tuple(part.shape):
                continue
            what = f"of shape {shape}" if shape else "missing"
            note = "" if shape or any(UP in other for other in where) else ", which has no adapters at all"
            raise ParameterError(
                f"lora_probe: {self._source} was trained on another model: {name} of shape "
                f"{tuple(part.shape)} is {what} in this one{note}; train a probe on recordings of this model"
            )

    def _refuse_other_starts(self, round: Round, where: dict[str, Place]) -> dict[str, float]:
        """The cosine of the matrices A and the probe's; compared at first only, since A is trained."""
        if self.probe is None or not self.probe.start or round.global_params is None:
            return {}
        alike = likeness(self.probe.start, matrices(self.probe.start, round.global_params, where))
        if self.same_start and self._done == 0 and alike < SAME_START:
            raise ParameterError(
                f"lora_probe: {self._source} was trained from other adapters: the cosine of the "
                f"matrices A is {alike:.2f}; give the model the same `seed`, or set same_start to false"
            )
        return {"same_start": alike}

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the sums of this round's clients, until weights stay."""
        self._factors.remember(scores.memory or {}, seen=round.client_ids)
        if self._done < max(self.rounds, 1):
            self._done += 1

    def state_dict(self) -> State:
        """The rounds so far, and the sum and number of each client's factors."""
        return {
            "done": self._done,
            "factors": [[client, list(kept)] for client, kept in self._factors.items()],
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        kept = [(client, numbers(value, 2)) for client, value in pairs(state["factors"])]
        if not all(0 <= total <= number < math.inf and number >= 1 for _, (total, number) in kept):
            raise ParameterError("a state holds another value where a mean factor belongs")
        self._done, self._factors = count(state["done"]), History(kept)
