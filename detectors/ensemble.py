"""Ensemble: several detectors as one."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.nested import DetectorSpec, make, within
from fedguard.contracts.policy import Vote
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores, mean_ranks
from fedguard.core.errors import ParameterError
from fedguard.core.restored import vector
from fedguard.core.seeds import derive
from fedguard.core.state import State
from fedguard.core.ties import tolerance

from ._combine import fisher, p_values, robust_z

#: Distances, and the direction of largest spread: two complementary views of the updates.
MEMBERS: list[DetectorSpec] = [{"name": "krum", "select": "m_krum"}, "dnc"]
HOW_MANY = {"any": "one", "majority": "most", "all": "all"}


class Ensemble(Detector):
    """Combines the scores of several detectors into one, and their decisions by a vote.

    Scores, over the members j, with n the number of clients in the round:

    - "rank_mean": mean_j (rank_j − 1)/(n − 1); equal scores share their mean rank.
    - "max": max_j of robust z-scores within the round, (s − median)/(1.4826 · MAD). If MAD = 0, the mean
      absolute deviation replaces it. Infinite scores stay infinite.
    - "calibrated": −2 Σ_j ln p_j (Fisher), p_j = (1 + number of k past scores of the member that are at least
      s)/(1 + k). Past scores are those of clients that were not suspected in the last ``window`` rounds. In
      the first round, the other clients' scores replace them.

    Suspects are decided by a vote. Members without a decision rule of their own have no vote; if no member
    has one, the policy needs a ``rule``. The reason of a suspect names the members that suspect it, and why.

    Members of the same name are numbered ("dnc", "dnc_2") and draw different random numbers.

    Args:
        members: the detectors: names, or mappings with name and parameters.
        combine: how scores become one: "rank_mean", "max" or "calibrated", see above.
        vote: a client is a suspect if "any" voting member suspects it, more than half of them
            ("majority"), or "all".
        window: the number of past rounds that "calibrated" uses.

    Raises:
        ParameterError: no members, a member that cannot be built, or a parameter out of range.

    Source: FedGuard; combined p-values: Fisher, Statistical Methods for Research Workers, 1932, §21.1; robust
    z-scores: Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993.

    Example:
        >>> from fedguard import make_detector
        >>> both = make_detector("ensemble", members=["norm_bound", "flame"], vote="all")
        >>> both
        Ensemble(members=['norm_bound', 'flame'], vote='all')
    """

    card = Card("ensemble", "several detectors: combined scores, and a vote on suspects", "FedGuard")

    def __init__(
        self,
        members: list[DetectorSpec] = MEMBERS,
        combine: Literal["rank_mean", "max", "calibrated"] = "rank_mean",
        vote: Vote = "majority",
        window: int = 10,
    ) -> None:
        if not members:
            raise ParameterError("ensemble: members is empty; name at least one detector")
        if combine not in ("rank_mean", "max", "calibrated"):
            raise ParameterError(f"ensemble: combine is {combine!r}; use 'rank_mean', 'max' or 'calibrated'")
        if vote not in HOW_MANY:
            raise ParameterError(f"ensemble: vote is {vote!r}; use 'any', 'majority' or 'all'")
        if window < 1:
            raise ParameterError(f"ensemble: window is {window} rounds; use at least 1")
        self.members = _labeled(make(spec, "detectors", "ensemble: member") for spec in members)
        self.combine = combine
        self.vote = vote
        self.window = window
        self.needs = frozenset().union(*(member.needs for member in self.members.values()))
        #: The largest num_malicious of any member, for checks of an honest majority.
        self.num_malicious = max(getattr(m, "num_malicious", None) or 0 for m in self.members.values())
        self._past: dict[str, list[NDArray[np.float64]]] = {}

    def min_clients(self) -> int:
        """The largest minimum of any member."""
        return max(member.min_clients() for member in self.members.values())

    def check(self, n: int, available: frozenset[str]) -> None:
        """Run the members' checks, that of the member that needs most clients first."""
        for label, member in sorted(self.members.items(), key=lambda item: -item[1].min_clients()):
            with within(f"ensemble: member {label!r}"):
                member.check(n, available)

    def score(self, round: Round) -> Scores:
        """Score by every member, combine the scores and count the votes."""
        said: dict[str, Scores] = {}
        for label, member in self.members.items():
            with within(f"ensemble: member {label!r}"):
                said[label] = member(self._seen_by(label, member, round))
        votes = [part.suspects for part in said.values() if part.suspects is not None]
        needed = {"any": 1, "majority": len(votes) // 2 + 1, "all": len(votes)}[self.vote]
        return Scores(
            values=self._combined({label: part.values for label, part in said.items()}),
            suspects=np.sum(votes, axis=0) >= needed if votes else None,
            reason=f"suspected by {HOW_MANY[self.vote]} of {', '.join(self.members)}",
            info=_info(said),
            memory=said,
            reasons=tuple(_reason(said, i) for i in range(round.n)),
        )

    exempt = MappingProxyType({"equal updates": "equal clients rank by id where the members do so"})

    def _seen_by(self, label: str, member: Detector, round: Round) -> Round:
        """The round; for a repeated member, with a different seed."""
        if label == member.name:
            return round
        return round.with_server(seed=derive(round.server.seed if round.server else 0, "ensemble", label))

    def _combined(self, values: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        if self.combine == "rank_mean":
            some = list(values.values())
            return mean_ranks(some, tolerance(len(some[0])))
        if self.combine == "max":
            highest: NDArray[np.float64] = np.max([robust_z(v) for v in values.values()], axis=0)
            return highest
        return fisher([p_values(v, np.concatenate([[], *self._past.get(j, [])])) for j, v in values.items()])

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Commit every member, and store the scores of clients that were not suspected."""
        for label, member in self.members.items():
            member.commit(self._seen_by(label, member, round), scores.memory[label], decision)
        if self.combine != "calibrated":
            return
        flagged = scores.suspects if decision is None else decision.suspects
        clear = np.ones(round.n, dtype=bool) if flagged is None else ~flagged
        if clear.any():
            for label in self.members:
                kept = [*self._past.get(label, []), scores.memory[label].values[clear]]
                self._past[label] = kept[-self.window :]

    def state_dict(self) -> State:
        """The members' states and past scores, by label."""
        return {
            "members": {label: member.state_dict() for label, member in self.members.items()},
            "past": {j: [torch.tensor(part) for part in kept] for j, kept in self._past.items()},
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``.

        Raises:
            ParameterError: the state is of an ensemble with other members.
        """
        if set(state["members"]) != set(self.members):
            raise ParameterError(
                f"ensemble: the state is of an ensemble of {', '.join(state['members'])}, "
                f"this one has {', '.join(self.members)}"
            )
        for label, member in self.members.items():
            member.load_state_dict(state["members"][label])
        self._past = {j: [vector(part).cpu().numpy() for part in kept] for j, kept in state["past"].items()}


def _labeled(members: Iterable[Detector]) -> dict[str, Detector]:
    """The members by name; repeated names get a number."""
    result: dict[str, Detector] = {}
    for member in members:
        label, number = member.name, 1
        while label in result:
            number += 1
            label = f"{member.name}_{number}"
        result[label] = member
    return result


def _reason(said: dict[str, Scores], i: int) -> str:
    """Which members suspect client i, and why."""
    return "; ".join(
        f"{label}: {(part.reasons and part.reasons[i]) or part.reason or 'by its own rule'}"
        for label, part in said.items()
        if part.suspects is not None and part.suspects[i]
    )


def _info(said: dict[str, Scores]) -> dict[str, float]:
    """The number of clients that each member suspects, and its own info."""
    info: dict[str, float] = {}
    for label, part in said.items():
        if part.suspects is not None:
            info[f"{label}.suspects"] = float(part.suspects.sum())
        info.update({f"{label}.{key}": value for key, value in part.info.items()})
    return info
