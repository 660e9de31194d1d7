import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.support.waiting import wait_until
from tshrag_agent.reports.batcher import Batcher, BatchSource
from tshrag_agent.reports.dut_sampler import DutSampler
from tshrag_agent.reports.sampler import (
    HostMeter,
    Sampler,
    Ticks,
    TreeMeter,
    cgroup_pids,
    tree_pids,
)
from tshrag_common.clock import SystemClock
from tshrag_common.errors import Unreachable
from tshrag_common.metrics import Sample, SampleBatch, check_batch


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 50.0

    def now(self) -> int:
        return 1_790_000_000_000_000 + round(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


class Bench:
    """A batcher of one sample a batch, and the samples it handed over."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self._batcher = Batcher(SystemClock(), self._take, most_samples=1)

    def source(self, run: str = "") -> BatchSource:
        return self._batcher.source(run)

    def _take(self, batch: SampleBatch) -> None:
        check_batch(batch)
        for series in batch.series:
            self.samples.setdefault(series.key, []).extend(series.samples())


@contextmanager
def a_program(code: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_ticks_do_not_drift_and_skipped_ones_are_counted() -> None:
    clock = HandClock()
    ticks = Ticks(clock, 1.0)
    due = []
    for work_s in (0.1, 0.3, 2.5, 0.1, 0.0):
        clock.seconds += ticks.wait_s()
        due.append(round(clock.seconds - 50, 6))
        clock.seconds += work_s
    assert due == [1, 2, 3, 6, 7]
    assert ticks.skipped == 2


def test_the_host_is_measured_with_units() -> None:
    meter = HostMeter("Lab-1")
    found = {reading.info.key: reading for reading in meter.measure()}
    total, used = found["host.lab_1.mem.total"], found["host.lab_1.mem.used"]
    assert 0 < used.value < total.value
    assert total.info.unit == "MiB"
    assert found["host.lab_1.load.avg1"].value >= 0
    assert found["host.lab_1.net.sent"].info.type == "counter"


def test_cpu_of_the_host_is_a_ratio_of_the_interval() -> None:
    meter = HostMeter("a")
    used: list[float] = []
    while not used:
        sum(range(100_000))
        used = [each.value for each in meter.measure() if each.info.key == "host.a.cpu.used"]
    assert 0 <= used[0] <= 1


def test_a_process_tree_is_measured() -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "time.sleep(60)"
    )
    with a_program(code) as pid:
        meter = TreeMeter(tree_pids(pid), SystemClock())
        found: dict[str, float] = {}
        for _ in range(200):
            found = {reading.info.key: reading.value for reading in meter.measure()}
            if found.get("attempt.processes") == 2 and found["attempt.cpu"] > 0:
                break
        children = list(tree_pids(pid)())
        assert found["attempt.processes"] == 2
        assert found["attempt.cpu"] > 0
        assert found["attempt.rss"] > 1_000_000
        assert found["attempt.threads"] >= 2
        for child in children:
            os.kill(child, 9)


def test_what_has_ended_gives_no_sample() -> None:
    with a_program("pass") as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert TreeMeter(tree_pids(pid), SystemClock()).measure() == []
    assert list(tree_pids(pid)()) == []


def test_an_adopted_process_brings_no_burst_of_its_past() -> None:
    clock = HandClock()  # far in the future of this process: it was adopted
    clock.seconds = 1e9
    meter = TreeMeter(lambda: [os.getpid()], clock)
    clock.seconds += 1
    found = {reading.info.key: reading.value for reading in meter.measure()}
    assert found["attempt.cpu"] < 0.5


def test_the_processes_of_a_cgroup_are_read_from_its_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cgroup")
    (folder / "cgroup.procs").write_text("12\n34\n")
    assert list(cgroup_pids(folder)()) == [12, 34]
    assert list(cgroup_pids(folder / "gone")()) == []


async def test_host_and_attempts_are_sampled_each_tick() -> None:
    bench = Bench()
    sampler = Sampler(bench.source(), "h1", SystemClock(), interval_s=0.05)
    attempt = bench.source("run-1")
    with a_program("while True: pass") as pid:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sampler.run())
            sampler.watch(attempt, tree_pids(pid))
            await wait_until(lambda: len(bench.samples.get("attempt.rss", ())) >= 3)
            sampler.unwatch(attempt)
            running.cancel()
    times = [sample.at_us for sample in bench.samples["host.h1.mem.used"]]
    assert times == sorted(set(times))
    assert max(sample.value for sample in bench.samples["attempt.cpu"]) > 0
    assert sampler.skipped >= 0


async def test_a_dut_is_sampled_over_its_transport() -> None:
    bench = Bench()
    answers = 0

    async def read() -> Mapping[str, str]:
        nonlocal answers
        answers += 1
        return {"/proc/stat": f"cpu {answers} 0 0 {answers * 3}\n", "/proc/loadavg": "1 2 3"}

    sampler = DutSampler(bench.source("run-1"), "rpi-4", read, SystemClock(), interval_s=0.01)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(sampler.run())
        await wait_until(lambda: len(bench.samples.get("dut.rpi_4.cpu.used", ())) >= 3)
        running.cancel()
    assert {sample.value for sample in bench.samples["dut.rpi_4.cpu.used"]} == {0.25}
    assert sampler.notices() == ()


async def test_a_dut_that_stays_silent_makes_its_samples_stale_and_sampling_goes_on() -> None:
    bench = Bench()
    asked = 0

    async def read() -> Mapping[str, str]:
        nonlocal asked
        asked += 1
        if 2 <= asked <= 5:
            raise Unreachable("rpi4", "no route")
        return {"/proc/loadavg": "1 2 3"}

    sampler = DutSampler(bench.source("run-1"), "rpi4", read, SystemClock(), interval_s=0.01)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(sampler.run())
        await wait_until(lambda: len(bench.samples.get("dut.rpi4.load.avg1", ())) >= 3)
        running.cancel()
    (notice,) = sampler.notices()
    assert (notice.key, notice.count) == ("dut.rpi4", 4)
    assert notice.reason.startswith("metric_stale: no answer since 20")
    assert notice.reason.endswith("unreachable: rpi4: no route")
