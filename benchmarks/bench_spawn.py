"""How many processes a second the shepherd starts, beside what the machine can do at all.

The limit is posix_spawn and waitpid in eight threads of a C program (of ctypes where there is no
compiler); ours goes through the agent's client: start, exit with output files, forget, 64 at once.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks import limits
from benchmarks.harness import Figure, Scale, figure, run_async
from tshrag_agent.attempts.host import HostStart, Shepherd, ShepherdSettings

AT_ONCE = 64


def measure(scale: Scale) -> list[Figure]:
    ours: list[float] = []
    spawned: list[float] = []
    count = scale.of(1000, 64)
    with tempfile.TemporaryDirectory(prefix="bench-spawn-") as name:
        for number in range(scale.of(9, 1)):
            folder = Path(name, str(number))
            folder.mkdir()
            spawned.append(limits.spawns_per_s(count))
            ours.append(run_async(_per_s(folder, count)))
    return [
        figure(
            "spawn",
            f"processes started, reaped and reported by the shepherd, {AT_ONCE} at once",
            "1/s",
            ours=ours,
            limits=spawned,
            limit_is=limits.spawn_limit_is(),
            aim=0.55,
            aim_is="ratio",
        )
    ]


async def _per_s(folder: Path, count: int) -> float:
    shepherd = await Shepherd.open(folder, ShepherdSettings(orphan_s=0.2))
    numbers = iter(range(count))
    env = {name: value for name, value in os.environ.items() if not name.startswith("TSHRAG_")}

    async def work() -> None:
        for number in numbers:
            key = f"bench-{number}"
            await shepherd.start(
                HostStart(
                    key=key,
                    argv=("/bin/true",),
                    cwd=str(folder),
                    env=env,
                    stdout_path=str(folder / f"{key}.out"),
                    stderr_path=str(folder / f"{key}.err"),
                )
            )
            said = await shepherd.exited(key)
            if said.exit_code != 0:
                raise AssertionError(str(said))
            await shepherd.forget(key)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(work(), name=f"work-{number}")
    rate = count / (time.perf_counter() - began)
    await _leave(shepherd)
    return rate


async def _leave(shepherd: Shepherd) -> None:
    """Let the shepherd go by itself, so that nothing is left of it in the folder."""
    await shepherd.close()
    for _ in range(1000):
        if not _is_there(shepherd.pid):
            return
        await asyncio.sleep(0.01)


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
