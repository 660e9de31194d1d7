"""PURE: where a row of values changes its level for good.

Binary segmentation: the place that splits a stretch best by least squares is a change point when
Welch's test of both sides says so (p below ``CHANCE``), and then both sides are looked at again. A
side has at least ``LEAST`` values, so that one bad run is no change.
"""

from collections.abc import Sequence
from itertools import accumulate

from tshrag_common.significance import welch

CHANCE = 0.001
LEAST = 4


def change_points(values: Sequence[float]) -> list[int]:
    """Return the indexes at which a new level begins, in order. O(n) for each point found."""
    found: list[int] = []
    waiting = [(0, len(values))]
    while waiting:
        begin, end = waiting.pop()
        at = _best_split(values[begin:end])
        if at is None:
            continue
        place = begin + at
        chance = welch(values[begin:place], values[place:end])
        if chance is not None and chance < CHANCE:
            found.append(place)
            waiting += [(begin, place), (place, end)]
    return sorted(found)


def _best_split(values: Sequence[float]) -> int | None:
    """Return where two means explain the values best; None where they are too few."""
    count = len(values)
    if count < 2 * LEAST:
        return None
    sums = list(accumulate(values))
    total = sums[-1]
    best, at = -1.0, None
    for left in range(LEAST, count - LEAST + 1):
        right = count - left
        gained = sums[left - 1] ** 2 / left + (total - sums[left - 1]) ** 2 / right
        if at is None or gained > best:
            best, at = gained, left
    return at
