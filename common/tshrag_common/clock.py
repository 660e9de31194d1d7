"""Time: wall for what people read, monotonic for what the lab decides."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests hand in their own."""

    def now(self) -> int:
        """Return integer microseconds UTC since 1970."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()
