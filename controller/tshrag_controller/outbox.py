"""What leaves without anybody waiting for it: news for people, messages that were set aside."""

import asyncio
import logging
from typing import TypeVar

from tshrag_common import history
from tshrag_common.bus.connection import Bus
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000

T = TypeVar("T")


class Outbox:
    """Two bounded queues; what does not fit is dropped and counted, nobody is held up."""

    def __init__(self, bus: Bus, store: Store, clock: Clock) -> None:
        self._bus, self._store, self._clock = bus, store, clock
        self._news: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MOST_WAITING)
        self._aside: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue(MOST_WAITING)
        self.set_aside_count = 0
        self.dropped = 0

    def publish(self, subject: str, data: bytes) -> None:
        self._put(self._news, (subject, data))

    def set_aside(self, subject: str, reason: str, data: bytes) -> None:
        """Keep a message that could not be read, with its reason."""
        self.set_aside_count += 1
        logger.warning("a message was set aside", extra={"subject": subject, "why": reason})
        if history.IS_ON:
            history.note("set_aside", subject=subject, why=reason, sha=history.digest_of([data]))
        self._put(self._aside, (subject, reason, data))

    def _put(self, queue: asyncio.Queue[T], item: T) -> None:
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            self.dropped += 1

    async def empty(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_news(), name="news")
            group.create_task(self._keep_aside(), name="set-aside")

    async def _send_news(self) -> None:
        while True:
            subject, data = await self._news.get()
            try:
                await self._bus.publish(subject, data)
            except LabError as error:  # a watcher sees the gap and asks for the whole
                logger.debug("news were not sent", extra={"why": error.line})

    async def _keep_aside(self) -> None:
        while True:
            subject, reason, data = await self._aside.get()
            try:
                await self._store.set_aside(self._clock.now(), subject, reason, data)
            except LabError as error:
                logger.error("a set-aside message was lost", extra={"why": error.line})
