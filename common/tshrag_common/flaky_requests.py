"""Requests about boards that fail: board or build? (See requests.py.)"""

from typing import Annotated

import msgspec


class AskFlaky(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Results of the last days, of one board or of all of them."""

    dut: Annotated[str, msgspec.Meta(max_length=130)] = ""
    days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 14.0


class SuspicionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A test of a build that failed on a board; each pair is (passed, not passed)."""

    test: str
    build: str
    here: tuple[int, int]
    elsewhere: tuple[int, int]
    others: tuple[int, int]
    verdict: str  # board, build, flaky, unknown
    why: str
    run: str


class BoardView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A board over all its tests; ``flips``: the same test of the same build ended otherwise."""

    dut: str
    passed: int = 0
    failed: int = 0
    errors: int = 0
    flips: int = 0
    suspicions: tuple[SuspicionView, ...] = ()
    checked_at: int = 0
    check: str = ""  # how the last health check ended
    faults: int = 0  # infrastructure errors in a row


class FlakyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Those that failed most first."""

    boards: tuple[BoardView, ...]
