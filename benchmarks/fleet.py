"""Many light agents in one process: the real protocol over a few connections, nothing executed.

    python -m benchmarks.fleet URL KEYS COUNT SLOTS

Each says hello, beats every 5 s (±10 %) with its digest, takes starts, tells that they were
accepted, started and ended, sealed with its own key, and waits until EV has stored that; it sends
again what the controller misses. Commands are not verified: real agents do that, each on its host.
A line ``mark`` on stdin is answered by a line of figures since the one before; the end of stdin
ends it.
"""

import asyncio
import gc
import random
import secrets
import sys
import time
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from tshrag_common import subjects, wire
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import MESSAGE_ID, JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.commands import CommandBatch, StartAttempt, Sync
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId, Epoch, Fence
from tshrag_common.inventory import AgentFacts
from tshrag_common.labkeys import LabKeys, load_lab
from tshrag_common.reports import (
    Accepted,
    AnyReport,
    Ended,
    Heartbeat,
    Hello,
    ReportBatch,
    SpoolState,
    Started,
)
from tshrag_common.seals import seal_report

CONNECTIONS = 4
BEAT_S = 5.0
JITTER_RATIO = 0.1
ANSWER_S = 3.0
STORE_S = 10.0
SIGNATURE_BYTES = 68
AT_ONCE = 256
"""Hellos that are on their way together."""


class Seen(msgspec.Struct):
    """What was seen since the last mark; times in milliseconds."""

    beats: int = 0
    unanswered: int = 0
    ended: int = 0
    sent_again: int = 0
    beat_p50: float = 0.0
    beat_p99: float = 0.0
    age_p99: float = 0.0  # from one answered beat of an agent to the next, in seconds
    store_p99: float = 0.0
    lag_p99: float = 0.0  # of the loop of the fleet itself: what it adds to all others


class Fleet:
    """What all agents share, and what is counted."""

    def __init__(self, keys: LabKeys) -> None:
        self.keys = keys
        self.agents: dict[AgentId, LightAgent] = {}
        self.seen = Seen()
        self.beats_ms: list[float] = []
        self.ages_s: list[float] = []
        self.stores_ms: list[float] = []
        self.lags_ms: list[float] = []

    def hear(self, message: Message) -> None:
        agent = self.agents.get(subjects.agent_of(message.subject)[0])
        if agent is not None:
            agent.obey(message.data)

    def mark(self) -> Seen:
        """Return what was seen, and begin anew."""
        seen = self.seen
        seen.beat_p50, seen.beat_p99 = _part(self.beats_ms, 0.5), _part(self.beats_ms, 0.99)
        seen.age_p99, seen.store_p99 = _part(self.ages_s, 0.99), _part(self.stores_ms, 0.99)
        seen.lag_p99 = _part(self.lags_ms, 0.99)
        self.seen = Seen()
        for values in (self.beats_ms, self.ages_s, self.stores_ms, self.lags_ms):
            values.clear()
        return seen

    async def watch_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.05
            await asyncio.sleep(0.05)
            self.lags_ms.append((loop.time() - due) * 1e3)


