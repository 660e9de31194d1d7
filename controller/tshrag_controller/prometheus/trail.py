"""PURE. When which place was the newest: instants that other controllers understand, and back.

A place (partition, chunk) means something in one store only. The leader tells the instant before
which all that it had stored is copied; a standby finds what it had stored itself by then.
"""

from collections import deque

from tshrag_controller.store.since import Place

OVERLAP_US = 30_000_000
"""A sample may have come to the leader so much later than to a standby, or their clocks differ."""


class Trail:
    """Pairs of an instant and the newest place then, of the last `keep_us`."""

    def __init__(self, keep_us: int) -> None:
        self._keep_us = keep_us + 2 * OVERLAP_US
        self._steps: deque[tuple[int, Place]] = deque()
        self._floor = Place()

    def note(self, at: int, newest: Place) -> None:
        """Take note of the newest place at an instant, and forget what is too old to be asked."""
        self._steps.append((at, newest))
        while self._steps[0][0] < at - self._keep_us:
            self._floor = self._steps.popleft()[1]

    def copied_at(self, place: Place) -> int:
        """Return the last instant at which nothing was stored behind `place`; 0: unknown."""
        return next((at for at, newest in reversed(self._steps) if newest <= place), 0)

    def place_before(self, copied_at: int) -> Place:
        """Return the place from which on another controller may not have copied."""
        sure = copied_at - OVERLAP_US
        return next((place for at, place in reversed(self._steps) if at <= sure), self._floor)
