"""Streams of agents -> whoever takes what they hold; and the room that is kept in them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial

from tshrag_common import subjects
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.puller import Puller
from tshrag_common.errors import LabError
from tshrag_common.streams import (
    EV,
    EV_LEADER,
    LOG,
    LOGS,
    MET,
    ConsumerConfig,
    all_streams,
    logs_archive,
    met_ingest,
)
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine
from tshrag_controller.filling import Filling, Way, since
from tshrag_controller.ingest import Incoming, Ingest
from tshrag_controller.settings import ControllerSettings
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

FRESH_S = 5.0
READS_OF = {
    "series": MET,
    "metrics": MET,
    "query": MET,
    "judge": MET,
    "logs": LOGS,
    "console": LOGS,
    "console_grep": LOGS,
}
"""What a question is about that is in none of the frames."""

Take = Callable[[Sequence[Incoming]], Awaitable[None]]
Loops = dict[str, Coroutine[None, None, None]]


class Pulling:
    """Every controller reads samples and output by consumers of its own; the leader makes room."""

    def __init__(
        self, log: JetStream, engine: Engine, settings: ControllerSettings, store: Store, lab: Lab
    ) -> None:
        self._log, self._engine, self._settings = log, engine, settings
        self._store, self._lab = store, lab
        self._pullers: dict[str, list[Puller]] = {}
        self.filling: Filling

    async def data(self, ingest: Ingest) -> Loops:
        """Return the loops that bring samples and output to this controller's stores."""
        ways = self._ways(ingest)
        self.filling = Filling(self._log, self._store, ingest, ways, self._through)
        await self.filling.begin(since(self._lab, self._store.now()))
        loops = {
            name: self._pull(
                way.stream,
                way.consumer,
                partial(self.filling.take, name),
                way.most_bytes,
                partial(self.filling.removable, name),
            )
            for name, way in ways.items()
        }
        return {**loops, "fill": self.filling.fill()}

    def _ways(self, ingest: Ingest) -> dict[str, Way]:
        node, sizes = self._settings.controller.node, self._settings.sizes
        ways = {
            f"samples-{partition}": Way(
                MET,
                met_ingest(partition, node),
                subjects.samples(partition),
                ingest.take_samples,
                sizes.met // 2,
            )
            for partition in range(subjects.MET_PARTITIONS)
        }
        archive = logs_archive(node)
        said = subjects.any_said("logs")
        ways["output"] = Way(LOGS, archive, said, ingest.take_output, sizes.logs // 2)
        return ways

    async def caught_up(self, verb: str) -> None:
        """Return when this standby has stored all that was in the streams before a question.

        A leader has: it alone says that a run is complete, and of what it has.

        Raises:
            TimeoutError: we are too far behind.

        """
        stream = READS_OF.get(verb)
        if stream is None or not self._engine.follows:
            return
        if self.filling.is_open:
            raise TimeoutError
        await self._read_up_to_now(stream, FRESH_S)

    async def _through(self) -> None:
        """Return when all is stored that the streams hold now, from where our consumers began.

        However long that takes: who begins again after some seconds runs after a stream that grows.
        """
        for stream in (MET, LOGS):
            await self._read_up_to_now(stream, None)

    async def _read_up_to_now(self, stream: str, within_s: float | None) -> None:
        upto = (await self._log.stream_info(stream)).last_seq
        behind = [each for each in self._pullers.get(stream, ()) if each.acked < upto]
        async with asyncio.timeout(within_s):
            newest = await asyncio.gather(*(self._newest(each) for each in behind))
            for puller, sequence in zip(behind, newest, strict=True):
                while puller.acked < sequence:
                    puller.moved.clear()
                    await puller.moved.wait()

    async def _newest(self, puller: Puller) -> int:
        tail = await self._log.tail(puller.stream, puller.consumer.filter_subject or ">")
        return tail.sequence if tail is not None else 0

    async def reports(self, take: Take) -> None:
        """Bring the reports to the leader, for ever: what was taken is in the LOG.

        A checkpoint purges what it covers; where the stream is half full before, that goes at once.
        """
        await self._pull(EV, EV_LEADER, take, self._settings.sizes.ev // 2)

    async def fit_streams(self) -> None:
        """Bring the streams to our settings; the LOG stays as it was made."""
        for stream in all_streams(self._settings.sizes, self._settings.nats.replicas):
            try:
                if stream.name != LOG:
                    await self._log.ensure_stream(stream)
            except LabError as error:
                facts = {"stream": stream.name, "why": error.line}
                logger.error("a stream does not take our settings", extra=facts)

    async def _pull(
        self,
        stream: str,
        consumer: ConsumerConfig,
        take: Take,
        most_bytes: int,
        removable: Callable[[int], int] = lambda sequence: sequence,
    ) -> None:
        """Read a stream for ever; acknowledge what was taken.

        Where the stream holds more than `most_bytes`, the older half of what was taken is removed:
        a full stream would take nothing new, and what it would not take could never be judged.
        """
        puller = Puller(self._log, stream, consumer)  # makes the consumer where there is none
        self._pullers.setdefault(stream, []).append(puller)
        async for batch in puller.batches():
            await take([(each.subject, each.sequence, each.data) for each in batch])
            await puller.ack(batch[-1].sequence)
            if not self._engine.follows:
                subject = consumer.filter_subject
                upto = removable(batch[-1].sequence)
                await self._make_room(stream, upto, subject, most_bytes)

    async def _make_room(
        self, stream: str, sequence: int, subject: str | None, most_bytes: int
    ) -> None:
        try:
            info = await self._log.stream_info(stream)
            if (
                info.bytes > most_bytes and sequence >= info.first_seq
            ):  # others read behind us, and whoever stands by anew
                await self._log.purge(stream, (info.first_seq + sequence) // 2, subject)
        except LabError as error:  # it is purged behind the next batch
            logger.debug("a purge failed", extra={"why": error.line})
