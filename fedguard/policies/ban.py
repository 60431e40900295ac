"""Ban: suspects are excluded, and after enough strikes they stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput, Sanction
from ..contracts.policy import Policy, Vote, against_most, check_share
from ..core.errors import ParameterError
from ..core.ids import ClientId
from ..core.ranks import last_rank
from ..core.ties import levels, tolerance
from ..ledger.memory import Ledger, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ban(Policy):
    """Exclude suspects; a client suspected ``strikes`` times within ``window`` rounds is banned.

    A ban takes effect in the round of the last strike, and earlier strikes no longer count. When it ends,
    the client is on parole: in the next ``parole`` rounds that it takes part in, it is judged but contributes
    nothing, and one more suspicion bans it again at once.

    Some suspects are excluded without a strike: all of them if they exceed ``max_share`` of the judged
    clients (such a verdict says more about the detector than about the clients), those that sent only zeros,
    as idle clients do, and those that another client can have framed (``Scores.framed``).

    Args:
        strikes: number of suspicions for a ban; 1 bans at once, as FedREDefense does.
        window: count only strikes of the last ``window`` rounds, this one included; None counts all.
        duration: rounds until the client may come back; None bans for good.
        parole: rounds of re-test after a ban ends; 0 readmits at once.
        max_bans: most bans in one round; those ranked highest by any detector are banned. The others are
            excluded and keep their strikes. Bounds the damage if honest clients are framed or a detector
            errs. Bans for unusable updates do not count. None sets no limit.
        max_share: the largest share of suspects in a round that still earns strikes, in (0, 1].
        rule: how scores become suspects, see :mod:`fedguard.contracts.rules`.
        vote: how several detectors agree on a suspect, see :class:`fedguard.contracts.policy.Policy`.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xie et al., FedREDefense, ICML 2024, §3 ("permanently expelled").
    """

    card = Card(
        "ban",
        "leave suspects out, and keep them out after enough strikes",
        "Xie et al., FedREDefense, ICML 2024",
    )

    bans = True

    def __init__(
        self,
        strikes: int = 1,
        window: int | None = None,
        duration: int | None = None,
        parole: int = 0,
        max_bans: int | None = None,
        max_share: float = 0.5,
        rule: str | dict[str, Any] = "native",
        vote: Vote = "any",
    ) -> None:
        super().__init__(rule, vote)
        if strikes < 1:
            raise ParameterError(f"strikes is {strikes}; at least one suspicion is needed for a ban")
        if window is not None and window < strikes:
            raise ParameterError(
                f"window is {window} rounds; {strikes} strikes do not fit, use {strikes} or more"
            )
        if duration is not None and duration < 1:
            raise ParameterError(f"duration is {duration} rounds; use at least 1, or null for good")
        if parole < 0 or (parole > 0 and duration is None):
            raise ParameterError(
                f"parole is {parole} rounds; use 0 or more, and give bans a duration (or use 0)"
            )
        if max_bans is not None and max_bans < 1:
            raise ParameterError(f"max_bans is {max_bans} per round; use at least 1, or null for no limit")
        check_share("ban", max_share)
        self.max_share = max_share
        self.max_bans = max_bans
        self.strikes = strikes
        self.lookback = strikes - 1
        self.window = window
        self.duration = duration
        self.parole = parole

    def decide(self, case: PolicyInput) -> Decision:
        """Exclude the suspects and those on parole, and ban those with enough strikes."""
        suspects, phrases = self.suspects(case)
        most = against_most(suspects, self.max_share)
        strikes = np.array(
            [s and not most and not case.excuse(i) for i, s in enumerate(suspects)], dtype=bool
        )
        weights = (~suspects).astype(float)
        bans: dict[int, int | None] = {}
        reasons = []
        spared = self._spared(case, strikes)
        for i, (client, phrase) in enumerate(zip(case.client_ids, phrases, strict=True)):
            sentence = Sanction(text="accepted")
            served = self._on_parole(case.ledger[client])
            if strikes[i]:
                sentence = self.sentence(client, case.index, case.ledger)
            elif suspects[i]:
                sentence = Sanction(text=f"excluded, no strike: {most or case.excuse(i)}")
            elif served is not None:
                weights[i] = 0.0
                sentence = Sanction(text=f"excluded, on parole: round {served + 1} of {self.parole}")
            if sentence.ban and i in spared:
                sentence = Sanction(text=f"excluded, spared a ban: {self.max_bans} in this round already")
            if sentence.ban:
                bans[i] = sentence.until
            reasons.append(f"{sentence.text}: {phrase}")
        note = most and f"{most}: they are excluded, nobody gets a strike"
        return Decision(weights, suspects, tuple(reasons), bans, strikes=strikes, note=note)

    def _spared(self, case: PolicyInput, strikes: NDArray[np.bool_]) -> set[int]:
        """Return the positions of clients due for a ban but beyond ``max_bans``."""
        if self.max_bans is None:
            return set()
        earned = [
            int(i)
            for i in np.flatnonzero(strikes)
            if self.sentence(case.client_ids[i], case.index, case.ledger).ban
        ]
        slack = tolerance(len(case.client_ids))
        ranks = [last_rank(levels(scores.values, slack)) for scores in case.scores.values()]
        worst = np.max(ranks, axis=0)
        earned.sort(key=lambda i: (-worst[i], str(case.client_ids[i])))
        return set(earned[self.max_bans :])

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sanction:
        """Count one more strike since the last ban and within the window; on parole, one is enough for a ban.

        A repeated round counts once.
        """
        record = ledger[client]
        since = record.banned_since if record.banned_since is not None else -1
        if self.window is not None:
            since = max(since, index - self.window)
        count = 1 + sum(strike > since and strike != index for strike in record.strikes)
        if count < self.strikes and self._on_parole(record) is None:
            return Sanction(text=f"excluded, strike {count} of {self.strikes}")
        until = None if self.duration is None else index + self.duration
        return Sanction(True, until, "banned for good" if until is None else f"banned until round {until}")

    def _on_parole(self, record: Record) -> int | None:
        """Return how many rounds of its parole a client has served; None if it is not on parole."""
        served = record.judged_since_ban
        return served if record.banned_since is not None and served < self.parole else None
