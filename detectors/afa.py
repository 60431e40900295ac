"""AFA, adaptive federated averaging: remove outliers in similarity to the aggregate until none remain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.history import History
from fedguard.core.ids import ClientId
from fedguard.core.restored import count
from fedguard.core.state import State
from fedguard.core.ties import above, tolerance

#: Marks clients that were not removed.
STAYS = -1
#: Decimals to which cosines are rounded.
DIGITS = 12


class AFA(Detector):
    """s_i = cos(u_i, Σ_j p_j n_j u_j over the good set G); outliers leave G one iteration after another.

    Let μ, m and σ be the mean, median and standard deviation (population form) of the cosines in G. If
    μ < m, clients below m − ξ σ leave G, otherwise those above m + ξ σ; then ξ grows by Δξ. This repeats
    until none leaves. n_i is the sample count and p_i = α_i / (α_i + β_i) the reputation of client i; α_i
    counts rounds in G and β_i rounds outside, both starting at the priors. A client is blocked once its
    posterior Beta(α_i, β_i) has more than δ of its mass below one half: it is then always a suspect and never
    in G. The score of suspects is above 1 and higher the earlier they left; the score of other clients is
    below 1 and grows with the distance of the cosine from the median.

    Algorithm 1 takes cosines between models. This class takes them between updates, as NDSS 2021 does, since
    only these differ enough to distinguish clients.

    Args:
        xi: ξ at first; 2.
        delta_xi: Δξ; 0.5.
        alpha: prior of good rounds; 3.
        beta: prior of bad rounds; 3.
        reputation: False weights by sample counts alone.
        block: δ, in [0.5, 1), 0.95 in the paper; None blocks no client.

    Raises:
        ParameterError: a parameter out of range.

    Source: Muñoz-González et al., 2019 (arXiv 1909.05125), Algorithm 1; Shejwalkar & Houmansadr, NDSS 2021,
    §II-C6.
    """

    card = Card(
        "afa",
        "similarity to the aggregate of those not removed yet",
        "Muñoz-González et al., Adaptive Federated Averaging, arXiv 2019",
    )

    def __init__(
        self,
        xi: float = 2.0,
        delta_xi: float = 0.5,
        alpha: float = 3.0,
        beta: float = 3.0,
        reputation: bool = True,
        block: float | None = 0.95,
    ) -> None:
        for name, value in (("xi", xi), ("alpha", alpha), ("beta", beta)):
            if not 0 < value < math.inf:
                raise ParameterError(f"afa: {name} is {value}; use a finite number above 0")
        if not 0 <= delta_xi < math.inf:
            raise ParameterError(f"afa: delta_xi is {delta_xi}; use a finite number of at least 0")
        if block is not None and not 0.5 <= block < 1:
            raise ParameterError(f"afa: block is {block}; use a probability in [0.5, 1), or null")
        self.xi = xi
        self.delta_xi = delta_xi
        self.alpha = alpha
        self.beta = beta
        self.reputation = reputation
        self.block = block
        self._record: History[tuple[int, int]] = History()

    def score(self, round: Round) -> Scores:
        """Remove outliers until none remain."""
        trust = np.array([self._reputation(client) for client in round.client_ids])
        blocked = np.array([self._blocked(client) for client in round.client_ids])
        share = trust * round.num_examples / round.num_examples.max()
        products = round.updates.inner_products.cpu().numpy()
        left = np.where(blocked, 0, STAYS)  # the iteration in which a client was removed
        xi, iteration = self.xi, 0
        slack = tolerance(round.n, round.updates.d, DIGITS)
        while True:
            iteration += 1
            good = left == STAYS
            cosines = _to_aggregate(products, np.where(good, share, 0.0))
            out = good & outliers(cosines, good, xi, slack)
            if not out.any():
                break
            left[out] = iteration
            xi += self.delta_xi
        removed = left != STAYS
        away = np.abs(cosines - (np.median(cosines[good]) if good.any() else 0.0))
        return Scores(
            np.where(removed, 1 + (iteration - left) + away / 4, away / 4),
            removed,
            "its similarity to the aggregate is an outlier",
            info={"iterations": float(iteration), "blocked": float(blocked.sum())},
            memory={client: bool(bad) for client, bad in zip(round.client_ids, removed, strict=True)},
            reasons=tuple("blocked: its updates were outliers too often" if b else "" for b in blocked),
        )

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Count the clients' rounds in and outside the good set."""
        counts = {}
        for client, bad in (scores.memory or {}).items():
            good_rounds, bad_rounds = self._record.get(client, (0, 0))
            counts[client] = (good_rounds + (not bad), bad_rounds + bad)
        self._record.remember(counts)

    def state_dict(self) -> State:
        """Rounds in and outside the good set by client id."""
        return {"record": [[client, *counts] for client, counts in self._record.items()]}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        counts = [(client, (count(good), count(bad))) for client, good, bad in state["record"]]
        self._record = History(counts)

    def _posterior(self, client: ClientId) -> tuple[float, float]:
        """α and β."""
        good, bad = self._record.get(client, (0, 0))
        return self.alpha + good, self.beta + bad

    def _reputation(self, client: ClientId) -> float:
        alpha, beta = self._posterior(client)
        return alpha / (alpha + beta) if self.reputation else 1.0

    def _blocked(self, client: ClientId) -> bool:
        return self.block is not None and float(betainc(*self._posterior(client), 0.5)) > self.block


def _to_aggregate(products: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) cos(u_i, Σ_j share_j u_j) from the inner products; 0 where one of them is zero."""
    largest = products.diagonal().max()
    table = products / largest if largest > 0 else products
    share = share / share.sum() if share.any() else share
    along = table @ share
    length = math.sqrt(max(0.0, float(share @ along)))
    scale = np.sqrt(np.clip(table.diagonal(), 0, None)) * length
    cosines = np.divide(along, scale, out=np.zeros(len(along)), where=scale > 0)
    rounded: NDArray[np.float64] = cosines.clip(-1, 1).round(DIGITS)  # identical updates are equally similar
    return rounded


def outliers(
    cosines: NDArray[np.float64], good: NDArray[np.bool_], xi: float, slack: float
) -> NDArray[np.bool_]:
    """(n,) clients more than ξ σ from the median of the good set, on the side of its mean."""
    if not good.any():
        return good
    inside = cosines[good]
    median, spread = float(np.median(inside)), float(inside.std())
    if above(median, inside.mean(), slack, scale=1.0):
        return above(median - xi * spread, cosines, slack, scale=1.0)
    return above(cosines, median + xi * spread, slack, scale=1.0)
