"""Uploads that are killed in the middle, on either side; what is there is what was meant: F31."""

import asyncio
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.beside import wrong
from tests.chaos.faults import Fault, Times, one_attempt_each, under_load
from tests.chaos.lab import ROOT, ChaosLab
from tests.chaos.outcome import Bar, Once, with_more
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.objects import Objects
from tshrag_common.errors import LabError
from tshrag_common.streams import LOADS

MIB = 12
KILLS = 3


def _start(lab: ChaosLab, path: Path, digest: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "tests.chaos.uploader", lab.server.url, str(path), digest]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


async def _killed(lab: ChaosLab, path: Path, digest: str, chance: random.Random) -> None:
    """Upload, and kill who uploads after a few pieces."""
    uploader = _start(lab, path, digest)
    assert uploader.stdout is not None
    for _ in range(chance.randint(1, 4)):
        await asyncio.to_thread(uploader.stdout.readline)
    uploader.kill()
    await asyncio.to_thread(uploader.communicate)


async def _stored(lab: ChaosLab, digest: str) -> str:
    """Return the digest of what is stored under a digest; empty: nothing is."""
    summed = hashlib.sha256()
    try:
        async for piece in Objects(JetStream(lab.client.bus), LOADS).chunks(digest):
            summed.update(piece)
    except LabError:
        return ""
    return summed.hexdigest()


async def f31_upload(lab: ChaosLab) -> Once:
    """Kill the uploader three times, the controller once; then let another file go on with it."""
    chance = random.Random(time.time_ns())
    accepted = 0

    async def happen(lab: ChaosLab) -> Times:
        nonlocal accepted
        path, digest = await _a_file(lab, "upload")
        at = time.monotonic()
        for _ in range(KILLS):
            await _killed(lab, path, digest, chance)
            accepted += await _stored(lab, digest) not in ("", digest)
        last = _start(lab, path, digest)
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        lab.processes.kill("controller")
        lab.start_controller()
        said = (await asyncio.to_thread(last.communicate, None, 90))[1]
        wrong(f"the upload ends: {said[-200:]!a}", last.returncode, 0)
        wrong("what is stored", await _stored(lab, digest), digest)
        uploaded = time.monotonic() - at
        other, meant = await _a_file(lab, "other")
        await _killed(lab, other, meant, chance)
        await asyncio.to_thread(other.write_bytes, os.urandom(MIB << 20))
        liar = await asyncio.to_thread(_start(lab, other, meant).communicate, None, 90)
        wrong(f"another file: {liar[1][-200:]!a}", b"sha256_mismatch" in liar[1], True)
        accepted += await _stored(lab, meant) != ""
        return {"uploaded": uploaded}

    once = await under_load(lab, "F31", happen, 20.0, judge=one_attempt_each)
    return with_more(once, counts={**once.counts, "wrong": accepted})


async def _a_file(lab: ChaosLab, name: str) -> tuple[Path, str]:
    """Make a file; return it and its digest."""
    path, data = lab.folder / name, os.urandom(MIB << 20)
    await asyncio.to_thread(path.write_bytes, data)
    return path, hashlib.sha256(data).hexdigest()


FAULTS = (
    Fault("F31", "SIGKILL of uploader (3x) and controller in the middle of 12 MiB", f31_upload,
          (Bar("uploaded", 60.0),), quick=0),
)  # fmt: skip
