"""PURE: the kinds of value that people write in profiles, manifests and settings.

Each alias is what a field holds once it is read, and says in its Meta how it is written.
"""

import shlex
from contextlib import suppress
from functools import partial
from typing import Annotated

from msgspec import Meta

from tshrag_common import conditions, contact, ids
from tshrag_common.times import duration_s
from tshrag_common.units import BadQuantity, quantity

MAX_NAME = 200
MAX_TEXT = 32_768
DAY_S = 86_400.0
QUANTITY = "quantity"
"""The format, in a JSON Schema, of what is a number or a number with a unit."""

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,126}"

_RESERVED = ("LD_PRELOAD", "LD_AUDIT")
_QUANTITY_TEXT = {"format": QUANTITY}


def _printable(text: str) -> str:
    return "" if text.isprintable() else "must match printable characters only"


def _no_nul(text: str) -> str:
    return "holds a NUL" if "\0" in text else ""


def _free(name: str) -> str:
    taken = name.startswith("TSHRAG_") or name in _RESERVED
    return "the lab sets it, no profile may" if taken else ""


def _inside(path: str) -> str:
    up = ".." in path.split("/") or path.startswith("~")
    return "outside the job directory" if up else _no_nul(path)


def _command_line(text: str) -> str:
    if "\0" in text:
        return "holds a NUL"
    try:
        words = shlex.split(text)
    except ValueError as error:
        return str(error).lower()
    return "" if words and words[0] else "is empty"


def _size_bytes(given: object, *, most: float) -> float:
    """Return bytes of ``64MiB`` or of a number."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise BadQuantity("", "expected a size like '64MiB'", code="type")
    number = float(given) if not isinstance(given, str) else -1.0
    size = quantity(given, dimension="size").value if isinstance(given, str) else number
    if not 1 <= size <= most:
        raise BadQuantity("", f"1..{most:.0f} bytes, got {given}", code="range")
    return float(round(size))


def _amount(given: object) -> float:
    """Return how much of a resource: a number, or a size like ``2GiB`` in bytes."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise BadQuantity("", "expected a number or a size like '2GiB'", code="type")
    number = quantity(given).value if isinstance(given, str) else float(given)
    if not 0 < number <= 1e15:
        raise BadQuantity("", f"more than 0 and at most 1e15, got {given}", code="range")
    return round(number, 3)


def _sleep(given: object) -> float | str:
    if isinstance(given, str) and "${" in given:
        return given
    return sleep_s(given)


def sleep_s(given: object) -> float:
    """Return seconds of a number, numeric text or a duration; raise BadQuantity."""
    if isinstance(given, str):
        with suppress(ValueError):
            given = float(given)
    return duration_s(given, "", least_s=0.0)


Token = Annotated[str, Meta(pattern=ids.TOKEN, extra={"code": "name"})]
"""A name that may become part of a subject or a path."""

Name = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME, extra={"code": "name", "check": _printable})
]
"""A name that is only shown: kept verbatim."""

Text = Annotated[str, Meta(max_length=MAX_TEXT, extra={"check": _no_nul})]

EnvName = Annotated[
    str, Meta(pattern=f"^{VARIABLE}$", extra={"code": "env_reserved", "check": _free})
]

Path = Annotated[str, Meta(max_length=4096, extra={"code": "path", "check": _inside})]

CommandLine = Annotated[
    str, Meta(max_length=MAX_TEXT, extra={"code": "command", "check": _command_line})
]
"""Split like a line of a shell; nothing of a shell is behind it."""

_Word = Annotated[str, Meta(max_length=MAX_TEXT, extra={"code": "command", "check": _no_nul})]
CommandWords = Annotated[
    tuple[_Word, ...], Meta(min_length=1, max_length=1000, extra={"code": "command"})
]

Timeout = Annotated[
    float, Meta(extra={"parse": partial(duration_s, where="")}, extra_json_schema=_QUANTITY_TEXT)
]
"""Seconds, of a job: 1s..7d."""

Disconnect = Annotated[
    float,
    Meta(
        extra={"parse": partial(duration_s, where="", least_s=contact.LEAST_S)},
        extra_json_schema=_QUANTITY_TEXT,
    ),
]
"""Seconds that a job goes on without the bus: 20s..7d."""

LongTimeout = Annotated[
    float,
    Meta(
        extra={"parse": partial(duration_s, where="", most_s=30 * DAY_S)},
        extra_json_schema=_QUANTITY_TEXT,
    ),
]
"""Seconds, of a run: 1s..30d."""

Sleep = Annotated[float | str, Meta(extra={"parse": _sleep}, extra_json_schema=_QUANTITY_TEXT)]
"""Seconds; text only where a variable is still in it."""

OutputSize = Annotated[
    float,
    Meta(extra={"parse": partial(_size_bytes, most=2.0**30)}, extra_json_schema=_QUANTITY_TEXT),
]
"""Bytes, at most 1 GiB."""

Amount = Annotated[float, Meta(extra={"parse": _amount}, extra_json_schema=_QUANTITY_TEXT)]
"""How much of a resource: ``2``, ``0.5``, ``2GiB``."""

ConditionText = Annotated[
    str,
    Meta(min_length=1, max_length=1024, extra={"code": "condition", "check": conditions.fault_of}),
]
"""A condition on labels: ``ram >= 8GiB``."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", extra={"code": "sha256_invalid"})]


def env_faults(name: str) -> str:
    """Return why a profile may not set the variable `name`; empty when it may."""
    return _free(name)
