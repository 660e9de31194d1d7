"""Full disks and stores that are not the spool's: the broker's, the blobs', the jobs': F16."""

import asyncio
import hashlib
import os
import time
from functools import partial
from pathlib import Path

from tests.chaos import load
from tests.chaos.beside import NAME, an_agent_beside, befall, wrong
from tests.chaos.faults import Fault, Times, all_passed, one_attempt_each, under_load
from tests.chaos.faults_bus import change, config_of
from tests.chaos.faults_disk import FREED, SHOWN
from tests.chaos.images import a_small_disk, fill
from tests.chaos.lab import ChaosLab
from tests.chaos.outcome import Once
from tests.chaos.small import Small, a_small_lab
from tshrag_common import requests as r
from tshrag_common.errors import LabError
from tshrag_common.sources.upload import upload

NATS_MIB = 256
CONFIG = f"[nats]\nmax_file_store = {NATS_MIB << 19}\n"


async def f16_nats(_lab: ChaosLab, full_s: float) -> Once:
    """Fill the disk of the broker, which is our own, under 24 jobs; free it later."""
    seconds = full_s + 20.0
    async with a_small_lab(recorded=True, embedded=True, config=CONFIG, nats_mib=NATS_MIB) as lab:
        run = await load.submit(lab, load.profile(seconds))
        running, rate = await load.loaded(lab, run)
        at = time.monotonic()
        filler = await asyncio.to_thread(fill, lab.processes.state / "nats" / "js")
        try:
            shown = await _told_full(lab, at)
            await asyncio.sleep(max(0.0, full_s - (time.monotonic() - at)))
        finally:
            filler.unlink()
        freed = time.monotonic()
        stored = await load.samples(lab, run)
        while await load.samples(lab, run) <= stored:
            wrong("samples are stored again", time.monotonic() < freed + 120.0, True)
            await asyncio.sleep(0.2)
        resume = time.monotonic() - freed
        await load.final(lab, run, seconds + 120.0)
        broken = await one_attempt_each(lab, run)
        lost, doubled = await load.lost_and_doubled(lab, run, seconds)
    return Once(running=running, per_s=rate, times={"shown": shown, "resume": resume},
                counts={"lost": lost, "doubled": doubled}, broken=tuple(broken),
                runs=(run,), seconds=seconds)  # fmt: skip


async def _told_full(lab: Small, at: float, within_s: float = 60.0) -> float:
    """Return when health, or the log of a controller that cannot answer, tells of the full disk."""
    log = lab.processes.log_of("controller")
    while time.monotonic() < at + within_s:
        try:
            health = await lab.client.ask("health", r.Nothing(), r.HealthAnswer, 1.0)
            if any("storage_full" in reason for reason in health.reasons):
                return time.monotonic() - at
        except LabError:
            pass
        if "storage_full" in log.read_text(errors="replace"):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"a full disk was not shown within {within_s:.0f} s")


async def f16_blobs(lab: ChaosLab) -> Once:
    """Let the store of loads be full in the middle of an upload; it goes on when there is room."""
    path = lab.folder / "blob"
    data = os.urandom(8 << 20)
    await asyncio.to_thread(path.write_bytes, data)
    digest = hashlib.sha256(data).hexdigest()
    whole = await config_of(lab, "OBJ_loads")

    async def happen(lab: ChaosLab) -> Times:
        held = await _bytes_of(lab, "OBJ_loads")
        await change(lab, {**whole, "max_bytes": held + (2 << 20)})
        at = time.monotonic()
        try:
            code = await _uploaded(lab, path, digest)
        finally:
            await change(lab, whole)
        shown = time.monotonic() - at
        wrong("a full store", code, "storage_full")
        freed = time.monotonic()
        wrong("the upload goes on", await _uploaded(lab, path, digest), "")
        has = (await lab.client.blob_has((digest,))).digests
        wrong("what is there", has, (digest,))
        return {"shown": shown, "resume": time.monotonic() - freed}

    return await under_load(lab, "F16 blobs", happen, 12.0, judge=one_attempt_each)


async def _bytes_of(lab: ChaosLab, stream: str) -> int:
    from tshrag_common.bus.jetstream import JetStream

    return (await JetStream(lab.client.bus).stream_info(stream)).bytes


async def _uploaded(lab: ChaosLab, path: Path, digest: str) -> str:
    """Upload as the CLI does; return the code of what is in the way, empty where it is there."""

    async def put(digest: str, offset: int, total: int, data: bytes) -> int:
        asked = r.BlobPut(digest=digest, offset=offset, total=total, data=data)
        return (await lab.client.blob_put(asked)).stored

    try:
        await upload(path, digest, put)
    except LabError as error:
        return error.code
    return ""


async def f16_logs(lab: ChaosLab, full_s: float) -> Once:
    """Fill the disk on which an agent keeps output and files of its jobs; free it later."""
    jobs = lab.processes.state / "agents" / NAME / "store" / "jobs"
    with a_small_disk(jobs, 32):
        async with an_agent_beside(lab, "", "", "host") as beside:

            async def happen() -> Times:
                pad = "x" * 1000  # so that the last page of the file does not hold all of it
                script = f'i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo "line $i"; echo {pad}; '
                script += "sleep 0.2; done"
                run = await beside.submit_on_host(script)
                await beside.said(run, b"line 1\n")
                at = time.monotonic()
                filler = await asyncio.to_thread(fill, jobs)
                try:
                    shown = await _shown(lab, at)
                    await asyncio.sleep(max(0.0, full_s - (time.monotonic() - at)))
                finally:
                    filler.unlink()
                freed = time.monotonic()
                state, codes = await beside.ended(run)
                lines = await beside.lines(run)
                if state == "passed" and lines < 160:
                    raise AssertionError(f"passed with {lines} of 160 lines")
                wrong("the job", (state, codes[-1]), ("passed", "passed"),
                      ("error", "storage_full"))  # fmt: skip
                again = await beside.submit_on_host("echo well")
                wrong("the job afterwards", (await beside.ended(again))[0], "passed")
                return {"shown": shown, "resume": time.monotonic() - freed}

            return await befall(lab, "F16 logs", beside, happen=happen, seconds=full_s + 20,
                                judge=all_passed)  # fmt: skip  # one of the load may be there, too


async def _shown(lab: ChaosLab, at: float, within_s: float = 60.0) -> float:
    while time.monotonic() < at + within_s:
        health = await lab.client.health()
        if any("storage_full" in reason for reason in health.reasons):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"a full disk was not shown within {within_s:.0f} s")


FAULTS = (
    Fault("F16", "NATS store: disk full for 15 s", partial(f16_nats, full_s=15.0),
          (SHOWN, FREED), quick=0, full=5, disks=True),
    Fault("F16", "store of loads full in the middle of an upload", f16_blobs, (SHOWN, FREED),
          quick=0, full=5),
    Fault("F16", "output of jobs: disk full for 8 s", partial(f16_logs, full_s=8.0),
          (SHOWN, FREED), quick=0, full=5, disks=True),
)  # fmt: skip
