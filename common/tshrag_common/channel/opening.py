"""How a client opens channels: it listens first, then asks the controller, then hears the agent.

async with channels_of(lab) as channels:
    async with channels.open(ConsoleWant(), dut="imx8-1", write=True) as channel:
        await channel.write(data)
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tshrag_common import subjects
from tshrag_common.asking import Asking
from tshrag_common.bus.messages import Message
from tshrag_common.channel.channel import Channel, ChannelLost
from tshrag_common.channel.hub import Hub
from tshrag_common.channel.wants import AnyWant
from tshrag_common.channel_requests import OpenChannel, OpenChannelAnswer
from tshrag_common.ids import agent_id

OPEN_S = 10.0
_AGAIN_S = 2.0
"""How long to wait for the agent before the controller is asked again: commands may be lost."""


class Channels:
    """The channels of one client; made by `channels_of`."""

    def __init__(self, lab: Asking, hub: Hub) -> None:
        self._lab, self._hub = lab, hub
        self._own = lab.org if lab.bus.plain else None  # where there are accounts, they add it
        self.answer = OpenChannelAnswer(agent="", person="")

    @asynccontextmanager
    async def open(
        self,
        want: AnyWant,
        *,
        dut: str = "",
        agent: str = "",
        write: bool = False,
        timeout_s: float = OPEN_S,
    ) -> AsyncIterator[Channel]:
        """Yield a channel that the agent has opened; it is closed behind the block.

        Raises:
            LabError: as the controller or the agent refused it.
            ChannelLost: the agent has not answered within `timeout_s`.

        """
        session = secrets.token_hex(16)
        bus = self._lab.bus
        person = None if bus.plain else bus.name
        channel = self._hub.open(session, "")

        def heard(message: Message) -> None:
            self._hub.hear(session, message)

        listening = await bus.subscribe(subjects.channel_answers(self._own, person, session), heard)
        try:
            await bus.settled()
            asked = OpenChannel(session=session, want=want, dut=dut, agent=agent, write=write)
            await self._greeted(channel, asked, timeout_s)
            yield channel
        finally:
            channel.close()
            await self._hub.let_go(session)
            await listening.end()

    async def _greeted(self, channel: Channel, asked: OpenChannel, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s
        while not channel.was_heard:
            self.answer = told = await self._lab.ask("channel", asked, OpenChannelAnswer, timeout_s)
            agent = agent_id(told.agent)
            channel.answer_to(
                subjects.channel_in(self._own, told.person, agent, asked.session),
                subjects.channel_out(self._own, told.person, agent, asked.session),
                f"agent {agent}",
            )
            if await channel.heard(_AGAIN_S):  # always a look: a busy machine may be late itself
                return
            if loop.time() >= ends:
                what = f"no answer within {timeout_s:g} s"
                raise ChannelLost(f"agent {agent}", what, "see 'tshrag agent list'")


@asynccontextmanager
async def channels_of(lab: Asking, hub: Hub | None = None) -> AsyncIterator[Channels]:
    """Keep the channels of a client moving while the block lasts."""
    hub = Hub(lambda: lab.bus) if hub is None else hub  # an empty one is false
    lab.bus.on_reconnect(hub.resync)
    # a task of its own: a group would wrap the errors of whoever uses the channels
    moving = asyncio.get_running_loop().create_task(hub.run(), name="channels")
    try:
        yield Channels(lab, hub)
    finally:
        moving.cancel()
        await asyncio.wait([moving])
        lab.bus.forget_reconnect(hub.resync)
