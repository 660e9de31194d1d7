"""Requests about the records of consoles, and their answers (see requests.py)."""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole

Name = Annotated[str, msgspec.Meta(max_length=63)]
Instant = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


class GetConsole(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a console said and was told, from ``since`` up to ``until`` (0: now), in order.

    ``tail_bytes`` > 0 without ``since``: the newest so many bytes. ``cursor``: go on where the
    last answer ended; the last one stays valid, what comes later follows there.
    """

    dut: Name
    since: Instant = 0
    until: Instant = 0
    tail_bytes: Annotated[int, msgspec.Meta(ge=0, le=64 << 20)] = 0
    cursor: Annotated[str, msgspec.Meta(max_length=80)] = ""


class ConsoleAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A block of records as in console_log.py (empty: none), and where it goes on."""

    block: bytes = b""
    cursor: str = ""
    more: bool = False


class GrepConsole(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Lines of consoles that a regular expression finds, oldest first.

    ``duts`` empty: every board. ``ignore_case`` as in grep. The search has a time limit.
    """

    pattern: Pattern
    duts: tuple[Name, ...] = ()
    since: Instant = 0
    until: Instant = 0
    ignore_case: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000


class ConsoleLine(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A line that was found: when it began, on which console."""

    at: Whole
    dut: str
    text: str


class GrepAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``more``: there are further ones; ``late``: the time was over before all was searched."""

    lines: tuple[ConsoleLine, ...] = ()
    more: bool = False
    late: bool = False


class ListSigns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What consoles have told of their DUTs, newest first."""

    dut: Name = ""
    sign: Name = ""
    since: Instant = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class SignView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A boot, a login prompt, a crash. ``boot`` counts since the agent of the DUT began."""

    at: int
    seen_at: int
    agent: str
    dut: str
    sign: str
    text: str
    boot: int = 0
    job: str = ""


class SignsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first."""

    signs: tuple[SignView, ...] = ()
