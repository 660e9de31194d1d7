"""PURE: one number for the attempts that an agent has; the same on both sides.

Order does not matter, an empty set is 0, and adding or removing one fence is O(1): the number is
the exclusive or of a 64-bit mix of each fence (the finaliser of splitmix64, public domain).
"""

from collections.abc import Iterable

_MASK = (1 << 64) - 1


def mix(fence: int) -> int:
    """Return 64 well-stirred bits of `fence`."""
    value = (fence + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def lease_mark(fence: int, rev: int) -> int:
    """Return what a lease adds to the digest: a change of it that was not heard shows."""
    return mix(fence ^ mix(rev))


def digest(fences: Iterable[int]) -> int:
    """Return the number of a set of fences; each must stand in it once."""
    value = 0
    for fence in fences:
        value ^= mix(fence)
    return value
