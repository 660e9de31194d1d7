"""Requests of people: decoded, handed to their handler, answered in an envelope.

Whatever goes wrong with a request is its answer; a bug of ours is answered as ``internal`` and
logged with its traceback, and the loop lives on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from tshrag_common import requests as r, subjects
from tshrag_common.bus.messages import Message
from tshrag_common.errors import ErrorReport, Invalid, LabError, NotFound, Problem
from tshrag_controller.answers.asker import Asker, asker_of

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Requests that are worked on at the same time; the others wait in order."""
MOST_WAITING = 2000

Handler = Callable[[Asker, Any], Awaitable[msgspec.Struct]]


class Verb(msgspec.Struct, frozen=True):
    """What a verb takes, and who answers."""

    shape: type[msgspec.Struct]
    handler: Handler


class Answering(Protocol):
    """The part of the bus that is needed here."""

    async def respond(self, message: Message, data: bytes) -> None: ...


class RequestIntake:
    """A queue of requests and the tasks that answer them."""

    def __init__(
        self, bus: Answering, verbs: Mapping[str, Verb], plain: bool, durable: bool
    ) -> None:
        self._bus, self._verbs, self._plain, self._durable = bus, verbs, plain, durable
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MOST_WAITING)
        self.refused = 0

    def hear(self, message: Message) -> None:
        """Queue a request; one too many is dropped, and its asker asks again."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.refused += 1

    async def answer(self) -> None:
        """Answer requests for ever, several at once: a slow one holds nobody up."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._answer_one_by_one(), name=f"request-{number}")

    async def _answer_one_by_one(self) -> None:
        while True:
            message = await self._waiting.get()
            data = await self._answer(message)
            try:
                await self._bus.respond(message, data)
            except LabError as error:
                logger.warning("an answer was not sent", extra={"why": error.line})

    async def _answer(self, message: Message) -> bytes:
        try:
            org, name = subjects.req_of(message.subject)
            verb = self._verbs.get(name)
            if verb is None:
                raise NotFound("verb", name, self._verbs)
            asker = asker_of(org, message.headers, self._plain)
            answer = await verb.handler(asker, _decoded(message.data, verb.shape))
        except LabError as error:
            return _encoded(r.Envelope(error=error.report(), durable=self._durable))
        except TimeoutError:
            late = ErrorReport(code="busy", message="the controller is behind", retryable=True)
            return _encoded(r.Envelope(error=late, durable=self._durable))
        except Exception:  # a bug of ours must not end the service of all the others
            logger.exception("a request failed", extra={"subject": message.subject})
            bug = ErrorReport(code="internal", message="a bug of ours; the controller's log has it")
            return _encoded(r.Envelope(error=bug, durable=self._durable))
        body = msgspec.Raw(msgspec.json.encode(answer))
        return _encoded(r.Envelope(data=body, durable=self._durable))


def _decoded(data: bytes, shape: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.json.decode(data or b"{}", type=shape, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$.") or "request"
        raise Invalid([Problem(code="invalid", where=where, what=what)]) from None


def _encoded(envelope: r.Envelope) -> bytes:
    return msgspec.json.encode(envelope)
