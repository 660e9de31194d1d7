"""A controller in this process on a real nats-server, and agents that say what a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.support.builders import facts
from tests.support.waiting import wait_until
from tshrag_common import ids, requests as r, subjects, wire
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.messages import Message
from tshrag_common.client import Client
from tshrag_common.clock import SystemClock
from tshrag_common.commands import CancelAttempt, CommandBatch, StartAttempt, Sync
from tshrag_common.ids import AgentId, Epoch, Fence
from tshrag_common.inventory import AgentFacts
from tshrag_common.labkeys import LabKeys, load_lab
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import (
    AnyReport,
    Ended,
    Heartbeat,
    HeartbeatAnswer,
    Hello,
    Outcome,
    OutputBatch,
    OutputChunk,
    ReportBatch,
    SamplesMessage,
    SpoolState,
    Started,
)
from tshrag_common.seals import CommandVerifier, seal_report
from tshrag_controller.broker import Broker
from tshrag_controller.daemon import serve
from tshrag_controller.settings import ControllerSettings, ControllerTable, NatsTable

PROFILE = {"name": "t", "schedule": {"sequence": [{"command": "true"}]}}


class ServedLab:
    """One controller at a time; `restart` ends it in order and starts the next."""

    def __init__(self, folder: Path, url: str, checkpoint_frames: int = 20_000) -> None:
        table = ControllerTable(state=str(folder / "state"), checkpoint_frames=checkpoint_frames)
        nats = NatsTable(url=url, max_file_store=512 << 20)
        self.settings = ControllerSettings(controller=table, nats=nats)
        self.url = url
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.bus: Bus
        self.client: Client

    @property
    def keys(self) -> LabKeys:
        return load_lab(self.settings.state / "keys.json")

    async def start(self) -> None:
        self._stop = asyncio.Event()
        ready = asyncio.Event()

        def on_ready(broker: Broker) -> None:
            ready.set()

        serving = serve(self.settings, self._stop, say=print, on_ready=on_ready)
        self._task = asyncio.get_running_loop().create_task(serving, name="controller")
        waiting = asyncio.get_running_loop().create_task(ready.wait(), name="ready")
        await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED, timeout=30)
        waiting.cancel()
        if self._task.done():
            self._task.result()
        assert ready.is_set(), "the controller did not become ready"

    async def stop(self) -> None:
        """End the controller; what went wrong in it is raised here."""
        if self._task is not None:
            self._stop.set()
            task, self._task = self._task, None
            await asyncio.wait_for(task, 30)

    async def kill(self) -> None:
        """End the controller without a checkpoint, as much as that is possible in a process."""
        assert self._task is not None
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait((task,), timeout=30)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def submit(self, profile: object = None, **more: object) -> str:
        """Submit a profile as a person would; return the run."""
        document = msgspec.Raw(msgspec.json.encode(profile or PROFILE))
        run = more.pop("run", None) or new_run()
        asked = r.Submit(run=str(run), profile=document, **more)  # type: ignore[arg-type]
        return (await self.client.submit(asked)).run

    async def counters(self) -> dict[str, int]:
        return (await self.client.health()).counters

    async def set_aside(self, count: int) -> None:
        """Wait until so many messages were set aside in all."""

        async def are() -> bool:
            return (await self.counters())["set_aside"] >= count

        await until(are)


@asynccontextmanager
async def served(folder: Path, url: str, **more: int) -> AsyncIterator[ServedLab]:
    """Run a controller, and a client of it."""
    lab = ServedLab(folder, url, **more)
    lab.bus = await connect(url, name="tests", within_s=10)
    lab.client = Client(lab.bus, timeout_s=10.0)
    try:
        await lab.start()
        yield lab
        await lab.stop()
    finally:
        if lab._task is not None:
            await lab.kill()
        await lab.bus.close()


_made = iter(range(1, 1 << 30))


def new_run() -> str:
    return ids.new_run(SystemClock().now() // 1000, next(_made))


class ScriptedAgent:
    """Says hello, hears commands, reports what the test says; holds nothing by itself."""

    def __init__(
        self, lab: ServedLab, name: str = "a1", slots: int = 4, journal: str = "j1"
    ) -> None:
        self.lab, self.name, self.slots = lab, AgentId(name), slots
        self.journal = journal
        self.facts: AgentFacts = facts(name, slots, boot=f"boot-{journal}")
        self.last = {"reports": 0, "samples": 0, "output": 0}
        self.confirmed = dict(self.last)
        self.starts: dict[Fence, StartAttempt] = {}
        self.cancels: list[Fence] = []
        self.epoch_n: tuple[int, int] = (0, 0)

    async def hello(self, *holds: Fence) -> None:
        """Be heard: commands come in from now on."""
        await self.lab.bus.subscribe(subjects.command(self.name), self._command)
        await self.lab.bus.settled()
        await self.report(Hello(at=now(), facts=self.facts, holds=holds))
        await until(self._is_online)

    async def _is_online(self) -> bool:
        await self.beat()
        agents = (await self.lab.client.agents()).agents
        return any(each.facts.boot == self.facts.boot for each in agents)

    def _command(self, message: Message) -> None:
        data = CommandVerifier(self.name, self.lab.keys.controller_key).open(message.data)
        batch: CommandBatch = wire.COMMANDS.decode(data)
        self.epoch_n = (batch.epoch, batch.n)
        for command in batch.commands:
            if isinstance(command, StartAttempt):
                self.starts[command.fence] = command
            elif isinstance(command, CancelAttempt):
                self.cancels.append(command.fence)
            elif isinstance(command, Sync):
                self.starts.update((each.fence, each) for each in command.attempts)

    def spool(self, kind: str) -> str:
        return f"{kind}-{self.journal}"

    def sealed(self, payload: bytes) -> bytes:
        return seal_report(self.lab.keys.mac_key(self.name), self.name, payload)

    async def report(self, *reports: AnyReport) -> None:
        first = self.last["reports"] + 1
        self.last["reports"] += len(reports)
        batch = ReportBatch(
            agent=self.name, spool=self.spool("reports"), first_seq=first, reports=reports
        )
        await self.say("ev", self.sealed(wire.REPORTS.encode(batch)))

    async def samples(self, *batches: SampleBatch) -> int:
        """Send batches; return the number of the last one."""
        first = self.last["samples"] + 1
        self.last["samples"] += len(batches)
        message = SamplesMessage(
            agent=self.name, spool=self.spool("samples"), first_seq=first, batches=batches
        )
        await self.say("met", wire.SAMPLES.encode(message))
        return self.last["samples"]

    async def output(self, *chunks: OutputChunk) -> int:
        first = self.last["output"] + 1
        self.last["output"] += len(chunks)
        batch = OutputBatch(
            agent=self.name, spool=self.spool("output"), first_seq=first, chunks=chunks
        )
        await self.say("logs", wire.OUTPUT.encode(batch))
        return self.last["output"]

    async def say(self, kind: str, data: bytes) -> None:
        subject = subjects.said(self.name, kind)  # type: ignore[arg-type]  # a word in tests
        await self.lab.bus.publish(subject, data)

    async def beat(self) -> HeartbeatAnswer:
        beat = Heartbeat(
            agent=self.name,
            boot=self.facts.boot,
            at=now(),
            digest=0,
            heard=(Epoch(self.epoch_n[0]), self.epoch_n[1]),
            reports=self._state("reports"),
            samples=self._state("samples"),
            output=self._state("output"),
        )
        data = wire.HEARTBEAT.encode(beat)
        message = await self.lab.bus.request(subjects.said(self.name, "hb"), data, 5)
        return wire.HEARTBEAT_ANSWER.decode(message.data)

    def _state(self, kind: str) -> SpoolState:
        return SpoolState(self.spool(kind), self.last[kind], self.confirmed[kind])

    async def next_start(self, run: str, serial: int = 1) -> StartAttempt:
        """Return the newest start of a job, once it has come."""
        job = ids.job_of(ids.run_id(run), serial)
        found: Sequence[StartAttempt] = ()

        def come() -> bool:
            nonlocal found
            found = [each for each in self.starts.values() if each.job == job]
            return bool(found)

        await wait_until(come)
        return max(found, key=lambda each: each.fence)

    async def started(self, start: StartAttempt) -> None:
        await self.report(Started(at=now(), fence=start.fence))

    async def ended(self, start: StartAttempt, outcome: Outcome = "passed", **more: object) -> None:
        self.starts.pop(start.fence, None)
        fields = {"at": now(), "fence": start.fence, "outcome": outcome, "started_at": now()}
        await self.report(Ended(**{**fields, **more}))  # type: ignore[arg-type]  # any field

    async def run_through(self, run: str, outcome: Outcome = "passed") -> None:
        """Let the one job of a run end, and wait for its run."""
        start = await self.next_start(run)
        await self.started(start)
        await self.ended(start, outcome)
        await until_final(self.lab, run)


async def until_final(lab: ServedLab, run: str, within_s: float = 15.0) -> str:
    """Return the final state of a run."""

    async def is_final() -> bool:
        return bool((await lab.client.run(run)).run.ended_at)

    await until(is_final, within_s)
    return (await lab.client.run(run)).run.state


async def until(so: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Ask again and again until it is so."""
    pause = asyncio.Event()
    async with asyncio.timeout(within_s):
        while not await so():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pause.wait(), 0.02)


def now() -> int:
    return SystemClock().now()
