"""A store that is new is filled from the newest on, so that what lives is judged in time.

The consumers of a controller begin where the oldest of the living runs began; what the streams
held before is read beside them afterwards. Marks see to it that each number counts once
(`store.marks`). How far back the first part reaches is a matter of speed only: a verdict is given
when all that its attempts say is stored, whatever the clocks are.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgspec

from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.puller import follow
from tshrag_common.errors import Unavailable
from tshrag_common.ids import RunId
from tshrag_common.streams import ConsumerConfig
from tshrag_common.times import printed_instant
from tshrag_controller.core.lab import Lab
from tshrag_controller.ingest import Incoming, Ingest
from tshrag_controller.store import marks
from tshrag_controller.store.sources import is_whole
from tshrag_controller.store.store import Part, Store

logger = logging.getLogger(__name__)

NEWEST_S = 600.0
"""Runs older than this wait until all is there: others must not wait for what they brought."""
MARGIN_S = 1.0
RETRY_S = 0.2
GAPS_S = 10.0


class Way(msgspec.Struct, frozen=True):
    """How a part of a stream gets into the store."""

    stream: str
    consumer: ConsumerConfig
    subject: str
    take: Callable[[Sequence[Incoming], Part], Awaitable[None]]
    most_bytes: int


def since(lab: Lab, now: int) -> int:
    """Return the instant from which on samples matter to what lives."""
    begun = [run.started_at or run.created_at for run in lab.runs.values() if not run.ended_at]
    newest = max(min(begun, default=now), now - round(NEWEST_S * 1e6))
    return newest - round(MARGIN_S * 1e6)


class Filling:
    """Of one controller: which parts of the streams are still to be read, and reads them."""

    def __init__(
        self,
        log: JetStream,
        store: Store,
        ingest: Ingest,
        ways: Mapping[str, Way],
        through: Callable[[], Awaitable[None]],
    ) -> None:
        self._log, self._store, self._ingest, self._ways = log, store, ingest, ways
        self._through = through
        self._upto: dict[str, int] = {}  # the past of a part ends with this sequence
        self._at: dict[str, int] = {}
        self._fewer = asyncio.Condition()

    async def begin(self, begin_at: int) -> None:
        """Take up a filling that was cut short, or begin one where the store is new."""
        self._upto = await self._store.change(marks.to_fill)
        if not self._upto and not self._ingest.marks:
            for name, way in self._ways.items():
                self._upto[name] = await self._consume_from(way, begin_at)
            await self._store.change(partial(marks.keep_to_fill, dict(self._upto)))
        self._ingest.filling.update(self._upto)

    async def _consume_from(self, way: Way, begin_at: int) -> int:
        """Make the consumer anew, from an instant on; return the last sequence before that."""
        await self._log.delete_consumer(way.stream, way.consumer.name)
        consumer = msgspec.structs.replace(
            way.consumer, deliver_policy="by_start_time", opt_start_time=printed_instant(begin_at)
        )
        return (await self._log.ensure_consumer(way.stream, consumer)).acked

    @property
    def is_open(self) -> bool:
        """Tell whether something that the streams held is not stored yet."""
        return bool(self._ingest.filling)

    async def take(self, name: str, messages: Sequence[Incoming]) -> None:
        """Store what the consumer of a part has brought."""
        part: Part = "newest" if name in self._ingest.filling else "all"
        await self._ways[name].take(messages, part)

    def removable(self, name: str, sequence: int) -> int:
        """Return up to where a part has been read without a hole; `sequence` is the newest."""
        return self._at.get(name, 0) if name in self._ingest.filling else sequence

    async def fill(self) -> None:
        """Store the past of all parts, after what is newer; then see to the gaps that stay."""
        await self._caught_up()
        for name, upto in self._upto.items():
            await self._fill(name, upto)
            await self._store.change(partial(marks.note_filled, name))
            async with self._fewer:
                self._ingest.filling.discard(name)
                self._fewer.notify_all()
        if self._upto:
            logger.info("what was there before is stored", extra={"parts": len(self._upto)})
        while True:
            if not await self._ingest.close_gaps():
                return
            await asyncio.sleep(GAPS_S)

    async def _fill(self, name: str, upto: int) -> None:
        way, behind = self._ways[name], 0
        puller = follow(self._log, way.stream, 1, way.subject)
        async with contextlib.aclosing(puller.batches()) as batches:
            while await self._has_more(way, behind + 1, upto):
                batch = await anext(batches)
                older = [
                    (each.subject, each.sequence, each.data)
                    for each in batch
                    if each.sequence <= upto
                ]
                if older:
                    await way.take(older, "rest")
                behind = self._at[name] = batch[-1].sequence

    async def _has_more(self, way: Way, begin: int, upto: int) -> bool:
        while True:
            try:
                found = await self._log.next_on(way.stream, way.subject, begin)
            except (Unavailable, TimeoutError):
                await asyncio.sleep(RETRY_S)
            else:
                return found is not None and found.sequence <= upto

    async def complete(self, run: RunId) -> None:
        """Return when all that the attempts of a run have said is stored here, or will never be.

        Its samples may have come before this controller led, or even before it began.
        """
        if await self._store.query(partial(is_whole, run=run)):
            return
        await self._caught_up()
        while left := len(self._ingest.filling):
            if await self._store.query(partial(is_whole, run=run)):
                return
            await self._less_than(left)

    async def all(self) -> None:
        """Return when everything is stored that the streams held."""
        await self._caught_up()
        await self._less_than(1)

    async def _less_than(self, count: int) -> None:
        """Return when fewer parts are still to be read."""
        async with self._fewer:
            await self._fewer.wait_for(lambda: len(self._ingest.filling) < count)

    async def _caught_up(self) -> None:
        while True:
            try:
                return await self._through()
            except (Unavailable, TimeoutError):
                await asyncio.sleep(RETRY_S)
