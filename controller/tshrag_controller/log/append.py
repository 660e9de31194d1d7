"""Commit a frame with compare-and-set: the one check is commit, election and fence.

A frame goes out under a message id of its own and with the sequence that must be the last. An
answer that does not come leaves the outcome unknown: the identical message is sent again. When
the sequence is refused, the tail tells: our own id is there, it was stored and only the answer
was lost; another's, and somebody else leads.
"""

import asyncio
import logging
import secrets

from tshrag_common import subjects
from tshrag_common.bus.jetstream import JetStream, WrongSequence
from tshrag_common.errors import Fenced, Unavailable
from tshrag_common.failpoints import failpoint
from tshrag_common.streams import LOG
from tshrag_controller.log.frames import MOST_BYTES, Frame, encode

logger = logging.getLogger(__name__)

RETRY_S = 0.2
STAND_S = 1.0


class Pen:
    """The right to append, for as long as nobody else does."""

    def __init__(self, log: JetStream, node: str, last: int) -> None:
        self._log, self._node, self.last = log, node, last
        self._count = 0
        self.trouble = ""
        """Why the LOG does not take a frame that waits; empty: it takes them."""

    async def append(self, frame: Frame) -> list[int]:
        """Store `frame`; return the sequences of the messages that it took (nearly always one).

        While the bus is away this goes on trying, with the same message id.

        Raises:
            Fenced: another leader has written.

        """
        return [await self._store(payload, frame) for payload in _messages(frame)]

    async def _store(self, payload: bytes, frame: Frame) -> int:
        self._count += 1
        chance = secrets.token_hex(4)
        message_id = f"{self._node}:{frame.epoch}:{self._count}:{chance}"
        while True:
            try:
                self.last = await self._commit(payload, message_id, frame)
                failpoint("pen.stored")
                return self.last
            except Unavailable as error:
                logger.warning("the LOG does not answer", extra={"why": error.line})
                await asyncio.sleep(RETRY_S)

    async def _commit(self, payload: bytes, message_id: str, frame: Frame) -> int:
        try:
            return await self._log.publish_expect(
                subjects.log(), payload, message_id=message_id, expected_last=self.last
            )
        except WrongSequence:
            tail = await self._log.tail(LOG)
            if tail is None or tail.message_id != message_id:
                raise Fenced(frame.epoch, tail.sequence if tail else 0) from None
            return tail.sequence  # an earlier try of ours was stored, only its answer was lost


async def stand(log: JetStream, node: str, frame: Frame, last: int) -> int | None:
    """Try to become the leader: append `frame`, the first of its epoch, behind sequence `last`.

    Return its sequence; None where somebody else was there first, or nobody knows: a frame that
    was stored all the same only opens an epoch in which nothing happens.
    """
    message_id = f"{node}:{frame.epoch}:0:{secrets.token_hex(4)}"
    try:
        return await log.publish_expect(
            subjects.log(), encode(frame), message_id, expected_last=last, timeout_s=STAND_S
        )
    except WrongSequence:
        return None
    except Unavailable as error:
        logger.warning("the LOG does not answer", extra={"why": error.line})
        return None


def epoch_of(message_id: str) -> int:
    """Return the epoch that stands in the id of a message of the LOG; 0 where there is none."""
    parts = message_id.split(":")
    return int(parts[1]) if len(parts) == 4 and parts[1].isdigit() else 0


def _messages(frame: Frame) -> list[bytes]:
    """Return the bytes of `frame`, cut between events where one message cannot hold it.

    Every part is a frame of its own that leaves the Lab in a legal state.
    """
    data = encode(frame)
    if len(data) <= MOST_BYTES - 4096 or len(frame.events) < 2:
        return [data]
    half = len(frame.events) // 2
    parts = (frame.events[:half], frame.events[half:])
    return [
        message
        for events in parts
        for message in _messages(
            Frame(epoch=frame.epoch, at=frame.at, ev_hi=frame.ev_hi, events=events)
        )
    ]
