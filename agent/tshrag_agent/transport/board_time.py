"""The question what time it is on a DUT, and the reading of its answer.

A busybox whose ``date`` knows no ``%N`` prints whole seconds: the true time is anywhere in that
second, which the reading says.
"""

import re

import msgspec

QUESTION = "date +%s.%N"
MOST_BYTES = 4096

_ANSWER = re.compile(rb"^(-?[0-9]{1,12})(?:\.([0-9]{9}))?", re.MULTILINE)


class ClockReading(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of a DUT, seen once: it was at ``board_us`` at some instant in the round trip.

    ``sent`` and ``heard`` are seconds of this host's monotonic clock; the true time of the DUT
    was less than ``resolution_us`` beyond what it said.
    """

    board_us: int
    resolution_us: int
    sent: float
    heard: float


def read_answer(said: bytes, sent: float, heard: float) -> ClockReading | None:
    """Return what the DUT said, None where that is no time."""
    found = _ANSWER.search(said)
    if found is None:
        return None
    micros = int(found[1]) * 1_000_000
    if found[2] is None:
        return ClockReading(board_us=micros, resolution_us=1_000_000, sent=sent, heard=heard)
    micros += int(found[2]) // 1000
    return ClockReading(board_us=micros, resolution_us=1, sent=sent, heard=heard)
