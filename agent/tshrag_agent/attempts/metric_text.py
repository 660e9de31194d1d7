"""PURE. Numbers, times and durations as a load writes them."""

import re

from tshrag_common.errors import shown
from tshrag_common.metrics import MAX_TIME_US, MIN_TIME_US, BadMetric
from tshrag_common.times import iso_us
from tshrag_common.units import NUMBER, UNITS

_NUMBER = re.compile(NUMBER, re.ASCII)
_VALUE = re.compile(rf"({NUMBER})\s*(\S.*)?", re.ASCII)
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,19}")
_HOW_TIME = "write microseconds since 1970, seconds with a decimal point, or ISO 8601"


def number_of(text: str, key: str = "") -> tuple[float, str]:
    """Split ``12.5ms`` into number and unit; raise BadMetric (``metric_value``)."""
    match = _VALUE.fullmatch(text)
    if match is None or (match[2] and match[2][0] in ".,_"):
        natural = "no finite number" if _NO_NUMBER.fullmatch(text) else "no number"
        raise BadMetric(shown(key), f"{shown(text)} is {natural}", code="metric_value")
    return float(match[1]), match[2] or ""


def time_of(text: str, key: str = "") -> int:
    """Return microseconds; raise BadMetric (``metric_time``) beyond the years 2000 to 2099."""
    at = instant_of(text, key)
    if not MIN_TIME_US <= at < MAX_TIME_US:
        raise bad_time(text, key)
    return at


def instant_of(text: str, key: str = "") -> int:
    """Return microseconds since 1970, whatever year; raise BadMetric (``metric_time``)."""
    if _DIGITS.fullmatch(text):
        at: int | None = int(text)
    elif _NUMBER.fullmatch(text) and "." in text:
        seconds = float(text)
        at = round(seconds * 1e6) if abs(seconds) < 1e12 else None
    else:
        at = iso_us(text)
    if at is None:
        raise bad_time(text, key)
    return at


def span_of(text: str, key: str = "") -> int:
    """Return a duration in microseconds: digits are that, a decimal point makes it seconds."""
    number, name = number_of(text, key)
    if name:
        seconds = UNITS[name].to_base(number) if _is_time(name) else -1.0
    else:
        seconds = number if "." in text else number / 1e6
    if not 0 <= seconds < 1e9:
        raise BadMetric(shown(key), f"{shown(text)} is no duration", code="metric_time")
    return round(seconds * 1e6)


def bad_time(text: str, key: str) -> BadMetric:
    said = f"{shown(text)} is no time from 2000 to 2099"
    return BadMetric(shown(key), said, _HOW_TIME, code="metric_time")


def _is_time(name: str) -> bool:
    return name in UNITS and UNITS[name].dimension == "time"
