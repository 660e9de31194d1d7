r"""PURE: text that others wrote, and numbers, as they may be shown.

Every byte of a job, a DUT or a tenant is hostile: what could move a cursor, turn the direction of
writing or end a line is escaped (``\x1b``, ``\u202e``) before it reaches a terminal or a file.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from tshrag_common.times import printed_duration, printed_instant
from tshrag_common.units import printed

_HIDDEN = (
    r"\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff"
)
_ANY = re.compile(rf"[\x00-\x1f{_HIDDEN}]")
_BUT_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_HIDDEN}]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STEPS = "▁▂▃▄▅▆▇█"


def clean(text: str, most: int = 0) -> str:
    """Return `text` as one harmless line, cut to `most` characters (0: all)."""
    if most and len(text) > most:
        text = text[: most - 1] + "…"
    return _ANY.sub(_escaped, text)


def clean_lines(text: str) -> str:
    """Return `text` with its newlines and tabs, all other controls escaped."""
    return _BUT_LINES.sub(_escaped, text.replace("\r\n", "\n"))


def decoded(data: bytes) -> str:
    """Return output as harmless text; bytes that are no UTF-8 are shown in hexadecimal."""
    return clean_lines(data.decode("utf-8", "backslashreplace"))


def safe_json(raw: bytes) -> str:
    """Return JSON, indented, whose strings hold no control and no change of direction.

    They stand there as JSON's own escapes, so a reader gets what was written.
    """
    return _BUT_LINES.sub(_as_json, msgspec.json.format(raw, indent=2).decode())


def safe_json_line(raw: bytes) -> str:
    """Return the same on one line."""
    return _BUT_LINES.sub(_as_json, raw.decode())


def csv_cell(text: str) -> str:
    """Return `text` as a quoted cell of CSV that no spreadsheet takes for a formula."""
    guarded = "'" + text if text.startswith(_FORMULA) else text
    return '"' + clean(guarded).replace('"', '""') + '"'


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return `values` in eight steps, at most `width` of them; equal ones lie in the middle."""
    if not values:
        return ""
    few = _thinned(values, width)
    low, high = min(few), max(few)
    if high == low:
        return _STEPS[3] * len(few)
    return "".join(_STEPS[round((value - low) / (high - low) * 7)] for value in few)


def _thinned(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]


def bar(start: float, end: float, whole: float, width: int = 40) -> str:
    """Return a bar from `start` to `end` of a line that stands for `whole`; never empty."""
    if whole <= 0:
        return "█".ljust(width)
    first = min(width - 1, max(0, int(start / whole * width)))
    last = min(width, max(first + 1, round(end / whole * width)))
    return (" " * first + "█" * (last - first)).ljust(width)


def span(start_us: int, end_us: int) -> str:
    """Return how long it took; nothing where it has not begun, or not ended."""
    if not start_us or not end_us:
        return ""
    return duration(max(0, end_us - start_us) / 1e6)


def duration(seconds: float) -> str:
    """Return seconds for people: 12ms, 3.42s, 1m5s."""
    if seconds >= 60:
        return printed_duration(round(seconds))
    return printed_duration(float(f"{seconds:.3g}"))


def instant(at_us: int) -> str:
    """Return ISO 8601 in UTC, to the millisecond; a dash where there is none."""
    return printed_instant(at_us // 1000 * 1000).replace("000Z", "Z") if at_us else "-"


def quantity(value: object, unit: str) -> str:
    """Return a statistic for people; a dash where there is no data."""
    if value is None:
        return "-"
    if isinstance(value, int | float):
        return clean(printed(float(value), unit))
    return clean(str(value), 60)


def size(count: int) -> str:
    """Return bytes for people: 512 B, 1.5 MiB."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.4g} {unit}"


def plural(count: int, noun: str) -> str:
    """Return ``1 job``, ``3 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _as_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
