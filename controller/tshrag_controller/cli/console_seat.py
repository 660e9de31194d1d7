"""A seat at a console: the lease that writing takes, the channel, what comes down it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from tshrag_common import lease_requests as lr
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.console_words import Order, Status, Told, spoken, told_of
from tshrag_common.channel.opening import channels_of
from tshrag_common.channel.wants import ConsoleWant
from tshrag_common.channel_requests import OpenChannelAnswer
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.lease_client import new_lease
from tshrag_controller.reports.text import clean

REASON = "at the console"


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How somebody wants to sit at a console."""

    dut: str
    writes: bool = True
    must_write: bool = False  # else: watch where it cannot be had
    take: bool = False
    for_s: float = 7200.0
    scrollback_bytes: int = 4096
    exact: bool = False  # scrollback as it was said


class Seat:
    """An attached console."""

    def __init__(self, channel: Channel, told: OpenChannelAnswer, me: str, watching: str) -> None:
        self.channel, self.me = channel, me
        self.agent, self.until, self.watching = told.agent, told.until, watching
        """Why this seat only watches; empty: it writes."""

    async def type(self, data: bytes) -> None:
        await self.channel.write(data)

    async def order(self, order: Order) -> None:
        await self.channel.say(spoken(order))

    async def next(self) -> bytes | Told | None:
        """Return what the board says next, or what the agent tells; None: it is over.

        Raises:
            LabError: the seat was taken away, with the reason.

        """
        piece = await self.channel.read()
        if piece is None:
            return None
        return told_of(piece.data) if piece.kind == "word" else piece.data

    async def greeted(self) -> Status | None:
        """Return how the console stands; it is told before anything else."""
        async with asyncio.timeout(20.0):
            first = await self.next()
        return first if isinstance(first, Status) else None


@asynccontextmanager
async def seated(lab: Client, wishes: Wishes) -> AsyncIterator[Seat]:
    """Sit down at a console: with the lease one has, or one taken and given back; or to watch.

    Raises:
        LabError: there is no such console, or it may not be seen; or not be written to, where
            the wish is a must.

    """
    async with channels_of(lab) as channels, AsyncExitStack() as stack:
        want = ConsoleWant(
            scrollback_bytes=wishes.scrollback_bytes, take=wishes.take, exact=wishes.exact
        )
        watching = "" if wishes.writes else "as asked"

        async def opened(write: bool) -> Channel:
            return await stack.enter_async_context(channels.open(want, dut=wishes.dut, write=write))

        if not wishes.writes:
            channel = await opened(write=False)
        else:
            try:
                channel = await opened(write=True)
            except LabError as error:
                if error.code != "no_lease":
                    raise
                watching = await _take(lab, wishes, stack)
                channel = await opened(write=not watching)
        told = channels.answer
        yield Seat(channel, told, f"{lab.org}/{told.person}", watching)


async def _take(lab: Client, wishes: Wishes, stack: AsyncExitStack) -> str:
    """Take the lease for as long as one sits here; return why it cannot be had."""
    asked = lr.LeaseTake(lease=new_lease(), dut=wishes.dut, for_s=wishes.for_s, reason=REASON)
    try:
        lease = await lab.lease_take(asked)
    except LabError as error:
        if wishes.must_write:
            raise
        return clean(error.line)
    await stack.enter_async_context(lab.kept(lease, wishes.for_s))
    return ""
