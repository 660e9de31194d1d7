"""Durations and instants as people write them.

A duration is ``90s``, ``10m``, ``1h30m``; here ``m`` is a minute, since nothing else can be meant.
An instant is integer microseconds UTC; it is read from ISO 8601, ``now``, ``min``, ``max``,
``+10m`` from now, or digits (microseconds since 1970).
"""

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo

from tshrag_common.errors import shown
from tshrag_common.units import BadQuantity

MIN_AT = 0
MAX_AT = 253_402_300_799_999_999  # the last microsecond of the year 9999
WEEK_S = 7 * 86_400.0

_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|min|m|h|d)")
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3,
    "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip
_CLOCK = re.compile(r"([0-9]{1,3}):([0-9]{2})(?::([0-9]{2}))?")
_DIGITS = re.compile(r"[0-9]{1,18}(?:\.[0-9]*)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration_s(
    given: object, where: str, *, least_s: float = 1.0, most_s: float = WEEK_S, numbers: bool = True
) -> float:
    """Return seconds of ``90s``, ``10m``, ``1h30m``, or of a number where `numbers` allows it.

    Raises:
        BadQuantity: with code ``type`` it is no duration, with code ``range`` it is too short
            or too long; NaN and infinity are out of range.

    """
    if isinstance(given, bool):
        raise _no_duration(where, "a boolean")
    if isinstance(given, int | float) and numbers:
        seconds = math.inf if abs(given) > 1e300 else float(given)
    elif isinstance(given, str):
        seconds = _seconds(given.strip(), where)
    else:
        raise _no_duration(where, shown(given) if isinstance(given, str) else _kind(given))
    if not least_s <= seconds <= most_s:
        got = shown(given) if isinstance(given, str) else f"{seconds:.6g}"
        limits = f"{printed_duration(least_s)}..{printed_duration(most_s)}"
        raise BadQuantity(where, f"{limits}, got {got}", code="range")
    return seconds


def printed_duration(seconds: float) -> str:
    """Print ``1h30m``, ``10m``, ``250ms``: what `duration_s` reads back."""
    if not math.isfinite(seconds):
        return str(seconds)
    sign, left = "-" if seconds < 0 else "", abs(seconds)
    if left < 1:
        return f"{sign}{left * 1000:.6g}ms" if left else "0s"
    left = round(left, 3)
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if left >= size:
            parts.append(f"{int(left // size)}{name}")
            left %= size
    if left >= 0.001 or not parts:
        parts.append(f"{left:.5g}s")
    return sign + "".join(parts)


def instant(given: str | int, now_us: int, where: str = "time", *, zone: tzinfo = UTC) -> int:
    """Return microseconds UTC; `zone` holds where ISO text names none.

    Raises:
        BadQuantity: with code ``time``: it is no instant, or outside the years 1970 to 9999.

    """
    text = str(given).strip()
    at = _instant(text, now_us, where, zone)
    if at is None or not MIN_AT <= at <= MAX_AT:
        fix = "write ISO 8601 like '2026-01-31T12:00:00Z', 'now', '+10m' or microseconds"
        raise BadQuantity(where, f"invalid time {shown(text)}", fix, code="time")
    return at


def printed_instant(at_us: int) -> str:
    """Print ``min``, ``max`` or ISO 8601 in UTC."""
    if at_us <= MIN_AT:
        return "min"
    if at_us >= MAX_AT:
        return "max"
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")


def _instant(text: str, now_us: int, where: str, zone: tzinfo) -> int | None:
    named = {"now": now_us, "min": MIN_AT, "max": MAX_AT}.get(text.lower())
    if named is not None:
        return named
    if _DIGITS.fullmatch(text):
        return int(text.partition(".")[0])
    if text[:1] in ("+", "-") and text[1:2].isdigit():
        far = duration_s(text[1:], where, least_s=0, most_s=1e11, numbers=False)
        return now_us + (1 if text[0] == "+" else -1) * round(far * 1e6)
    return iso_us(text, zone)


def iso_us(text: str, zone: tzinfo = UTC) -> int | None:
    """Return microseconds UTC of ISO 8601 text, None where it is not."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def _seconds(text: str, where: str) -> float:
    sign = -1.0 if text[:1] == "-" else 1.0
    bare = text[1:] if text[:1] in ("+", "-") else text
    parts = _PART.findall(bare) if len(text) <= 64 else []
    if parts and "".join(number + name for number, name in parts) == bare:
        return sign * math.fsum(float(number) * _SECONDS[name] for number, name in parts)
    raise _no_duration(where, shown(text), _in_seconds(text))


def _in_seconds(text: str) -> str:
    clock = _CLOCK.fullmatch(text)
    if clock and clock[3]:
        return f"write '{int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])}s'"
    if clock:
        return f"write '{int(clock[1]) * 60 + int(clock[2])}s'"
    if re.fullmatch(r"[0-9]{1,9}", text):
        return f"write '{int(text)}s'"
    return ""


def _no_duration(where: str, got: str, fix: str = "") -> BadQuantity:
    return BadQuantity(where, f"expected a duration like '10m', got {got}", fix, code="type")


def _kind(given: object) -> str:
    if given is None:
        return "nothing"
    return "a number" if isinstance(given, int | float) else f"a {type(given).__name__}"