class LightAgent:
    """One agent: a name, a spool, the fences that it has and has not told the end of."""

    def __init__(self, fleet: Fleet, bus: Bus, number: int, slots: int) -> None:
        self.name = AgentId(f"fleet-{number:05d}")
        self._fleet, self._bus, self._stream = fleet, bus, JetStream(bus)
        self._key = fleet.keys.mac_key(self.name)
        self._spool, self._boot = secrets.token_hex(8), secrets.token_hex(8)
        self._slots = slots
        self._last, self._confirmed, self._sent, self._round = 0, 0, 0, 0
        self._kept: deque[AnyReport] = deque()  # that are not confirmed
        self._heard = (0, 0)
        self._known: dict[Fence, None] = {}
        self._digest, self._answered_at = 0, 0.0
        self._grown = asyncio.Event()

    def report(self, *reports: AnyReport) -> None:
        self._kept.extend(reports)
        self._last += len(reports)
        self._grown.set()

    def hello(self) -> None:
        facts = AgentFacts(agent=self.name, boot=self._boot, version="bench", slots=self._slots)
        self.report(Hello(at=_now(), facts=facts))

    def obey(self, data: bytes) -> None:
        """End at once what is started: a job that does nothing."""
        batch: CommandBatch = wire.COMMANDS.decode(data[SIGNATURE_BYTES:])
        self._heard = (batch.epoch, batch.n)
        for command in batch.commands:
            starts = command.attempts if isinstance(command, Sync) else (command,)
            for start in starts:
                if isinstance(start, StartAttempt) and start.fence not in self._known:
                    self._end(start.fence)
        while len(self._known) > 256:
            del self._known[next(iter(self._known))]

    def _end(self, fence: Fence) -> None:
        at = _now()
        self._known[fence] = None
        self.report(
            Accepted(at=at, fence=fence),
            Started(at=at, fence=fence),
            Ended(at=at, fence=fence, outcome="passed", started_at=at),
        )
        self._fleet.seen.ended += 1

    async def tell(self) -> None:
        """Send what is not stored, one message in flight, for ever."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            while self._sent < self._last:
                first = max(self._sent, self._confirmed) + 1
                reports = tuple(self._kept)[first - 1 - self._confirmed :]
                if await self._store(first, reports):
                    self._sent = max(self._sent, first + len(reports) - 1)

    async def _store(self, first: int, reports: tuple[AnyReport, ...]) -> bool:
        batch = ReportBatch(agent=self.name, spool=self._spool, first_seq=first, reports=reports)
        data = seal_report(self._key, self.name, wire.REPORTS.encode(batch))
        headers = {MESSAGE_ID: f"{self._spool}-{first}-{len(reports)}-{self._round}"}
        began = time.perf_counter()
        try:
            await self._stream.publish(
                subjects.said(self.name, "ev"), data, headers, timeout_s=STORE_S
            )
        except LabError:
            return False
        self._fleet.stores_ms.append((time.perf_counter() - began) * 1e3)
        return True

    async def beat(self) -> None:
        """Beat for ever, not in step with the others."""
        await asyncio.sleep(random.uniform(0, BEAT_S))
        while True:
            await self._beat_once()
            await asyncio.sleep(BEAT_S * (1 + random.uniform(-JITTER_RATIO, JITTER_RATIO)))

    async def _beat_once(self) -> None:
        seen, began = self._fleet.seen, time.perf_counter()
        state = SpoolState(self._spool, self._last, self._confirmed)
        beat = Heartbeat(
            agent=self.name,
            boot=self._boot,
            at=_now(),
            digest=self._digest,
            heard=(Epoch(self._heard[0]), self._heard[1]),
            free_slots=self._slots,
            reports=state,
        )
        subject = subjects.said(self.name, "hb")
        try:
            message = await self._bus.request(subject, wire.HEARTBEAT.encode(beat), ANSWER_S)
        except LabError:
            seen.unanswered += 1
            return
        ended = time.perf_counter()
        seen.beats += 1
        self._fleet.beats_ms.append((ended - began) * 1e3)
        if self._answered_at:
            self._fleet.ages_s.append(ended - self._answered_at)
        self._answered_at = ended
        answer = wire.HEARTBEAT_ANSWER.decode(message.data)
        while self._confirmed < answer.reports_upto and self._kept:
            self._kept.popleft()
            self._confirmed += 1
        if answer.again_from and answer.again_from <= self._sent:
            seen.sent_again, self._round = seen.sent_again + 1, self._round + 1
            self._sent = max(self._confirmed, answer.again_from - 1)
            self._grown.set()
        if not answer.known:
            self.hello()


def _part(values: list[float], part: float) -> float:
    return round(sorted(values)[int(part * (len(values) - 1))], 3) if values else 0.0


def _now() -> int:
    return time.time_ns() // 1000


async def serve(url: str, keys: Path, count: int, slots: int) -> None:
    fleet = Fleet(load_lab(keys))
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        buses: list[Bus] = []
        for number in range(CONNECTIONS):
            bus = await connect(url, name=f"fleet-{number}", within_s=30)
            stack.push_async_callback(bus.close)
            buses.append(bus)
        await buses[0].subscribe(subjects.any_command(), fleet.hear)
        await buses[0].settled()
        tasks = [group.create_task(fleet.watch_lag())]
        for number in range(count):
            agent = LightAgent(fleet, buses[number % CONNECTIONS], number, slots)
            fleet.agents[agent.name] = agent
            agent.hello()
            tasks += [group.create_task(agent.tell()), group.create_task(agent.beat())]
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0.05)
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        while (await reader.readline()).strip():
            print(msgspec.json.encode(fleet.mark()).decode(), flush=True)
        for task in tasks:
            task.cancel()


def main() -> None:
    url, keys, count, slots = sys.argv[1:]
    uvloop.run(serve(url, Path(keys), int(count), int(slots)))


if __name__ == "__main__":
    main()
