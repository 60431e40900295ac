"""Metrics of a guard in Prometheus' format (``pip install "fedguard[prometheus]"``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ParameterError
from ..core.extras import extra_module
from .events import Drift, new_bans

if TYPE_CHECKING:
    from ..contracts.outcome import Outcome
    from ..contracts.round import Round

#: Scores are summarized: one time series per client would let new ids flood the database.
QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "max": 1.0}

_COUNTERS = {
    "rounds": "Rounds decided.",
    "refused_rounds": "Rounds in which the guard raised an error.",
    "kept_global_rounds": "Rounds in which no update was accepted, so that the global model stayed.",
    "updates": "Updates received.",
    "excluded_updates": "Updates that contributed nothing.",
    "suspicions": "Updates called suspicious.",
    "unusable_updates": "Updates with NaN, Inf or an absurd sample count.",
    "bans": "Bans that began.",
}
_GAUGES = {
    "round": "Number of the latest round.",
    "clients": "Clients of the latest round.",
    "suspects": "Suspects of the latest round.",
    "banned_clients": "Clients of the latest round whose ban is in force.",
    "aggregate_norm": "Euclidean norm of the latest aggregate: how far the global model moved.",
    "aggregate_cosine": "Cosine of the latest aggregate to the one before; NaN without either.",
}


class PrometheusMetrics:
    """An observer that counts rounds, updates, suspicions and bans, and exports scores, drift and times.

    Labels are detectors and parts, never clients: a guard has the same number of time series for ten clients
    and for a million. All names begin with ``fedguard_``.

    Args:
        port: serve ``http://host:port/metrics``; 0 takes a free port, which ``port`` then returns.
        host: the address to serve on; only this machine by default.
        textfile: write this file after every round, for the node exporter (name it ``*.prom``).

    Raises:
        ParameterError: neither port nor file is given, the port is taken, or prometheus-client is missing.
    """

    def __init__(
        self, port: int | None = None, host: str = "127.0.0.1", textfile: str | Path | None = None
    ) -> None:
        if port is None and textfile is None:
            raise ParameterError("prometheus: give a port to serve on, a textfile to write, or both")
        client = extra_module("prometheus_client", "prometheus", "the metrics")
        self.registry = client.CollectorRegistry()
        make: dict[str, Any] = {"namespace": "fedguard", "registry": self.registry}
        self._counters = {n: client.Counter(n, text, **make) for n, text in _COUNTERS.items()}
        self._gauges = {n: client.Gauge(n, text, **make) for n, text in _GAUGES.items()}
        self._score = client.Gauge(
            "score", "Finite scores of the latest round.", ["detector", "quantile"], **make
        )
        self._seconds = client.Counter("seconds", "Seconds spent, by part of the guard.", ["part"], **make)
        self._drift = Drift()
        self._textfile = None if textfile is None else Path(textfile)
        self._write = client.write_to_textfile
        self._server: Any = None
        if port is not None:
            try:
                self._server, self._thread = client.start_http_server(port, host, self.registry)
            except (OSError, OverflowError) as error:
                raise ParameterError(f"prometheus: cannot serve on {host}:{port}: {error}") from None

    @property
    def port(self) -> int | None:
        """The served port; None without one."""
        return None if self._server is None else int(self._server.server_port)

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Count the round, and write the file if one was given."""
        norm, cosine = self._drift.measure(outcome)
        counts = {
            "rounds": 1,
            "kept_global_rounds": outcome.kept_global,
            "updates": len(outcome.client_ids),
            "excluded_updates": int((outcome.weights == 0).sum()),
            "suspicions": int(outcome.suspects.sum()),
            "unusable_updates": int((~round.usable).sum()),
            "bans": int(new_bans(outcome).sum()),
        }
        now = {
            "round": round.index,
            "clients": len(outcome.client_ids),
            "suspects": int(outcome.suspects.sum()),
            "banned_clients": int(outcome.banned.sum()),
            "aggregate_norm": norm,
            "aggregate_cosine": cosine,
        }
        for name, count in counts.items():
            self._counters[name].inc(count)
        for name, value in now.items():
            self._gauges[name].set(value)
        for part, seconds in outcome.seconds.items():
            self._seconds.labels(part).inc(seconds)
        self._summarize(outcome)
        if self._textfile is not None:
            self._write(str(self._textfile), self.registry)

    def refused(self, round: Round, error: Exception) -> None:
        """Count a round in which the guard raised an error, and write the file if one was given."""
        self._counters["refused_rounds"].inc()
        if self._textfile is not None:
            self._write(str(self._textfile), self.registry)

    def _summarize(self, outcome: Outcome) -> None:
        for name, scores in outcome.by_detector.items():
            finite = scores[np.isfinite(scores)]
            for quantile, level in QUANTILES.items():
                value = float(np.quantile(finite, level)) if len(finite) else float("nan")
                self._score.labels(name, quantile).set(value)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
