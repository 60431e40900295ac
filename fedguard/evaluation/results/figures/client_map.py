"""The updates of a recording in two dimensions, by verdict and truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....core.errors import ParameterError
from ....recording.recording import Recording
from ....simulation.recorded import Roster
from .axes import Axis
from .picture import Dots, Key, Mark, Picture, Plot, Points, Stroke, Text
from .style import BENIGN, MALICIOUS

#: The most rounds of a map: first, last, and some between.
ROUNDS = 6
_NAMES = ("first principal component of the updates (%: of the variance)", "second")


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


def client_map(found: Sequence[Map]) -> Picture:
    """A plot per round: filled in orange if suspect; a triangle if malicious, a circle if benign."""
    known = found[0].malicious is not None
    truths = {"benign": False, "malicious": True} if known else {"truth unknown": False}
    keys = [
        Key(f"{truth}, {word}", _dots((), bad, suspect))
        for truth, bad in truths.items()
        for word, suspect in (("let through", False), ("suspect", True))
    ]
    return Picture("Clients", [_plot(one) for one in found], "no round to draw", "", keys, row=1.9)


def _plot(one: Map) -> Plot:
    bad = np.zeros(len(one.places), dtype=bool) if one.malicious is None else one.malicious
    x, y = (_axis(name, one.places[:, i]) for i, name in enumerate(_NAMES))
    marks: list[Mark] = [
        Stroke([(0.0, y.low), (0.0, y.high)], "rule", thin=True),
        Stroke([(x.low, 0.0), (x.high, 0.0)], "rule", thin=True),
    ]
    for malicious in (False, True):
        for suspect in (False, True):
            rows = one.places[(bad == malicious) & (one.suspects == suspect)]
            if len(rows):
                marks.append(_dots([(a, b) for a, b in rows.tolist()], malicious, suspect))
    shares = " + ".join(f"{100 * share:.0f}" for share in one.explained)
    caught = f"{int((bad & one.suspects).sum())} of {int(bad.sum())} malicious ones"
    alt = f"Updates of round {one.round} in two dimensions: {int(one.suspects.sum())} suspects"
    alt += "" if one.malicious is None else f", {caught} among them"
    title = f"round {one.round} ({shares} %)"
    return Plot(title, x, y, [*marks, *_counts(one.places)], alt, (260.0, 220.0))


def _axis(name: str, values: NDArray[np.float64]) -> Axis:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.08 * ((high - low) or 1.0)
    return Axis(name, low - room, high + room, blank=True)


def _counts(places: NDArray[np.float64]) -> list[Mark]:
    """How many updates lie on one point, as those of attackers that send the same."""
    size = float(np.ptp(places, axis=0).max()) or 1.0
    points, counts = np.unique(np.round(places / (0.005 * size)), axis=0, return_counts=True)
    found = zip((points * 0.005 * size).tolist(), counts.tolist(), strict=True)
    return [Text(x, y, f"×{count}", right=True) for (x, y), count in found if count > 1]


def _dots(points: Points, malicious: bool, suspect: bool) -> Dots:
    words = f"{'malicious' if malicious else 'benign or unknown'}, {'suspect' if suspect else 'let through'}"
    return Dots(points, MALICIOUS if suspect else BENIGN, filled=suspect, shape=3 * malicious, label=words)
