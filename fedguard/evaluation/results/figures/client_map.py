"""The updates of a recording in two dimensions, by verdict and truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import ParameterError
from ....recording.recording import Recording
from ....simulation.recorded import Roster
from .grid import grid, labels, legend, title
from .style import BENIGN, MALICIOUS, Sheet

#: The most rounds of a map: first, last, and some between.
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Map:
    """One round.

    Attributes:
        round: its number, from 1.
        places: (n, 2) the updates' first two principal components, those of usable updates.
        explained: (2,) their shares of the variance.
        suspects: (n,) the verdicts.
        malicious: (n,) the truth; None if unknown.
    """

    round: int
    places: NDArray[np.float64]
    explained: NDArray[np.float64]
    suspects: NDArray[np.bool_]
    malicious: NDArray[np.bool_] | None


def principal(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components of n points from their centered Gram matrix, (n, n).

    With G = V Λ Vᵀ they are V √Λ (principal coordinates). Signs are such that the largest entry of each
    is positive.

    Returns:
        (n, 2) coordinates, and (2,) shares of the variance.
    """
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][:2]
    kept = np.clip(values[order], 0.0, None)
    places = vectors[:, order] * np.sqrt(kept)
    places = places * np.sign(places[np.abs(places).argmax(0), range(places.shape[1])])
    total = max(float(np.clip(values, 0.0, None).sum()), 1e-300)
    missing = 2 - places.shape[1]
    return np.pad(places, ((0, 0), (0, missing))), np.pad(kept / total, (0, missing))


def maps(recording: Recording, rounds: Sequence[int] = ()) -> list[Map]:
    """The maps of some rounds (from 1); of up to :data:`ROUNDS` between the first and the last if none.

    Raises:
        ParameterError: there is no such round, or none with two usable updates.
        ResultsError: the recording is damaged.
    """
    clients = Roster(recording)
    numbers = [entry.index + 1 for entry in recording.index.rounds[: len(recording)]]
    missing = sorted(set(rounds) - set(numbers))
    if missing:
        raise ParameterError(f"{recording.folder} has no round {missing[0]} (rounds are counted from 1)")
    chosen = [numbers.index(number) for number in rounds] or _spread(len(numbers))
    found = [one for position in chosen if (one := _map(recording, clients, position)) is not None]
    if not found:
        raise ParameterError(f"{recording.folder}: no round has two usable updates to draw")
    return found


def _spread(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, ROUNDS))})


def _map(recording: Recording, clients: Roster, position: int) -> Map | None:
    recorded = recording.read(position)
    usable = np.flatnonzero(recorded.round.updates.finite)
    if len(usable) < 2:
        return None
    gram = recorded.round.updates.take(usable).centered_gram.cpu().numpy().astype(float)
    places, explained = principal(gram)
    truth = [clients.is_malicious(clients.number(recorded.round.client_ids[i])) for i in usable]
    known = None if None in truth else np.array(truth, dtype=bool)
    return Map(recorded.round.index + 1, places, explained, recorded.suspects[usable], known)


def draw(sheet: Sheet, found: Sequence[Map]) -> Any:
    """A panel per round: filled in orange if suspect; a triangle if malicious, a circle if benign."""
    from matplotlib.lines import Line2D

    height = 0.85 * sheet.width / (1 + sheet.columns)
    figure, axes = grid(sheet, len(found), "no round to draw", height, 1 + sheet.columns)
    for axis, one in zip(axes, found, strict=True):
        bad = np.zeros(len(one.places), dtype=bool) if one.malicious is None else one.malicious
        for malicious in (False, True):
            for suspect in (False, True):
                rows = (bad == malicious) & (one.suspects == suspect)
                axis.plot(*one.places[rows].T, **_dot(sheet, malicious, suspect))
        _count(axis, one.places)
        x, y = 100 * one.explained
        title(axis, f"round {one.round} ({x:.0f} + {y:.0f} %)")
        axis.axhline(0, color=sheet.colors["rule"], linewidth=0.6, zorder=0)
        axis.axvline(0, color=sheet.colors["rule"], linewidth=0.6, zorder=0)
        axis.set_xticks([])
        axis.set_yticks([])
    labels(figure, "first principal component of the updates (%: of the variance)", "second")
    truths = ("benign", "malicious") if found[0].malicious is not None else ("truth unknown",)
    handles = {
        f"{truth}, {word}": Line2D([], [], **_dot(sheet, truth == "malicious", word == "suspect"))
        for truth in truths
        for word in ("let through", "suspect")
    }
    legend(figure, handles, columns=2 if sheet.columns == 1 else 4)
    return figure


def _count(axis: Any, places: NDArray[np.float64]) -> None:
    """Write how many updates lie on one point, as those of attackers that send the same."""
    size = float(np.ptp(places, axis=0).max()) or 1.0
    points, counts = np.unique(np.round(places / (0.005 * size)), axis=0, return_counts=True)
    for (x, y), count in zip(points * 0.005 * size, counts, strict=True):
        if count > 1:
            axis.annotate(f"×{count}", (x, y), xytext=(5, 3), textcoords="offset points", fontsize=6.5)


def _dot(sheet: Sheet, malicious: bool, suspect: bool) -> dict[str, Any]:
    color = sheet.colors[MALICIOUS] if suspect else sheet.colors[BENIGN]
    face = color if suspect else sheet.colors["paper"]
    return {
        "marker": "^" if malicious else "o", "linestyle": "", "color": color, "markerfacecolor": face,
        "markersize": 5.5 if malicious else 4.5, "markeredgewidth": 1.0,
    }  # fmt: skip
