"""Reading a stream in order, over lost connections, killed servers and lost deliveries.

One pull is open at a time. The server numbers its deliveries: a number that is missing was lost
on the way, and the consumer is made anew behind what was handed on. Messages arrive under the
subject of the stream; only what the server says of a pull arrives under the inbox of that pull.
"""

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from tshrag_common.bus.jetstream import ConsumerInfo, JetStream, StoredMessage
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError, NotFound, Unavailable
from tshrag_common.streams import ConsumerConfig, passing

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0
_EXPIRES_S = 30.0
_LONGEST_PAUSE_S = 2.0


class Puller:
    """Reads one consumer; `batches` is the loop, one reader at a time.

    ``handed_on`` is the sequence of the last message that went to the reader.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        consumer: ConsumerConfig,
        *,
        batch: int = 512,
        batch_bytes: int = 8 << 20,
    ) -> None:
        self._jetstream, self._bus = jetstream, jetstream.bus
        self.stream, self.consumer = stream, consumer
        self._acks = consumer.ack_policy != "none"
        self.handed_on = (consumer.opt_start_seq or 1) - 1
        self.acked = self.handed_on
        self.moved = asyncio.Event()
        """Set whenever ``acked`` has grown; whoever waits clears it."""
        self.healed = 0
        """How often the consumer was made anew because deliveries had been lost."""
        self._batch = batch
        self._wanted = msgspec.json.encode(
            {
                "batch": batch,
                "max_bytes": batch_bytes,
                "expires": int(_EXPIRES_S * 1e9),
                "idle_heartbeat": int(_HEARTBEAT_S * 1e9),
            }
        )
        self._name = consumer.name
        self._inbox = self._bus.new_inbox()
        self._pulls = itertools.count(1)
        self._pull = ""  # inbox of the open one
        self._left = 0  # messages that the open pull may still bring
        self._delivered = 0  # number of the last delivery of this incarnation
        self._newest = 0  # sequence of what came last in this incarnation
        self._is_mixed = False  # two incarnations were taken for one: start again
        self._waiting: list[StoredMessage] = []
        self._replies: deque[tuple[int, str]] = deque()
        self._again: deque[str] = deque()  # acks that were lost
        self._wake = asyncio.Event()
        self._broken = True
        self._pause_s = 0.0

    async def batches(self) -> AsyncGenerator[list[StoredMessage], None]:
        """Yield what arrives, in order, each message once for this Puller, never an empty list.

        Nothing more is asked for while the reader is busy with a batch, so it sets the pace.
        Ends only by cancellation, or with Refused where the stream is not there to be read.
        """
        subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_message)
        self._bus.on_reconnect(self._on_reconnect)
        try:
            while True:
                await self._keep_open()
                if self._waiting:
                    batch, self._waiting = self._waiting, []
                    yield batch
                    continue
                await self._silence()
        finally:
            self._bus.forget_reconnect(self._on_reconnect)
            await subscription.end()

    async def ack(self, sequence: int) -> None:
        """Acknowledge all up to `sequence`; an ack that gets lost is given again by itself."""
        reply = ""
        while self._replies and self._replies[0][0] <= sequence:
            _, reply = self._replies.popleft()
        self.acked = max(self.acked, sequence)
        self.moved.set()
        if reply:
            await self._give(reply)

    def _on_message(self, message: Message) -> None:
        self._wake.set()
        number = _delivery(message.reply, self._name)
        if number is None:
            self._on_status(message)
            return
        self._pause_s = 0.0
        sequence, delivery, is_first = number
        if is_first and sequence <= self._newest:
            return  # late, from before the consumer was made anew: its number means nothing
        self._left -= 1
        if delivery != self._delivered + 1:
            self._broken = True  # what was between is lost: nothing behind it may be handed on
            self._is_mixed = self._is_mixed or delivery <= self._delivered
            return
        self._delivered, self._newest = delivery, max(self._newest, sequence)
        if self._acks and sequence <= self.acked:
            self._again.append(message.reply)
            return
        if self._acks:
            self._replies.append((sequence, message.reply))
        if sequence > self.handed_on:
            self.handed_on = sequence
            self._waiting.append(_stored(message, sequence))

    def _on_status(self, message: Message) -> None:
        if message.subject != self._pull:
            return
        if message.status == "100":
            last = message.headers.get("Nats-Last-Consumer", "")
            if last.isdigit() and int(last) > self._delivered:
                self._broken = True  # the newest deliveries are lost, and no later one may come
            return
        self._left = 0
        what = message.headers.get("Description", "")
        if message.status == "503" or "Consumer Deleted" in what or "Leadership" in what:
            self._broken = True  # without a pause a deleted consumer answers in a loop
            self._pause_s = min(_LONGEST_PAUSE_S, (self._pause_s or 0.025) * 2)

    def _on_reconnect(self) -> None:
        self._broken = True
        self._wake.set()

    async def _keep_open(self) -> None:
        """See that the consumer is there and one pull is open on it."""
        while self._again:
            await self._give(self._again.popleft())
        while self._broken:
            try:
                await asyncio.sleep(self._pause_s)
                await self._mend()
            except Unavailable as error:
                logger.debug("consumer not mended yet", extra={"error": str(error)})
                self._pause_s = min(_LONGEST_PAUSE_S, (self._pause_s or 0.025) * 2)
        if self._left <= 0 and not self._waiting:
            await self._ask()

    async def _mend(self) -> None:
        """Bring server and reader to the same position, whatever happened in between."""
        self._broken = False
        try:
            info = await self._look()
            if info.delivered != self._delivered or self._is_mixed:
                self.healed += self._delivered > 0
                await self._anew()
            self._left = 0
        except LabError:
            self._broken = True
            raise

    async def _look(self) -> ConsumerInfo:
        try:
            info = await self._jetstream.consumer_info(self.stream, self._name)
        except NotFound:
            info = await self._jetstream.ensure_consumer(self.stream, self._named())
            self._delivered = self._newest = 0
        if self._delivered == 0 and self._acks and info.acked > self.acked:
            self.acked = self.handed_on = info.acked  # the position that a durable one kept
            self.moved.set()
        return info

    async def _anew(self) -> None:
        """Make the consumer again behind what is acknowledged; what was handed on is skipped."""
        await self._jetstream.delete_consumer(self.stream, self._name)
        await self._jetstream.ensure_consumer(self.stream, self._named())
        self._delivered = self._newest = 0
        self._is_mixed = False
        self._replies.clear()

    def _named(self) -> ConsumerConfig:
        behind = self.acked if self._acks else self.handed_on
        if not self._acks:  # a new name each time: late messages of the old one are told apart
            self._name = f"{self.consumer.name}-{secrets.token_hex(4)}"
            return msgspec.structs.replace(self.consumer, name=self._name, opt_start_seq=behind + 1)
        if behind == 0:
            return self.consumer
        return msgspec.structs.replace(
            self.consumer, deliver_policy="by_start_sequence", opt_start_seq=behind + 1
        )

    async def _ask(self) -> None:
        self._left = self._batch
        self._pull = f"{self._inbox}.{next(self._pulls)}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self._name}"
        try:
            await self._bus.publish_for(subject, self._wanted, self._pull)
        except Unavailable:
            self._broken = True

    async def _give(self, reply: str) -> None:
        try:
            await self._bus.publish(reply, b"+ACK")
        except Unavailable:  # delivered again later, and acknowledged then
            logger.debug("an ack was not sent")

    async def _silence(self) -> None:
        """Wait for a message or a heartbeat; without either the pull is taken for lost."""
        self._wake.clear()
        if self._waiting or self._broken or self._left <= 0:
            return
        try:
            async with asyncio.timeout(2.5 * _HEARTBEAT_S):
                await self._wake.wait()
        except TimeoutError:
            self._broken = True


def follow(jetstream: JetStream, stream: str, from_seq: int, subject: str | None = None) -> Puller:
    """Return a reader of `stream` from a sequence on that it knows itself; nothing to ack.

    For standbys, projection and every reader that stores its position with what it has read.
    """
    consumer = passing(f"follow-{secrets.token_hex(4)}", from_seq, subject)
    return Puller(jetstream, stream, consumer, batch=1000)


def _delivery(reply: str, consumer: str) -> tuple[int, int, bool] | None:
    """Return stream sequence and number of a delivery, and whether it is the first of its message.

    None where it is none of `consumer`.

    ``$JS.ACK.<stream>.<consumer>.<times>.<stream seq>.<number>.<time>.<pending>``
    """
    tokens = reply.split(".")
    if len(tokens) != 9 or tokens[:2] != ["$JS", "ACK"] or tokens[3] != consumer:
        return None
    return int(tokens[5]), int(tokens[6]), tokens[4] == "1"


def _stored(message: Message, sequence: int) -> StoredMessage:
    return StoredMessage(
        sequence=sequence,
        subject=message.subject,
        data=message.data,
        headers=message.headers,
        stored_at=int(message.reply.split(".")[7]) // 1000,
    )
