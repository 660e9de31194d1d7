"""Units: a closed table, and nothing guessed.

Text becomes a number at the edge (profile, load.toml, a line of output); inside, numbers are in
the base unit of their dimension: s, B, B/s, Hz, Celsius, V, A, W, J, a ratio (1 = 100 %) or a
count. A unit that is not in the table is refused with the nearest one; case counts (``MB`` is no
``Mb``). ``1m`` is refused in a quantity: metre, minute and milli all claim it. Durations and
instants, which have fields of their own, are in ``times.py``.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from tshrag_common.errors import Problem, Refused, nearest, shown

Dimension = Literal[
    "count", "time", "size", "data rate", "frequency", "ratio",
    "temperature", "voltage", "current", "power", "energy",
]  # fmt: skip


class Quantity(NamedTuple):
    """A number in the base unit of its dimension."""

    value: float
    dimension: Dimension


class Unit(NamedTuple):
    """``base = number * times / per``: two exact numbers, so that 150 ms is exactly 0.15 s."""

    name: str
    dimension: Dimension
    times: float = 1.0
    per: float = 1.0

    def to_base(self, number: float) -> float:
        return number * self.times / self.per

    def from_base(self, value: float) -> float:
        return value * self.per / self.times


class BadQuantity(Refused):
    """Text that is no quantity, duration or instant; ``problem`` is for a list of them."""

    code = "unit"

    @property
    def problem(self) -> Problem:
        return Problem(code=self.code, where=self.where, what=self.what, fix=self.fix)


MAX_TEXT = 64
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"

_QUANTITY = re.compile(rf"\s*({NUMBER})\s*(\S.*?)?\s*", re.ASCII)
_SIZES = (
    ("B", 1.0), ("KB", 1e3), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15),
    ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40), ("PiB", 2.0**50),
)  # fmt: skip
_BITS = (
    ("bit", 1.0), ("kbit", 1e3), ("Kbit", 1e3), ("Mbit", 1e6), ("Gbit", 1e9), ("Tbit", 1e12),
    ("Kibit", 2.0**10), ("Mibit", 2.0**20), ("Gibit", 2.0**30),
)  # fmt: skip
_BPS = (("bps", 1.0), ("kbps", 1e3), ("Kbps", 1e3), ("Mbps", 1e6), ("Gbps", 1e9), ("Tbps", 1e12))
_TIMES = (
    ("ns", 1.0, 1e9), ("us", 1.0, 1e6), ("µs", 1.0, 1e6), ("μs", 1.0, 1e6), ("ms", 1.0, 1e3),
    ("s", 1.0, 1.0), ("min", 60.0, 1.0), ("h", 3600.0, 1.0), ("d", 86400.0, 1.0),
)  # fmt: skip
_COUNTS = (
    "req", "request", "requests", "op", "ops", "packet", "packets", "event", "events", "error",
    "errors", "message", "messages", "msg", "sample", "samples", "io", "count",
)  # fmt: skip
_HERTZ = (("Hz", 1.0), ("kHz", 1e3), ("MHz", 1e6), ("GHz", 1e9))
_RATIOS = (("ratio", 1.0), ("%", 100.0), ("ppm", 1e6))
_SI: tuple[tuple[str, Dimension], ...] = (
    ("V", "voltage"), ("A", "current"), ("W", "power"), ("J", "energy")
)  # fmt: skip
_PER = (("s", 1.0), ("sec", 1.0), ("min", 60.0), ("h", 3600.0))


def _times_and_sizes() -> Iterator[Unit]:
    yield from (Unit(name, "time", times, per) for name, times, per in _TIMES)
    sizes = [(name, times, 1.0) for name, times in _SIZES]
    for name, times, eighth in [*sizes, *((name, times, 8.0) for name, times in _BITS)]:
        yield Unit(name, "size", times, eighth)
        yield from (Unit(f"{name}/{unit}", "data rate", times, eighth * per) for unit, per in _PER)
    yield from (Unit(name, "data rate", times, 8.0) for name, times in _BPS)


def _counts_and_rates() -> Iterator[Unit]:
    for name in ("", *_COUNTS):
        yield Unit(name, "count")
        yield from (Unit(f"{name}/{unit}", "frequency", 1.0, per) for unit, per in _PER)
    yield from (Unit(f"1/{unit}", "frequency", 1.0, per) for unit, per in _PER)
    yield from (Unit(name, "frequency") for name in ("RPS", "rps", "QPS", "qps", "IOPS", "fps"))
    yield from (Unit(name, "frequency", times) for name, times in _HERTZ)
    yield Unit("rpm", "frequency", 1.0, 60.0)
    yield from (Unit(name, "ratio", 1.0, per) for name, per in _RATIOS)


def _physical() -> Iterator[Unit]:
    yield from (Unit(name, "temperature") for name in ("C", "°C", "degC", "Cel"))
    yield Unit("mC", "temperature", 1.0, 1e3)
    for name, dimension in _SI:
        yield from (Unit(prefix + name, dimension, 1.0, 1e6) for prefix in ("u", "µ", "μ"))
        yield from (Unit("m" + name, dimension, 1.0, 1e3), Unit(name, dimension))
        yield Unit("k" + name, dimension, 1e3)
    yield from (Unit("Wh", "energy", 3600.0), Unit("kWh", "energy", 3.6e6))


UNITS: dict[str, Unit] = {
    unit.name: unit for unit in (*_times_and_sizes(), *_counts_and_rates(), *_physical())
}

BASES: dict[Dimension, str] = {
    "count": "", "time": "s", "size": "B", "data rate": "B/s", "frequency": "Hz",
    "ratio": "ratio", "temperature": "C", "voltage": "V", "current": "A", "power": "W",
    "energy": "J",
}  # fmt: skip
"""The unit that the numbers inside are in."""

_LADDERS = (
    ("ns", "us", "ms", "s", "min", "h", "d"),
    ("B", "KiB", "MiB", "GiB", "TiB", "PiB"),
    ("B", "KB", "MB", "GB", "TB", "PB"),
    ("B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"),
    ("B/s", "KB/s", "MB/s", "GB/s", "TB/s"),
    ("bps", "kbps", "Mbps", "Gbps", "Tbps"),
    ("Hz", "kHz", "MHz", "GHz"),
    *((f"u{name}", f"m{name}", name, f"k{name}") for name in ("V", "A", "W", "J")),
)
"""Units of a family, small to large: a number is printed in the one that keeps it short."""


_AFTER = {"%": "%", "": "", "ratio": ""}


def unit(name: str, where: str = "unit") -> Unit:
    """Return the unit `name`; raise BadQuantity with the nearest where there is none."""
    found = UNITS.get(" ".join(name.split()).replace(" /", "/").replace("/ ", "/"))
    if found is None:
        raise _unknown(name, where)
    return found


def quantity(text: str, where: str = "", *, dimension: Dimension | None = None) -> Quantity:
    """Parse ``150ms``, ``99.9%``, ``500 req/min``; a bare number is a count.

    Raises:
        BadQuantity: it is no number with a unit of the table, or not of `dimension`.

    """
    number, found = split(text, where)
    if dimension is not None and found.dimension != dimension:
        said = f"{shown(text)} is a {found.dimension}, expected a {dimension}"
        raise BadQuantity(where, said, f"write it in {example_of(dimension)}")
    return Quantity(found.to_base(number), found.dimension)


def split(text: str, where: str = "") -> tuple[float, Unit]:
    """Return number and unit of `text` as they are written."""
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None or (match[2] or "")[:1] in (",", "_", "."):
        raise BadQuantity(where, f"{shown(text)} is no quantity", _mend(text))
    number = float(match[1])
    if not math.isfinite(number):
        raise BadQuantity(where, f"{shown(text)} is beyond any number")
    return number, unit(match[2] or "", where)


def printed(value: float, name: str = "") -> str:
    """Print a number of the base unit for people, in unit `name` or a neighbour that is shorter.

    An unknown `name` is no error here: the number is printed with it as it is.
    """
    found = UNITS.get(name)
    if found is None:
        return f"{_digits(value)} {name}"
    number = found.from_base(value)
    if not 0.1 <= abs(number) < 10_000 and value and math.isfinite(value):
        found = _shorter(value, found)
        number = found.from_base(value)
    return f"{_digits(number)}{_AFTER.get(found.name, ' ' + found.name)}"


def example_of(dimension: Dimension) -> str:
    """Return a few units of `dimension`, for an error."""
    names = [each.name for each in UNITS.values() if each.dimension == dimension and each.name]
    return ", ".join(names[:5]) or "no unit"


def _shorter(value: float, found: Unit) -> Unit:
    ladder = next((each for each in _LADDERS if found.name in each), ())
    steps = [UNITS[name] for name in ladder]
    fitting = [step for step in steps if abs(step.from_base(value)) >= 1]
    if not steps:
        return found
    return fitting[-1] if fitting else steps[0]


def _digits(number: float) -> str:
    number = float(number)
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    if 1e6 <= abs(number) < 1e15:
        return f"{number:.1f}"
    return f"{number:.6g}"


def _unknown(name: str, where: str) -> BadQuantity:
    if name in ("m", "M"):
        return BadQuantity(
            where,
            f"{name!r} is ambiguous: minute, metre, mega or milli",
            "write 'min' for minutes, 'ms' for milliseconds",
        )
    near = nearest(name, UNITS)
    fix = f"nearest: {', '.join(near)}" if near else "units are ms, s, MiB, MB/s, Hz, %, …"
    return BadQuantity(where, f"{shown(name)} is no unit", fix)


def _mend(text: str) -> str:
    if "," in text:
        return "write the number with a point and without commas, like '1.5 GiB'"
    return "write a number and a unit, like '150ms'"
