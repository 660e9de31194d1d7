"""A fleet of agents over real NATS: 10,000 that beat, and 1,000 jobs a second that turn over.

The agents are light (`fleet`): the real protocol, nothing executed. Broker, controller and fleet
are processes of their own and share the machine, so what the fleet and the broker need is missing
to the controller. The limit of the processor share is one core: what one event loop can have.
``lag`` is how far the projection is behind the LOG at the end; growing means that it does not hold.
"""

import asyncio
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from benchmarks.fleet import Seen
from benchmarks.harness import Figure, Scale, figure, run_async
from benchmarks.processes import Measured
from tests.support.nats_server import NatsServer
from tshrag_common import ids, requests as r
from tshrag_common.client import Client, open_client
from tshrag_controller.cli.processes import LabProcesses

SIZES = (1_000, 3_000, 10_000)
QUICK_SIZES = (50,)
SLOTS = 2
PER_RUN = 1000
READY_S = 180.0
CORE = 100.0


class Window(msgspec.Struct):
    """What one size showed; the agents beat, and jobs turn over where ``jobs_per_s`` says so."""

    agents: int
    jobs_per_s: float
    cpu: float  # of the controller, in % of a core
    fleet_cpu: float
    broker_cpu: float
    rss_mib: float
    lag: float  # frames that the projection is behind, at the end
    answer_p99: float  # of a question to the controller, ms
    online: int
    seen: Seen


def measure(scale: Scale) -> list[Figure]:
    sizes = QUICK_SIZES if scale.quick else _sizes()
    windows = [each for size in sizes for each in run_async(_measure(size, scale))]
    return [_figure(each) for each in windows]


def _sizes() -> tuple[int, ...]:
    """Return the sizes, or those of TSHRAG_FLEET (``1000,3000``): for a look at one of them."""
    told = os.environ.get("TSHRAG_FLEET", "")
    return tuple(int(each) for each in told.split(",")) if told else SIZES


def _figure(window: Window) -> Figure:
    is_busy = window.jobs_per_s > 0
    name = "turnover" if is_busy else "beats"
    what = f"{window.agents} agents that beat"
    return figure(
        f"fleet_{name}_{window.agents}",
        f"processor share of the controller with {what}" + (", and jobs" if is_busy else ""),
        "% of a core",
        ours=[window.cpu],
        limits=[CORE],
        limit_is="one core",
        aim=CORE,
        better="lower",
        facts={
            key: round(float(value), 3)
            for key, value in {
                **msgspec.structs.asdict(window), **msgspec.structs.asdict(window.seen)
            }.items()
            if isinstance(value, int | float)
        },
    )  # fmt: skip


async def _measure(agents: int, scale: Scale) -> list[Window]:
    """Return a window of beats alone, and one of jobs at 1,000 a second."""
    window_s = scale.of(20, 2)
    async with _a_fleet(agents) as fleet:
        calm = await fleet.window(window_s, 0)
        busy = await fleet.window(window_s, scale.of(1000, 50))
    return [calm, busy]


class _Running:
    def __init__(
        self, folder: Path, client: Client, fleet: asyncio.subprocess.Process, agents: int
    ) -> None:
        self._client, self._fleet, self._agents = client, fleet, agents
        self._measured = Measured(folder)

    async def mark(self) -> Seen:
        assert self._fleet.stdin is not None
        assert self._fleet.stdout is not None
        self._fleet.stdin.write(b"mark\n")
        return msgspec.json.decode(await self._fleet.stdout.readline(), type=Seen)

    async def online(self) -> int:
        return (await self._client.stats()).agents.get("online", 0)

    async def window(self, window_s: float, jobs_per_s: float) -> Window:
        """Look for so long; jobs are submitted at that rate and no faster."""
        await self.mark()
        before, began = self._measured.costs(), time.perf_counter()
        answers: list[float] = []
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(began, jobs_per_s))
            while time.perf_counter() - began < window_s:
                asked = time.perf_counter()
                await self._client.health()
                answers.append((time.perf_counter() - asked) * 1e3)
                await asyncio.sleep(0.1)
            work.cancel()
        took, after, seen = time.perf_counter() - began, self._measured.costs(), await self.mark()
        health = await self._client.health()
        cpu = {kind: 100 * (after[kind] - before[kind]).all_s / took for kind in before}
        return Window(
            agents=self._agents,
            jobs_per_s=seen.ended / took if jobs_per_s else 0.0,
            cpu=cpu["controller"],
            fleet_cpu=cpu.get("fleet", 0.0),
            broker_cpu=cpu["broker"],
            rss_mib=self._measured.rss_mib("controller"),
            lag=max(0, health.sequence - health.projected),
            answer_p99=statistics.quantiles(answers, n=100)[-1],
            online=await self.online(),
            seen=seen,
        )

    async def _work(self, began: float, jobs_per_s: float) -> None:
        """Submit at that rate and no faster, for ever."""
        submitted = 0
        while jobs_per_s:
            if submitted < (time.perf_counter() - began) * jobs_per_s:
                submitted += await self._submit()
            else:
                await asyncio.sleep(0.02)

    async def _submit(self) -> int:
        nop = {"command": "true"}
        document = {"name": "fleet", "schedule": {"repeat": {
            "times": PER_RUN, "parallel": True, "of": nop,
        }}}  # fmt: skip
        run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
        body = msgspec.Raw(msgspec.json.encode(document))
        await self._client.submit(r.Submit(run=run, profile=body))
        return PER_RUN


@asynccontextmanager
async def _a_fleet(agents: int) -> AsyncIterator[_Running]:
    """Start broker, controller and fleet, and wait until all agents are online."""
    folder = Path(tempfile.mkdtemp(prefix="tshrag-fleet-"))
    server = await asyncio.to_thread(NatsServer(folder / "nats").start)
    processes = LabProcesses(folder / "lab", {"TSHRAG_NATS_URL": server.url})
    fleet: asyncio.subprocess.Process | None = None
    try:
        processes.start_controller()
        await processes.wait_ready()
        keys = str(processes.state / "keys.json")
        pipe = asyncio.subprocess.PIPE
        fleet = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.fleet", server.url, keys, str(agents), str(SLOTS),
            stdin=pipe, stdout=pipe,
        )  # fmt: skip
        assert fleet.stdout is not None
        async with asyncio.timeout(READY_S):
            await fleet.stdout.readline()
            async with open_client(server.url, name="bench") as client:
                running = _Running(folder, client, fleet, agents)
                while await running.online() < agents:
                    processes.check_all()
                    await asyncio.sleep(0.2)
        async with open_client(server.url, name="bench") as client:
            yield _Running(folder, client, fleet, agents)
    finally:
        if fleet is not None and fleet.stdin is not None:
            fleet.stdin.close()
            await fleet.wait()
        await asyncio.to_thread(processes.stop)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
