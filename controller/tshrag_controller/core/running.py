"""PURE: statistics of a stream as it comes, in bounded memory; sources of a group add up.

Everything is exact but quantiles, which are within 1 % (sketch.py), and sums, whose last digits
depend on the order. `last`, `first`, `rate` and `slope` go by the times of the samples.
"""

import math
from collections.abc import Iterable
from operator import itemgetter

from tshrag_common.sketch import Sketch
from tshrag_common.statistics import quantile_percent


class Running:
    """What is known of the samples of one source so far."""

    __slots__ = (
        "_mean", "_squares", "_t_base", "_t_sum", "_tt_sum", "_tv_sum", "_v_sum", "count",
        "counter", "first", "grown", "high", "last", "low", "sketch", "total",
    )  # fmt: skip

    def __init__(self, counter: bool = False, quantiles: bool = False) -> None:
        self.count = 0
        self.low, self.high, self.total = math.inf, -math.inf, 0.0
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] | None = None
        self.counter, self.grown = counter, 0.0
        self.sketch = Sketch() if quantiles else None
        self._mean = self._squares = 0.0
        self._t_base = 0
        self._t_sum = self._tt_sum = self._tv_sum = self._v_sum = 0.0

    def add(self, at: int, value: float) -> None:
        self.count += 1
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.total += value
        far = value - self._mean
        self._mean += far / self.count
        self._squares += far * (value - self._mean)
        if self.last is not None and at >= self.last[0]:
            step = value - self.last[1]
            self.grown += step if step >= 0 else value  # a counter that began anew
        if self.first is None or at < self.first[0]:
            self.first = (at, value)
        if self.last is None or at >= self.last[0]:
            self.last = (at, value)
        self._slope_add(at, value)
        if self.sketch is not None:
            self.sketch.add(value)

    def _slope_add(self, at: int, value: float) -> None:
        self._t_base = self._t_base or at
        seconds = (at - self._t_base) / 1e6
        self._t_sum += seconds
        self._tt_sum += seconds * seconds
        self._tv_sum += seconds * value
        self._v_sum += value

    def value(self, statistic: str) -> float | None:
        """Return a statistic; None where the samples do not suffice."""
        if not self.count or self.first is None or self.last is None:
            return 0.0 if statistic == "count" else None
        percent = quantile_percent("p50" if statistic == "median" else statistic)
        if percent is not None:
            return self.sketch.quantile(percent) if self.sketch is not None else None
        simple = {
            "count": float(self.count),
            "sum": self.total,
            "avg": self.total / self.count,
            "min": self.low,
            "max": self.high,
            "first": self.first[1],
            "last": self.last[1],
            "spread": self.high - self.low,
        }
        if statistic in simple:
            return simple[statistic]
        if statistic == "stdev":
            return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else None
        return self._rate() if statistic == "rate" else self._slope()

    def _rate(self) -> float | None:
        if self.first is None or self.last is None or self.last[0] <= self.first[0]:
            return None
        span_s = (self.last[0] - self.first[0]) / 1e6
        return (self.grown if self.counter else self.last[1] - self.first[1]) / span_s

    def _slope(self) -> float | None:
        spread = self._tt_sum - self._t_sum**2 / self.count
        if spread <= 0:
            return None
        return (self._tv_sum - self._t_sum * self._v_sum / self.count) / spread

    @property
    def base(self) -> int:
        """Return the instant from which the sums of `slope_sums` count."""
        return self._t_base

    def squares_around(self, mean: float) -> float:
        """Return the sum of squares of what the values are away from `mean`."""
        return self._squares + self.count * (self._mean - mean) ** 2

    def slope_sums(self, base: int) -> tuple[float, float, float, float, float]:
        """Return n, and the sums of t, t*t, t*v and v, with t in seconds from `base`."""
        n, by = self.count, (self._t_base - base) / 1e6
        return (
            float(n),
            self._t_sum + n * by,
            self._tt_sum + 2 * by * self._t_sum + n * by * by,
            self._tv_sum + by * self._v_sum,
            self._v_sum,
        )


def needs_quantiles(statistic: str) -> bool:
    return statistic == "median" or quantile_percent(statistic) is not None


def together(statistic: str, sources: Iterable[Running]) -> float | None:
    """Return the statistic of several sources, as `measured.statistic_of` takes them together."""
    found = [source for source in sources if source.count]
    if len(found) < 2:
        return found[0].value(statistic) if found else None
    if found[0].counter and statistic == "last":
        return math.fsum(source.last[1] for source in found if source.last is not None)
    if found[0].counter and statistic == "rate":
        return _total_rate(found)
    if needs_quantiles(statistic):
        return _merged_quantile(statistic, found)
    return _merged(statistic, found)


def _total_rate(found: list[Running]) -> float | None:
    begin = min(source.first[0] for source in found if source.first)
    end = max(source.last[0] for source in found if source.last)
    if end <= begin:
        return None
    return math.fsum(source.grown for source in found) / ((end - begin) / 1e6)


def _merged_quantile(statistic: str, found: list[Running]) -> float | None:
    whole = Sketch()
    for source in found:
        if source.sketch is not None:
            whole.merge(source.sketch)
    return whole.quantile(quantile_percent("p50" if statistic == "median" else statistic) or 0.0)


def _merged(statistic: str, found: list[Running]) -> float | None:
    count = sum(source.count for source in found)
    first = min((s.first for s in found if s.first), key=itemgetter(0))
    last = max((s.last for s in reversed(found) if s.last), key=itemgetter(0))
    low, high = min(s.low for s in found), max(s.high for s in found)
    mean = math.fsum(source.total for source in found) / count
    values: dict[str, float | None] = {
        "count": float(count),
        "sum": mean * count,
        "avg": mean,
        "min": low,
        "max": high,
        "spread": high - low,
        "first": first[1],
        "last": last[1],
    }
    if statistic in values:
        return values[statistic]
    if statistic == "stdev":
        squares = math.fsum(s.squares_around(mean) for s in found)
        return math.sqrt(squares / (count - 1))
    if statistic == "rate" and last[0] > first[0]:
        return (last[1] - first[1]) / ((last[0] - first[0]) / 1e6)
    return _merged_slope(found) if statistic == "slope" else None


def _merged_slope(found: list[Running]) -> float | None:
    base = min(source.base for source in found)
    sums = [source.slope_sums(base) for source in found]
    n, t, tt, tv, v = (math.fsum(column) for column in zip(*sums, strict=True))
    spread = tt - t * t / n
    return (tv - t * v / n) / spread if spread > 0 else None
