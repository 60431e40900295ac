"""Deviations of clients from pseudo-clients of the same mix of classes, over their last rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedguard.core.errors import ParameterError
from fedguard.core.history import History
from fedguard.core.ids import ClientId
from fedguard.core.restored import count, numbers, pairs

from ._explained import Explained, entropies
from ._signals import shortest_half, size

Table = NDArray[np.float64]
#: The signals of ``Explained.values``, in its order.
KINDS = ("right labels", "any labels", "wrong labels", "length")
LENGTH = 3
#: The smallest scale of a deviation of each kind.
LEAST_SCALES = np.array([0.005, 0.005, 0.005, 0.08])
#: Rounds for which the pseudo-client matched to a client is used.
REUSED = 8


class Pseudo(NamedTuple):
    """Pseudo-clients of one round: (k, C) their mixes, and (k, 4) their values of ``Explained``."""

    mixes: Table
    values: Table


@dataclass
class Past:
    """What is known of a client.

    Attributes:
        mixes: its estimated mixes in its last rounds.
        deviations: its deviations then, (4,) each.
        offsets: the values of its matched pseudo-client beyond the fit then, (4,) each; reused in rounds in
            which none was trained.
        age: rounds since that was trained.
    """

    mixes: list[Table] = field(default_factory=list)
    deviations: list[Table] = field(default_factory=list)
    offsets: list[Table] = field(default_factory=list)
    age: int = 0

    def state(self) -> list[Any]:
        """As lists of numbers."""
        tables = [[row.tolist() for row in part] for part in (self.mixes, self.deviations, self.offsets)]
        return [*tables, self.age]

    @classmethod
    def of(cls, state: Any) -> Past:
        """Read :meth:`state`.

        Raises:
            ParameterError: it is something else.
        """
        if not isinstance(state, list | tuple) or len(state) != 4:
            raise ParameterError("a state holds another value where a client's past belongs")
        mixes, deviations, offsets = ([np.array(numbers(row)) for row in part] for part in state[:3])
        return cls(mixes, deviations, offsets, count(state[3]))


class Measured(NamedTuple):
    """The signals of a round, and what to remember of it.

    Attributes:
        signals: name → (n,) values.
        clients: their ids.
        pasts: every client's past with this round.
        pool: the pseudo-clients' entropies and values in the last rounds.
    """

    signals: dict[str, Table]
    clients: Sequence[ClientId]
    pasts: list[Past]
    pool: list[tuple[Table, Table]]


class Calibration:
    """Compares clients with pseudo-clients; see :class:`.recommended.Recommended` for the formulas.

    Args:
        window: the number of a client's rounds that are averaged, and of rounds whose pseudo-clients are
            used.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._pasts: History[Past] = History()
        self._pool: list[tuple[Table, Table]] = []

    def mean_mixes(self, clients: Sequence[ClientId], mixes: Table) -> Table:
        """(n, C) each client's mean estimated mix over its last rounds, including this one."""
        each = [self._with(self._past(client), mix) for client, mix in zip(clients, mixes, strict=True)]
        return np.array([np.mean(past.mixes, axis=0) for past in each])

    def _with(self, past: Past, mix: Table) -> Past:
        """A client's past, a round older and with one more mix; mixes of other classes are dropped."""
        mixes = [known for known in past.mixes if len(known) == len(mix)]
        return replace(past, mixes=[*mixes, mix][-self.window :], age=past.age + 1)

    def due(self, clients: Sequence[ClientId]) -> list[int]:
        """The positions of the clients that need a new matched pseudo-client."""
        pasts = [self._past(client) for client in clients]
        return [i for i, past in enumerate(pasts) if not past.offsets or past.age >= REUSED]

    def measure(
        self,
        clients: Sequence[ClientId],
        found: Explained,
        counts: Table,
        mixes: Table,
        generic: Pseudo,
        matched: Pseudo,
        trusted: NDArray[np.bool_],
    ) -> Measured:
        """The deviations of a round's clients.

        Args:
            clients: their ids, in the order in which pseudo-clients are renewed.
            found: what was measured of their updates.
            counts: (n,) the numbers of samples they claim.
            mixes: their ``mean_mixes``.
            generic: pseudo-clients of drawn mixes.
            matched: pseudo-clients with the mixes of the clients that are ``due``, in this order.
            trusted: (n,) the clients whose values count as ordinary.
        """
        drawn = np.concatenate([generic.mixes, matched.mixes])
        values = np.concatenate([generic.values, matched.values])
        pool = [*self._pool, (entropies(drawn), values)][-self.window :]
        known = [self._past(client) for client in clients]
        pasts = [self._with(past, mix) for past, mix in zip(known, found.mixes, strict=True)]
        fit = _Fit(pool)
        self._renew(pasts, self.due(clients), matched, fit)
        beyond = found.values - fit(mixes) - np.array([past.offsets[-1] for past in pasts]) / 2
        beyond[:, LENGTH] = size(beyond[:, LENGTH], counts)
        beyond -= np.median(beyond[trusted], axis=0)
        for past, row in zip(pasts, beyond, strict=True):
            past.deviations = [*past.deviations, row][-self.window :]
        signals = self._deviations(pasts, fit, len(generic.mixes), trusted)
        return Measured(signals, clients, pasts, pool)

    def _renew(self, pasts: list[Past], due: list[int], matched: Pseudo, fit: _Fit) -> None:
        """Take over the new matched pseudo-clients, and use the old ones once more for the others."""
        new = dict(zip(due, matched.values - fit(matched.mixes), strict=True))
        for i, past in enumerate(pasts):
            if i in new:
                past.age = 1 if past.offsets else 1 + i % REUSED  # newcomers are renewed in different rounds
            offset = new[i] if i in new else past.offsets[-1]
            past.offsets = [*past.offsets, offset][-self.window :]

    def _deviations(
        self, pasts: list[Past], fit: _Fit, generics: int, trusted: NDArray[np.bool_]
    ) -> dict[str, Table]:
        """Each kind of deviation in one round and over rounds, in units of the pseudo-clients' spread."""
        lengths = np.array([len(past.deviations) for past in pasts])
        scales = {k: self._scale(pasts, fit, generics, k) for k in {1, *lengths.tolist()}}
        now = np.array([past.deviations[-1] for past in pasts])
        mean = np.array([np.mean(past.deviations, axis=0) for past in pasts])
        scale = np.array([scales[k] for k in lengths])
        result = {}
        for j, kind in enumerate(KINDS):
            result[kind] = _centered(now[:, j], trusted) / scales[1][j]
            result[f"{kind} over rounds"] = _centered(mean[:, j], trusted) / scale[:, j]
        return result

    def _scale(self, pasts: list[Past], fit: _Fit, generics: int, rounds: int) -> Table:
        """(4,) √(half the variance of generic, half that of matched pseudo-clients) of means over rounds."""
        generic = np.mean([part[:generics] for part in fit.residuals[-rounds:]], axis=0)
        matched = [np.mean(past.offsets[-rounds:], axis=0) for past in pasts if len(past.offsets) >= rounds]
        variance = (generic.var(axis=0) + np.var(matched, axis=0)) / 2
        scale: Table = np.maximum(np.sqrt(variance), LEAST_SCALES)
        return scale

    def _past(self, client: ClientId) -> Past:
        return self._pasts.get(client, Past())

    def commit(self, measured: Measured) -> None:
        """Remember a round."""
        self._pasts.remember(dict(zip(measured.clients, measured.pasts, strict=True)))
        self._pool = measured.pool

    def state(self) -> list[Any]:
        """Everything that later rounds depend on, as lists of numbers."""
        pool = [[entropy.tolist(), values.ravel().tolist()] for entropy, values in self._pool]
        return [[[client, past.state()] for client, past in self._pasts.items()], pool]

    def load(self, state: Any) -> None:
        """Restore :meth:`state`.

        Raises:
            ParameterError: it is something else.
        """
        if not isinstance(state, list | tuple) or len(state) != 2:
            raise ParameterError("a state holds another value where pseudo-clients belong")
        pasts: History[Past] = History((client, Past.of(past)) for client, past in pairs(state[0]))
        pool = []
        for entropy, values in state[1]:
            at = np.array(numbers(entropy))
            rows = np.array(numbers(values, len(at) * len(KINDS)))
            pool.append((at, rows.reshape(-1, len(KINDS))))
        self._pasts, self._pool = pasts, pool


class _Fit:
    """A quadratic fit of the pseudo-clients' values on the entropy of their mixes."""

    def __init__(self, pool: Sequence[tuple[Table, Table]]) -> None:
        entropy = np.concatenate([part for part, _ in pool])
        values = np.concatenate([part for _, part in pool])
        self._weights = np.linalg.lstsq(_powers(entropy), values, rcond=None)[0]
        #: By round, the values beyond the fit.
        self.residuals = [part - _powers(at) @ self._weights for at, part in pool]

    def __call__(self, mixes: Table) -> Table:
        fitted: Table = _powers(entropies(mixes)) @ self._weights
        return fitted


def _powers(values: Table) -> Table:
    return np.stack([np.ones_like(values), values, values**2], 1)


def _centered(values: Table, trusted: NDArray[np.bool_]) -> Table:
    """The values minus the mean of the shortest half of the trusted ones; 0 if these are fewer than four."""
    if trusted.sum() < 4:
        return np.zeros(len(values))
    return values - shortest_half(values[trusted])[0]
