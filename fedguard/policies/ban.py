"""Ban: suspects are excluded, and after enough strikes they stay out."""

from __future__ import annotations

from typing import Any

from ..card import Card
from ..errors import ParameterError
from ..ledger import Ledger
from ..policy import Case, Decision, Policy, Sentence
from ..round import ClientId


class Ban(Policy):
    """Exclude suspects; a client suspected ``strikes`` times is banned for ``duration`` rounds.

    A ban takes effect in the round that earns it. Strikes are counted since the last ban.

    Args:
        strikes: how many suspicions it takes; 1 bans at once, as FedREDefense does.
        duration: rounds until the client may come back; None bans for good.
        rule: how scores become suspects, see :mod:`fedguard.rules`.

    Source: Xie et al., FedREDefense, ICML 2024, §3 ("permanently expelled").
    """

    card = Card(
        "ban",
        "leave suspects out, and keep them out after enough strikes",
        "Xie et al., FedREDefense, ICML 2024",
    )

    bans = True

    def __init__(
        self, strikes: int = 1, duration: int | None = None, rule: str | dict[str, Any] = "native"
    ) -> None:
        super().__init__(rule)
        if strikes < 1:
            raise ParameterError(f"strikes is {strikes}; at least one suspicion is needed for a ban")
        if duration is not None and duration < 1:
            raise ParameterError(f"duration is {duration} rounds; use at least 1, or null for good")
        self.strikes = strikes
        self.duration = duration

    def decide(self, case: Case) -> Decision:
        """Exclude the suspects and ban those with enough strikes."""
        suspects, phrases = self.suspects(case)
        bans: dict[int, int | None] = {}
        reasons = []
        for i, (client, suspect, phrase) in enumerate(zip(case.client_ids, suspects, phrases, strict=True)):
            sentence = (
                self.sentence(client, case.index, case.ledger) if suspect else Sentence(text="accepted")
            )
            if sentence.ban:
                bans[i] = sentence.until
            reasons.append(f"{sentence.text}: {phrase}")
        return Decision((~suspects).astype(float), suspects, tuple(reasons), bans)

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sentence:
        """One more strike, counted since the last ban."""
        record = ledger[client]
        since = record.banned_since if record.banned_since is not None else -1
        count = 1 + sum(strike > since for strike in record.strikes)
        if count < self.strikes:
            return Sentence(text=f"excluded, strike {count} of {self.strikes}")
        until = None if self.duration is None else index + self.duration
        return Sentence(True, until, "banned for good" if until is None else f"banned until round {until}")
