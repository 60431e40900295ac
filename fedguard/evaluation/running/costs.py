"""What runs cost, from the times of a few of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...simulation.settings import Cell

#: Seconds of judging below which a ratio says nothing.
LEAST = 1e-3
#: What two runs of the same federation may differ in.
_VARIES = {"attack", "attack_label", "defense", "defense_label", "mode", "seed", "point", "rounds"}


class Kind(NamedTuple):
    """What decides the cost of a round."""

    federation: str
    attack: str
    defense: str

    @classmethod
    def of(cls, cell: Cell) -> Kind:
        """The kind of a run."""
        return cls(
            cell.model_dump_json(exclude=_VARIES),
            cell.attack.model_dump_json(),
            cell.defense.model_dump_json(),
        )


@dataclass(frozen=True)
class Part:
    """Seconds of a run's first round, with its setup, and of each further round."""

    first: float
    later: float

    def of(self, rounds: int) -> float:
        """Of all rounds."""
        return self.first + (rounds - 1) * self.later

    def __mul__(self, factor: float) -> Part:
        return Part(factor * self.first, factor * self.later)


@dataclass(frozen=True)
class Timed:
    """A run that was timed.

    Attributes:
        kind: its kind.
        work: the federation: training, crafting, testing.
        judging: the defense: detectors, policy, stages and aggregator.
    """

    kind: Kind
    work: Part
    judging: Part


class Costs:
    """Expects of every run what its attack's federation cost, plus what its defense's judging cost.

    Both are means over the timed runs of the federation that was timed most. At another point of the grid
    both are as many times as much as in the runs that were timed there. What was not timed counts as the
    mean of what was.

    Args:
        timed: at least one run.
    """

    def __init__(self, timed: Sequence[Timed]) -> None:
        federations = [one.kind.federation for one in timed]
        self._home = max(dict.fromkeys(federations), key=federations.count)
        self._exact = _means((one.kind, one) for one in timed)
        here = [one for one in timed if one.kind.federation == self._home]
        self._work = _parts((one.kind.attack, one.work) for one in here)
        self._judging = _parts((one.kind.defense, one.judging) for one in here)
        self._scales = {name: self._scale(timed, name) for name in set(federations)}

    def of(self, cell: Cell, kind: Kind | None = None) -> tuple[float, float]:
        """Seconds of a run's federation and of its defense's judging."""
        kind = kind or Kind.of(cell)
        work, judging = self._exact.get(kind) or self._expected(kind)
        return work.of(cell.rounds), judging.of(cell.rounds)

    def _expected(self, kind: Kind) -> tuple[Part, Part]:
        scales = list(self._scales.values())
        mean = tuple(sum(column) / len(scales) for column in zip(*scales, strict=True))
        by_work, by_judging = self._scales.get(kind.federation, mean)
        work, judging = self._plain(kind)
        return work * by_work, judging * by_judging

    def _plain(self, kind: Kind) -> tuple[Part, Part]:
        """Without the scale of the federation."""
        return (
            self._work.get(kind.attack) or _mean(self._work.values()),
            self._judging.get(kind.defense) or _mean(self._judging.values()),
        )

    def _scale(self, timed: Sequence[Timed], federation: str) -> tuple[float, float]:
        """How many times as much a federation's work, and judging there, cost."""
        there = [one for one in timed if one.kind.federation == federation]
        plain = [self._plain(one.kind) for one in there]
        work = sum(one.work.of(2) for one in there) / max(LEAST, sum(w.of(2) for w, _ in plain))
        expected = sum(judging.of(2) for _, judging in plain)
        judging = sum(one.judging.of(2) for one in there) / expected if expected > LEAST else work
        return work, judging


def _means(found: Iterable[tuple[Kind, Timed]]) -> dict[Kind, tuple[Part, Part]]:
    groups: dict[Kind, list[Timed]] = {}
    for kind, one in found:
        groups.setdefault(kind, []).append(one)
    return {
        kind: (_mean([one.work for one in some]), _mean([one.judging for one in some]))
        for kind, some in groups.items()
    }


def _parts(found: Iterable[tuple[str, Part]]) -> dict[str, Part]:
    groups: dict[str, list[Part]] = {}
    for name, part in found:
        groups.setdefault(name, []).append(part)
    return {name: _mean(parts) for name, parts in groups.items()}


def _mean(parts: Iterable[Part]) -> Part:
    some = list(parts)
    return Part(sum(p.first for p in some) / len(some), sum(p.later for p in some) / len(some))
