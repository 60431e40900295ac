"""Recommended: signals that detect different attacks, each divided by its limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.history import History
from fedguard.core.restored import numbers, pairs
from fedguard.core.state import State
from fedguard.core.ties import above, tolerance

from ._beside_pseudo_clients import beside_pseudo_clients
from ._calibration import Calibration, Measured
from ._class_cone import unexplained
from ._signals import copies, direction, gain, lengths, mutual_copies, size, standard

#: The smallest scale of each signal; half of it for means over rounds.
FLOORS = {"size": 0.2, "direction": 0.1, "gain": 0.2, "reconstruction": 0.1}
#: Only clients this many times longer than the median can be suspects by size.
LONG = 1.3
#: The number of rounds after which a client's mean over rounds counts.
LEAST = 3
#: What reasons compare a client with.
LIKE_IT = "the server's pseudo-clients of its mix of classes"
#: Signal → its limit, and what a value above it means. docs/explanation/recommended-guard.md explains how
#: the limits were set.
LIMITS = {
    "right labels": (7.0, f"deviations less explained by right labels than {LIKE_IT}"),
    "right labels over rounds": (
        7.0,
        f"deviations less explained by right labels than {LIKE_IT}, over its last rounds",
    ),
    "any labels": (6.5, f"deviations less explained by any labels than {LIKE_IT}"),
    "any labels over rounds": (
        6.0,
        f"deviations less explained by any labels than {LIKE_IT}, over its last rounds",
    ),
    "wrong labels": (13.0, f"deviations more explained by wrong labels than {LIKE_IT}"),
    "wrong labels over rounds": (
        14.5,
        f"deviations more explained by wrong labels than {LIKE_IT}, over its last rounds",
    ),
    "length": (5.5, f"deviations longer than {LIKE_IT}"),
    "length over rounds": (5.0, f"deviations longer than {LIKE_IT}, over its last rounds"),
    "copies": (4.0, "times closer to another client than usual"),
    "size": (6.0, "deviations longer than its samples explain"),
    "size over rounds": (5.0, "deviations longer than its samples explain, over its last rounds"),
    "direction": (4.5, "deviations away from the others' direction"),
    "direction over rounds": (5.0, "deviations away from the others' direction, over its last rounds"),
    "gain": (4.0, "deviations less useful for any class of the validation data"),
    "gain over rounds": (
        4.5,
        "deviations less useful for any class of the validation data, over its last rounds",
    ),
    "reconstruction": (4.0, "deviations less explained by any mix of the validation data's classes"),
    "reconstruction over rounds": (
        5.0,
        "deviations less explained by any mix of the validation data's classes, over its last rounds",
    ),
}


class Memory(NamedTuple):
    """What a round leaves: the signals averaged over rounds, or what pseudo-clients told."""

    today: dict[str, NDArray[np.float64]]
    measured: Measured | None


class Recommended(Detector):
    """s_i = max_k z_ik / limit_k over signals k; suspect if s_i > 1. Needs no number of attackers.

    - copies: median_j r_j / r_i, r_i = min_j ‖u_i − u_j‖ / √(‖u_i‖ ‖u_j‖).

    **By default:**

    - size: ln ‖u_i‖ minus a Theil–Sen line through ln m_i; only for updates at least 1.3 times as long as the
      median.
    - direction: −cos(u_i, median update).
    - gain: 1 − G_i / median G, G_i = Σ_c max(0, L_c(w) − L_c(w + u_i)) on validation data.
    - reconstruction: −cos(u_i, cone{−∇L_c(w)}), the best approximation of u_i by a mix of correctly labeled
      classes.

    These become z = (v − center) / scale, with center and scale of the round's shortest half; the scale is at
    least 0.2, 0.1, 0.2 and 0.1. "Over rounds" is the same for the mean of the client's last ``window``
    values, including this round's, each minus the round's median. Its scale is at least half as large, and
    it counts after three rounds of the client. Gain and reconstruction need the model, the global model and
    at least ``validation`` labeled samples.

    **With** ``pseudo_clients``, if the server has a model, training settings and at least ``validation``
    labeled samples, and the gradients need less than 1 GB: the server trains a few honest clients on its own
    data and compares.

    - Gradients: g_st = −∇ of the mean cross-entropy of validation inputs of class s with the label t. c is
      the cosine of u_i to the cone of the g_ss (right labels), w that to the cone of all g_st (any labels).
      The weights of the projection onto the first give the client's mix of classes, averaged over rounds.
    - Pseudo-clients train as clients do on root data (validation data if there are none), drawn with
      replacement: four a round of Dirichlet mixes (β = 0.1, 0.5, 1, 100), and for each client one of its own
      mix and number of samples, renewed every eight rounds.
    - Values v: right labels, −ln(c + 0.05); any labels, −ln(w + 0.05); wrong labels, the first minus the
      second; length, ln ‖u_i‖.
    - d_i = v_i − f(H_i) − e_i/2, for length minus a Theil–Sen line through ln m_i, less the round's median: f
      is a quadratic fit of the pseudo-clients' values of the last rounds on the entropy H of their mixes,
      e_i what the pseudo-client of the same mix has beyond it.
    - z = (d_i − center) / s, center the mean of the shortest half, s = √((V₁ + V₂)/2), at least 0.005 (0.08
      for length); V₁ and V₂ are the variances of v − f over the pseudo-clients of drawn and of the clients'
      mixes. "Over rounds" is the same for means over the last ``window`` rounds.

    Copies do not count for medians and centers. Of two clients that are copies of each other and of nobody
    else, one may be honest: if they are suspects for nothing else, they are excluded, but not banned
    (``Scores.framed``). Causal texts have no classes: copies, size and direction remain.

    The limits are fixed (docs/explanation/recommended-guard.md). The round needs an honest majority. A
    pseudo-client gets the number of samples that its client claims, within a quarter and four times the
    median. Signals of classes need a validation sample for every output of the model.

    Args:
        validation: the fewest validation samples that class signals use.
        samples: the most samples used, taken from the start; the server's work grows with them.
        window: the number of a client's rounds in its mean.
        pseudo_clients: compare with pseudo-clients: sees much more, and suspects more honest clients late in
            training; not yet tested on attacks that had no part in choosing its limits.

    Raises:
        ParameterError: a parameter out of range.

    Source: FedGuard; shortest half: Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987, ch. 4.

    Example:
        >>> from fedguard import make_detector
        >>> honest = [[1.0, 0.1 * i, 0.05 * i % 0.2] for i in range(9)]
        >>> make_detector("recommended")([*honest, [50.0, 0.0, 0.0]]).suspects.nonzero()[0].tolist()
        [9]
    """

    card = Card(
        "recommended",
        "copies, size, direction, use and history, each against a limit",
        "FedGuard",
    )
    tasks = frozenset({"classification", "causal"})

    def __init__(
        self, validation: int = 100, samples: int = 100, window: int = 8, pseudo_clients: bool = False
    ) -> None:
        if validation < 1 or samples < validation:
            raise ParameterError(
                f"recommended: validation is {validation}, samples {samples}; "
                "use 1 or more, and at least as many samples"
            )
        if window < LEAST:
            raise ParameterError(f"recommended: window is {window} rounds; use {LEAST} or more")
        self.validation, self.samples, self.window = validation, samples, window
        self.pseudo_clients = pseudo_clients
        self._past: History[dict[str, list[float]]] = History()
        self._calibration = Calibration(window)

    def score(self, round: Round) -> Scores:
        """Compare every signal with its limit."""
        signals, memory = self.measure(round)
        slack = tolerance(round.n, round.updates.d)
        shares = {name: values / LIMITS[name][0] for name, values in signals.items()}
        values = np.max(list(shares.values()), axis=0)
        others = np.max([share for name, share in shares.items() if name != "copies"], axis=0)
        copied = above(shares["copies"], 1.0, slack) & ~above(others, 1.0, slack)
        return Scores(
            values=values,
            suspects=above(values, 1.0, slack),
            reason="a signal is above its limit",
            info={
                f"{name} suspects": float(above(share, 1.0, slack).sum()) for name, share in shares.items()
            },
            memory=memory,
            framed=copied & mutual_copies(round.updates, LIMITS["copies"][0]) if copied.any() else None,
            reasons=tuple(_reason(signals, i) for i in range(round.n)),
        )

    def measure(self, round: Round) -> tuple[dict[str, NDArray[np.float64]], Memory]:
        """Every signal of every client by name, and what ``commit`` stores."""
        copied = copies(round.updates)
        measured = self._beside(round, copied)
        if measured:
            return {"copies": copied, **measured.signals}, Memory({}, measured)
        today = self._today(round)
        return {"copies": copied, **self._signals(round, today)}, Memory(today, None)

    def _beside(self, round: Round, copied: NDArray[np.float64]) -> Measured | None:
        """The signals of the clients beside pseudo-clients; None if the server trains none."""
        data = round.server.validation if round.server else None
        if not self.pseudo_clients or not self._has_classes(data):
            return None
        original = ~above(copied, LIMITS["copies"][0], tolerance(round.n, round.updates.d))
        trusted = original if 2 * original.sum() > round.n else np.ones(round.n, dtype=bool)
        return beside_pseudo_clients(round, self._calibration, self.samples, trusted)

    def _has_classes(self, data: LabeledData | None) -> bool:
        """Whether there are enough validation samples, each of one class: next tokens are many labels."""
        return data is not None and len(data.labels) >= self.validation and data.labels.ndim == 1

    def _today(self, round: Round) -> dict[str, NDArray[np.float64]]:
        """The signals that are averaged over rounds, each minus its median."""
        raw = {"size": size(lengths(round.updates), round.num_examples), "direction": direction(round)}
        server, start = round.server, round.global_params
        data = server.validation if server else None
        enough = self._has_classes(data)
        if server and server.model is not None and start is not None and data is not None and enough:
            part = LabeledData(data.inputs[: self.samples], data.labels[: self.samples])
            raw["gain"] = gain(round, server.model, start, part)
            beyond = unexplained(round, server.model, start, part)
            raw |= {} if beyond is None else {"reconstruction": beyond}
        return {name: values - np.median(values) for name, values in raw.items()}

    def _signals(
        self, round: Round, today: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        long = above(lengths(round.updates), np.log(LONG), tolerance(round.n, round.updates.d))
        result: dict[str, NDArray[np.float64]] = {}
        for name, values in today.items():
            past = [self._extended(c, name, float(v)) for c, v in zip(round.client_ids, values, strict=True)]
            known = np.array([len(p) >= LEAST for p in past])
            means = np.array([np.mean(p) for p in past])
            counts = long if name == "size" else np.ones(round.n, dtype=bool)
            result[name] = np.where(counts, standard(values, FLOORS[name]), 0.0)
            result[f"{name} over rounds"] = np.where(counts & known, standard(means, FLOORS[name] / 2), 0.0)
        return result

    def _extended(self, client: int | str, name: str, value: float) -> list[float]:
        """A client's last values of a signal, including this one."""
        return [*self._past.get(client, {}).get(name, []), value][-self.window :]

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the signals of all clients, whatever was decided."""
        today, measured = scores.memory
        if measured is not None:
            self._calibration.commit(measured)
            return
        self._past.remember(
            {
                client: {name: self._extended(client, name, float(v[i])) for name, v in today.items()}
                for i, client in enumerate(round.client_ids)
            }
        )

    def state_dict(self) -> State:
        """The last signals by client id."""
        past = [[client, {k: list(v) for k, v in past.items()}] for client, past in self._past.items()]
        return {"past": past, "calibration": self._calibration.state()}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._past = History(
            (client, {k: numbers(v) for k, v in past.items()}) for client, past in pairs(state["past"])
        )
        self._calibration.load(state.get("calibration", [[], []]))


def _reason(signals: Mapping[str, NDArray[np.float64]], i: int) -> str:
    """The signals of client i above their limits, the largest excess first."""
    above = [(values[i] / LIMITS[name][0], name, values[i]) for name, values in signals.items()]
    said = sorted((part for part in above if part[0] > 1), reverse=True)
    return ", ".join(
        f"{name}: {value:.3g} {LIMITS[name][1]} (limit {LIMITS[name][0]:g})" for _, name, value in said
    )
