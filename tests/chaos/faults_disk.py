"""Power cuts and full disks: F10, F11, F12, F16."""

import asyncio
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.chaos import load
from tests.chaos.faults import Fault, Times, one_attempt_each, under_load
from tests.chaos.faults_agent import RESUME
from tests.chaos.images import a_disk, fill
from tests.chaos.lab import AGENTS, ROOT, ChaosLab, program
from tests.chaos.outcome import Bar, Once
from tests.support.nats_server import NatsServer
from tshrag_agent.journal.journal import Journal
from tshrag_common import history
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.streams import StreamConfig
from tshrag_controller.cli.processes import LabProcesses

PUBLISHED = 300


async def f10_power(_lab: ChaosLab, *, sync: str) -> Once:
    """Cut the power of the host of nats-server right after 300 acknowledgements.

    The control has the default of the server: it must lose, or the cut is none.
    """
    with tempfile.TemporaryDirectory(prefix="tshrag-power-") as name, a_disk(Path(name)) as disk:
        config = {"store_dir": f"{disk.mount}/js", "sync_interval": sync}
        server = NatsServer(disk.mount, jetstream=config)
        await asyncio.to_thread(server.start)
        bus = await connect(server.url, name="power", within_s=20)
        stream = JetStream(bus)
        await stream.ensure_stream(StreamConfig(name="P", subjects=("p",), max_bytes=16 << 20))
        for number in range(PUBLISHED):
            await stream.publish("p", b"%d" % number, {}, timeout_s=20)
        await asyncio.to_thread(disk.cut)
        await bus.close()
        await asyncio.to_thread(server.kill9)
        await asyncio.to_thread(disk.restore)
        await asyncio.to_thread(server.start)
        try:
            bus = await connect(server.url, name="power", within_s=20)
            kept = await _messages(JetStream(bus))
            await bus.close()
        finally:
            await asyncio.to_thread(server.kill9)
    lost = PUBLISHED - kept
    if sync == "always":
        return Once(counts={"lost": lost})
    return Once(counts={"lost by the control": lost, "wrong": int(lost == 0)})


async def _messages(stream: JetStream) -> int:
    try:
        return int((await stream.stream_info("P")).messages)
    except LabError:
        return 0


async def f11_spool(_lab: ChaosLab) -> Once:
    """Cut the power of an agent's host while it writes its journal, at any instant."""
    with tempfile.TemporaryDirectory(prefix="tshrag-power-") as name, a_disk(Path(name)) as disk:
        path = disk.mount / "journal.db"
        writer = _writer(path)
        assert writer.stdout is not None
        os.set_blocking(writer.stdout.fileno(), False)
        try:
            promised = await _promised(writer)
            await asyncio.to_thread(disk.cut)
        finally:
            writer.kill()
            await asyncio.to_thread(writer.wait)
            writer.stdout.close()
        await asyncio.to_thread(disk.restore)
        journal = await Journal.open(path)
        kept = journal.state("reports").last
        readable = len(await journal.read("reports", 1, 1 << 30))
        await journal.close()
        aside = list(disk.mount.glob("*.corrupt-*"))
    counts = {"lost": max(0, promised - kept), "wrong": len(aside) + (readable != kept)}
    return Once(counts={**counts, "records": promised})


def _writer(path: Path) -> "subprocess.Popen[bytes]":
    argv = program("tests.chaos.writers", "journal", str(path))
    environment = {**os.environ, "TSHRAG_TEST_MODE": ""}  # it is no part of the lab
    return subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env=environment)


async def _promised(writer: "subprocess.Popen[bytes]") -> int:
    """Let it write for a while that nobody knows; return what it has promised until now."""
    assert writer.stdout is not None
    text = b""
    ends = time.monotonic() + 30.0
    until = None
    while time.monotonic() < ends:
        text = (text + (writer.stdout.read() or b""))[-4096:]
        if until is None and text:
            until = time.monotonic() + random.uniform(0.05, 0.6)
        if until is not None and time.monotonic() > until:
            lines = text.split(b"\n")[:-1]
            return int(lines[-1]) if lines else 0
        await asyncio.sleep(0.005)
    raise AssertionError("the writer does not write")


