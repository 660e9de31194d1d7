"""Channels opened over a bus that loses, repeats and delays any frame, the first one too.

In virtual time, with the real hubs, the real opening and the agent's real handling of it: each
channel is served or fails with a reason, in a bounded time, whatever was lost.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.simulation.vloop import VirtualLoop, run_virtual
from tests.support.lossy_bus import LossyLab
from tshrag_common.channel.channel import Channel, ChannelLost
from tshrag_common.channel.frames import Frame, Over, State, decoded
from tshrag_common.channel.opening import OPEN_S, Channels, channels_of
from tshrag_common.channel.wants import EchoWant
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import LabError, Refused

BOUND_S = OPEN_S + 150.0
"""Opening, and what a channel may be silent for, three times over."""


def in_lab(lab: LossyLab, work: Callable[[Channels], Coroutine[Any, Any, None]]) -> float:
    """Let `work` use the channels of a lab; return how long that took, in virtual seconds."""

    async def scenario(loop: VirtualLoop) -> float:
        await lab.start()
        began = loop.time()
        async with channels_of(lab.as_client, lab.a_hub(lab.bus)) as channels:
            async with asyncio.timeout(BOUND_S):
                await work(channels)
        took = loop.time() - began
        await lab.stop()
        return took

    return run_virtual(scenario)


async def echoed(channels: Channels, data: bytes) -> bytes:
    async with channels.open(EchoWant(), agent="a1") as channel:
        writing = asyncio.create_task(said(channel, data))
        got = b""
        try:
            while (piece := await channel.read()) is not None:
                got += piece.data
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    return got


async def said(channel: Channel, data: bytes) -> None:
    for start in range(0, len(data), 3000):
        await channel.write(data[start : start + 3000])
    await channel.finish()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from((0.0, 0.1, 0.3, 0.6)), st.integers(1, 12))
def test_each_channel_is_served_or_fails_in_bounded_time(
    seed: int, loss: float, count: int
) -> None:
    lab = LossyLab(seed, loss)
    data = random.Random(seed).randbytes(20_000)
    came: list[bytes | str] = []

    async def one(channels: Channels) -> None:
        try:
            came.append(await echoed(channels, data))
        except LabError as error:
            came.append(error.code)

    async def work(channels: Channels) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one(channels))

    in_lab(lab, work)
    assert len(came) == count
    assert set(came) <= {data, "channel_lost"}
    if not loss:
        assert came == [data] * count


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from((0.1, 0.3, 0.6)), st.integers(1, 12))
def test_what_was_lost_for_some_seconds_is_made_good(seed: int, loss: float, count: int) -> None:
    lab = LossyLab(seed, loss)
    data = random.Random(seed).randbytes(20_000)
    got: list[bytes] = []

    async def one(channels: Channels) -> None:
        got.append(await echoed(channels, data))

    async def work(channels: Channels) -> None:
        def heal() -> None:
            lab.way.sound = lab.told.sound = True

        asyncio.get_running_loop().call_later(4.0, heal)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one(channels))

    assert in_lab(lab, work) < 30.0
    assert got == [data] * count


def is_out(kind: type[Frame], subject: str, data: bytes) -> bool:
    return ".chan.out." in subject and isinstance(decoded(data), kind)


class Dropping:
    """Drops the first `count` frames of a kind that an agent says, and nothing else."""

    def __init__(self, kind: type[Frame], count: int) -> None:
        self._kind, self._left = kind, count

    def __call__(self, subject: str, data: bytes) -> bool:
        if self._left and is_out(self._kind, subject, data):
            self._left -= 1
            return True
        return False


def test_a_greeting_that_was_lost_is_said_again_without_the_controller() -> None:
    lab = LossyLab(1, 0.0)
    lab.way.drops = Dropping(State, 1)

    async def work(channels: Channels) -> None:
        assert await echoed(channels, b"x") == b"x"

    assert in_lab(lab, work) < 2.0  # the controller would be asked again after that
    assert lab.way.lost == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_a_refusal_that_was_lost_is_no_silence(lost: int) -> None:
    lab = LossyLab(1, 0.0)
    lab.way.drops = Dropping(Over, lost)

    async def refuse(channel: Channel, command: ServeChannel, want: EchoWant) -> None:
        raise Refused("console", "held by pid 7 picocom", code="serial_busy")

    lab.agent.serve(EchoWant, refuse)

    async def work(channels: Channels) -> None:
        with pytest.raises(Refused, match="picocom"):
            await echoed(channels, b"x")

    in_lab(lab, work)
    assert lab.way.lost == lost


def test_what_an_agent_says_before_the_controller_has_answered_is_heard() -> None:
    lab = LossyLab(1, 0.0)
    lab.answer_late_s = 1.5

    async def banner(channel: Channel, command: ServeChannel, want: EchoWant) -> None:
        await channel.write(b"SSH-2.0-early")

    lab.agent.serve(EchoWant, banner)

    async def work(channels: Channels) -> None:
        assert await echoed(channels, b"") == b"SSH-2.0-early"

    assert in_lab(lab, work) < 2.5


def test_a_flood_on_one_channel_does_not_keep_what_another_has_lost() -> None:
    lab = LossyLab(1, 0.0)
    found: list[float] = []

    async def work(channels: Channels) -> None:
        loop = asyncio.get_running_loop()
        async with (
            channels.open(EchoWant(), agent="a1") as flood,
            channels.open(EchoWant(), agent="a1") as quiet,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(flooded(flood)), group.create_task(drained(flood))]
            await asyncio.sleep(1.0)
            lost = [True]

            def drops(subject: str, data: bytes) -> bool:
                is_it = lost[0] and data.endswith(b"quiet")
                lost[0] = lost[0] and not is_it
                return is_it

            lab.way.drops = drops
            began = loop.time()
            await quiet.write(b"quiet")
            piece = await quiet.read()
            assert piece is not None
            assert piece.data == b"quiet"
            found.append(loop.time() - began)
            for task in tasks:
                task.cancel()

    in_lab(lab, work)
    assert lab.way.lost == 1
    assert found[0] < 5.0


async def flooded(channel: Channel) -> None:
    while True:
        await channel.write(bytes(1000))


async def drained(channel: Channel) -> None:
    while await channel.read() is not None:
        continue


def test_a_reader_that_is_slow_behind_the_end_gets_all_of_it() -> None:
    lab = LossyLab(1, 0.0)
    data = random.Random(1).randbytes(900_000)

    async def speak(channel: Channel, command: ServeChannel, want: EchoWant) -> None:
        await channel.write(data)

    lab.agent.serve(EchoWant, speak)

    async def work(channels: Channels) -> None:
        got = b""
        async with channels.open(EchoWant(), agent="a1") as channel:
            while (piece := await channel.read()) is not None:
                got += piece.data
                await asyncio.sleep(6.0)
        assert got == data

    in_lab(lab, work)


def test_a_hub_that_ends_ends_its_channels() -> None:
    async def scenario(loop: VirtualLoop) -> str:
        lab = LossyLab(1, 0.0)
        await lab.start()
        hub = lab.a_hub(lab.bus)
        running = loop.create_task(hub.run())
        await asyncio.sleep(0.1)
        channel = hub.open("s1", "nowhere")
        running.cancel()
        await asyncio.wait([running])
        try:
            await channel.read()
        except ChannelLost as error:
            return error.line
        finally:
            await lab.stop()
        return ""

    assert "does not run" in run_virtual(scenario)
