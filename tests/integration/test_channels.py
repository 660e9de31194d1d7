"""Channels through a real controller, agent and server: who may open one, and that it carries."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.lab_with_agent import LabWithAgent, lab_with_agent
from tests.support.served_lab import until
from tshrag_agent.channels import Channels as AgentChannels
from tshrag_common.audit_requests import ListAudit
from tshrag_common.channel.channel import Channel, ChannelLost
from tshrag_common.channel.opening import channels_of
from tshrag_common.channel.wants import EchoWant, ForwardWant
from tshrag_common.channel_requests import OpenChannel, OpenChannelAnswer
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import LabError, Refused


@pytest.fixture
async def both(tmp_path: Path, nats_url: str) -> AsyncIterator[LabWithAgent]:
    async with lab_with_agent(tmp_path, nats_url) as both:
        yield both


async def echoed(channel: Channel, data: bytes) -> bytes:
    await channel.write(data)
    got = b""
    async with asyncio.timeout(20):
        while len(got) < len(data):
            piece = await channel.read()
            assert piece is not None
            got += piece.data
    return got


async def test_a_person_opens_a_channel_to_an_agent_and_it_carries(both: LabWithAgent) -> None:
    async with channels_of(both.lab.client) as channels:
        async with channels.open(EchoWant(), agent="a1") as channel:
            assert await echoed(channel, b"hello") == b"hello"
            await channel.finish()
            assert await channel.read() is None
        assert channels.answer.agent == "a1"


async def test_a_channel_outlives_the_controller(both: LabWithAgent) -> None:
    async with (
        channels_of(both.lab.client) as channels,
        channels.open(EchoWant(), agent="a1") as channel,
    ):
        await both.lab.restart()
        assert await echoed(channel, b"still here") == b"still here"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (OpenChannel(session="5" * 32, want=EchoWant(), agent="a2"), "unknown_agent"),
        (OpenChannel(session="5" * 32, want=EchoWant(), dut="d1"), "unknown_dut"),
        (OpenChannel(session="5" * 32, want=EchoWant()), "channel_target"),
        (OpenChannel(session="5" * 31, want=EchoWant(), agent="a1"), "invalid_id"),
        (OpenChannel(session="a.b" + "5" * 29, want=EchoWant(), agent="a1"), "invalid_id"),
    ],
)
async def test_what_cannot_be_opened_is_refused_with_its_reason(
    both: LabWithAgent, asked: OpenChannel, code: str
) -> None:
    with pytest.raises(LabError) as caught:
        await both.lab.client.ask("channel", asked, OpenChannelAnswer)
    assert caught.value.code == code


async def test_the_error_of_a_handler_reaches_the_person(both: LabWithAgent) -> None:
    async def refuse(channel: Channel, command: ServeChannel, want: EchoWant) -> None:
        raise Refused("console", "held by pid 7 picocom", code="serial_busy")

    served: AgentChannels = both.agent.channels
    served.serve(EchoWant, refuse)
    async with (
        channels_of(both.lab.client) as channels,
        channels.open(EchoWant(), agent="a1") as channel,
    ):
        with pytest.raises(LabError, match="picocom"):
            await channel.read()


async def test_an_agent_that_has_gone_is_no_endless_wait(both: LabWithAgent) -> None:
    def deaf(command: ServeChannel) -> None: ...

    both.agent.channels.open = deaf  # type: ignore[method-assign]  # as if commands were lost
    both.agent.intake._open_channel = deaf
    async with channels_of(both.lab.client) as channels:
        with pytest.raises(ChannelLost, match="no answer within"):
            async with channels.open(EchoWant(), agent="a1", timeout_s=1.0):
                pass


async def test_who_opened_and_closed_a_channel_is_on_record(both: LabWithAgent) -> None:
    async def serve(channel: Channel, command: ServeChannel, want: ForwardWant) -> None:
        while (piece := await channel.read()) is not None:
            await channel.write(piece.data * 2)

    both.agent.channels.serve(ForwardWant, serve)
    client = both.lab.client
    async with (
        channels_of(client) as channels,
        channels.open(ForwardWant(port=22), agent="a1") as channel,
    ):
        await channel.write(b"hello")
        await channel.finish()
        assert await channel.read() is not None
        assert await channel.read() is None
    asked = ListAudit(name="a1", what="forward")

    async def closed() -> bool:
        return len((await client.audit(asked)).entries) == 2

    await until(closed, 30.0)
    after, before = (await client.audit(asked)).entries
    assert (before.phase, after.phase) == ("opened", "closed")
    assert (after.up_bytes, after.down_bytes) == (5, 10)
    assert (after.kind, after.name, after.agent, after.reason) == ("agent", "a1", "a1", "port 22")
    assert before.session == after.session
    assert (await client.audit(ListAudit(by=after.by, limit=1))).more
    assert not (await client.audit(ListAudit(by="other"))).entries
    assert not (await client.audit(ListAudit(since=after.at + 1))).entries
