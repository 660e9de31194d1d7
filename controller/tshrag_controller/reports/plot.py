"""PURE: samples as a drawing of braille dots, with axes and units.

A character holds 2 x 4 dots. Few samples are joined by a line; where many fall on one column, it
shows their whole range, so that a peak is never lost.
"""

from collections.abc import Sequence
from itertools import pairwise

from tshrag_common.units import UNITS
from tshrag_controller.reports.text import duration, quantity

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_EMPTY = 0x2800
_LABEL = 12
_TINY = 1e-300  # below it a quotient overflows


def plot(
    at: Sequence[int],
    values: Sequence[float],
    unit: str = "",
    *,
    bounds: Sequence[float] = (),
    width: int = 72,
    height: int = 12,
) -> list[str]:
    """Return the lines of a drawing; `values` and `bounds` are in the base unit of `unit`.

    Bounds are drawn as dashed lines, and the range is stretched to hold them where they are near.
    """
    if not values:
        return ["no samples"]
    low, high = _range(values, bounds)
    canvas = _Canvas(max(8, width - _LABEL - 1), max(3, height), low, high)
    for bound in bounds:
        canvas.dash(bound)
    samples = sorted(zip(at, values, strict=True))
    first, last = samples[0][0], samples[-1][0]
    points = [((when - first) / max(1, last - first), value) for when, value in samples]
    for x, value in points:
        canvas.dot(x, value)
    if len(points) <= canvas.columns:
        for one, other in pairwise(points):
            canvas.join(one, other)
    lines = canvas.lines()
    labels = {0: high, len(lines) // 2: (low + high) / 2, len(lines) - 1: low}
    drawn = [
        f"{_label(labels[row], unit)[:_LABEL] if row in labels else '':>{_LABEL}}┤{line}"
        for row, line in enumerate(lines)
    ]
    span = duration((last - first) / 1e6) if last > first else "one instant"
    foot = f"{'':{_LABEL}}└{'─' * canvas.columns}"
    axis = f"{'':{_LABEL}} 0{span:>{canvas.columns - 1}}"
    return [*drawn, foot, axis]


def _label(value: float, unit: str) -> str:
    found = UNITS.get(unit)
    if found is None:
        return quantity(float(f"{value:.4g}"), unit)
    return quantity(found.to_base(float(f"{found.from_base(value):.4g}")), unit)


def _range(values: Sequence[float], bounds: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = next(each for each in (high - low, abs(high), 1.0) if each > _TINY)
    near = [bound for bound in bounds if low - span <= bound <= high + span]
    low, high = min([low, *near]), max([high, *near])
    if high - low <= _TINY:
        return low - span / 2, high + span / 2
    return low, high


class _Canvas:
    """Dots on characters; y grows upwards."""

    def __init__(self, columns: int, rows: int, low: float, high: float) -> None:
        self.columns, self._rows = columns, rows
        self._low, self._span = low, high - low
        self._cells = [[0] * columns for _ in range(rows)]
        self._reach: dict[int, tuple[int, int]] = {}

    def dot(self, x_ratio: float, value: float) -> None:
        self._mark(self._x(x_ratio), self._y(value))

    def _x(self, ratio: float) -> int:
        return round(ratio * (self.columns * 2 - 1))

    def _mark(self, x: int, y: int) -> None:
        low, high = self._reach.get(x, (y, y))
        self._reach[x] = min(low, y), max(high, y)

    def join(self, one: tuple[float, float], other: tuple[float, float]) -> None:
        """Draw a line between two samples, without a gap in it."""
        start, end = self._x(one[0]), self._x(other[0])
        for x in range(start, end):
            for each in (x, x + 1):
                part = (each - start) / (end - start)
                self._mark(x, self._y(one[1] + (other[1] - one[1]) * part))

    def dash(self, value: float) -> None:
        if self._low <= value <= self._low + self._span:
            for x in range(0, self.columns * 2, 4):
                self._set(x, self._y(value))

    def lines(self) -> list[str]:
        for x, (low, high) in self._reach.items():
            for y in range(low, high + 1):
                self._set(x, y)
        return ["".join(chr(_EMPTY + cell) for cell in row) for row in self._cells]

    def _y(self, value: float) -> int:
        return round((value - self._low) / self._span * (self._rows * 4 - 1))

    def _set(self, x: int, y: int) -> None:
        row, dot = divmod(self._rows * 4 - 1 - y, 4)
        self._cells[row][x // 2] |= _DOTS[dot][x % 2]
