"""Where names stand beside points and lines, so that they cover little else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .picture import CHARACTER, short

#: Where a name may stand beside its point, best first: shift in lines of text, upwards, and its direction.
_BESIDE = (
    *((0.8, 1.2, 1), (0.8, -1.2, 1), (-0.8, 1.2, -1), (0.9, 0.0, 1), (-0.9, 0.0, -1)),
    *((-0.8, -1.2, -1), (0.8, 2.4, 1), (0.8, -2.4, 1), (-0.8, 2.4, -1), (-0.8, -2.4, -1)),
    *((0.8, 3.6, 1), (0.8, -3.6, 1), (-0.8, 3.6, -1), (-0.8, -3.6, -1)),
)


class Box(NamedTuple):
    """A rectangle, y upwards."""

    left: float
    low: float
    right: float
    high: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share an area."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.high <= other.low or other.high <= self.low)


class Beside(NamedTuple):
    """Where a name starts or, if it does not run to the right, ends: shift from its point."""

    x: float
    y: float
    right: bool


def beside(
    points: Sequence[tuple[float, float]], names: Sequence[str], size: float, frame: Box
) -> list[Beside]:
    """A place for each name where it covers the fewest points and names, and stays in the frame.

    Args:
        points: in the unit of ``size``, y upwards.
        names: of the points.
        size: of the font.
        frame: within which they should stay.
    """
    taken: list[Box] = []
    found = []
    for point, name in zip(points, names, strict=True):
        options = [_option(point, name, size, shift) for shift in _BESIDE]
        place, box = min(options, key=lambda option: _cost(option[1], points, taken, frame))
        taken.append(box)
        found.append(place)
    return found


def _option(
    point: tuple[float, float], name: str, size: float, shift: tuple[float, float, int]
) -> tuple[Beside, Box]:
    x, y, way = shift[0] * size, shift[1] * size, shift[2]
    start, end = sorted((point[0] + x, point[0] + x + way * len(short(name)) * CHARACTER * size))
    middle = point[1] + y
    return Beside(x, y, way > 0), Box(start, middle - 0.6 * size, end, middle + 0.6 * size)


def _cost(box: Box, points: Sequence[tuple[float, float]], taken: Sequence[Box], frame: Box) -> float:
    names = sum(box.overlaps(other) for other in taken)
    near = 0.3 * (box.high - box.low)
    dots = sum(
        box.left - near < x < box.right + near and box.low - near < y < box.high + near for x, y in points
    )
    outside = box.left < frame.left or box.right > frame.right or box.low < frame.low or box.high > frame.high
    return 3 * names + dots + 5 * outside


def spread(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """The values, moved so that two are at least ``step`` apart, within low and high; their order stays.

    Example:
        >>> spread([1.0, 1.0, 5.0], 1.0, 0.0, 5.0)
        [1.0, 2.0, 5.0]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for i, _ in enumerate(placed):
        placed[i] = max(placed[i], low if i == 0 else placed[i - 1] + step)
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], high if i == len(placed) - 1 else placed[i + 1] - step)
    found = [0.0] * len(values)
    for i, place in zip(order, placed, strict=True):
        found[i] = place
    return found
