"""PURE: quantiles of a stream in bounded memory, each within 1 % of the true value.

A DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019): a value falls into the bucket of its logarithm,
so that every value of a bucket is within ``ERROR`` of its middle. Two sketches add up. At most
``MOST_BUCKETS`` are kept: what is nearest to zero shares one, and loses its exactness first.
"""

import math

ERROR = 0.01
MOST_BUCKETS = 4096
_GAMMA = (1 + ERROR) / (1 - ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_TINY = 1e-300


class Sketch:
    """Counts of values by the size of them; positive and negative ones apart."""

    __slots__ = ("_minus", "_plus", "_zero", "count", "high", "low")

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = math.inf, -math.inf
        self._zero = 0
        self._plus: dict[int, int] = {}
        self._minus: dict[int, int] = {}

    def add(self, value: float) -> None:
        self.count += 1
        self.low, self.high = min(self.low, value), max(self.high, value)
        if abs(value) < _TINY:
            self._zero += 1
            return
        buckets = self._plus if value > 0 else self._minus
        index = math.ceil(math.log(abs(value)) / _LOG_GAMMA)
        buckets[index] = buckets.get(index, 0) + 1
        if len(buckets) > MOST_BUCKETS:
            _fold(buckets)

    def merge(self, other: "Sketch") -> None:
        """Take in what another sketch has seen."""
        self.count += other.count
        self._zero += other._zero
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        for own, theirs in ((self._plus, other._plus), (self._minus, other._minus)):
            for index, count in theirs.items():
                own[index] = own.get(index, 0) + count
            while len(own) > MOST_BUCKETS:
                _fold(own)

    def quantile(self, percent: float) -> float | None:
        """Return the value below which `percent` of all lie, within ``ERROR`` of it."""
        if not self.count:
            return None
        rank = percent / 100 * (self.count - 1)
        seen = 0
        for value, count in self._ordered():
            seen += count
            if seen > rank:
                return min(self.high, max(self.low, value))
        return self.high

    def _ordered(self) -> list[tuple[float, int]]:
        """Return the middles of the buckets and their counts, the smallest value first."""
        middle = 2 / (1 + _GAMMA)
        minus = [(-(_GAMMA**index) * middle, n) for index, n in sorted(self._minus.items())]
        plus = [(_GAMMA**index * middle, n) for index, n in sorted(self._plus.items())]
        return [*reversed(minus), *([(0.0, self._zero)] if self._zero else []), *plus]


def _fold(buckets: dict[int, int]) -> None:
    """Let the two buckets nearest to zero share one."""
    first, second = sorted(buckets)[:2]
    buckets[second] += buckets.pop(first)
