"""Gate: act only in rounds in which an attack is likely."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput, Sanction
from ..contracts.detector import Detector
from ..contracts.nested import PolicySpec, make
from ..contracts.policy import Policy
from ..contracts.rules import Rule
from ..core.errors import ParameterError
from ..core.ids import ClientId
from ..core.state import State
from ..ledger.memory import Ledger


class Gate(Policy):
    """Apply an inner policy only in rounds in which the gate's detector suspects a client.

    While the gate is closed, the round is bit-identical to FedAvg: all clients contribute, stages are
    skipped, and the mean replaces the aggregator. The inner policy uses the scores of all other detectors or,
    without others, of the gate's own.

    Args:
        detector: name of the guard's detector that opens the gate; the first one by default.
        policy: the inner policy: a name, or a mapping with name and parameters.
        rule: how the gate's own scores become suspects, see :mod:`fedguard.contracts.rules`.

    Raises:
        ParameterError: the inner policy cannot be built or is a gate itself.

    Source: Han et al., FedSecurity, KDD 2024, §1 and §5 (defend only when an attack is detected); Han et
    al., Kick Bad Guys Out!, 2023 (cross-round check).
    """

    card = Card(
        "gate",
        "another policy that acts only while an attack is likely",
        "Han et al., FedSecurity, KDD 2024",
    )

    def __init__(
        self,
        detector: str | None = None,
        policy: PolicySpec = "exclude",
        rule: str | dict[str, Any] = "native",
    ) -> None:
        self.detector = detector
        self.policy: Policy = make(policy, "policies", "gate: policy")
        if isinstance(self.policy, Gate):
            raise ParameterError("gate: policy is a gate itself; name the policy that acts when it is open")
        self.bans = self.policy.bans
        self.lookback = self.policy.lookback
        self.rule = Rule(rule)

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Refuse a gate without a detector, and detectors that the inner policy cannot work with."""
        if not detectors or (self.detector or next(iter(detectors))) not in detectors:
            raise ParameterError(
                f"policy gate needs the detector {self.detector or 'that opens it'}; "
                f"this guard has {', '.join(detectors) or 'none'}"
            )
        gate = self._gate(list(detectors))
        self.policy.check({n: d for n, d in detectors.items() if n != gate} or dict(detectors))

    def decide(self, case: PolicyInput) -> Decision:
        """Accept all clients unless the gate's detector suspects any."""
        if not case.scores:  # no client was scored, so the gate does not apply
            return self.policy.decide(case)
        name = self._gate(list(case.scores))
        flagged, _ = self.rule(case.scores[name], name)
        if not flagged.any():
            n = len(case.client_ids)
            reasons = (f"accepted: {name} sees no attack",) * n
            return Decision(np.ones(n), np.zeros(n, dtype=bool), reasons, plain=True)
        decision = self.policy.decide(self._inner(case, name))
        opened = f"{name} sees an attack by {int(flagged.sum())} clients"
        reasons = tuple(f"{reason}; {opened}" for reason in decision.reasons)
        return dataclasses.replace(decision, reasons=reasons)

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sanction:
        """Return the inner policy's sanction; the gate does not apply to unusable updates."""
        return self.policy.sentence(client, index, ledger)

    def commit_unusable(self, clients: Sequence[ClientId], index: int) -> None:
        """Delegate to the inner policy, as ``sentence`` does."""
        self.policy.commit_unusable(clients, index)

    def commit(self, case: PolicyInput, decision: Decision) -> None:
        """Commit the gate's rule and the inner policy."""
        name = self._gate(list(case.scores))
        self.rule.commit({name: case.scores[name]})
        self.policy.commit(self._inner(case, name), decision)

    def state_dict(self) -> State:
        """Return the state of the gate's rule and of the inner policy."""
        return {"rule": self.rule.state_dict(), "policy": self.policy.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self.rule.load_state_dict(state["rule"])
        self.policy.load_state_dict(state["policy"])

    def _gate(self, detectors: list[str]) -> str:
        return self.detector or detectors[0]

    def _inner(self, case: PolicyInput, gate: str) -> PolicyInput:
        others = {name: scores for name, scores in case.scores.items() if name != gate}
        return dataclasses.replace(case, scores=others or case.scores)
