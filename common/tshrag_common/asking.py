"""How a client asks: a request by its verb, an answer in its shape, errors as they were raised."""

from typing import TypeVar

import msgspec

from tshrag_common import requests as r, subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.errors import (
    ErrorReport,
    Invalid,
    LabError,
    Refused,
    Unavailable,
    Unreachable,
)
from tshrag_common.ids import DEFAULT_ORG, OrgId
from tshrag_common.wire import BadMessage

A = TypeVar("A")
REQUEST_S = 30.0

_ENVELOPE = msgspec.json.Decoder(r.Envelope)
_ENCODER = msgspec.json.Encoder()


class Asking:
    """Speaks for one person of one org over a connection that it does not own."""

    def __init__(self, bus: Bus, org: OrgId = DEFAULT_ORG, timeout_s: float = REQUEST_S) -> None:
        self.bus, self.org, self.timeout_s = bus, org, timeout_s
        self._own = org if bus.plain else None  # where the server has accounts it adds the org
        self.durable = True

    async def ask(
        self, verb: r.Verb, request: msgspec.Struct, shape: type[A], timeout_s: float | None = None
    ) -> A:
        """Ask and return the answer as `shape`.

        Raises:
            Refused, Unavailable: as the controller said, or the bus found.

        """
        subject = subjects.req(self._own, verb)
        data = _ENCODER.encode(request)
        try:
            answer = await self.bus.request(subject, data, timeout_s or self.timeout_s)
        except Unreachable as error:
            if error.code != "no_responders":
                raise
            fix = "start one with 'tshrag up', or see 'tshrag health'"
            raise Unreachable("", "no controller answers", fix, code="no_controller") from None
        envelope = self._opened(answer)
        self.durable = envelope.durable
        return msgspec.json.decode(envelope.data, type=shape)

    def _opened(self, answer: Message) -> r.Envelope:
        try:
            envelope = _ENVELOPE.decode(answer.data)
        except msgspec.DecodeError as error:
            raise BadMessage("answer", str(error)) from None
        if envelope.error is not None:
            raise error_of(envelope.error)
        return envelope


def error_of(report: ErrorReport) -> LabError:
    """Return the error that a controller told of."""
    if report.problems:
        return Invalid(report.problems)
    kind = Unavailable if report.retryable else Refused
    return kind("", report.message, code=report.code)
