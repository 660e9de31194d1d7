"""PURE: the chart of a judged metric inside the HTML report: axes, bounds, breaches, gaps.

The band reaches from the least to the greatest sample of each slice of time, so that a spike which
a mean hides is seen; what is beyond a bound that a criterion failed at is marked.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from tshrag_common.criteria import Evidence
from tshrag_common.statistics import unit_of
from tshrag_common.units import UNITS
from tshrag_common.views import SeriesView
from tshrag_controller.reports.text import clean, duration, quantity

WIDTH, HEIGHT = 760, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 150, 12, 24
_APART = 13
_NO_VALUE = ("count", "rate", "slope", "silence", "absent", "num", "hist")
MOST_LINES = 6


class Line(NamedTuple):
    """A bound across the chart; `breached` says from which side: 1 above it, -1 below, 0 not."""

    at: float
    said: str
    breached: int


def lines_of(evidence: Iterable[Evidence], key: str) -> list[Line]:
    """Return the bounds of criteria on a metric, in its base unit."""
    found: dict[tuple[float, str], Line] = {}
    for each in evidence:
        if each.metric != key or each.bound is None or each.statistic in _NO_VALUE:
            continue
        unit = UNITS.get(each.unit)
        at = unit.to_base(each.bound) if unit else each.bound
        side = 0
        if each.verdict == "fail" and each.value is not None:
            side = 1 if each.value > each.bound else -1
        said = f"{each.bound:g} {each.unit}".rstrip() + f" {each.criterion}"
        found[at, each.criterion] = Line(at, said, side)
    return sorted(found.values())[:MOST_LINES]


def chart(series: SeriesView, evidence: Iterable[Evidence]) -> str:
    """Return the chart of a metric; nothing where no criterion asked for a number of it."""
    lines = lines_of(evidence, series.key)
    if not lines or not series.spark:
        return ""
    return _Chart(series, lines).drawn()


class _Chart:
    """Where things lie."""

    def __init__(self, series: SeriesView, lines: Sequence[Line]) -> None:
        self._series, self._lines = series, lines
        self._lows = series.spark_low or series.spark
        self._highs = series.spark_high or series.spark
        every = [*self._lows, *self._highs, *(line.at for line in lines)]
        self._low, self._high = min(every), max(every)
        pad = (self._high - self._low) * 0.05 or abs(self._high) * 0.05 or 1.0
        self._low, self._high = self._low - pad, self._high + pad

    def drawn(self) -> str:
        parts = [*self._grid(), *self._gaps(), *self._course(), *self._bounds(), *self._breaches()]
        name = escape(clean(f"course of {self._series.key} with its bounds"))
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
        )

    def _x(self, slot: float) -> float:
        return _LEFT + (slot + 0.5) * (WIDTH - _LEFT - _RIGHT) / len(self._series.spark)

    def _y(self, value: float) -> float:
        share = (self._high - value) / (self._high - self._low)
        return _TOP + share * (HEIGHT - _TOP - _BOTTOM)

    def _grid(self) -> list[str]:
        """Return three levels with their values, and the time below."""
        unit = unit_of("avg", self._series.unit)
        found: list[str] = []
        for share in (0.05, 0.5, 0.95):
            value = self._low + share * (self._high - self._low)
            y = self._y(value)
            found.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(quantity(float(f'{value:.3g}'), unit))}</text>"
            )
        long_us = self._series.last_at - self._series.first_at
        whole = duration(long_us / 1e6) if long_us > 0 else ""
        below = HEIGHT - 6
        found.append(
            f'<text x="{_LEFT}" y="{below}">0</text>'
            f'<text x="{WIDTH - _RIGHT}" y="{below}" text-anchor="end">{escape(whole)}</text>'
        )
        return found

    def _gaps(self) -> list[str]:
        """Return a shade for each slice without a sample."""
        wide, tall = self._x(1) - self._x(0), HEIGHT - _TOP - _BOTTOM
        return [
            f'<rect class="gap" x="{self._x(slot) - wide / 2:.1f}" y="{_TOP}" '
            f'width="{wide:.1f}" height="{tall}"><title>no samples</title></rect>'
            for slot in self._series.spark_gaps
        ]

    def _course(self) -> list[str]:
        """Return band and line, broken where nothing was measured."""
        found: list[str] = []
        for slots in self._stretches():
            above = [f"{self._x(slot):.1f},{self._y(self._highs[slot]):.1f}" for slot in slots]
            under = [f"{self._x(slot):.1f},{self._y(self._lows[slot]):.1f}" for slot in slots]
            found.append(f'<polygon class="band" points="{" ".join(above + under[::-1])}"/>')
            means = [(self._x(slot), self._y(self._series.spark[slot])) for slot in slots]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
            found.append(f'<polyline class="course" points="{points}"/>')
            if len(means) == 1:
                x, y = means[0]
                found.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
        return found

    def _stretches(self) -> list[list[int]]:
        gaps, found = set(self._series.spark_gaps), list[list[int]]()
        for slot in range(len(self._series.spark)):
            if slot in gaps:
                continue
            if found and found[-1][-1] == slot - 1:
                found[-1].append(slot)
            else:
                found.append([slot])
        return found

    def _bounds(self) -> list[str]:
        found: list[str] = []
        free = float(HEIGHT)
        for line in self._lines:  # from the lowest on: names make room upwards
            y = self._y(line.at)
            free = min(free - _APART, y + 4)
            found.append(
                f'<line class="bound" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text class="limit" x="{WIDTH - _RIGHT + 6}" y="{free:.1f}">'
                f"{escape(clean(line.said, 22))}</text>"
            )
        return found

    def _breaches(self) -> list[str]:
        found: list[str] = []
        gaps = set(self._series.spark_gaps)
        for line in self._lines:
            for slot in range(len(self._series.spark)):
                value = self._highs[slot] if line.breached > 0 else self._lows[slot]
                if slot in gaps or not line.breached or (value - line.at) * line.breached <= 0:
                    continue
                found.append(
                    f'<circle class="breach" cx="{self._x(slot):.1f}" cy="{self._y(value):.1f}" '
                    f'r="3.5"><title>{escape(clean(line.said))}</title></circle>'
                )
        return found
