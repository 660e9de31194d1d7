"""How a client asks: a request by its verb, an answer in its shape, errors as they were raised.

A question outlives the controller that it was put to. What only reads is asked again when no answer
comes; what the leader alone may answer is asked again when another controller leads. The first
answer counts: each request has an id of its own, or does not mind to be heard twice.
"""

import asyncio
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
READS: frozenset[r.Verb] = frozenset(
    (
        "runs", "run", "jobs", "why", "stats", "health", "agents", "duts", "logs", "metrics",
        "series", "leases", "watch", "outlook", "queue", "placement", "flaky", "judge", "query",
        "console", "console_grep", "signs", "work",
    )
)  # fmt: skip
"""Answered by any controller, a standby too, and so asked again where no answer comes. All others
are answered by the leader."""
REQUEST_S = 30.0
PATIENCE_S = 2.0
"""How long a question that any controller could answer waits before it is put again."""
SLOW: frozenset[r.Verb] = frozenset(("judge", "query"))
SLOW_PATIENCE_S = 10.0
"""The same for what may take its time: another copy of it is work."""
MOST_COPIES = 6

_ENVELOPE = msgspec.json.Decoder(r.Envelope)
_ENCODER = msgspec.json.Encoder()


class Asking:
    """Speaks for one person of one org over a connection that it does not own."""

    def __init__(self, bus: Bus, org: OrgId = DEFAULT_ORG, timeout_s: float = REQUEST_S) -> None:
        self.bus, self.org, self.timeout_s = bus, org, timeout_s
        self._own = org if bus.plain else None  # where the server has accounts it adds the org
        self.durable = True
        self._elected = asyncio.Event()
        self._hears_elections = False

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
            answer = await self._answered(verb, subject, data, timeout_s or self.timeout_s)
        except Unreachable as error:
            if error.code != "no_responders":
                raise
            fix = "start one with 'tshrag up', or see 'tshrag health'"
            raise Unreachable("", "no controller answers", fix, code="no_controller") from None
        envelope = self._opened(answer)
        self.durable = envelope.durable
        return msgspec.json.decode(envelope.data, type=shape)

    async def _answered(self, verb: r.Verb, subject: str, data: bytes, timeout_s: float) -> Message:
        """Return the first answer to any copy of a question; the first copy's time is the limit."""
        await self._hear_elections()
        loop = asyncio.get_running_loop()
        copies: set[asyncio.Task[Message]] = set()
        patience_s = patience_of(verb, timeout_s)
        try:
            while True:
                if len(copies) < MOST_COPIES:
                    asking = self.bus.request(subject, data, timeout_s)
                    copies.add(loop.create_task(asking, name=f"ask-{verb}"))
                self._elected.clear()
                election = loop.create_task(self._elected.wait(), name="election")
                try:
                    done, _ = await asyncio.wait(
                        {*copies, election},
                        timeout=patience_s,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    election.cancel()
                for copy in copies:
                    if copy in done:
                        return copy.result()
                patience_s *= 2
        finally:
            for copy in copies:
                if not copy.cancel() and not copy.cancelled():
                    copy.exception()  # it came second: nobody minds

    async def _hear_elections(self) -> None:
        """Hear from now on when another controller leads: what was asked before may be lost."""
        if self._hears_elections:
            return
        self._hears_elections = True
        own = DEFAULT_ORG if self.bus.plain else None
        await self.bus.subscribe(subjects.ui(own, "leader"), lambda _: self._elected.set())

    def _opened(self, answer: Message) -> r.Envelope:
        try:
            envelope = _ENVELOPE.decode(answer.data)
        except msgspec.DecodeError as error:
            raise BadMessage("answer", str(error)) from None
        if envelope.error is not None:
            raise error_of(envelope.error)
        return envelope


def patience_of(verb: r.Verb, timeout_s: float) -> float:
    """Return how long to wait before a question is put again."""
    if verb not in READS:
        return timeout_s
    return SLOW_PATIENCE_S if verb in SLOW else PATIENCE_S


def error_of(report: ErrorReport) -> LabError:
    """Return the error that a controller told of."""
    if report.problems:
        return Invalid(report.problems)
    kind = Unavailable if report.retryable else Refused
    return kind("", report.message, code=report.code)
