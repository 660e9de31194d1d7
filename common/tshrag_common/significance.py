"""PURE: may a difference between two sets of samples be chance?

=============  ==================================================================================
avg            Welch's t-test, by the t distribution (Numerical Recipes 6.4, continued fraction)
median         Mann-Whitney U with the correction for ties, normal approximation
p99, p99.9 …   two proportions: how many samples lie above that quantile of both sets together
=============  ==================================================================================

Two-sided. None for other statistics and where there are too few samples (2; 8 for ranks, 5 expected
beyond a quantile): then nothing is called significant.
"""

import math
from collections.abc import Sequence

import msgspec

from tshrag_common.statistics import one_number, quantile_percent

FEW_RANKS = 8
FEW_BEYOND = 5


def chance_of(statistic: str, ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the p-value of the difference of `statistic`; None where it cannot be told."""
    if statistic == "avg":
        return welch(ones, others)
    if statistic == "median":
        return mann_whitney(ones, others)
    percent = quantile_percent(statistic)
    if percent is None:
        return None
    return mann_whitney(ones, others) if percent == 50 else beyond_quantile(percent, ones, others)


class Moments(msgspec.Struct, frozen=True):
    """What is known of a set of samples: how many, their mean, their standard deviation (n - 1)."""

    count: int
    mean: float
    deviation: float


def welch(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the p-value of a difference of means of samples with unequal variances."""
    if len(ones) < 2 or len(others) < 2:
        return None
    return welch_of(moments(ones), moments(others))


def welch_of(one: Moments, other: Moments) -> float | None:
    """Return the same, of what is known of the samples."""
    if one.count < 2 or other.count < 2:
        return None
    own, theirs = one.deviation**2 / one.count, other.deviation**2 / other.count
    error = own + theirs
    if error == 0:
        return 1.0 if one.mean == other.mean else 0.0
    t = (one.mean - other.mean) / math.sqrt(error)
    part = own / error  # as parts of 1: the squares of small errors would vanish
    freedom = 1 / (part**2 / (one.count - 1) + (1 - part) ** 2 / (other.count - 1))
    return regularised_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def interval(of: Moments, level: float = 0.95) -> tuple[float, float] | None:
    """Return the confidence interval of a mean, by the t distribution; None below two samples."""
    if of.count < 2:
        return None
    far = t_beyond(1 - level, of.count - 1) * of.deviation / math.sqrt(of.count)
    return of.mean - far, of.mean + far


def t_beyond(chance: float, freedom: float) -> float:
    """Return the t beyond which, on both sides, the distribution has so much; by bisection."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        beyond = regularised_beta(freedom / 2, 0.5, freedom / (freedom + middle * middle))
        low, high = (middle, high) if beyond > chance else (low, middle)
    return high


def moments(values: Sequence[float]) -> Moments:
    """Return what is known of at least two samples."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Moments(len(values), mean, math.sqrt(variance))


def mann_whitney(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the p-value that neither set tends to be larger than the other."""
    n, m = len(ones), len(others)
    if n < FEW_RANKS or m < FEW_RANKS:
        return None
    ranked = sorted([(value, 0) for value in ones] + [(value, 1) for value in others])
    ranks, ties, at = 0.0, 0.0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        rank = (at + 1 + end) / 2
        ranks += rank * sum(1 for _, which in ranked[at:end] if which == 0)
        ties += float(end - at) ** 3 - (end - at)
        at = end
    u = ranks - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * ((total + 1) - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    far = max(0.0, abs(u - n * m / 2) - 0.5)
    return two_sided(far / math.sqrt(variance))


def beyond_quantile(percent: float, ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the p-value that equally many of both sets lie above the quantile of them all."""
    both = [*ones, *others]
    limit = one_number(f"p{percent:g}", range(len(both)), both)
    if limit is None:
        return None
    rare = min(percent, 100 - percent) / 100
    if min(len(ones), len(others)) * rare < FEW_BEYOND:
        return None
    above = [sum(value > limit for value in values) for values in (ones, others)]
    share = sum(above) / len(both)
    variance = share * (1 - share) * (1 / len(ones) + 1 / len(others))
    if variance <= 0:
        return 1.0
    return two_sided(abs(above[0] / len(ones) - above[1] / len(others)) / math.sqrt(variance))


def two_sided(z: float) -> float:
    """Return the probability that a normal variable is further from 0 than `z`."""
    return math.erfc(abs(z) / math.sqrt(2))


def regularised_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b); 0 <= x <= 1."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    tiny, c, d = 1e-300, 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    found = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            c = 1 + numerator / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            found *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return found
