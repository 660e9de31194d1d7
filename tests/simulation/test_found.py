"""What the simulation has found, small: each failed before it was mended."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from tests.simulation.broker import Broker
from tests.simulation.client import URL, SimClient
from tests.simulation.disk import JournalDisk
from tests.simulation.history import History
from tests.simulation.lab import lab_keys
from tests.simulation.machines import Machine, WallClock
from tests.simulation.network import Network, Weather
from tests.simulation.simulate import simulate
from tests.simulation.steps import SimShepherd
from tests.simulation.vloop import VirtualLoop, run_virtual
from tests.support.builders import a_run_id, a_spec, facts
from tshrag_agent.attempts.attempt import Attempt, Office, Steps
from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.host import HostStart
from tshrag_agent.attempts.recover import look
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import AttemptRow
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.reports.heartbeat import Pulse
from tshrag_agent.reports.outbound import Outbound
from tshrag_agent.slots import Slots
from tshrag_common import ids, wire
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.bus.puller import Puller
from tshrag_common.channel.wants import EchoWant
from tshrag_common.commands import AnyCommand, CommandBatch, ServeChannel, StartAttempt
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, Epoch, Fence
from tshrag_common.jobs import JobSpec
from tshrag_common.reports import Hello
from tshrag_common.seals import CommandSigner, CommandVerifier
from tshrag_common.streams import StreamConfig, passing

NAME = AgentId("a1")
THINGS = StreamConfig(name="THINGS", subjects=("things.>",), max_bytes=1 << 20)

SEEDS = {
    1: "a late delivery was taken for the next one by a consumer that had been made anew",
    186: "a standby waited for frames that had been purged; a deposed leader took that for its LOG",
    4: "data were stored before their attempt was projected, and refused",
    6: "the same",
    223: "a spool that was asked for again stayed silent",
    295: "the same",
    403: "a LOG that was purged while a standby read it left a hole in its Lab",
    1393: "a second leader within a moment of the first, which did not know and refused data",
    1516: "a leader whose own election was not answered stood by for ever; the deposed one led on",
    382: "a clock that was set back before a restart made pauses last for an hour",
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    outcome = simulate(seed)
    assert not outcome.broken, str(outcome)


class Bench:
    """A loop with a bus and the rooms of one agent."""

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.loop = loop
        self.network = Network(loop, Broker(loop, random.Random(1)), random.Random(2))
        self.disk = JournalDisk(loop, random.Random(3), folder / "disk")
        self.clock = WallClock(loop, 5e5)
        self.journal: Journal = self.disk.open()
        self.roster = Roster(Slots(9, {}))
        self.launched: list[Fence] = []
        self.channels: list[ServeChannel] = []
        self.intake = Intake(
            NAME,
            verifier=CommandVerifier(NAME, lab_keys().controller_key),
            journal=self.journal,
            fences=Fences(),
            roster=self.roster,
            launch=self._launch,
            clock=self.clock,
            open_channel=self.channels.append,
        )

    async def bus(self) -> Bus:
        return await connect(
            URL, name="x", client=lambda: SimClient(self.network, "x", self.loop.new_life())
        )

    async def pulse(self) -> Pulse:
        return Pulse(
            lambda: facts(NAME),
            bus=await self.bus(),
            journal=self.journal,
            roster=self.roster,
            intake=self.intake,
            outbounds={},
            clock=self.clock,
        )

    def _launch(self, start: StartAttempt, spec: JobSpec, older: Living | None) -> Living:
        self.launched.append(start.fence)
        return AnAttempt(start, spec)

    def start(self, n: int, fence: int) -> None:
        """Let the agent hear command message `n`: one start."""
        start = StartAttempt(
            fence=Fence(fence),
            org=ids.DEFAULT_ORG,
            run=a_run_id(1),
            job=ids.job_of(a_run_id(1), fence),
            attempt=1,
            name="job",
            spec=0,
        )
        self.hear(n, start)

    def hear(self, n: int, command: AnyCommand, epoch: int = 1) -> None:
        specs = (a_spec(),)
        batch = CommandBatch(epoch=Epoch(epoch), n=n, agent=NAME, commands=(command,), specs=specs)
        sealed = CommandSigner(lab_keys().controller).seal(NAME, wire.COMMANDS.encode(batch))
        self.intake.hear(Message("cmd", "", sealed, {}))


class AnAttempt:
    """An attempt that does nothing."""

    def __init__(self, start: StartAttempt, spec: JobSpec) -> None:
        self.start, self.spec = start, spec

    def cancel(self, command: object) -> None: ...

    def interrupt(self, error: ErrorReport) -> None: ...

    async def gone(self) -> None: ...


def on_a_bench(folder: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def play(loop: VirtualLoop) -> None:
        await scenario(Bench(loop, folder))

    run_virtual(play)


def test_a_reader_notices_that_the_newest_delivery_was_lost(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bus = await bench.bus()
        js = JetStream(bus)
        await js.ensure_stream(THINGS)
        await js.publish("things.a", b"1", {})
        read: list[bytes] = []
        async for batch in Puller(js, "THINGS", passing("reader", 1)).batches():
            read += [message.data for message in batch]
            if len(read) == 2:
                break
            bench.network.weather = Weather(drop=1.0)
            bench.network.broker.publish("things.a", b"2", {}, "")
            bench.loop.call_later(1.0, setattr, bench.network, "weather", Weather())
        assert read == [b"1", b"2"]
        assert bench.loop.time() < 10.0

    on_a_bench(tmp_path, scenario)


def test_a_spool_that_is_asked_for_again_is_sent_at_once(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bus = await bench.bus()
        js = JetStream(bus)
        said = StreamConfig(name="EV", subjects=("lab.v1.>",), max_bytes=1 << 20)
        await js.ensure_stream(said)
        outbound = Outbound(NAME, "output", journal=bench.journal, stream=js, seal=bytes)
        pump = bench.loop.create_task(outbound.pump())
        await bench.journal.append("output", b"\xa1a", b"\xa1b")
        await outbound.caught_up()
        outbound.again(2)
        begin = bench.loop.time()
        await outbound.caught_up()
        assert (await js.stream_info("EV")).messages == 2
        assert bench.loop.time() - begin < 1.0
        pump.cancel()

    on_a_bench(tmp_path, scenario)


def test_a_hello_that_waits_for_the_disk_names_what_started_meanwhile(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        pulse = await bench.pulse()
        bench.disk.is_full = True
        hello = bench.loop.create_task(pulse.hello())
        obey = bench.loop.create_task(bench.intake.obey())
        bench.loop.call_later(1.9, bench.start, 1, 7)
        bench.loop.call_later(1.85, setattr, bench.disk, "is_full", False)
        await hello
        record = (await bench.journal.read("reports", 1, 1 << 20))[-1]
        said = wire.REPORTS.decode(wire.batch(NAME, "s", 1, [record.body])).reports[0]
        assert bench.launched == [7]
        assert cast(Hello, said).holds == (7,)
        obey.cancel()

    on_a_bench(tmp_path, scenario)


def test_what_was_sent_before_an_end_was_confirmed_starts_nothing(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        obey = bench.loop.create_task(bench.intake.obey())
        bench.start(2, 7)
        assert await bench.intake.outdate(Epoch(1), 4) == (1, 4)
        assert bench.launched == [7]  # it was heard before, and counts
        bench.start(3, 8)
        bench.start(5, 9)
        assert await bench.intake.outdate(Epoch(1), 6) == (1, 6)
        assert bench.launched == [7, 9]
        assert bench.intake.counters["commands_late"] == 1
        obey.cancel()

    on_a_bench(tmp_path, scenario)


def test_a_channel_that_the_answer_to_a_beat_overtook_is_served(tmp_path: Path) -> None:
    def a_channel(session: str) -> ServeChannel:
        return ServeChannel(org=ids.DEFAULT_ORG, person="jo", session=session, want=EchoWant())

    async def scenario(bench: Bench) -> None:
        obey = bench.loop.create_task(bench.intake.obey())
        assert await bench.intake.outdate(Epoch(2), 4) == (2, 4)
        bench.hear(3, a_channel("late"), epoch=2)
        bench.hear(9, a_channel("deposed"), epoch=1)
        assert await bench.intake.outdate(Epoch(2), 6) == (2, 6)
        assert [each.session for each in bench.channels] == ["late"]
        assert bench.intake.counters["commands_late"] == 2
        obey.cancel()

    on_a_bench(tmp_path, scenario)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_an_adopted_job_keeps_its_time_where_the_wall_clock_has_jumped(
    tmp_path: Path, jump_s: float
) -> None:
    """An agent that began behind a jump ended what it adopted at once, or a whole limit later."""

    async def scenario(bench: Bench) -> None:
        chance, folder = random.Random(4), tmp_path / "m"
        machine = Machine("m", bench.loop, chance, History(), folder, 1, honest_clock=True)
        argv = ("sim", "seconds=60", "ends=pass", "lines=0")
        spec = a_spec(argv=argv, timeout_s=30.0)
        start = StartAttempt(fence=Fence(5), org=ids.DEFAULT_ORG, run=a_run_id(1),
                             job=ids.job_of(a_run_id(1), 1),
                             attempt=1, name="j", spec=0)  # fmt: skip
        host = HostStart(key="5.main", argv=argv, cwd="/", env={}, stdout_path="", stderr_path="")
        started = machine.start(host, 5, start.job)
        row = AttemptRow(fence=Fence(5), start=wire.body(start), spec=wire.body(spec),
                         started_at=started.started_at)  # fmt: skip
        await asyncio.sleep(12.0)
        machine.clock.offset_s = jump_s
        left = (await look([row], SimShepherd(machine), lambda *_: True)).left[0]
        office = Office(bench.journal, EarlyReports(bench.journal), bench.roster, machine.clock)
        attempt = Attempt(office, start, spec, lambda _: cast(Steps, None), left=left)
        assert attempt._limit_s() == pytest.approx(18.0, abs=0.1)

    on_a_bench(tmp_path, scenario)