async def f12_projection(_lab: ChaosLab) -> Once:
    """Cut the power of the disk of the projection while runs are submitted; the bus lives on."""
    name = tempfile.mkdtemp(prefix="tshrag-power-")
    folder = Path(name)
    server = NatsServer(folder / "nats")
    await asyncio.to_thread(server.start)
    with a_disk(folder / "d", 256) as disk:
        processes = LabProcesses(disk.mount / "lab", {"TSHRAG_NATS_URL": server.url})
        processes.state.mkdir()
        try:
            processes.start_controller()
            await processes.wait_ready()
            runs = await _submitted(processes, disk.cut)
            processes.kill("controller")
            await asyncio.to_thread(disk.restore)
            at = time.monotonic()
            processes.start_controller()
            await processes.wait_ready()
            resume = time.monotonic() - at
            lost = await _unknown(processes, runs)
        finally:
            await asyncio.to_thread(processes.stop)
            await asyncio.to_thread(server.stop)
    return Once(times={"resume": resume}, counts={"lost": lost, "accepted": len(runs)})


async def _submitted(processes: LabProcesses, cut: Callable[[], None]) -> list[str]:
    """Submit runs, cut in the middle of them; return those accepted before the cut was over."""
    from tshrag_common.client import open_client

    runs: list[str] = []
    document = {"name": "nop", "schedule": {"nop": True}}
    async with open_client(processes.bundle.url, name="power") as client:
        lab = _Only(client)
        for _ in range(random.randint(5, 25)):
            runs.append(await load.submit(lab, document))
        await asyncio.to_thread(cut)
    return runs


async def _unknown(processes: LabProcesses, runs: list[str]) -> int:
    from tshrag_common.client import open_client

    unknown = 0
    async with open_client(processes.bundle.url, name="power") as client:
        for run in runs:
            try:
                await client.run(run)
            except LabError:
                unknown += 1
    return unknown


class _Only:
    """Something that has a client."""

    def __init__(self, client: Client) -> None:
        self.client = client


async def f16_spool(lab: ChaosLab, full_s: float) -> Once:
    """Fill the disk of an agent's journal; free it later."""
    name = AGENTS[2]
    return await _full(lab, lab.small_disks[name], f"F16 spool {full_s:g} s", full_s, name)


async def f16_projection(lab: ChaosLab, full_s: float) -> Once:
    """Fill the disk of the controller's stores; free it later."""
    disk = lab.small_disks["controller"]
    return await _full(lab, disk, f"F16 projection {full_s:g} s", full_s, "")


async def _full(lab: ChaosLab, disk: Path, what: str, full_s: float, agent: str) -> Once:
    async def happen(lab: ChaosLab) -> Times:
        at = time.monotonic()
        filler = await asyncio.to_thread(fill, disk)
        history.note("disk_full", what=what)
        try:
            shown_s = await _shown(lab, at, full_s + 20)
            await asyncio.sleep(max(0.0, full_s - (time.monotonic() - at)))
        finally:
            filler.unlink()
            history.note("disk_freed", what=what)
        freed = time.monotonic()
        well_s = await _well(lab, freed)
        return {"shown": shown_s, "resume": well_s}

    return await under_load(lab, what, happen, max(10.0, full_s + 4), judge=one_attempt_each)


async def _shown(lab: ChaosLab, at: float, within_s: float) -> float:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        health = await lab.client.health()
        if any("storage_full" in reason or "full" in reason for reason in health.reasons):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"a full disk was not shown within {within_s:.0f} s")


async def _well(lab: ChaosLab, at: float, within_s: float = 90.0) -> float:
    """Return how long it takes until nobody tells of a full disk any more."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        health = await lab.client.health()
        if not any("full" in reason for reason in health.reasons):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"not well again within {within_s} s: {health.reasons}")


SHOWN = Bar("shown", 10.0)
FREED = Bar("resume", 60.0)
FAULTS = (
    Fault("F10", "power cut of the NATS host, sync always", partial(f10_power, sync="always"),
          full=10, disks=True),
    Fault("F10c", "the control: sync 2m, the default", partial(f10_power, sync="2m"), full=3,
          disks=True),
    Fault("F11", "power cut of an agent's host, journal", f11_spool, quick=0, full=50, disks=True),
    Fault("F12", "power cut of the projection's disk", f12_projection, (RESUME,), quick=0, full=10,
          disks=True),
    Fault("F16", "spool: disk full for 8 s", partial(f16_spool, full_s=8.0), (SHOWN, FREED),
          full=10, disks=True),
    Fault("F16", "spool: disk full for 60 s", partial(f16_spool, full_s=60.0), (SHOWN, FREED),
          quick=0, full=2, disks=True),
    Fault("F16", "projection: disk full for 8 s", partial(f16_projection, full_s=8.0),
          (SHOWN, FREED), full=10, disks=True),
    Fault("F16", "projection: disk full for 60 s", partial(f16_projection, full_s=60.0),
          (SHOWN, FREED), quick=0, full=2, disks=True),
)  # fmt: skip
