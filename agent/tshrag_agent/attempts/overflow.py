"""PURE. What became of samples beyond a cap of series: a counter of its own says how many."""

from collections.abc import Callable

from tshrag_common.metrics import MAX_KEY, MetricInfo

NAME = "overflow"
WHOLE = "attempt"
"""Stands for all keys of the attempt together: ``attempt.overflow``."""

_EVERY_US = 1_000_000


class Overflow:
    """One counter for each metric that has too many series, told once a second at most."""

    def __init__(self, take: Callable[[MetricInfo, int, float, int], None]) -> None:
        self._take = take
        self._counts: dict[str, int] = {}
        self._told: dict[str, tuple[int, int]] = {}  # when, and how many

    def add(self, key: str, now_us: int) -> None:
        """Count a sample of `key` that has no series."""
        key = key if len(key) + len(NAME) < MAX_KEY else WHOLE
        self._counts[key] = self._counts.get(key, 0) + 1
        if now_us - self._told.get(key, (0, 0))[0] >= _EVERY_US:
            self._tell(key, now_us)

    def flush(self, now_us: int) -> None:
        """Tell what was counted since."""
        for key, count in self._counts.items():
            if self._told.get(key, (0, 0))[1] != count:
                self._tell(key, now_us)

    def _tell(self, key: str, now_us: int) -> None:
        count = self._counts[key]
        self._told[key] = (now_us, count)
        self._take(MetricInfo(key=f"{key}.{NAME}", type="counter"), now_us, float(count), 0)
