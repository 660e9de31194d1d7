"""What every benchmark shares: figures beside their limits, results as files, a lab to measure.

Figures of a shared machine move by a factor of two from hour to hour; a ratio to a limit that was
measured in the same minute holds. So ours and its limit take turns, and the ratio is the median
of the ratios of each turn. Nothing here fails because something is slow.
"""

import asyncio
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from benchmarks.processes import Cost, Measured
from tshrag_common.client import Client, open_client
from tshrag_common.errors import LabError
from tshrag_controller.cli.processes import LabProcesses

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_TRIES = 3


class Scale(msgspec.Struct, frozen=True):
    """How much is measured: all of it, or a smoke test (`quick`) whose figures mean nothing."""

    quick: bool = False

    def of(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of ours, and what it is compared with.

    ``ratio`` is ours to the limit. ``aim`` holds for the value, or for the ratio with
    ``aim_is`` "ratio"; ``better`` says which side of it is good.
    """

    name: str
    what: str
    unit: str
    value: float
    limit: float
    limit_is: str
    ratio: float
    aim: float | None = None
    aim_is: str = "value"
    better: str = "higher"
    values: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()
    facts: dict[str, float] = {}

    @property
    def is_met(self) -> bool | None:
        """Tell whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        got = self.ratio if self.aim_is == "ratio" else self.value
        return got >= self.aim if self.better == "higher" else got <= self.aim


def paired(
    ours: Sequence[float], limits: Sequence[float]
) -> tuple[float, float, float, tuple[float, ...], tuple[float, ...]]:
    """Return the medians of both, the median of the ratios, and both as tuples, rounded."""
    ratios = [mine / limit for mine, limit in zip(ours, limits, strict=True)]
    rounded = (tuple(round(each, 4) for each in values) for values in (ours, limits))
    mine, limit = rounded
    return (
        statistics.median(mine),
        statistics.median(limit),
        round(statistics.median(ratios), 4),
        mine,
        limit,
    )


def figure(
    name: str,
    what: str,
    unit: str,
    *,
    ours: Sequence[float],
    limits: Sequence[float],
    limit_is: str,
    aim: float | None = None,
    aim_is: str = "value",
    better: str = "higher",
    facts: dict[str, float] | None = None,
) -> Figure:
    """Make a figure of values that were measured in turns with those of the limit."""
    value, limit, ratio, values, all_limits = paired(ours, limits)
    return Figure(
        name=name,
        what=what,
        unit=unit,
        value=value,
        limit=limit,
        limit_is=limit_is,
        ratio=ratio,
        aim=aim,
        aim_is=aim_is,
        better=better,
        values=values,
        limits=all_limits,
        facts=facts or {},
    )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a benchmark leaves behind."""

    bench: str
    date: str
    commit: str
    command: str
    quick: bool
    took_s: float
    machine: dict[str, str]
    load_before: float  # of the last minute, per core: above ~0.3 others were at work
    figures: tuple[Figure, ...]


Measure = Callable[[Scale], Sequence[Figure]]


def conduct(bench: str, measure: Measure, scale: Scale, folder: Path = RESULTS) -> Result:
    """Measure, write the result file, return what is in it."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    began = time.monotonic()
    figures = tuple(measure(scale))
    result = Result(
        bench=bench,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        command=f"python -m benchmarks.run{' --quick' if scale.quick else ''} {bench}",
        quick=scale.quick,
        took_s=round(time.monotonic() - began, 1),
        machine=_machine(),
        load_before=round(load, 2),
        figures=figures,
    )
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (folder / f"{bench}.json").write_bytes(text + b"\n")
    return result


def read_results(folder: Path) -> dict[str, Result]:
    """Return the results that lie in a folder, by name of the benchmark."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Result) for path in paths}


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def _machine() -> dict[str, str]:
    cpus = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{int(memory) / (1 << 20):.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


class RunningLab:
    """A lab of real processes that is measured: controller, broker, one agent, its shepherd."""

    def __init__(self, processes: LabProcesses, client: Client, folder: Path) -> None:
        self.processes, self.client, self.folder = processes, client, folder
        self.measured = Measured(folder)

    async def cost_of(self, work: Awaitable[T]) -> tuple[T, float, dict[str, Cost]]:
        """Await `work`; return what it returned, how long it took, and what each process used."""
        before, began = self.measured.costs(), time.perf_counter()
        value = await work
        took = time.perf_counter() - began
        after = self.measured.costs()
        return value, took, {name: after[name] - before.get(name, Cost()) for name in after}


@asynccontextmanager
async def a_lab(
    *, slots: int = 64, duts: str = "", agent: str = "bench", controller: str = ""
) -> AsyncIterator[RunningLab]:
    """Start a lab with one agent as an operator would, with its defaults; end all of it.

    `controller` are settings of it beside those that a lab has of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="tshrag-bench-"))
    processes = LabProcesses(folder)
    try:
        processes.start_controller(controller)
        await _ready(processes)
        processes.start_agent(agent, duts=duts, slots=slots)
        await processes.wait_agents(1)
        bundle = processes.bundle
        async with open_client(bundle.url, name="bench", credentials=bundle.creds or None) as lab:
            yield RunningLab(processes, lab, folder)
    finally:
        await asyncio.to_thread(processes.stop)
        await Measured(folder).gone(within_s=20.0)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _ready(processes: LabProcesses) -> None:
    for _ in range(_TRIES):
        try:
            await processes.wait_ready()
            return
        except* LabError:  # it was asked while it was coming up
            await asyncio.sleep(0.5)
    await processes.wait_ready()


def run_async(work: Coroutine[object, object, T]) -> T:
    """Run `work` on the loop that the daemons use."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
