"""A rolling upgrade: an older build of agent and controller, taken from git, beside this one: F32.

What one build says more than the other is an unknown field; whatever does not fit must be
refused with a sentence, and nothing may fail for it.
"""

import asyncio
import io
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos import load
from tests.chaos.beside import wrong
from tests.chaos.faults import Fault, one_attempt_each
from tests.chaos.lab import ROOT, ChaosLab
from tests.chaos.outcome import Bar, Once
from tests.chaos.small import Small, a_small_lab

OLDER = "d7685887"
SECONDS = 25.0


def can_go_back() -> str:
    """Return why the older build cannot be had; empty when it can."""
    words = ("git", "cat-file", "-e", f"{OLDER}^{{commit}}")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    return f"git does not have {OLDER} here: no older build to try" if done.returncode else ""


@asynccontextmanager
async def an_older_build() -> AsyncIterator[Mapping[str, str]]:
    """Unpack it; yield the environment in which a process is of that build."""
    with tempfile.TemporaryDirectory(prefix="tshrag-older-") as name:
        await asyncio.to_thread(_unpack, Path(name))
        paths = (f"{name}/{part}" for part in ("common", "agent", "controller"))
        yield {"PYTHONPATH": ":".join(paths)}


def _unpack(folder: Path) -> None:
    words = ("git", "archive", OLDER, "common", "agent", "controller")
    packed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


async def f32_rolling(_lab: ChaosLab) -> Once:
    """Begin with the older build; upgrade the controller, then the agent, under 24 jobs."""
    async with (
        an_older_build() as older,
        a_small_lab(recorded=True, of={"controller": older, "agent": older}) as lab,
    ):
        run = await load.submit(lab, load.profile(SECONDS))
        running, rate = await load.loaded(lab, run)
        at = time.monotonic()
        await _upgraded(lab, "controller")
        await lab.processes.wait_ready()
        answers = time.monotonic() - at
        beside = await load.submit(lab, {"name": "beside", "schedule": {"command": "true"}})
        await _upgraded(lab, lab.agent)
        wrong("a run under both builds", await lab.ended(beside), "passed")
        wrong("the run that was upgraded under", await lab.ended(run), "passed")
        broken = await one_attempt_each(lab, run)
        lost, doubled = await load.lost_and_doubled(lab, run, SECONDS)
    return Once(running=running, per_s=rate, times={"answers": answers},
                counts={"lost": lost, "doubled": doubled}, broken=tuple(broken),
                runs=(run, beside), seconds=SECONDS)  # fmt: skip


async def _upgraded(lab: Small, name: str) -> None:
    """Stop a process of the older build in order, and start it as this build."""
    if name == "controller":
        await asyncio.to_thread(lab.processes.leave, name)
    else:
        lab.processes.kill(name)  # its jobs are adopted by the next one
    lab.processes.extra[name] = {}
    if name == "controller":
        config = str(lab.processes.state / "controller.toml")
        lab.processes.start(name, "tshrag_controller.daemon", "--config", config)
    else:
        lab.processes.run_agent(name)


async def f32_back(_lab: ChaosLab) -> Once:
    """Let an agent of this build work for a controller of the older one."""
    async with (
        an_older_build() as older,
        a_small_lab(recorded=True, of={"controller": older}) as lab,
    ):
        run = await load.submit(lab, load.profile(9.0))
        running, rate = await load.loaded(lab, run)
        wrong("the run", await lab.ended(run), "passed")
        broken = await one_attempt_each(lab, run)
        lost, doubled = await load.lost_and_doubled(lab, run, 9.0)
    return Once(running=running, per_s=rate, counts={"lost": lost, "doubled": doubled},
                broken=tuple(broken), runs=(run,), seconds=9.0)  # fmt: skip


FAULTS = (
    Fault("F32", f"from build {OLDER} to this one, controller, then agent, 24 jobs running",
          f32_rolling, (Bar("answers", 10.0),), quick=0, full=3, history=True),
    Fault("F32", f"agent of this build, controller of build {OLDER}", f32_back, quick=0, full=3,
          history=True),
)  # fmt: skip
