"""Requests of people: decoded, handed to their handler, answered in an envelope.

Whatever goes wrong with a request is its answer; a bug of ours is answered as ``internal`` and
logged with its traceback, and the loop lives on.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tshrag_common import requests as r, subjects
from tshrag_common.bus.messages import Message
from tshrag_common.errors import ErrorReport, Invalid, LabError, NotFound, Problem
from tshrag_common.wire import MAX_MESSAGE_BYTES, BadMessage
from tshrag_controller.answers.asker import Asker, asker_of

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Requests that are worked on at the same time; the others wait in order."""

MOST_ANSWER_BYTES = MAX_MESSAGE_BYTES - 4096
FILTERS = ("limit", "offset", "state", "name")

SetAside = Callable[[str, str, bytes], None]
Handler = Callable[[Asker, Any], Awaitable[msgspec.Struct]]


class Verb(msgspec.Struct, frozen=True):
    """What a verb takes, and who answers."""

    shape: type[msgspec.Struct]
    handler: Handler


class Verbs:
    """All verbs, and how a request becomes an answer."""

    def __init__(
        self,
        verbs: Mapping[str, Verb],
        plain: bool,
        durable: bool,
        set_aside: SetAside,
        node: str = "",
    ) -> None:
        self._verbs, self._plain, self._durable, self._node = verbs, plain, durable, node
        self._set_aside = set_aside

    async def answer(self, message: Message) -> bytes:
        """Return the envelope for one request, whatever comes of it."""
        data = await self._answer(message)
        if len(data) <= MOST_ANSWER_BYTES:
            return data
        what = f"the answer takes {len(data)} > {MOST_ANSWER_BYTES} bytes"
        large = ErrorReport(code="too_large", message=f"{what}; ask for fewer, by limit and offset")
        return self._failed(large)

    async def _answer(self, message: Message) -> bytes:
        try:
            org, name = subjects.req_of(message.subject)
            verb = self._verbs.get(name)
            if verb is None:
                raise NotFound("verb", name, self._verbs)
            asker = asker_of(org, message.headers, self._plain)
            answer = await verb.handler(asker, _decoded(message.data, verb.shape))
        except BadMessage as error:
            self._set_aside(message.subject, error.line, message.data)
            return self._failed(error.report())
        except LabError as error:
            return self._failed(error.report())
        except TimeoutError:
            late = ErrorReport(code="busy", message="the controller is behind", retryable=True)
            return self._failed(late)
        except Exception:  # a bug of ours must not end the service of all the others
            logger.exception("a request failed", extra={"subject": message.subject})
            bug = ErrorReport(code="internal", message="a bug of ours; the controller's log has it")
            return self._failed(bug)
        body = msgspec.Raw(msgspec.json.encode(answer))
        return _encoded(r.Envelope(data=body, durable=self._durable, node=self._node))

    def _failed(self, error: ErrorReport) -> bytes:
        return _encoded(r.Envelope(error=error, durable=self._durable, node=self._node))


def _decoded(data: bytes, shape: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.json.decode(data or b"{}", type=shape, strict=True)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$.") or "request"
        code = "filter" if where in FILTERS else "invalid"
        raise Invalid([Problem(code=code, where=where, what=what)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadMessage("request", str(error)[:200]) from None


def _encoded(envelope: r.Envelope) -> bytes:
    return msgspec.json.encode(envelope)
