"""Recommended: a few cheap signals that see different attacks, each in units of its own limit."""

from __future__ import annotations

from collections.abc import Mapping

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

from ._class_cone import unexplained
from ._signals import copies, direction, gain, lengths, size, standard

#: What counts as no difference at all, per signal: the smallest scale. Half of it for means over rounds.
FLOORS = {"size": 0.2, "direction": 0.1, "gain": 0.2, "reconstruction": 0.1}
#: Who is not this much longer than the median cannot be suspect for its size.
LONG = 1.3
#: How often a client must have been seen before its mean over rounds counts.
LEAST = 3
#: Signal → its limit, and what it means to be above it. docs/explanation/recommended-guard.md says how they
#: were set.
LIMITS = {
    "copies": (4.0, "times closer to another client than usual"),
    "size": (6.0, "deviations longer than its samples explain"),
    "size over rounds": (5.0, "deviations longer than its samples explain, over its last rounds"),
    "direction": (4.5, "deviations off the others' direction"),
    "direction over rounds": (5.0, "deviations off the others' direction, over its last rounds"),
    "gain": (4.0, "deviations less use to any class of the validation data"),
    "gain over rounds": (
        4.5,
        "deviations less use to any class of the validation data, over its last rounds",
    ),
    "reconstruction": (4.0, "deviations less explained by any mix of the validation data's classes"),
    "reconstruction over rounds": (
        5.0,
        "deviations less explained by any mix of the validation data's classes, over its last rounds",
    ),
}


class Recommended(Detector):
    """s_i = max_k z_ik / limit_k over the signals k; a suspect if s_i > 1. No number of attackers is needed.

    copies: median_j r_j / r_i, r_i = min_j ‖u_i − u_j‖ / √(‖u_i‖ ‖u_j‖). size: ln ‖u_i‖ less a Theil–Sen line
    through ln m_i (only of who is 1.3 times longer than the median). direction: −cos(u_i, median update).
    gain: 1 − G_i / median G, G_i = Σ_c max(0, L_c(w) − L_c(w + u_i)) on validation data. reconstruction:
    −cos(u_i, cone{−∇L_c(w)}), the best approximation of u_i by a mix of classes with correct labels. All
    but copies become z = (v − center) / scale by the round's shortest half, the scale at least 0.2, 0.1, 0.2
    and 0.1. "Over rounds": the same of the client's mean over its last ``window`` rounds, this one included,
    each less its median (the scale at least half as large), once it was seen three times.

    The limits are fixed: chosen on digits with some attacks, then left alone
    (docs/explanation/recommended-guard.md).
    The round needs an honest majority. Claimed sample counts are believed within the bounds of a line.
    Without model, global model or at least ``validation`` labeled samples, gain and reconstruction are left
    out; so is reconstruction while one of the model's outputs has no sample.

    Args:
        validation: the fewest validation samples that are worth a look.
        samples: the most that are used, the first ones: what the server does grows with them.
        window: rounds of a client that its means go over.

    Raises:
        ParameterError: a parameter out of range.

    Source: FedGuard; shortest half: Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987, ch. 4.
    """

    card = Card("recommended", "copies, size, direction, use and history, each against a limit", "FedGuard")

    def __init__(self, validation: int = 100, samples: int = 100, window: int = 8) -> None:
        if validation < 1 or samples < validation:
            raise ParameterError(
                f"recommended: validation is {validation}, samples {samples}; "
                "use 1 or more, and at least as many samples"
            )
        if window < LEAST:
            raise ParameterError(f"recommended: window is {window} rounds; use {LEAST} or more")
        self.validation, self.samples, self.window = validation, samples, window
        self._past: History[dict[str, list[float]]] = History()

    def score(self, round: Round) -> Scores:
        """Every signal against its limit."""
        today = self._today(round)
        signals = {"copies": copies(round.updates), **self._signals(round, today)}
        slack = tolerance(round.n, round.updates.d)
        shares = {name: values / LIMITS[name][0] for name, values in signals.items()}
        values = np.max(list(shares.values()), axis=0)
        return Scores(
            values=values,
            suspects=above(values, 1.0, slack),
            reason="a signal is above its limit",
            info={
                f"{name} suspects": float(above(share, 1.0, slack).sum()) for name, share in shares.items()
            },
            memory=today,
            reasons=tuple(_reason(signals, i) for i in range(round.n)),
        )

    def _today(self, round: Round) -> dict[str, NDArray[np.float64]]:
        """The signals that have a past, each less its median."""
        raw = {"size": size(lengths(round.updates), round.num_examples), "direction": direction(round)}
        server, start = round.server, round.global_params
        data = server.validation if server else None
        enough = data is not None and len(data.labels) >= self.validation
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
        """A client's last values of a signal, this one included."""
        return [*self._past.get(client, {}).get(name, []), value][-self.window :]

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Remember everybody's signals, whatever was decided."""
        self._past.remember(
            {
                client: {name: self._extended(client, name, float(v[i])) for name, v in scores.memory.items()}
                for i, client in enumerate(round.client_ids)
            }
        )

    def state_dict(self) -> State:
        """The last signals by client id."""
        return {
            "past": [[client, {k: list(v) for k, v in past.items()}] for client, past in self._past.items()]
        }

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""
        self._past = History(
            (client, {k: numbers(v) for k, v in past.items()}) for client, past in pairs(state["past"])
        )


def _reason(signals: Mapping[str, NDArray[np.float64]], i: int) -> str:
    """Which signals of client i are above their limits, the clearest first."""
    above = [(values[i] / LIMITS[name][0], name, values[i]) for name, values in signals.items()]
    said = sorted((part for part in above if part[0] > 1), reverse=True)
    return ", ".join(
        f"{name}: {value:.3g} {LIMITS[name][1]} (limit {LIMITS[name][0]:g})" for _, name, value in said
    )
