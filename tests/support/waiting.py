"""Waiting for something to become true: never a bare sleep."""

import asyncio
import time
from collections.abc import Callable


async def wait_until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Return as soon as `condition()` is true; fail with its name after `within_s`."""
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not true within {within_s} s: {condition!r}")
        await asyncio.sleep(0.01)


def wait_for(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Do the same where no event loop runs."""
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not true within {within_s} s: {condition!r}")
        time.sleep(0.01)
