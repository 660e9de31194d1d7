"""Carries what jobs of gangs say between agents, until the other side has it.

What goes to a mate on this host goes there directly. To others it goes over the bus, the oldest
first, again and again until it is receipted: lost messages, reconnects and agents that are started
again all heal by that. Nothing is taken from an agent for a mate that is not its own.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from tshrag_agent.gang.box import Box
from tshrag_agent.gang.mailbox import Mailbox
from tshrag_agent.gang.records import Closed, Record
from tshrag_common import subjects, wire
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.gang_messages import GangMail, Here, Note, Over, Parcel, Receipt
from tshrag_common.ids import AgentId, Fence

logger = logging.getLogger(__name__)

AGAIN_S = 1.0
MAX_AGAIN_S = 10.0
LINGER_S = 600.0
"""How long an attempt that has ended waits until its mates have heard that."""
_MAX_MAIL_BYTES = 256 << 10
_WAITING_MOST = 1024
_ITEM_BYTES = 512


class _Pace:
    """When to say again what a mate has not receipted."""

    def __init__(self) -> None:
        self.receipted, self.sent, self.again_s, self.at = -1, -1, AGAIN_S, 0.0


class Post:
    """All mailboxes of this agent, by fence."""

    def __init__(self, agent: AgentId, bus: Callable[[], Bus | None], clock: Clock) -> None:
        self._agent, self._bus, self._clock = agent, bus, clock
        self.boxes: dict[Fence, Box] = {}
        self.counters = Counter[str]()
        self._inbox = asyncio.Queue[tuple[AgentId, GangMail]](_WAITING_MOST)
        self._paces: dict[tuple[Fence, Fence], _Pace] = {}
        self._closed_at: dict[Fence, float] = {}
        self._work = asyncio.Event()

    def add(self, box: Box) -> None:
        self.boxes[box.mailbox.own] = box
        self._work.set()

    def soon(self) -> None:
        """Have something to send."""
        self._work.set()

    async def attend(self, bus: Bus) -> None:
        """Hear other agents on a new connection, and say again what they may have missed."""
        bus.on_reconnect(self._all_again)
        await bus.subscribe(subjects.any_gang(self._agent), self.hear)
        self._all_again()

    def hear(self, message: Message) -> None:
        """Take a message of the bus; too many are dropped, they are said again."""
        try:
            _, of = subjects.gang_of(message.subject)
            self._inbox.put_nowait((of, wire.GANG.decode(message.data)))
        except (LabError, asyncio.QueueFull):
            self.counters["gang_mail_dropped"] += 1

    async def run(self) -> None:
        """Send and hear, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear_all(), name="gang mail heard")
            group.create_task(self._send_all(), name="gang mail sent")

    async def _hear_all(self) -> None:
        while True:
            of, mail = await self._inbox.get()
            try:
                await self._take(of, mail)
            except LabError as error:  # a full disk: it is said again
                self.counters["gang_mail_refused"] += 1
                logger.warning("mail of a gang was not taken", extra={"reason": error.line})

    async def _take(self, of: AgentId, mail: GangMail) -> None:
        heard = dict[tuple[Fence, Fence], int]()
        for parcel in mail.parcels:
            box = self._box_of(parcel.to, parcel.of, of)
            if box is not None:
                heard[parcel.to, parcel.of] = await _deliver(box, parcel)
                if isinstance(parcel.item, Here):  # it has just begun, and missed what was said
                    self._paces.pop((parcel.to, parcel.of), None)
                    self._work.set()
        for receipt in mail.receipts:
            box = self._box_of(receipt.to, receipt.of, of)
            if box is not None:
                await _receipt(box, receipt.of, receipt.upto)
                self._work.set()
        if heard:
            told = ((pair, upto) for pair, upto in heard.items())
            receipts = tuple(Receipt(to=by, of=to, upto=upto) for (to, by), upto in told)
            await self._send(of, GangMail(receipts=receipts))

    def _box_of(self, to: Fence, of: Fence, agent: AgentId) -> Box | None:
        """Return the mailbox that is meant, where that agent has that mate of it."""
        box = self.boxes.get(to)
        if box is None:
            return None  # not begun, or long over: it is said again, or not needed
        mate = box.mailbox.mates.get(of)
        if mate is None or mate.agent != agent:
            self.counters["gang_mail_forged"] += 1
            return None
        return box

    async def _send_all(self) -> None:
        while True:
            try:
                async with asyncio.timeout(AGAIN_S / 2):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            for box in list(self.boxes.values()):
                await self._serve(box)

    async def _serve(self, box: Box) -> None:
        for fence, mate in box.mailbox.mates.items():
            if not box.mailbox.lines[fence].out:
                continue
            try:
                if mate.agent == self._agent:
                    await self._hand_over(box, fence)
                elif self._is_due(box.mailbox, fence):
                    await self._send(mate.agent, GangMail(parcels=tuple(_parcels(box, fence))))
            except LabError as error:
                self.counters["gang_mail_refused"] += 1
                logger.warning("mail of a gang was not sent", extra={"reason": error.line})
        await self._forget(box)

    async def _hand_over(self, box: Box, to: Fence) -> None:
        """Bring it to a mate on this host."""
        other = self.boxes.get(to)
        if other is None:
            return
        upto = box.mailbox.lines[to].receipted
        for parcel in list(_parcels(box, to)):
            upto = await _deliver(other, parcel)
        await _receipt(box, to, upto)

    def _is_due(self, mailbox: Mailbox, to: Fence) -> bool:
        """Tell whether to send: there is something new, or what was sent has no receipt."""
        line, now = mailbox.lines[to], self._clock.monotonic()
        pace = self._paces.setdefault((mailbox.own, to), _Pace())
        last = line.receipted + len(line.out)
        if line.receipted > pace.receipted or last > pace.sent:
            pace.again_s = AGAIN_S
        elif now < pace.at:
            return False
        else:
            pace.again_s = min(MAX_AGAIN_S, pace.again_s * 2)
        pace.receipted, pace.sent, pace.at = line.receipted, last, now + pace.again_s
        return True

    def _all_again(self) -> None:
        self._paces.clear()
        self._work.set()

    async def _send(self, to: AgentId, mail: GangMail) -> None:
        bus = self._bus()
        if bus is not None and bus.is_connected:
            await bus.publish(subjects.gang(to, self._agent), wire.GANG.encode(mail))

    async def _forget(self, box: Box) -> None:
        """Drop a mailbox whose attempt has ended, when its mates know or had the time to."""
        mailbox = box.mailbox
        if not mailbox.is_closed:
            return
        since = self._closed_at.setdefault(mailbox.own, self._clock.monotonic())
        is_done = not any(line.out for line in mailbox.lines.values())
        is_last = all(line.over for line in mailbox.lines.values())
        if (is_done and is_last) or self._clock.monotonic() - since > LINGER_S:
            del self.boxes[mailbox.own], self._closed_at[mailbox.own]
            for pair in [pair for pair in self._paces if pair[0] == mailbox.own]:
                del self._paces[pair]
            await box.book.remove()


def _parcels(box: Box, to: Fence) -> Iterator[Parcel]:
    """Yield what a mate has not receipted, as much as one message holds."""
    line, size = box.mailbox.lines[to], 0
    for seq, item in enumerate(line.out, line.receipted + 1):
        size += _ITEM_BYTES + (len(item.value) if isinstance(item, Note) else 0)
        if size > _MAX_MAIL_BYTES:
            return
        yield Parcel(to=to, of=box.mailbox.own, seq=seq, item=item)


async def _deliver(box: Box, parcel: Parcel) -> int:
    """Put a parcel into a mailbox; return up to which it has all of that mate."""
    of = parcel.of
    await box.do(lambda mailbox: mailbox.heard(of, parcel.seq, parcel.item))
    return box.mailbox.lines[of].heard


async def _receipt(box: Box, by: Fence, upto: int) -> None:
    await box.do(lambda mailbox: mailbox.receipt(by, upto))


async def close(box: Box, outcome: str) -> None:
    """Tell the mates that an attempt has ended; its mailbox stays until they know."""

    def decide(mailbox: Mailbox) -> tuple[Record, ...]:
        if mailbox.is_closed:
            return ()
        return (*mailbox.tell(Over(outcome=outcome)), Closed())

    await box.do(decide)
