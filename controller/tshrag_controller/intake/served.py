"""Messages that are answered: heard into a bounded queue, worked on by a few tasks at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError

logger = logging.getLogger(__name__)

MOST_WAITING = 20_000


class Answering(Protocol):
    """The part of the bus that is needed here."""

    async def respond(self, message: Message, data: bytes) -> None: ...


class Served:
    """One kind of message. ``answer`` returns bytes, or None where nothing is answered."""

    def __init__(
        self,
        bus: Answering,
        name: str,
        answer: Callable[[Message], Awaitable[bytes | None]],
        at_once: int,
        stale_s: float = 0.0,
    ) -> None:
        """Serve so many at once; after `stale_s` (0: never) nobody waits for an answer any more."""
        self._bus, self.name, self._answer, self._at_once = bus, name, answer, at_once
        self._stale_s = stale_s
        self._waiting: asyncio.Queue[tuple[float, Message]] = asyncio.Queue(MOST_WAITING)
        self.dropped = 0

    def hear(self, message: Message) -> None:
        """Queue a message; one too many is dropped and counted, and its asker asks again."""
        try:
            self._waiting.put_nowait((asyncio.get_running_loop().time(), message))
        except asyncio.QueueFull:
            self.dropped += 1

    async def serve(self) -> None:
        """Answer for ever, several at once: a slow one holds nobody up."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._at_once):
                group.create_task(self._serve_one_by_one(), name=f"{self.name}-{number}")

    async def _serve_one_by_one(self) -> None:
        while True:
            heard_at, message = await self._waiting.get()
            if 0 < self._stale_s < asyncio.get_running_loop().time() - heard_at:
                self.dropped += 1  # a backlog of what is late already would make all late
                continue
            try:
                data = await self._answer(message)
                if data is not None:
                    await self._bus.respond(message, data)
            except LabError as error:
                facts = {"subject": message.subject, "why": error.line}
                logger.warning("a message was not answered", extra=facts)
            except TimeoutError:
                logger.warning("an answer took too long", extra={"subject": message.subject})
            except Exception:  # a bug of ours must not end the service of all the others
                logger.exception("answering failed", extra={"subject": message.subject})
