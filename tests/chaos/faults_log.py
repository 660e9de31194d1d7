"""The LOG is wiped: nobody leads on by chance, ``--reseed`` restores, fences keep growing: F13.

In a lab of its own, outside the history: what it loses on purpose would be a loss of the other.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence

from tests.chaos.beside import wrong
from tests.chaos.faults import Fault
from tests.chaos.outcome import Bar, Once
from tests.chaos.small import Small, a_small_lab
from tests.support.process_trees import living

JOBS, ENDED = 20, 3
WIPED = ("LOG",)


async def f13_log(_lab: object) -> Once:
    """Delete the LOG while 20 jobs run and the controller is away."""
    async with a_small_lab(recorded=False) as lab:
        before = [await lab.submit(1, "true") for _ in range(ENDED)]
        for run in before:
            wrong("a run", await lab.ended(run), "passed")
        mark = f"TSHRAG_SEED={secrets.token_hex(6)}"
        alive = await lab.submit(JOBS, "env", mark, "sleep", "250")
        await lab.running(alive, JOBS)
        fences = await _all_fences(lab, [*before, alive])
        lab.processes.kill("controller")
        for stream in WIPED:
            await lab.client.bus.request(f"$JS.API.STREAM.DELETE.{stream}", b"", 10)
        refused = await asyncio.to_thread(lab.controller)
        is_refused = refused.returncode == 2 and "log_behind_projection" in refused.stderr
        wrong(f"a controller without its LOG says {refused.stderr[-200:]}", is_refused, True)
        at = time.monotonic()
        seeded = await asyncio.to_thread(lab.controller, "--reseed")
        wrong(f"reseed, {seeded.stderr[-200:]}", seeded.returncode, 0)
        lab.processes.start(
            "controller", "tshrag_controller.daemon", "--config",
            str(lab.processes.state / "controller.toml"),
        )  # fmt: skip
        await lab.processes.wait_ready()
        answers = time.monotonic() - at
        lost = [run for run in before if await lab.state(run) != ("passed", "")]
        wrong("the run that was alive", await lab.state(alive), ("error", "log_lost"))
        dead = await _dead(mark, at)
        after = await lab.submit(JOBS, "true")
        wrong("a run afterwards", await lab.ended(after), "passed")
        resume = time.monotonic() - at
        newer = await _all_fences(lab, [after])
    counts = {"lost": len(lost), "wrong": int(min(newer) <= max(fences))}
    times = {"answers": answers, "tree dead": dead, "resume": resume}
    return Once(running=JOBS, times=times, counts=counts)


async def _all_fences(lab: Small, runs: Sequence[str]) -> list[int]:
    return [fence for run in runs for fence in await lab.fences(run)]


async def _dead(mark: str, at: float, within_s: float = 60.0) -> float:
    """Return when nothing of the lost run lives on the host any more."""
    while time.monotonic() < at + within_s:
        if not living(mark):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"processes of a lost run live on for {within_s:g} s")


FAULTS = (
    Fault("F13", "the LOG wiped, 20 jobs running; --reseed", f13_log,
          (Bar("resume", 60.0), Bar("tree dead", 60.0)), quick=0, full=5),
)  # fmt: skip
