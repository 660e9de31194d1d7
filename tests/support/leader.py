"""A leader for tests of agents: signs commands, answers beats, reads what agents said.

It keeps no state of jobs: tests say which commands go out, and look at what came in.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.nats_server import NatsServer
from tshrag_common import ids, streams, subjects, wire
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream, StoredMessage
from tshrag_common.bus.messages import Message
from tshrag_common.commands import AnyCommand, CommandBatch, StartAttempt
from tshrag_common.errors import Unavailable
from tshrag_common.ids import DEFAULT_ORG, AgentId, Epoch, Fence, RunId
from tshrag_common.jobs import JobSpec
from tshrag_common.labkeys import LabKeys
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import (
    AnyReport,
    Ended,
    Heartbeat,
    HeartbeatAnswer,
    Hello,
    OutputChunk,
)
from tshrag_common.seals import CommandSigner, open_report
from tshrag_common.sources.chunks import (
    BLOB_ANSWER,
    BLOB_ASK,
    BlobAnswer,
    BlobChunk,
    BlobGet,
    BlobPut,
    BlobStored,
    data_of,
    piece_of,
)

_READERS: dict[str, tuple[Any, str]] = {
    "EV": (wire.REPORTS, "reports"),
    "MET": (wire.SAMPLES, "batches"),
    "LOGS": (wire.OUTPUT, "chunks"),
}


class Leader:
    """The other end of one agent."""

    def __init__(self, bus: Bus, keys: LabKeys, agent: AgentId) -> None:
        self.bus, self.keys, self.agent = bus, keys, agent
        self.stream = JetStream(bus)
        self.run = RunId(ids.new_run(1_800_000_000_000, secrets.randbits(80)))
        self.beats: list[Heartbeat] = []
        self.confirms = True
        self.knows = True
        self.answers = True  # false: as a leader that nobody hears
        self.epoch, self.n = 1, 0
        self.records: dict[str, dict[tuple[str, int], object]] = {name: {} for name in _READERS}
        self.repeated = 0
        self.blobs: dict[str, bytes] = {}
        self._read = dict.fromkeys(_READERS, 0)
        self._signer = CommandSigner(keys.controller)
        self._serial = 0
        self._answers: set[asyncio.Task[None]] = set()

    @classmethod
    async def begin(cls, server: NatsServer, keys: LabKeys, agent: str = "a1") -> "Leader":
        bus = await connect(
            server.url,
            name="leader",
            credentials=keys.controller_creds("leader").text if server.keys else None,
        )
        leader = cls(bus, keys, AgentId(agent))
        for config in streams.all_streams(streams.StreamSizes().within(256 << 20)):
            await leader.stream.ensure_stream(config)
        await bus.subscribe(subjects.said(leader.agent, "hb"), leader._on_beat)
        await bus.subscribe(subjects.said(leader.agent, "blob"), leader._on_blob)
        await bus.settled()
        return leader

    def a_start(self, **more: object) -> StartAttempt:
        """Return a start with the next serial and fence."""
        self._serial += 1
        fields: dict[str, object] = {
            "fence": ids.fence(100 + self._serial, 0), "org": DEFAULT_ORG, "run": self.run,
            "job": ids.job_of(self.run, self._serial), "attempt": 1,
            "name": f"job{self._serial}", "spec": 0, **more,
        }  # fmt: skip
        return StartAttempt(**fields)  # type: ignore[arg-type]  # fields of any type

    def sealed(self, commands: Sequence[AnyCommand], *specs: JobSpec) -> bytes:
        self.n += 1
        batch = CommandBatch(
            epoch=Epoch(self.epoch),
            n=self.n,
            agent=self.agent,
            commands=tuple(commands),
            specs=specs,
        )
        return self._signer.seal(self.agent, wire.COMMANDS.encode(batch))

    async def send(self, commands: Sequence[AnyCommand], *specs: JobSpec) -> None:
        await self.publish(self.sealed(commands, *specs))

    async def publish(self, data: bytes) -> None:
        await self.bus.publish(subjects.command(self.agent), data)

    async def start(self, spec: JobSpec, **more: object) -> StartAttempt:
        start = self.a_start(**more)
        await self.send([start], spec)
        return start

    async def take(self) -> None:
        """Read what the streams have got since the last time."""
        for name, (codec, field) in _READERS.items():
            while stored := await self._next(name):
                self._read[name] = stored.sequence
                data = stored.data
                if name == "EV":
                    data = open_report(self.keys.mac_key(self.agent), self.agent, data)
                message = codec.decode(data)
                for seq, record in enumerate(getattr(message, field), message.first_seq):
                    self._note(name, message.spool, seq, record)

    @property
    def reports(self) -> list[AnyReport]:
        return list(self.records["EV"].values())  # type: ignore[arg-type]  # by construction

    @property
    def samples(self) -> list[SampleBatch]:
        return list(self.records["MET"].values())  # type: ignore[arg-type]  # by construction

    def values(self, key: str) -> list[float]:
        """Return the values of one metric, as they came."""
        return [
            sample.value
            for batch in self.samples
            for series in batch.series
            if series.key == key
            for sample in series.samples()
        ]

    @property
    def chunks(self) -> list[OutputChunk]:
        return list(self.records["LOGS"].values())  # type: ignore[arg-type]  # by construction

    @property
    def ends(self) -> dict[Fence, Ended]:
        return {report.fence: report for report in self.reports if isinstance(report, Ended)}

    @property
    def hellos(self) -> list[Hello]:
        return [report for report in self.reports if isinstance(report, Hello)]

    def output(self, start: StartAttempt, stream: str = "stdout") -> bytes:
        """Return the bytes of a stream; fails where they are not whole."""
        data = b""
        for chunk in self.chunks:
            if (chunk.job, chunk.attempt, chunk.stream) == (start.job, start.attempt, stream):
                assert chunk.offset == len(data), f"{chunk.offset} after {len(data)} bytes"
                data += chunk.data
        return data

    async def until_ended(self, *starts: StartAttempt, within_s: float = 15.0) -> list[Ended]:
        """Return how the attempts ended, once all have, with all that belongs to them."""
        await self.until(
            lambda: all(
                start.fence in self.ends and self._is_complete(self.ends[start.fence])
                for start in starts
            ),
            within_s,
        )
        return [self.ends[start.fence] for start in starts]

    async def until(self, condition: Callable[[], object], within_s: float = 15.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self.take()
                except Unavailable:
                    await asyncio.sleep(0.05)
                if condition():
                    return
                await asyncio.sleep(0.01)

    def _is_complete(self, ended: Ended) -> bool:
        have = {name: {seq for _, seq in self.records[name]} for name in ("MET", "LOGS")}
        return all(
            not upto or upto in have[name]
            for name, upto in (("MET", ended.samples_upto), ("LOGS", ended.output_upto))
        )

    def _note(self, name: str, spool: str, seq: int, record: object) -> None:
        records = self.records[name]
        if (spool, seq) in records:
            self.repeated += 1
            assert records[spool, seq] == record
            return
        assert seq == 1 or (spool, seq - 1) in records, f"gap before {seq} in {name}"
        records[spool, seq] = record

    async def _next(self, name: str) -> StoredMessage | None:
        subject = {
            "EV": subjects.any_said("ev"),
            "MET": subjects.samples(),
            "LOGS": subjects.any_said("logs"),
        }[name]
        return await self.stream.next_on(name, subject, self._read[name] + 1)

    def _on_blob(self, message: Message) -> None:
        match BLOB_ASK.decode(message.data).ask:
            case BlobGet(digest=digest, offset=offset):
                data = self.blobs.get(digest, b"")
                piece = piece_of(data[offset : offset + streams.CHUNK_BYTES])
                answer: BlobChunk | BlobStored = BlobChunk(total=len(data), piece=piece)
            case BlobPut(digest=digest, piece=piece):
                self.blobs[digest] = self.blobs.get(digest, b"") + data_of(piece)
                answer = BlobStored(stored=len(self.blobs[digest]))
        self._respond(message, BLOB_ANSWER.encode(BlobAnswer(answer)))

    def _respond(self, message: Message, data: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.bus.respond(message, data))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def _on_beat(self, message: Message) -> None:
        beat = wire.HEARTBEAT.decode(message.data)
        self.beats.append(beat)
        if not self.answers:
            return
        upto = {
            name: max((seq for spool, seq in self.records[name] if spool == state.spool), default=0)
            for name, state in (
                ("EV", beat.reports),
                ("MET", beat.samples),
                ("LOGS", beat.output),
            )
        }
        answer = HeartbeatAnswer(
            epoch=Epoch(self.epoch),
            at=1,
            known=self.knows,
            reports_upto=upto["EV"] if self.confirms else 0,
            samples_upto=upto["MET"] if self.confirms else 0,
            output_upto=upto["LOGS"] if self.confirms else 0,
        )
        self.knows = True
        self._respond(message, wire.HEARTBEAT_ANSWER.encode(answer))
