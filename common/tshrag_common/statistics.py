"""Statistics of samples: one definition for verdicts, queries and run reports.

=================  ===========================================================================
num                all numbers, in the order given (empty: ``[]``)
hist               how often each number occurs (empty: ``{}``)
sum avg min max    as they say; ``avg`` and ``sum`` are exact to the last digit
count              how many samples
first last         value of the earliest and of the latest sample, whatever order they came in
median p50 p99.9   linear interpolation between the two nearest (as numpy does it); p0 to p100
stdev              of a sample (n - 1); needs two
spread             the largest less the smallest
slope              change a second of the line of least squares through all samples; needs two
rate               change a second between first and last; a counter may be reset on the way
=================  ===========================================================================

Empty in, None out. Values are finite and below 2**64, which the agent has seen to. A million
samples cost 0.1 to 0.5 s.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from tshrag_common.errors import Refused, shown
from tshrag_common.units import BASES, UNITS

Result = float | int | list[float] | dict[str, int] | None

NAMES = (
    "num", "sum", "avg", "min", "max", "count", "first", "last", "median", "stdev", "rate",
    "slope", "spread", "hist",
)  # fmt: skip
_QUANTILE = re.compile(r"p(100|[0-9]{1,2}(?:\.[0-9]{1,2})?)", re.ASCII)


class UnknownStatistic(Refused):
    """A word that is no statistic; the message has the list."""

    code = "statistic"

    def __init__(self, name: str, where: str = "") -> None:
        known = f"known: {' '.join(NAMES)} p50 p95 p99 p99.9 (any pNN or pNN.N)"
        super().__init__(where, f"{shown(name)} is no statistic", known)


def is_statistic(name: str) -> bool:
    return name in NAMES or _QUANTILE.fullmatch(name) is not None


def is_one_number(name: str) -> bool:
    """Tell whether the statistic is a number that can be compared with a bound."""
    return name not in ("num", "hist") and is_statistic(name)


def quantile_percent(name: str) -> float | None:
    """Return 99.9 of ``p99.9``; None where `name` is no quantile."""
    found = _QUANTILE.fullmatch(name)
    return float(found[1]) if found else None


def compute(
    name: str, times: Sequence[int], values: Sequence[float], *, counter: bool = False
) -> Result:
    """Return statistic `name` of samples in any order; `counter` holds for ``rate`` only.

    Raises:
        UnknownStatistic: there is no such statistic.

    """
    if name == "num":
        return list(values)
    if name == "hist":
        return {f"{value:.15g}": n for value, n in sorted(Counter(values).items())}
    return one_number(name, times, values, counter=counter)


def one_number(
    name: str, times: Sequence[int], values: Sequence[float], *, counter: bool = False
) -> float | None:
    """Return a statistic that is a number; None where the samples do not suffice.

    Raises:
        UnknownStatistic: there is no such statistic, or it is not one number.

    """
    quantile = _QUANTILE.fullmatch(name)
    of_values = _OF_VALUES.get(name)
    if quantile is None and of_values is None and name not in _OF_TIMES:
        raise UnknownStatistic(name)
    if not values:
        return None
    if quantile:
        return quantile_of(sorted(values), float(quantile[1]))
    if of_values:
        return of_values(values)
    if name == "rate":
        return _rate(times, values, counter)
    if name == "slope":
        return _slope(times, values)
    return values[_earliest(times) if name == "first" else _latest(times)]


def unit_of(name: str, unit: str) -> str:
    """Return the unit that statistic `name` of a metric in `unit` is printed in."""
    if name == "count":
        return ""
    if name not in ("rate", "slope"):
        return unit
    found = UNITS.get(unit)
    if found is None:
        return f"{unit}/s"
    if found.dimension == "size":
        return f"{unit}/s"
    known = {"count": "/s", "time": "ratio", "energy": "W"}
    return known.get(found.dimension, f"{BASES[found.dimension]}/s")


def _avg(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _stdev(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    middle = _avg(values)
    away = [value - middle for value in values]
    # The mean is rounded; what that puts into the squares is taken out again.
    squares = math.fsum(far * far for far in away) - math.fsum(away) ** 2 / len(values)
    return math.sqrt(max(0.0, squares) / (len(values) - 1))


def quantile_of(ordered: Sequence[float], percent: float) -> float:
    """Return a quantile of values that stand in their order, between neighbours by share."""
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return min(high, low + (high - low) * (place - below))


def _rate(times: Sequence[int], values: Sequence[float], counter: bool) -> float | None:
    start, end = _earliest(times), _latest(times)
    span_s = (times[end] - times[start]) / 1e6
    if span_s <= 0:
        return None
    if not counter:
        return (values[end] - values[start]) / span_s
    order = sorted(range(len(times)), key=times.__getitem__)
    steps = ((values[before], values[after]) for before, after in pairwise(order))
    return math.fsum(new - old if new >= old else new for old, new in steps) / span_s


def _slope(times: Sequence[int], values: Sequence[float]) -> float | None:
    middle = math.fsum(times) / len(times)
    away_s = [(at - middle) / 1e6 for at in times]
    squares = math.fsum(far * far for far in away_s)
    if squares <= 0:
        return None
    mean = _avg(values)
    products = (far * (value - mean) for far, value in zip(away_s, values, strict=True))
    return math.fsum(products) / squares


def _earliest(times: Sequence[int]) -> int:
    return times.index(min(times))


def _latest(times: Sequence[int]) -> int:
    latest = max(times)
    if times[-1] == latest:
        return len(times) - 1
    return next(at for at in range(len(times) - 1, -1, -1) if times[at] == latest)


_OF_VALUES: dict[str, Callable[[Sequence[float]], float | None]] = {
    "sum": math.fsum,
    "avg": _avg,
    "min": min,
    "max": max,
    "count": len,
    "median": lambda values: quantile_of(sorted(values), 50),
    "stdev": _stdev,
    "spread": lambda values: max(values) - min(values),
}
_OF_TIMES = ("first", "last", "rate", "slope")
