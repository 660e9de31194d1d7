"""Work on a console while somebody listens: all is handed on, and death is seen at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tshrag_agent.transport.console import SerialConsole
from tshrag_agent.transport.console_records import Watcher
from tshrag_agent.transport.expect import Matcher, Regex
from tshrag_common.errors import Refused, shown

T = TypeVar("T")
Hear = Callable[[bytes], None]


class DutFailed(Refused):
    """The DUT did what it must not, or did not what it must: a failure, not a fault of the lab."""

    code = "dut_failed"


def death_of(patterns: Sequence[str]) -> list[Regex]:
    """Return the patterns that end everything; raise BadPattern for one that cannot be matched."""
    made = [Regex(name=text, source=text.encode()) for text in patterns]
    Matcher(made)
    return made


async def guarded(
    console: SerialConsole | None,
    work: Coroutine[Any, Any, T],
    *,
    hear: Hear,
    death: Sequence[Regex] = (),
) -> T:
    """Return what `work` returns; end it when one of `death` is seen meanwhile.

    Raises:
        DutFailed: ``console_death``.

    """
    if console is None:
        return await work
    watcher = console.follow()
    watch = asyncio.create_task(_watch(console.name, watcher, hear, death), name="death watch")
    task = asyncio.create_task(work, name="guarded work")
    try:
        await asyncio.wait((watch, task), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return await task
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)
        await _rest(watcher, hear)
        watcher.close()


async def _watch(where: str, watcher: Watcher, hear: Hear, death: Sequence[Regex]) -> None:
    matcher = Matcher(death)
    while True:
        record = await watcher.next()
        if record.direction != "rx":
            continue
        hear(record.data)
        match = matcher.feed(record.data)
        if match is not None:
            said = shown(match.text.decode("utf-8", "replace"))
            raise DutFailed(where, f"the console said {said}", code="console_death")


async def _rest(watcher: Watcher, hear: Hear) -> None:
    while watcher.waiting:
        record = await watcher.next()
        if record.direction == "rx":
            hear(record.data)
