"""PURE: another attempt, when, or give up."""

from tshrag_common.digest import mix
from tshrag_common.ids import Fence

FIRST_S = 2.0
MOST_S = 30.0
JITTER_RATIO = 0.2
REFUSALS = 10
"""How often hosts may refuse a job before that is an error; a refusal is no attempt."""


def backoff_s(faults: int, fence: Fence) -> float:
    """Return the pause after fault number `faults` (from 1): 2, 4, 8 .. 30 s, +-20 %.

    The jitter comes from the fence, so that a replay finds the same.
    """
    plain = min(MOST_S, FIRST_S * float(1 << min(max(0, faults - 1), 16)))
    chance = mix(fence) / (1 << 64)
    return plain * (1 + JITTER_RATIO * (2 * chance - 1))
