"""Who may write to the LOG, and what of it arrives: on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import Fenced
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.streams import LOG, StreamSizes, all_streams
from tshrag_controller.core.events import AnyEvent, LeaderChosen, ReportRefused
from tshrag_controller.log.append import Pen
from tshrag_controller.log.follow import replay
from tshrag_controller.log.frames import MOST_BYTES, BadFrame, Frame, decode, encode


def a_frame(epoch: int, *events: AnyEvent) -> Frame:
    chosen = LeaderChosen(epoch=Epoch(epoch), node="n")
    return Frame(epoch=Epoch(epoch), at=1, ev_hi=0, events=events or (chosen,))


def refusals(count: int, size: int) -> tuple[AnyEvent, ...]:
    return tuple(
        ReportRefused(agent=AgentId("a1"), seq=seq, code="stale_fence", what="x" * size)
        for seq in range(count)
    )


async def a_log(bus: Bus) -> JetStream:
    log = JetStream(bus)
    config = next(each for each in all_streams(StreamSizes().within(64 << 20)) if each.name == LOG)
    await log.ensure_stream(config)
    return log


@pytest.fixture
async def log(nats_url: str) -> AsyncIterator[JetStream]:
    bus = await connect(nats_url, name="pen", within_s=10)
    yield await a_log(bus)
    await bus.close()


async def frames(log: JetStream, upto: int) -> list[Frame]:
    return [frame async for batch in replay(log, "reader", 1, upto) for _, frame in batch]


async def test_of_two_leaders_the_older_one_is_fenced(log: JetStream) -> None:
    old = Pen(log, "a", 0)
    assert await old.append(a_frame(1)) == [1]
    new = Pen(log, "b", 1)
    assert await new.append(a_frame(2)) == [2]
    with pytest.raises(Fenced, match=r"frame 2 is not of epoch 1"):
        await old.append(a_frame(1))
    with pytest.raises(Fenced):
        await old.append(a_frame(1))
    assert await new.append(a_frame(2)) == [3]
    assert [frame.epoch for frame in await frames(log, 3)] == [1, 2, 2]


async def test_a_leader_that_missed_a_frame_cannot_begin(log: JetStream) -> None:
    await Pen(log, "a", 0).append(a_frame(1))
    with pytest.raises(Fenced):
        await Pen(log, "b", 0).append(a_frame(2))


async def test_a_frame_too_large_for_a_message_is_cut_between_events(log: JetStream) -> None:
    events = refusals(40, 100_000)
    sequences = await Pen(log, "a", 0).append(a_frame(1, *events))
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) > 3
    found = await frames(log, sequences[-1])
    assert tuple(event for frame in found for event in frame.events) == events
    assert all(len(encode(frame)) < MOST_BYTES for frame in found)


async def test_two_leaders_at_once_never_both_write(log: JetStream) -> None:
    written: dict[str, int] = {"a": 0, "b": 0}

    async def lead(node: str, epoch: int) -> None:
        pen = Pen(log, node, 0)
        try:
            for _ in range(50):
                await pen.append(a_frame(epoch))
                written[node] += 1
        except Fenced:
            return

    async with asyncio.TaskGroup() as group:
        group.create_task(lead("a", 1), name="a")
        group.create_task(lead("b", 2), name="b")
    total = sum(written.values())
    assert [frame.epoch for frame in await frames(log, total)] in ([1] * 50, [2] * 50)


async def test_frames_written_while_the_server_dies_again_and_again_are_there_once(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path)
    await asyncio.to_thread(server.start)
    bus = await connect(server.url, name="pen", within_s=10)
    try:
        log = await a_log(bus)
        pen, last = Pen(log, "a", 0), 0
        done = asyncio.Event()

        async def write() -> None:
            nonlocal last
            for number in range(400):
                (last,) = await pen.append(a_frame(1, *refusals(1, number)))
            done.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(bus.watch(), name="watch")
            writing = group.create_task(write(), name="write")
            for _ in range(3):
                seen = last
                while last < seen + 30 and not done.is_set():
                    await asyncio.wait((writing,), timeout=0.01)
                await asyncio.to_thread(server.restart)
            await done.wait()
            found = await frames(log, last)
            raise _Done
    except* _Done:
        sizes = [len(event.what) for frame in found for event in frame.events]  # type: ignore[union-attr]
        assert sizes == list(range(400)), "each once, in order"
    finally:
        await bus.close()
        await asyncio.to_thread(server.stop)


class _Done(Exception):
    pass


def test_a_frame_of_a_newer_build_or_a_damaged_one_is_told_apart() -> None:
    data = encode(a_frame(1))
    assert decode(data) == a_frame(1)
    with pytest.raises(BadFrame, match=r"format 9, supported up to 1; upgrade"):
        decode(b"\x09" + data[1:])
    for damaged in (b"", data[:5], data[:-1], data[:1] + b"\xc1" * 20):
        with pytest.raises(BadFrame):
            decode(damaged)
