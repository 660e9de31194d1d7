"""A new store beside full streams: what lives is whole first, the past comes after it, once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.support.builders import T0
from tests.support.served_lab import until
from tests.support.stored import ORG, StoredLab, a_batch, a_series, samples
from tshrag_common import subjects, wire
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.puller import Puller
from tshrag_common.clock import SystemClock
from tshrag_common.errors import NotFound
from tshrag_common.ids import AgentId, RunId
from tshrag_common.metric_requests import GetSeries
from tshrag_common.streams import MET, all_streams, met_ingest
from tshrag_controller.engine import Decide, Engine
from tshrag_controller.filling import Filling, Way
from tshrag_controller.ingest import Incoming, Ingest
from tshrag_controller.intake.spools import Spools
from tshrag_controller.store import series
from tshrag_controller.store.store import Part, Store

A1 = AgentId("a1")
OLD, NEW = 1200, 10
"""Messages before the living run began, in more batches than one, and its own."""


class Told:
    """As much of an engine as is told what is stored."""

    def tell(self, decide: Decide[object]) -> None:
        assert callable(decide)


class NewStore:
    """A store that is new, and what fills it; what the streams held before waits for `gate`."""

    def __init__(self, store: Store, log: JetStream, partition: int) -> None:
        self.store, self.log, self.gate = store, log, asyncio.Event()
        self._consumer = met_ingest(partition, "new")
        self._subject = subjects.samples(partition)
        engine = cast(Engine, Told())
        self.ingest = Ingest(store, engine, self._aside, Spools(SystemClock()), self._newest)
        way = Way(MET, self._consumer, self._subject, self._take, 1 << 30)
        self.filling = Filling(log, store, self.ingest, {"samples": way}, self._through)
        self._puller = Puller(log, MET, self._consumer)

    def _aside(self, subject: str, reason: str, _data: bytes) -> None:
        raise AssertionError(f"{subject}: {reason}")

    async def _newest(self) -> int:
        return 0

    async def _take(self, messages: Sequence[Incoming], part: Part) -> None:
        if part == "rest":
            await self.gate.wait()
        await self.ingest.take_samples(messages, part)

    async def _through(self) -> None:
        upto = (await self.log.stream_info(MET)).last_seq

        async def is_read() -> bool:
            return self._puller.acked >= upto

        await until(is_read, 30)

    async def pull(self) -> None:
        async for batch in self._puller.batches():
            await self.filling.take("samples", [(m.subject, m.sequence, m.data) for m in batch])
            await self._puller.ack(batch[-1].sequence)

    async def values(self, run: RunId) -> list[float]:
        asked = GetSeries(run=run, key="net.latency")
        try:
            answer = await self.store.query(lambda db: series.get_series(db, ORG, asked))
        except NotFound:
            return []
        return list(answer.value)


@contextlib.asynccontextmanager
async def filled_by(new: NewStore, begin_at: int) -> AsyncIterator[None]:
    """Let it pull and fill as long as the block lasts."""
    await new.ingest.recall()
    await new.filling.begin(begin_at)
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(new.pull()), group.create_task(new.filling.fill())]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()


async def publish(log: JetStream, run: RunId, numbers: range) -> None:
    for number in numbers:
        message = samples(a_batch(run, a_series([number], at=T0 + number)), first=number)
        await log.publish(subjects.said(A1, "met"), wire.SAMPLES.encode(message), {})


@pytest.mark.timeout(120)
async def test_what_lives_is_whole_before_the_past_is_read_and_all_of_it_is_there_once(
    tmp_path: Path, nats_url: str
) -> None:
    bus = await connect(nats_url, name="tests", within_s=10)
    log = JetStream(bus)
    for stream in all_streams():
        if stream.name == MET:
            await log.ensure_stream(stream)
    store = await Store.open(tmp_path / "store")
    lab = StoredLab(store)
    past, lives = await lab.started_run(), await lab.started_run(number=2)
    await publish(log, past, range(1, OLD + 1))
    began_at = SystemClock().now()
    await publish(log, lives, range(OLD + 1, OLD + NEW + 1))
    lab.ended(lab.fence(past), samples_upto=OLD)
    lab.ended(lab.fence(lives), samples_from=OLD, samples_upto=OLD + NEW)
    await lab.write()
    tail = await log.tail(MET)
    assert tail is not None
    partition = int(tail.subject.split(".")[3])

    new = NewStore(store, log, partition)
    async with filled_by(new, began_at):
        async with asyncio.timeout(30):
            await new.filling.complete(lives)
        assert await new.values(lives) == [float(n) for n in range(OLD + 1, OLD + NEW + 1)]
        assert await new.values(past) == [], "the past waits"
        assert new.filling.removable("samples", OLD) == 0, "nothing that was not read is purged"
        mark = new.ingest.marks[A1]
        assert (mark.samples, mark.samples_whole) == (OLD + NEW, 0), "nor confirmed"
        judged = asyncio.get_running_loop().create_task(new.filling.complete(past))
        await asyncio.sleep(0.1)
        assert not judged.done(), "no verdict on a part of the data"
        judged.cancel()

    again = NewStore(store, log, partition)  # killed before it was through
    again.gate.set()
    async with filled_by(again, SystemClock().now()):
        async with asyncio.timeout(30):
            await again.filling.complete(past)
            await again.filling.all()
        assert again.ingest.marks[A1].samples_whole == OLD + NEW
        assert await again.values(past) == [float(n) for n in range(1, OLD + 1)]
        assert await again.values(lives) == [float(n) for n in range(OLD + 1, OLD + NEW + 1)]
    assert await store.two_parts() == []
    await store.close()
    await bus.close()
