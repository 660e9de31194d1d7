"""PURE. The clock of a DUT against that of the agent: where a time that the DUT wrote belongs.

Each reading bounds the offset (agent less DUT): the DUT said its time somewhere between question
and answer. Bounds of one stretch are intersected, widened by what a crystal may drift, so that a
slow line or a clock of whole seconds gets better with every reading. Bounds that do not meet any
more are a jump: another stretch begins. A time belongs to the stretch whose DUT times are nearest.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from tshrag_common.reports import BoardClock

DRIFT = 200e-6
"""A crystal is off by 20 to 100 millionths; twice that is taken for granted."""

NEAR_US = 1_000_000
"""How far from all that is known of the clock a time may lie, and still be placed at once."""

MOST_POINTS = 512
MOST_STRETCHES = 64


@dataclass(slots=True)
class _Stretch:
    """What was read between two jumps: times on the DUT, the bounds there, and those of now."""

    low: int
    high: int
    at_us: int  # of the agent, when it was read last
    boards: list[int] = field(default_factory=list[int])
    bounds: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def meets(self, low: int, high: int, at_us: int) -> bool:
        """Narrow the bounds by another reading; False: it cannot be of the same stretch."""
        slack = round((at_us - self.at_us) * DRIFT) + 1
        low, high = max(low, self.low - slack), min(high, self.high + slack)
        if low > high:
            return False
        self.low, self.high, self.at_us = low, high, at_us
        return True

    @property
    def offset_us(self) -> int:
        """Return the middle of the bounds; 0 where both clocks may well be the same."""
        return 0 if self.low <= 0 <= self.high else (self.low + self.high) // 2

    @property
    def error_us(self) -> int:
        """Return how far the true offset may be from `offset_us`."""
        return max(self.high - self.offset_us, self.offset_us - self.low)

    def point(self, board_us: int) -> None:
        """Remember how it was at `board_us`; of too many every second one is let go."""
        if self.boards and board_us <= self.boards[-1]:
            self.bounds[-1] = (self.low, self.high)
            return
        self.boards.append(board_us)
        self.bounds.append((self.low, self.high))
        if len(self.boards) > MOST_POINTS:
            del self.boards[1:-1:2], self.bounds[1:-1:2]

    def offset_at(self, board_us: int) -> int:
        """Return the offset at a time of the DUT: between two readings, on the line."""
        after = bisect_right(self.boards, board_us)
        if after in (0, len(self.boards)):
            return self._offset_of(0 if after == 0 else -1)
        left, right = self.boards[after - 1], self.boards[after]
        share = (board_us - left) / (right - left)
        first, second = self._offset_of(after - 1), self._offset_of(after)
        return round(first + share * (second - first))

    def _offset_of(self, number: int) -> int:
        """Return the offset at a reading: that of now, as far as the bounds of then allow it."""
        low, high = self.bounds[number]
        return min(max(self.offset_us, low), high)

    def distance(self, board_us: int, lasted_us: int) -> int:
        """Return how far `board_us` is from what it covers; it went on for `lasted_us`."""
        first, last = self.boards[0], self.boards[-1] + lasted_us
        return max(first - board_us, board_us - last, 0)


class DutClock:
    """All readings of one attempt's DUT."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        self._readings = self._jumps = self._aligned = 0
        self._round_trip_us = 0

    @property
    def is_known(self) -> bool:
        """Tell whether it was read at least once."""
        return bool(self._stretches)

    def read(self, board_us: int, resolution_us: int, sent_us: int, heard_us: int) -> None:
        """Take a reading: asked at `sent_us`, answered by `heard_us` of the agent's clock."""
        low, high = sent_us - board_us - resolution_us, max(sent_us, heard_us) - board_us
        took_us = max(0, heard_us - sent_us)
        least = self._round_trip_us if self._readings else took_us
        self._round_trip_us = min(least, took_us)
        self._readings += 1
        newest = self._stretches[-1] if self._stretches else None
        if newest is None or not newest.meets(low, high, heard_us):
            self._jumps += newest is not None
            newest = _Stretch(low, high, heard_us)
            self._stretches.append(newest)
            if len(self._stretches) > MOST_STRETCHES:
                del self._stretches[1]  # the first one tells how it began
        newest.point(board_us)

    def place(self, board_us: int, now_us: int) -> int | None:
        """Return the agent's time for one that the DUT wrote; None: only the next reading tells."""
        found = self._nearest(board_us, now_us)
        if found is None or found[0] > NEAR_US:
            return None
        return self._moved(found[1], board_us)

    def nearest(self, board_us: int, now_us: int) -> int:
        """Return the best that is known, whatever it is."""
        found = self._nearest(board_us, now_us)
        return board_us if found is None else self._moved(found[1], board_us)

    def report(self) -> BoardClock | None:
        """Return what is kept with the attempt; None: the clock was never read."""
        if not self._stretches:
            return None
        newest = self._stretches[-1]
        return BoardClock(
            offset_us=newest.offset_us,
            error_us=newest.error_us,
            round_trip_us=self._round_trip_us,
            readings=self._readings,
            jumps=self._jumps,
            aligned=self._aligned,
        )

    @property
    def bounds_us(self) -> tuple[int, int]:
        """Return offset and error as they were read last."""
        newest = self._stretches[-1]
        return newest.offset_us, newest.error_us

    def _moved(self, stretch: _Stretch, board_us: int) -> int:
        offset = stretch.offset_at(board_us)
        self._aligned += offset != 0
        return board_us + offset

    def _nearest(self, board_us: int, now_us: int) -> tuple[int, _Stretch] | None:
        """Return the stretch that covers a time best, and by how much it fails to."""
        best: tuple[int, _Stretch] | None = None
        ends_us = now_us
        for stretch in reversed(self._stretches):
            far = stretch.distance(board_us, max(0, ends_us - stretch.at_us))
            if best is None or far < best[0]:
                best = (far, stretch)
            if far == 0:
                break
            ends_us = stretch.boards[0] + stretch.offset_at(stretch.boards[0])
        return best
