"""Channels over a real server: bytes as they were, whatever happens to the connection."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tests.support.tcp_proxy import Proxy
from tests.support.waiting import wait_until
from tshrag_common import subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.messages import Message
from tshrag_common.channel.channel import Channel, ChannelLost
from tshrag_common.channel.flow import WINDOW_BYTES
from tshrag_common.channel.hub import Hub
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import AgentId, OrgId

ORG, AGENT = OrgId("default"), AgentId("a1")
TO_AGENT = subjects.channel_in(ORG, "jo", AGENT, "s1")
TO_PERSON = subjects.channel_out(ORG, "jo", AGENT, "s1")


def a_hub(bus: Bus, lost_s: float) -> Hub:
    return Hub(lambda: bus, lost_s=lost_s, gone_s=0.5, tick_s=0.1)


async def listen(bus: Bus, subject: str, hub: Hub, name: str, back: str = "") -> None:
    def heard(message: Message) -> None:
        hub.hear(name, message, back)

    await bus.subscribe(subject, heard)
    await bus.settled()


class Ends:
    """Both ends of channels over two connections, as a person and an agent have them."""

    def __init__(self, person: Bus, agent: Bus, lost_s: float) -> None:
        self.buses = (person, agent)
        self.hubs = tuple(a_hub(bus, lost_s) for bus in self.buses)
        for bus, hub in zip(self.buses, self.hubs, strict=True):
            bus.on_reconnect(hub.resync)

    async def pair(self, session: str = "s1") -> tuple[Channel, Channel]:
        ends: list[Channel] = []
        ways = (
            subjects.channel_in(ORG, "jo", AGENT, session),
            subjects.channel_out(ORG, "jo", AGENT, session),
        )
        for hub, bus, says, hears in zip(self.hubs, self.buses, ways, ways[::-1], strict=True):
            await listen(bus, hears, hub, session)
            ends.append(hub.open(session, says, hears))
        ends[1].greet()
        assert await ends[0].heard(20)
        return ends[0], ends[1]


@asynccontextmanager
async def two_ends(person_url: str, agent_url: str, lost_s: float = 30.0) -> AsyncIterator[Ends]:
    person = await connect(person_url, name="jo", within_s=10)
    agent = await connect(agent_url, name="a1", within_s=10)
    ends = Ends(person, agent, lost_s)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in
             (*(hub.run() for hub in ends.hubs), person.watch(), agent.watch())]  # fmt: skip
    try:
        yield ends
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await person.close()
        await agent.close()


async def gather_all(channel: Channel) -> bytes:
    parts: list[bytes] = []
    while (piece := await channel.read()) is not None:
        parts.append(piece.data)
    return b"".join(parts)


async def write_all(channel: Channel, data: bytes, step: int = 200_000) -> None:
    for start in range(0, len(data), step):
        await channel.write(data[start : start + step])
    await channel.finish()


async def both(*work: Awaitable[object]) -> list[object]:
    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_of(each)) for each in work]
    return [task.result() for task in tasks]


async def _of(work: Awaitable[object]) -> object:
    return await work


async def test_bytes_arrive_in_both_directions_and_each_end_closes_its_own(nats_url: str) -> None:
    up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(3_000_000)
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        _, _, there, here = await both(
            write_all(mine, up), write_all(theirs, down), gather_all(theirs), gather_all(mine)
        )
        assert (there, here) == (up, down)
        await both(mine.flushed(), theirs.flushed())


async def test_one_direction_goes_on_when_the_other_has_ended(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        await mine.write(b"question")
        await mine.finish()
        assert await gather_all(theirs) == b"question"
        await theirs.write(b"answer")
        await theirs.finish()
        assert await gather_all(mine) == b"answer"


async def test_a_word_stands_in_its_place_among_the_bytes(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        await mine.write(b"before")
        await mine.say(b"word")
        await mine.write(b"after")
        got = [await theirs.read() for _ in range(3)]
        assert [(p.kind, p.data) for p in got if p] == [
            ("data", b"before"), ("word", b"word"), ("data", b"after")]  # fmt: skip


async def test_a_writer_waits_for_a_reader_that_does_not_read(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        data = bytes(4 * WINDOW_BYTES)
        written = 0

        async def write() -> None:
            nonlocal written
            for start in range(0, len(data), 65536):
                await mine.write(data[start : start + 65536])
                written += 65536
            await mine.finish()

        async def read_late() -> int:
            await wait_until(lambda: written >= WINDOW_BYTES, 20)
            for _ in range(20):  # the server is asked, so what is under way has arrived
                await ends.buses[0].settled()
            assert written <= 2 * WINDOW_BYTES + 65536
            return len(await gather_all(theirs))

        assert (await both(write(), read_late()))[1] == len(data)


async def test_an_error_closes_both_ends_and_is_told(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, theirs = await ends.pair()
        theirs.close(ErrorReport(code="stale_fence", message="somebody has taken over"))
        with pytest.raises(LabError, match="taken over") as caught:
            await mine.read()
        assert caught.value.code == "stale_fence"
        with pytest.raises(LabError):
            await mine.write(b"more")


async def test_a_channel_that_the_other_end_has_forgotten_breaks_at_once(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, _ = await ends.pair()
        hub = a_hub(ends.buses[1], 30.0)
        await listen(ends.buses[1], TO_AGENT, hub, "other", TO_PERSON)
        running = asyncio.get_running_loop().create_task(hub.run())
        await mine.write(b"x")
        with pytest.raises(ChannelLost, match="knows nothing"):
            async with asyncio.timeout(20):
                await mine.read()
        running.cancel()
        await asyncio.wait([running])


async def test_the_last_word_of_a_channel_is_known_though_the_bus_was_away(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        mine, _ = await ends.pair()
        away: list[Bus] = []
        hub = Hub(lambda: away[0] if away else None, tick_s=0.1)
        theirs = hub.open("s1", TO_PERSON)
        theirs.close(ErrorReport(code="port_closed", message="nobody listens there"))
        await hub.let_go("s1", within_s=0.0)
        away.append(ends.buses[1])
        running = asyncio.get_running_loop().create_task(hub.run())
        hub.repeat("s1")
        with pytest.raises(LabError, match="nobody listens there"):
            async with asyncio.timeout(20):
                await mine.read()
        running.cancel()
        await asyncio.wait([running])


async def test_silence_breaks_a_channel_with_a_word(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url, lost_s=0.5) as ends:
        mine, _ = await ends.pair()
        await ends.hubs[1].let_go("s1", within_s=0.0)  # it hears, and never answers
        with pytest.raises(ChannelLost, match="silent"):
            async with asyncio.timeout(20):
                await mine.read()


@pytest.mark.parametrize("dies", [0, 1])
async def test_an_end_that_has_left_the_bus_is_noticed_before_silence_is(
    nats_url: str, dies: int
) -> None:
    async with two_ends(nats_url, nats_url, lost_s=600) as ends:
        pair = await ends.pair()
        await ends.buses[dies].close()
        with pytest.raises(ChannelLost, match="left the bus"):
            async with asyncio.timeout(30):
                await pair[1 - dies].read()


def _came_back(bus: Bus, seen: int) -> bool:
    return bus.reconnects > seen


Disturb = Callable[[NatsServer, Proxy], Awaitable[None]]


async def kill_the_server(server: NatsServer, proxy: Proxy) -> None:
    await asyncio.to_thread(server.restart)


async def cut_the_agent_off(server: NatsServer, proxy: Proxy) -> None:
    proxy.reset()


@pytest.mark.parametrize("disturb", [kill_the_server, cut_the_agent_off])
async def test_a_transfer_survives_lost_connections(tmp_path: Path, disturb: Disturb) -> None:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    down = random.Random(4).randbytes(8_000_000)
    sent, quiet = hashlib.sha256(), asyncio.Event()
    proxy = Proxy(server.port)
    await proxy.start()

    async def write_until_quiet(channel: Channel) -> None:
        chance = random.Random(3)
        while not quiet.is_set():
            data = chance.randbytes(300_000)
            sent.update(data)
            await channel.write(data)
        await channel.finish()

    async def disturbed(bus: Bus) -> None:
        for _ in range(3):
            seen = bus.reconnects
            await disturb(server, proxy)
            await wait_until(partial(_came_back, bus, seen), 20)
        quiet.set()

    try:
        async with two_ends(server.url, f"nats://127.0.0.1:{proxy.port}") as ends:
            mine, theirs = await ends.pair()
            _, _, there, here, _ = await both(
                write_until_quiet(mine), write_all(theirs, down), gather_all(theirs),
                gather_all(mine), disturbed(ends.buses[1]))  # fmt: skip
            assert isinstance(there, bytes)
            assert hashlib.sha256(there).digest() == sent.digest()
            assert here == down
            assert mine.resent, "nothing was lost: the test has shown nothing"
    finally:
        await proxy.stop()
        await asyncio.to_thread(server.stop)


async def test_twenty_channels_share_a_connection(nats_url: str) -> None:
    async with two_ends(nats_url, nats_url) as ends:
        pairs = [await ends.pair(f"s{number}") for number in range(20)]
        data = random.Random(5).randbytes(1_000_000)
        got = await both(
            *(write_all(mine, data) for mine, _ in pairs),
            *(gather_all(theirs) for _, theirs in pairs),
        )
        assert got[20:] == [data] * 20
