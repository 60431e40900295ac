"""Evidence: exclude suspects, and ban clients once the evidence of all rounds is strong enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput, Sanction
from ..contracts.policy import Policy, Vote, against_most, check_share
from ..core.deprecation import renamed_keywords
from ..core.errors import ParameterError
from ..core.history import History
from ..core.ids import ClientId
from ..core.restored import numbers, pairs, whole_numbers
from ..core.state import State
from ..core.ties import above, tolerance
from ..ledger.memory import Ledger

#: f(p) = κ p^(κ − 1): the smaller κ, the more a single small p counts.
KAPPAS = (0.1, 0.25, 0.5)
#: Number of bets that share a client's wealth.
BETS = 2 + len(KAPPAS)
#: Wealth and scores are clipped to this, so that sums and differences stay finite.
MOST = 1e150


class Past(NamedTuple):
    """The state of one client.

    Attributes:
        wealth: the wealth of every bet.
        scores: per detector, its scores since calibration.
        unusable: the latest rounds in which its update was unusable.
        last: the last round that counted; repeating it changes nothing.
        banned: whether that round banned it.
    """

    wealth: list[float]
    scores: dict[str, list[float]]
    unusable: tuple[int, ...] = ()
    last: int = -1
    banned: bool = False


def bets(p: float, least: float) -> NDArray[np.float64]:
    """(5,) payoffs per unit: 1 (kept), 1{p ≤ least}/least, and κ p^(κ − 1) for every κ.

    Each has an expectation of at most 1 if P(p ≤ u) ≤ u for all u.
    """
    return np.array([1.0, (p <= least) / least, *(k * p ** (k - 1) for k in KAPPAS)])


def _rest(
    unusable: Iterable[int] = (), last: int = -1, banned: bool = False
) -> tuple[tuple[int, ...], int, bool]:
    """Return defaults for fields that states of earlier versions lack."""
    return tuple(whole_numbers(unusable)), whole_numbers([last])[0], bool(banned)


def _bounded(score: float) -> float:
    return float(np.clip(score, -MOST, MOST))


def mixed(wealth: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Spread a ``share`` of the total evenly, so that bets recover if a client turns malicious late."""
    spread: NDArray[np.float64] = (1 - share) * wealth + share * wealth.mean()
    return spread


