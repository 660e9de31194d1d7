"""The simulated server does what nats-server does: each scenario is played on both."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.simulation.broker import Broker
from tests.simulation.client import URL, SimClient
from tests.simulation.network import Network
from tests.simulation.vloop import VirtualLoop, run_virtual
from tests.support.nats_server import NatsServer
from tshrag_common import subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream, WrongSequence
from tshrag_common.bus.messages import Message
from tshrag_common.bus.puller import Puller
from tshrag_common.errors import LabError, NotFound, StorageFull, Unreachable
from tshrag_common.ids import AgentId
from tshrag_common.streams import MET, StreamConfig, StreamSizes, all_streams, durable, passing

Scenario = Callable[[Bus, Bus], Awaitable[list[object]]]
THINGS = StreamConfig(name="THINGS", subjects=("things.>",), max_bytes=4096)


async def _appends(bus: Bus, _other: Bus) -> list[object]:
    js = JetStream(bus)
    await js.ensure_stream(THINGS)
    await js.ensure_stream(THINGS)
    facts: list[object] = [await js.publish("things.a", b"1", {"Nats-Msg-Id": "one"})]
    facts.append(await js.publish("things.a", b"1", {"Nats-Msg-Id": "one"}))
    facts.append(await js.publish_expect("things.b", b"2", "two", 1))
    for name, expected in (("two", 1), ("three", 7)):
        try:
            await js.publish_expect("things.b", b"x", name, expected)
        except WrongSequence as error:
            facts.append(error.code)
    tail = await js.tail("THINGS")
    assert tail is not None
    facts += [tail.sequence, tail.message_id, tail.data, tail.subject]
    last = await js.last_on("THINGS", "things.a")
    following = await js.next_on("THINGS", "things.b", 1)
    assert last is not None
    assert following is not None
    facts += [last.sequence, following.sequence, await js.get("THINGS", 9)]
    return facts


async def _purges(bus: Bus, _other: Bus) -> list[object]:
    js = JetStream(bus)
    await js.ensure_stream(THINGS)
    for number in range(6):
        await js.publish(f"things.{number % 2}", bytes([number]), {})
    await js.purge("THINGS", 4, "things.0")
    info = await js.stream_info("THINGS", "things.>")
    facts: list[object] = [info.messages, info.first_seq, info.last_seq, info.subjects]
    await js.purge("THINGS", 6)
    info = await js.stream_info("THINGS")
    facts += [info.messages, info.first_seq, info.last_seq, await js.tail("THINGS")]
    return facts


async def _refusals(bus: Bus, _other: Bus) -> list[object]:
    js = JetStream(bus)
    await js.ensure_stream(THINGS)
    facts: list[object] = []
    for act in (
        lambda: js.stream_info("NONE"),
        lambda: js.consumer_info("THINGS", "nobody"),
        lambda: js.publish("things.a", bytes(5000), {}),
        lambda: bus.request("nobody.there", b"", 0.2),
    ):
        try:
            await act()
        except (NotFound, StorageFull, Unreachable) as error:
            facts.append((type(error).__name__, error.code))
    return facts


async def _reading(bus: Bus, other: Bus) -> list[object]:
    js = JetStream(bus)
    await js.ensure_stream(THINGS)
    for number in range(5):
        await js.publish("things.a", b"%d" % number, {})
    facts: list[object] = []
    puller = Puller(js, "THINGS", durable("reader", "things.*"))
    await js.ensure_consumer("THINGS", puller.consumer)
    async for batch in puller.batches():
        facts += [message.data for message in batch]
        await puller.ack(batch[-1].sequence)
        if len(facts) == 5:
            await JetStream(other).publish("things.b", b"late", {})
        if len(facts) >= 6:
            break
    await bus.settled()
    info = await js.consumer_info("THINGS", "reader")
    facts += [info.delivered, info.acked]
    again = Puller(JetStream(other), "THINGS", passing("again", 4))
    async for batch in again.batches():
        facts += [(message.sequence, message.subject) for message in batch]
        if batch[-1].sequence == 6:
            break
    return facts


async def _pulls(bus: Bus, _other: Bus) -> list[object]:
    """What a pull brings beside messages: heartbeats with the last delivery, and its end."""
    js = JetStream(bus)
    await js.ensure_stream(THINGS)
    await js.publish("things.a", b"1", {})
    await js.ensure_consumer("THINGS", passing("c", 1))
    heard: list[Message] = []
    inbox = bus.new_inbox()
    await bus.subscribe(f"{inbox}.*", heard.append)
    wanted = b'{"batch": 5, "expires": 1500000000, "idle_heartbeat": 500000000}'
    await bus.publish_for("$JS.API.CONSUMER.MSG.NEXT.THINGS.c", wanted, f"{inbox}.1")
    await asyncio.sleep(1.9)
    seen = [
        (m.status, m.headers.get("Description"), m.headers.get("Nats-Last-Consumer")) for m in heard
    ]
    facts: list[object] = [heard[0].data, heard[0].subject, heard[0].reply.split(".")[:7]]
    return [*facts, *sorted(set(seen[1:]), key=str)]


async def _partitions(bus: Bus, _other: Bus) -> list[object]:
    js = JetStream(bus)
    for config in all_streams(StreamSizes().within(64 << 20)):
        await js.ensure_stream(config)
    for number in range(12):
        await js.publish(subjects.said(AgentId(f"agent-{number}"), "met"), b"x", {})
    return sorted((await js.stream_info(MET, ">")).subjects)  # type: ignore[return-value]  # strings are objects


async def _requests(bus: Bus, other: Bus) -> list[object]:
    answering: list[asyncio.Task[None]] = []

    def answer(message: Message) -> None:
        reply = other.respond(message, b"re: " + message.data, {"X": "y"})
        answering.append(asyncio.get_running_loop().create_task(reply))

    await other.subscribe("ask.*.this", answer)
    await other.settled()
    got = await bus.request("ask.somebody.this", b"what", 2.0)
    try:
        await bus.request("ask.somebody.that", b"what", 0.2)
    except LabError as error:
        return [got.data, got.headers, error.code]
    return []


@pytest.mark.parametrize(
    "scenario", [_appends, _purges, _refusals, _reading, _pulls, _partitions, _requests]
)
async def test_the_simulated_server_answers_as_the_real_one(
    nats_server: NatsServer, nats_url: str, scenario: Scenario
) -> None:
    bus, other = await connect(nats_url, name="one"), await connect(nats_url, name="other")
    try:
        async with asyncio.timeout(20):
            real = await scenario(bus, other)
    finally:
        await bus.close()
        await other.close()
    assert await asyncio.to_thread(_simulated, scenario) == real


def _simulated(scenario: Scenario) -> list[object]:
    async def play(loop: VirtualLoop) -> list[object]:
        network = Network(loop, Broker(loop, random.Random(1)), random.Random(2))

        def client() -> SimClient:
            return SimClient(network, "here", loop.new_life())

        bus = await connect(URL, name="one", client=client)
        other = await connect(URL, name="other", client=client)
        return await scenario(bus, other)

    return run_virtual(play)
