"""Alerts of a live guard: which rounds need a person, and who is told."""

from __future__ import annotations

import atexit
import logging
import queue
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ParameterError
from .alert import KINDS, MAX_IDS, Alert, Kind, escaped
from .events import Drift, new_bans
from .receivers import Receiver, why_not

if TYPE_CHECKING:
    from ..contracts.outcome import Outcome
    from ..contracts.round import Round

log = logging.getLogger("fedguard")

#: Rounds that the norm of an aggregate is compared with, and how many are needed at least.
NORMS, ENOUGH = 20, 5


class Alerts:
    """An observer that tells receivers about bans, mass suspicion, refused rounds and drift.

    - ``ban``: bans that began in the round.
    - ``mass_suspicion``: |suspects| / n > ``share``.
    - ``refused_round``: the guard raised an error, or no update was accepted (the global model stayed).
    - ``drift``: ‖a_t‖ > ``drift`` · median of the last 20 norms (at least 5), a norm that is not finite, or
      cos(a_t, a_{t−1}) < ``cosine``.

    Deliveries run in a thread of their own, and wait in a queue of bounded size: a receiver that hangs or
    fails cannot slow or break a round. An alert that finds the queue full is dropped, counted and logged.

    Args:
        receivers: who is told: :class:`~fedguard.observers.receivers.Webhook`, ``Email``, ``Command``, or
            any object with ``deliver(alert)``.
        on: the kinds to send; all by default.
        share: the share of suspects in a round beyond which it is mass suspicion, in [0, 1).
        drift: how many times the median norm is drift, above 1; None for no limit.
        cosine: a cosine to the aggregate before below this is drift, in [−1, 1]; None for no limit.
        limit: most alerts of a kind in ``period``. Others are counted, and the next one says how many.
        period: seconds.
        waiting: most alerts that wait for the thread.

    Attributes:
        counts: how many alerts were sent, failed, dropped and suppressed; an alert counts once per receiver
            in the first two.

    Raises:
        ParameterError: a parameter out of range, or no receiver.

    Example:
        >>> from fedguard import Guard, Round
        >>> from fedguard.observers.alerts import Alerts
        >>> class Memo:
        ...     def deliver(self, alert):
        ...         self.text = alert.text
        >>> memo = Memo()
        >>> alerts = Alerts([memo], share=0.3)
        >>> guard = Guard("norm_bound", {"name": "exclude", "rule": {"name": "top", "count": 1}})
        >>> guard.observers = [alerts]
        >>> outcome = guard.process(Round([[1.0], [9.0]], client_ids=["ann", "bob"]))
        >>> alerts.close()  # waits for the thread
        >>> memo.text
        'round 0: 1 of 2 clients are suspects: bob'
    """

    def __init__(
        self,
        receivers: Iterable[Receiver],
        on: Sequence[Kind] = KINDS,
        share: float = 0.5,
        drift: float | None = 3.0,
        cosine: float | None = -0.5,
        limit: int = 6,
        period: float = 3600.0,
        waiting: int = 100,
    ) -> None:
        self.receivers = tuple(receivers)
        _check(self.receivers, on, share, drift, cosine, limit, period, waiting)
        self.on, self.share, self.drift, self.cosine = frozenset(on), share, drift, cosine
        self.counts: Counter[str] = Counter(sent=0, failed=0, dropped=0, suppressed=0)
        self._limit, self._period = limit, period
        self._times: dict[Kind, deque[float]] = {kind: deque(maxlen=limit) for kind in KINDS}
        self._held: Counter[Kind] = Counter()
        self._refused: int | None = None
        self._measure = Drift()
        self._norms: deque[float] = deque(maxlen=NORMS)
        self._queue: queue.Queue[Alert | None] = queue.Queue(waiting)
        self._thread: threading.Thread | None = None
        self._closed = False
        atexit.register(self.close, 5.0)

    def __enter__(self) -> Alerts:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Queue the alerts of a decided round."""
        for alert in self._found(round, outcome):
            self._offer(alert)

    def refused(self, round: Round, error: Exception) -> None:
        """Queue an alert of a round in which the guard raised an error."""
        self._refused = round.index
        self._offer(
            Alert("refused_round", round.index, f"round {round.index} was refused: {type(error).__name__}")
        )

    def close(self, timeout: float = 30.0) -> None:
        """Deliver what waits, for at most ``timeout`` seconds, and stop. Later alerts are dropped."""
        self._closed = True
        atexit.unregister(self.close)
        if self._thread is None or not self._thread.is_alive():
            return
        end = time.monotonic() + timeout
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            log.warning("alerts: %d still wait and are lost", self._queue.qsize())
            return
        self._thread.join(max(0.0, end - time.monotonic()))

    def _found(self, round: Round, outcome: Outcome) -> list[Alert]:
        index, n = round.index, len(outcome.client_ids)
        found = []
        banned, suspects = np.flatnonzero(new_bans(outcome)), np.flatnonzero(outcome.suspects)
        if len(banned):
            names = _names(outcome, banned)
            text = f"round {index}: {len(banned)} of {n} clients banned: {_listed(names, len(banned))}"
            found.append(Alert("ban", index, text, names, {"bans": len(banned), "clients": n}))
        if len(suspects) / n > self.share:
            names = _names(outcome, suspects)
            text = (
                f"round {index}: {len(suspects)} of {n} clients are suspects: {_listed(names, len(suspects))}"
            )
            facts = {"suspects": len(suspects), "clients": n, "limit": self.share}
            found.append(Alert("mass_suspicion", index, text, names, facts))
        if outcome.kept_global and self._refused != index:
            text = f"round {index}: no update of {n} clients was accepted; the global model stays"
            found.append(Alert("refused_round", index, text, facts={"clients": n}))
        return found + self._drifted(index, outcome)

    def _drifted(self, index: int, outcome: Outcome) -> list[Alert]:
        norm, cosine = self._measure.measure(outcome)
        usual = statistics.median(self._norms) if len(self._norms) >= ENOUGH else np.inf
        if 0 < norm < np.inf:
            self._norms.append(norm)
        facts = {"norm": norm, "usual_norm": float(usual), "cosine": cosine}
        reasons = []
        if not np.isfinite(norm):
            reasons.append("its norm is not finite")
        elif self.drift is not None and norm > self.drift * usual:
            reasons.append(f"its norm is {norm / usual:.3g} times the usual one")
        if self.cosine is not None and cosine < self.cosine:
            reasons.append(f"its cosine to the aggregate before is {cosine:.2f}")
        text = f"round {index}: the aggregate is unusual: {' and '.join(reasons)}"
        return [Alert("drift", index, text, facts=facts)] if reasons else []

    def _offer(self, alert: Alert) -> None:
        if alert.kind not in self.on:
            return
        now, times = time.monotonic(), self._times[alert.kind]
        if len(times) == self._limit and now - times[0] < self._period:
            self._held[alert.kind] += 1
            self.counts["suppressed"] += 1
            return
        held = self._held.pop(alert.kind, 0)
        alert = Alert(alert.kind, alert.round, alert.text, alert.clients, alert.facts, held)
        times.append(now)
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait(alert)
        except queue.Full:
            self.counts["dropped"] += 1
            why = "the observer is closed" if self._closed else f"{self._queue.maxsize} are waiting"
            log.warning("alert %s of round %d was dropped: %s", alert.kind, alert.round, why)
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="fedguard-alerts", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (alert := self._queue.get()) is not None:
            for receiver in self.receivers:
                self._deliver(receiver, alert)

    def _deliver(self, receiver: Receiver, alert: Alert) -> None:
        try:
            receiver.deliver(alert)
        except Exception as error:
            self.counts["failed"] += 1
            who = type(receiver).__name__
            log.warning("%s: alert %s of round %d failed: %s", who, alert.kind, alert.round, why_not(error))
        else:
            self.counts["sent"] += 1


def _names(outcome: Outcome, which: Iterable[int]) -> tuple[str, ...]:
    return tuple(escaped(outcome.client_ids[i]) for i in list(which)[:MAX_IDS])


def _listed(names: tuple[str, ...], count: int) -> str:
    return ", ".join(names[:5]) + (f" and {count - 5} more" if count > 5 else "")


def _check(
    receivers: tuple[Receiver, ...],
    on: Sequence[Kind],
    share: float,
    drift: float | None,
    cosine: float | None,
    limit: int,
    period: float,
    waiting: int,
) -> None:
    if not receivers:
        raise ParameterError("alerts: give at least one receiver: a webhook, an email or a command")
    unknown = [kind for kind in on if kind not in KINDS]
    if isinstance(on, str) or unknown:
        raise ParameterError(f"alerts: on is {on!r}; give a list of {', '.join(KINDS)}")
    if not 0 <= share < 1:
        raise ParameterError(f"alerts: share is {share}; use at least 0 and less than 1")
    if drift is not None and not 1 < drift < float("inf"):
        raise ParameterError(f"alerts: drift is {drift}; use more than 1, or null for no limit")
    if cosine is not None and not -1 <= cosine <= 1:
        raise ParameterError(f"alerts: cosine is {cosine}; use −1 to 1, or null for no limit")
    if limit < 1 or not 0 < period < float("inf") or waiting < 1:
        raise ParameterError("alerts: limit and waiting are at least 1, and period is above 0 seconds")