@renamed_keywords(centre="center")
class Evidence(Policy):
    """M_t = Σ_b W_b,t ≥ clients/α bans a client; the wealth M_t of an honest client rarely grows that far.

    Start: W_b,0 = 1/5 for five bets b. Before round t a ``share`` of the total is spread evenly; then
    W_b,t = W_b,t−1 · f_b(p_t): f = 1 (kept), 1{p ≤ q}/q with the smallest possible p for q, and
    κ p^(κ−1) for κ = 0.1, 0.25, 0.5. Each ∫₀¹ f dp ≤ 1, hence M_t is a test supermartingale, and by Ville's
    inequality P(M_t ≥ 1/ε for any t) ≤ ε.

    With ``rounds`` > 0: p_t = (1 + #{known scores ≥ s_t}) / (1 + k + m), where the known scores are the k of
    all clients in the first ``rounds`` rounds and the client's own m since. For exchangeable scores, such p
    are independent and at least uniform. With ``rounds`` = 0: p_t = ``rate`` for suspects, else 1. With
    several detectors, p_t is the smallest p times their number.

    Guarantee: over any number of rounds, P(an honest client is banned) ≤ α / ``clients``, and P(any of at
    most ``clients`` honest ones is banned) ≤ α by a union bound. With ``rounds`` > 0 this requires its scores
    and those of the first rounds to be exchangeable (clean rounds, similar clients, no drift). With
    ``rounds`` = 0 it requires that the client is a suspect with P ≤ ``rate`` in every round, given the past.
    With ``center`` "own", differences to the client's own mean in the first rounds must be exchangeable, so
    clients may differ in level. This holds approximately; clients that join later are compared without
    centering. No client is banned in the first rounds. A single round can ban only if
    k + 1 ≥ 5 · clients/α at the first judged one.

    No wealth grows in a round with more than ``max_share`` suspects, nor does that of a client that sent only
    zeros or that another one can have framed (``Scores.framed``): M_t ← min(M_t, M_t−1), still a
    supermartingale. A repeated round counts once.

    Unusable updates (NaN, say) are excluded, do not enter p, and are counted separately: ``max_unusable`` of
    them, in any rounds, ban a client for good. The guarantee is about scores; it does not cover an honest
    client whose training fails that often.

    An operator's unban resets both: a client that comes back after a ban starts with the wealth of the start.

    Suspects of the round are excluded by ``rule``, as under ``exclude``; the guarantee is about bans only.

    Args:
        alpha: α, in (0, 1).
        clients: number of honest clients that the guarantee covers jointly; 1 covers each separately.
        rounds: rounds to learn clean scores from; 0 relies on ``rate`` instead, as scores drift while a model
            trains (docs/explanation/recommended-guard.md reports how often the guarantee failed for that).
        rate: with ``rounds`` = 0, an honest client's probability of being a suspect in a round, in (0, 1).
        center: "none" compares raw scores; "own" subtracts the client's mean in the first rounds.
        share: share of the wealth spread evenly before every round, in [0, 1).
        memory: own scores kept per client and detector; beyond that, the guarantee is approximate.
        max_unusable: number of unusable updates, the last one included, for a ban; None never bans.
        max_share: the largest share of suspects in a round that still counts as evidence, in (0, 1].
        rule: how scores become suspects, see :mod:`fedguard.contracts.rules`.
        vote: how several detectors agree on a suspect, see :class:`fedguard.contracts.policy.Policy`.

    Raises:
        ParameterError: a parameter out of range.

    Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005, ch. 7 (test martingales);
        Vovk & Wang, E-values, Annals of Statistics 2021 (calibrators).
    """

    card = Card(
        "evidence",
        "ban on the evidence of all rounds, with a bounded error rate",
        "Vovk & Wang, E-values, Annals of Statistics 2021",
    )

    bans = True
    check_with = MappingProxyType({"rate": 0.01, "alpha": 0.05})  # the defaults need several suspicions

    def __init__(
        self,
        alpha: float = 0.01,
        clients: int = 1,
        rounds: int = 0,
        rate: float = 0.05,
        center: Literal["none", "own"] = "none",
        share: float = 0.01,
        memory: int = 1000,
        max_unusable: int | None = 5,
        max_share: float = 0.5,
        rule: str | dict[str, Any] = "native",
        vote: Vote = "any",
    ) -> None:
        super().__init__(rule, vote)
        for what, value in (("alpha", alpha), ("rate", rate)):
            if not 0 < value < 1:
                raise ParameterError(f"evidence: {what} is {value}; use a share in (0, 1), say 0.01")
        if not 0 <= share < 1:
            raise ParameterError(f"evidence: share is {share}; use one in [0, 1), say 0.01")
        if rounds < 0 or clients < 1 or memory < 1:
            raise ParameterError(
                f"evidence: rounds is {rounds}, clients {clients}, memory {memory}; use 0, 1 and 1 or more"
            )
        if center not in ("none", "own") or (center == "own" and rounds == 1):
            raise ParameterError(
                f"evidence: center is {center!r}; use 'none', or 'own' with more than 1 round to learn from"
            )
        if max_unusable is not None and max_unusable < 1:
            raise ParameterError(
                f"evidence: max_unusable is {max_unusable}; use 1 or more, or null for no such ban"
            )
        check_share("evidence", max_share)
        self.max_unusable, self.max_share = max_unusable, max_share
        self.lookback = 0 if max_unusable is None else max_unusable - 1
        self.alpha, self.clients, self.rounds, self.rate = alpha, clients, rounds, rate
        self.center, self.share, self.memory = center, share, memory
        self._past: History[Past] = History()
        #: Per detector and clean round, pairs of client and score.
        self._clean: dict[str, list[list[tuple[ClientId, float]]]] = {}

    def decide(self, case: PolicyInput) -> Decision:
        """Exclude the suspects, and ban those with too much evidence against them."""
        suspects, phrases = self.suspects(case)
        bans: dict[int, int | None] = {}
        reasons = []
        limit = self.clients / self.alpha
        for i, (wealth, p) in enumerate(self._wealth(case, suspects)):
            total = sum(wealth)
            text = f"evidence {total:.3g} of {limit:.3g} (p {p:.2g})"
            if total >= limit:
                bans[i] = None
                reasons.append(f"banned for good: {text}: {phrases[i]}")
            else:
                reasons.append(f"{'excluded' if suspects[i] else 'accepted'}: {text}: {phrases[i]}")
        guilty = suspects.copy()
        guilty[list(bans)] = True
        most = against_most(suspects, self.max_share)
        strikes = np.array([g and not most and not case.excuse(i) for i, g in enumerate(guilty)], dtype=bool)
        note = most and f"{most}: they are excluded, no evidence is counted"
        return Decision((~guilty).astype(float), guilty, tuple(reasons), bans, strikes=strikes, note=note)

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sanction:
        """Count one more unusable update; those before an operator's unban do not count."""
        if self.max_unusable is None:
            return Sanction()
        known = set(ledger[client].strikes) - {index}
        count = 1 + len(known.intersection(self._before(client).unusable))
        if count < self.max_unusable:
            return Sanction(text=f"excluded, unusable update {count} of {self.max_unusable}")
        return Sanction(True, None, f"banned for good: {count} unusable updates")

    def _learning(self, case: PolicyInput) -> bool:
        return any(len(self._clean.get(name, ())) < self.rounds for name in case.scores)

    def _wealth(self, case: PolicyInput, suspects: NDArray[np.bool_]) -> list[tuple[list[float], float]]:
        """Return every client's wealth by bet after this round, and its p."""
        before = [self._before(client) for client in case.client_ids]
        start = [self._start(past, case.index) for past in before]
        if not case.scores or self._learning(case):
            return [(wealth, 1.0) for wealth in start]
        if self.rounds == 0:
            least = self.rate
            p = np.where(suspects, self.rate, 1.0)
        else:
            p, least = self._p_values(case, before)
        most = bool(against_most(suspects, self.max_share))
        result = []
        for i, (had, past, x) in enumerate(zip(start, before, p, strict=True)):
            stake = mixed(np.array(had), self.share)
            wealth = np.minimum(stake * bets(x, least), MOST).tolist()
            grows = sum(wealth) > sum(had)
            again = case.index == past.last
            result.append((had if again or (grows and (most or case.excuse(i))) else wealth, float(x)))
        return result

    def _start(self, past: Past, index: int) -> list[float]:
        """The wealth before a round; that of the start for a client whose ban was lifted since."""
        return [1 / BETS] * BETS if past.banned and past.last != index else past.wealth

    def _p_values(self, case: PolicyInput, before: list[Past]) -> tuple[NDArray[np.float64], float]:
        """(n,) the smallest p of any detector times their number, and the smallest possible value."""
        result = np.ones(len(case.client_ids))
        least, slack = 1.0, tolerance(len(case.client_ids))
        for name in case.scores:
            clean, levels = self._reference(name)
            for i, (client, past) in enumerate(zip(case.client_ids, before, strict=True)):
                value = _bounded(case.scores[name].values[i]) - levels.get(client, 0.0)
                own = np.array(past.scores.get(name, []))
                known = np.concatenate([clean, own])
                at_least = 1 + int((~above(value, known, slack)).sum())
                result[i] = min(result[i], at_least / (1 + len(known)))
            least = min(least, 1 / (1 + len(clean)))
        many = len(case.scores)
        return np.minimum(1.0, many * result), min(1.0, many * least)

    def _before(self, client: ClientId) -> Past:
        return self._past.get(client) or Past([1 / BETS] * BETS, {})

    def _reference(self, name: str) -> tuple[NDArray[np.float64], dict[ClientId, float]]:
        """Return a detector's clean scores and, under "own", each client's level to subtract.

        From a clean score, the mean of the client's *other* clean scores is subtracted.
        """
        own: defaultdict[ClientId, list[float]] = defaultdict(list)
        for part in self._clean[name]:
            for client, score in part:
                own[client].append(score)
        if self.center == "none":
            return np.array([score for scores in own.values() for score in scores]), {}
        several = {client: scores for client, scores in own.items() if len(scores) > 1}
        apart = [
            score - np.mean(scores[:i] + scores[i + 1 :])
            for scores in several.values()
            for i, score in enumerate(scores)
        ]
        return np.array(apart), {client: float(np.mean(scores)) for client, scores in several.items()}

    def commit(self, case: PolicyInput, decision: Decision) -> None:
        """Learn from a clean round; once all are learned, update wealth and scores by client."""
        suspects, _ = self.suspects(case)
        if self._learning(case):
            for name, scores in case.scores.items():
                values = map(_bounded, scores.values)
                learned = list(zip(case.client_ids, values, strict=True))
                self._clean[name] = [*self._clean.get(name, []), learned]
        else:
            kept = {}
            levels = {name: self._reference(name)[1] for name in case.scores if self.rounds}
            for i, (wealth, _) in enumerate(self._wealth(case, suspects)):
                client = case.client_ids[i]
                past = self._before(client)
                own = dict(past.scores)
                for name, level in levels.items() if past.last != case.index else ():
                    value = _bounded(case.scores[name].values[i]) - level.get(client, 0.0)
                    own[name] = [*own.get(name, []), value][-self.memory :]
                banned = i in decision.bans or (past.banned and past.last == case.index)
                kept[client] = Past(wealth, own, past.unusable, case.index, banned)
            self._past.remember(kept)
        super().commit(case, decision)

    def commit_unusable(self, clients: Sequence[ClientId], index: int) -> None:
        """Remember the last ``max_unusable`` rounds in which these clients sent unusable updates."""
        if self.max_unusable is None:
            return
        kept = {}
        for client in clients:
            past = self._before(client)
            rounds = sorted({*past.unusable, index})[-self.max_unusable :]
            kept[client] = past._replace(unusable=tuple(rounds))
        self._past.remember(kept)

    def state_dict(self) -> State:
        """Return the clean scores, the clients' wealth and scores, and the rule's state."""
        return {
            "clean": {n: [[list(pair) for pair in part] for part in r] for n, r in self._clean.items()},
            "past": [
                [client, list(past.wealth), dict(past.scores), list(past.unusable), past.last, past.banned]
                for client, past in self._past.items()
            ],
            "rule": super().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._clean = {
            name: [[(client, numbers([score])[0]) for client, score in pairs(part)] for part in rounds]
            for name, rounds in state["clean"].items()
        }
        self._past = History(
            (client, Past(numbers(w, BETS), {name: numbers(v) for name, v in scores.items()}, *_rest(*more)))
            for client, w, scores, *more in state["past"]
        )
        super().load_state_dict(state["rule"])
